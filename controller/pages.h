/* pages.h - the controller's own ports: /healthz, /readyz, /metrics
 * Shape:   struct pages_view, which reconcile keeps -> text
 * Units:   metrics say theirs in their names; times are seconds since 1970
 * Owner:   pages_new ... pages_free; the view outlives it
 * Errors:  IO and INVALID, with the address in front
 * Limits:  those of http.h
 * Threads: the loop's
 * Source:  design.md 4 "admin port"; k8s.md X9, X10, E8; Prometheus text 0.0.4 */
#ifndef CONTROLLER_PAGES_H
#define CONTROLLER_PAGES_H

#include "kube/kube_event.h"
#include "kube/kube_lease.h"
#include "kube/kube_reflect.h"
#include "ports.h"
#include "publish.h"
#include "report.h"
#include "status.h"

#include <time.h>

struct pages_reflector {
    const char *plural, *ns; /* ns NULL: all namespaces */
    struct kube_reflect *reflect;
};

struct pages_view {
    const struct pages_reflector *reflectors;
    size_t reflector_count;
    const struct kube_http *http;
    const struct kube_lease *lease;   /* NULL: none */
    const struct kube_events *events; /* NULL: none */
    struct status_writer *status;     /* NULL: none */
    const struct ports *ports;        /* NULL: no managed Service */
    struct publish *publish;
    const struct report *report;
    bool (*leads)(void *arg);
    void *arg;
    bool synced;                                 /* all lists are in */
    bool ready;                                  /* and the proxy has confirmed what came of them, once */
    const char *(*waits)(void *arg);             /* for what, for people; NULL: for nothing */
    uint64_t reconciles, reconcile_us, failures; /* passes, their time, files that could not be written */
    time_t published_at;                         /* of the revision that was confirmed last, 0: none */
    size_t objects;
};

struct pages;

/* NULL addresses: that port is not opened. */
struct pages *pages_new(const struct pages_view *view, const char *admin, const char *health,
                        struct err *err);
void pages_free(struct pages *p);
/* Turns `loop` until loop->stop, serving the ports meanwhile. */
void pages_run(struct pages *p, struct loop *loop);

#endif
