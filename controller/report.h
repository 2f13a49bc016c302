/* report.h - what is said of each object after a pass: conditions, Events, ports of the managed Service
 * Shape:   verdicts + what the proxy echoed -> facts of each object -> status_want; a change of status or reason -> an Event (a sidecar: a log line);
 *          ports of what is served -> ports_want
 * Units:   none
 * Owner:   report_new ... report_free; its parts are the caller's and outlive it. What it remembers of an object goes with the object
 * Errors:  none
 * Limits:  SPEC_MAX_SERVERS objects are usual; each pass looks at all of them
 * Threads: the loop's
 * Source:  design.md 5 "Gateway status", "Managed Service"; k8s.md X3, V5, C14 */
#ifndef CONTROLLER_REPORT_H
#define CONTROLLER_REPORT_H

#include "kube/kube_event.h"
#include "ports.h"
#include "publish.h"
#include "status.h"

struct report_parts {
    struct publish *publish;
    struct status_writer *status; /* NULL: nothing is written (a sidecar) */
    struct kube_events *events;   /* NULL likewise */
    struct ports *ports;          /* NULL: no managed Service */
    bool (*leads)(void *arg);
    void *arg;
};

struct report;

struct report *report_new(const struct report_parts *parts);
void report_free(struct report *r);
void report_pass(struct report *r, struct store *s, const struct render *rendered);
/* The same of one object, whose status alone has changed. */
void report_one(struct report *r, const struct wss *w, const struct render_verdict *v);
/* Calls `each` with every server that is served here and whether the proxy runs its newest version. */
void report_servers(const struct report *r, void (*each)(void *arg, const char *server, bool programmed),
                    void *arg);

#endif
