/* resolve.h - names to addresses without ever blocking the loop
 * Shape:   host -> up to RESOLVE_MAX addresses in the resolver's order, from a cache by name. A name with a dot is asked for as it
 *          stands: a search list (in a pod: of the cluster's namespaces) would lead db.payments to somebody else's Service
 * Units:   *_ms
 * Owner:   struct resolver belongs to the worker; a query belongs to its caller, who cancels it when it loses interest
 * Errors:  the callback's `why` (static text) with count 0
 * Limits:  RESOLVE_MAX addresses, RESOLVE_CACHE names; an answer is kept for its TTL, between RESOLVE_MIN_TTL_MS and
 *          RESOLVE_MAX_TTL_MS; a query takes at most RESOLVE_TRY_MS x RESOLVE_TRIES
 * Threads: the loop's own
 * Source:  c-ares (ares_getaddrinfo(3)); bar S38: a name that stops resolving keeps its last good addresses */
#ifndef PROXY_RELAY_RESOLVE_H
#define PROXY_RELAY_RESOLVE_H

#include "base/loop.h"

#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define RESOLVE_MAX        16
#define RESOLVE_CACHE      4096
#define RESOLVE_MIN_TTL_MS 1000
#define RESOLVE_MAX_TTL_MS 60000
#define RESOLVE_RETRY_MS   5000 /* after a failure with old addresses at hand */
#define RESOLVE_TRY_MS     1500
#define RESOLVE_TRIES      2

struct resolver;

struct resolve_query {
    LIST_ENTRY(resolve_query) link;
    bool waiting;
    /* Called at most once, possibly before resolve_start returns. `ips` holds IPv4 as ::ffff:a.b.c.d and is valid
     * during the call only, which may start and cancel queries. */
    void (*done)(struct resolve_query *q, const struct in6_addr *ips, size_t count, const char *why);
};

struct resolver *resolver_new(struct loop *loop, struct err *err);
void resolver_free(struct resolver *r);
void resolve_start(struct resolver *r, const char *host, struct resolve_query *q);
void resolve_cancel(struct resolve_query *q);

#endif
