/* kube_event.h - Events: what happened to an object, for `kubectl describe`
 * Shape:   kube_event(...) -> POST; the same again -> PATCH of its series, then counted in memory and flushed each half an hour and once
 *          it has been quiet for six minutes. "The same": object, type, reason, action and note (client-go has the object's
 *          resourceVersion where we have the note: a note that says something else is never swallowed)
 * Units:   times are MicroTime
 * Owner:   kube_events_new ... kube_events_free; everything that is said is copied
 * Errors:  none: an Event that the server does not take is dropped and counted, never waited for
 * Limits:  KUBE_EVENT_QUEUE waiting, KUBE_EVENT_KNOWN remembered (the oldest goes); note KUBE_EVENT_NOTE bytes, cut on a UTF-8 boundary;
 *          per object a burst of 25, then one in 5 minutes; 12 tries, 10 s apart
 * Threads: the loop's
 * Source:  k8s.md V1-V5; events.k8s.io/v1; client-go events */
#ifndef CONTROLLER_KUBE_KUBE_EVENT_H
#define CONTROLLER_KUBE_KUBE_EVENT_H

#include "kube/kube_http.h"

#define KUBE_EVENT_QUEUE 1000
#define KUBE_EVENT_KNOWN 4096
#define KUBE_EVENT_NOTE  1024

struct kube_ref {
    const char *api_version, *kind, *ns, *name, *uid, *resource_version;
};

struct kube_events;

/* `component` is the reportingController ("tidegate.dev/controller"), `instance` the pod. */
struct kube_events *kube_events_new(struct kube_http *h, struct loop *l, const char *component,
                                    const char *instance);
void kube_events_free(struct kube_events *e);
/* `reason` CamelCase ("PortConflict"), `action` what was being done ("Reconcile"). */
void kube_event(struct kube_events *e, const struct kube_ref *regarding, bool warning, const char *reason,
                const char *action, const char *note);
uint64_t kube_events_dropped(const struct kube_events *e);

#endif
