/* kube_lease.h - one leader among the replicas
 * Shape:   a Lease is read each KUBE_LEASE_RETRY_MS; lease_decide (pure) says what to do with it; changed(arg, leads)
 * Units:   *_ms of CLOCK_MONOTONIC; times in the Lease are MicroTime with exactly six decimals, written and never compared
 * Owner:   kube_lease_new ... kube_lease_free; the identity is copied
 * Errors:  none: not the leader, with why in the log
 * Limits:  15 s lease > 10 s to renew > 1.2 x 2 s to retry (E1); the calls of one round end within KUBE_LEASE_RENEW_MS, each
 *          within half of it, so that one that hangs leaves time for another
 * Threads: the loop's
 * Source:  k8s.md E1-E8; client-go leaderelection.go */
#ifndef CONTROLLER_KUBE_KUBE_LEASE_H
#define CONTROLLER_KUBE_KUBE_LEASE_H

#include "kube/kube_http.h"

#include <jansson.h>

#define KUBE_LEASE_DURATION_MS 15000
#define KUBE_LEASE_RENEW_MS    10000
#define KUBE_LEASE_RETRY_MS    2000
#define KUBE_LEASE_STUCK_MS    20000
#define KUBE_LEASE_RELEASE_MS  3000

enum lease_act {
    LEASE_CREATE = 0, /* there is none */
    LEASE_TAKE,       /* nobody's, or its holder is gone */
    LEASE_RENEW,      /* ours */
    LEASE_WAIT,       /* somebody else's */
};

/* The record as it was seen last, and when it was seen to differ from the one before. */
struct lease_seen {
    json_t *spec; /* NULL: none yet */
    uint64_t changed_ms;
};

/* `lease` is the whole object, NULL after a 404. Whether a holder is gone is judged by our clock alone (E3). */
enum lease_act lease_decide(struct lease_seen *seen, json_t *lease, const char *identity, uint64_t now_ms);

struct kube_lease;

/* `changed` is called from the loop's turns, also when the lead ends for want of a renewal. */
struct kube_lease *kube_lease_new(struct kube_http *h, struct loop *l, const char *ns, const char *name,
                                  const char *identity, void (*changed)(void *arg, bool leads), void *arg);
void kube_lease_free(struct kube_lease *l);
/* Right now: renewed within KUBE_LEASE_RENEW_MS by CLOCK_MONOTONIC (asked before each write, so that a process that was stopped does
 * not write before it has noticed). */
bool kube_lease_leads(const struct kube_lease *l);
/* E8: still says it leads while nothing was renewed for the lease and 20 s more: the process is stuck. */
bool kube_lease_stuck(const struct kube_lease *l);
/* At the end of the process (E6): gives the Lease up if it is ours, then calls `done`; within 3 s. */
void kube_lease_release(struct kube_lease *l, void (*done)(void *arg), void *arg);

#endif
