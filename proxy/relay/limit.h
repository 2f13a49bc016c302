/* limit.h - may this handshake go on? What a server and the gateway have room for
 * Shape:   limit_admit, once the client's request is known to be good -> counted and on its way, or a refusal (503);
 *          limit_release at the pair's end, or once it will be no tunnel. In this order: memory, descriptors, limits.handshakesPerSecond,
 *          limits.maxConnections, limits.maxConnectionsPerIP
 *              per address:  a worker's table of (tag, count), tag = hash of (slot, address), probed linearly;
 *                            an entry is never moved, so that the other workers' readers never miss one; only
 *                            its worker writes it, and takes it over for another tag once its count is 0
 * Units:   connections are tunnels and admitted handshakes on their way to one; *_us of CLOCK_MONOTONIC
 * Owner:   what is counted belongs to the pair (pair->admitted, pair->ip_entry) until limit_release
 * Errors:  a refusal, nothing else
 * Limits:  a server's limits count all workers' connections. Each worker counts itself first and then adds up, so
 *          that a limit is never passed; of those that come for the last place in the same moment all may be refused.
 *          One address: IPv4 whole, IPv6 by its /64. LIMIT_PROBES entries are looked at: an address that finds no
 *          free one there is let in uncounted. The pace is kept in whole microseconds a handshake and may be saved
 *          up for a second
 * Threads: the loop's own; the other workers' at the same time
 * Source:  design.md 3 "limits", 4 "shared counters"; bars S31, S33; GCRA as in ITU-T I.371 */
#ifndef PROXY_RELAY_LIMIT_H
#define PROXY_RELAY_LIMIT_H

#include "relay/pair.h"

#define LIMIT_PROBES       64
#define LIMIT_SHED_IDLE_MS 10000
#define LIMIT_SHED_MIN     16

struct limit_refusal {
    const char *said; /* for the client */
    unsigned retry_after_s;
    char why[128]; /* for the log: which limit, how high it is, and for whom */
};

/* `client` is whose connection it is, behind trusted proxies too. False: a 503, counted in `limited`. */
bool limit_admit(struct pair *p, const struct in6_addr *client, struct limit_refusal *out);
/* Does nothing for a pair that was not admitted, or was released before. */
void limit_release(struct pair *p);

/* How many tunnels a worker may have with so many descriptors, of which in_use have gone to other things. What is kept
 * in reserve is for those that are told 503. At least 1. */
uint64_t limit_max_tunnels(uint64_t fd_limit, unsigned in_use);

/* Memory is very short (SHARED_SHED): closes 1 % of the worker's connections, at least LIMIT_SHED_MIN, of those on
 * which nothing came for LIMIT_SHED_IDLE_MS. To be called once a second. */
void limit_shed(struct relay *r);

#endif
