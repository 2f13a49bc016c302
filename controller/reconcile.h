/* reconcile.h - what happens when something has changed: render, publish, say so
 * Shape:   five kinds of reflectors -> store -> (dirty, all lists in) -> render -> publish -> echo -> status, Events, managed Service.
 *          The first change goes at once, those within RECONCILE_PACE_MS after it together
 * Units:   *_ms of CLOCK_MONOTONIC
 * Owner:   reconcile_new ... reconcile_free; options and what main made outlive it
 * Errors:  reconcile_new by err; afterwards conditions, Events and log lines
 * Limits:  those of its parts
 * Threads: the loop's
 * Source:  design.md 1, 5; k8s.md 1.9 */
#ifndef CONTROLLER_RECONCILE_H
#define CONTROLLER_RECONCILE_H

#include "options.h"
#include "pages.h"

#define RECONCILE_PACE_MS 50
#define RECONCILE_STOP_MS 2000

struct reconcile;

__attribute__((warn_unused_result)) struct reconcile *
reconcile_new(const struct options *o, struct loop *l, struct kube_config *config, struct err *err);
void reconcile_free(struct reconcile *r);
const struct pages_view *reconcile_view(const struct reconcile *r);
/* Ends: no new writes, those under way are waited for up to RECONCILE_STOP_MS, then the Lease is given up; then calls `done`. */
void reconcile_stop(struct reconcile *r, void (*done)(void *arg), void *arg);

#endif
