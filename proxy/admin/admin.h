/* admin.h - the admin port and the health port of a proxy: which page says what
 * Shape:   struct status -> /healthz /readyz /metrics /status / (live page) on one port; the first two on the other
 * Units:   ADMIN_FEED_MS milliseconds
 * Owner:   admin_new ... admin_free; the status is the master's and outlives it, the loop of admin_run as well
 * Errors:  IO and INVALID, with the address in front
 * Limits:  those of http.h
 * Threads: the master's
 * Source:  design.md 4 "admin port" */
#ifndef PROXY_ADMIN_ADMIN_H
#define PROXY_ADMIN_ADMIN_H

#include "admin/http.h"
#include "admin/status.h"

#define ADMIN_FEED_MS 1000

struct admin;

/* NULL addresses: that port is not opened. */
struct admin *admin_new(const struct status *status, const char *admin_address, const char *health_address,
                        struct err *err);
void admin_free(struct admin *a);
/* Turns `loop` until loop->stop, serving the ports meanwhile. */
void admin_run(struct admin *a, struct loop *loop);

#endif
