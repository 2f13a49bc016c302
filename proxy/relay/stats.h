/* stats.h - what is counted of one server by one worker, and how a code becomes an index
 * Shape:   struct stats_cell: gauges and counters, one cell a worker and server slot (shared.h); `who` and `from` are
 *          enum stats_who; handshakes, closes and buckets are arrays that the functions below index
 * Units:   bytes, messages, microseconds; counters only grow, gauges go both ways
 * Owner:   the worker whose cell it is writes; everyone reads and adds up; the master zeroes the gauges of a dead worker
 * Errors:  none
 * Limits:  64 bits; codes outside the known ones share one counter
 * Threads: one writer a cell, plain stores: a reader sees each counter whole, but not all of one moment
 * Source:  design.md 4 "metrics" and "shared counters" */
#ifndef PROXY_RELAY_STATS_H
#define PROXY_RELAY_STATS_H

#include "wire/frame.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum stats_who { STATS_CLIENT = 0, STATS_BACKEND, STATS_GATEWAY, STATS_WHOS };
/* Why a handshake was answered 503, or a live connection shed. */
enum stats_limit {
    STATS_MAX_CONNECTIONS = 0,
    STATS_MAX_CONNECTIONS_PER_IP,
    STATS_HANDSHAKES_PER_SECOND,
    STATS_DESCRIPTORS,
    STATS_MEMORY,
    STATS_DRAINING,
    STATS_LIMITS
};

#define STATS_STATUSES 32 /* of handshakes; the last one: every other */
#define STATS_CLOSES   18 /* 1000-1014, 3xxx, 4xxx, none */
#define STATS_BUCKETS  13 /* of handshake_seconds; the last one: +Inf */

typedef _Atomic uint64_t stats_count;

struct stats_cell {
    /* gauges */
    _Alignas(64) stats_count connections; /* tunnels */
    stats_count handshakes;               /* accepted, and neither a tunnel nor gone yet */
    stats_count admitted;                 /* what limits.maxConnections counts: see limit.h */
    /* counters */
    stats_count connections_total; /* tunnels */
    stats_count bytes[2];          /* from STATS_CLIENT, from STATS_BACKEND */
    stats_count messages[2][FRAME_KINDS];
    stats_count handshakes_total[STATS_STATUSES]; /* by the status that the client got */
    stats_count closes[STATS_WHOS][STATS_CLOSES];
    stats_count handshake_buckets[STATS_BUCKETS]; /* of handshakes that became tunnels; not cumulative */
    stats_count handshake_us;
    stats_count limited[STATS_LIMITS];
    stats_count drained; /* Closes of ours sent because the server goes, or the gateway */
    stats_count cut;     /* connections whose drain deadline came first */
};

static inline void stats_add(stats_count *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t stats_read(const stats_count *c)
{
    return atomic_load_explicit((stats_count *)c, memory_order_relaxed);
}

/* HTTP status (0: the client got nothing) -> index of handshakes_total, and back; -1: every other. */
size_t stats_status_index(int status);
int stats_status_of(size_t index);
/* Close code as pair.h has it (1005, 1006: none) -> index of closes, and back as a label ("1000", "3xxx", "none"). */
size_t stats_close_index(unsigned code);
const char *stats_close_label(size_t index);
void stats_handshake_took(struct stats_cell *c, uint64_t us);
/* Upper bound of a bucket in microseconds, as `le` says it; UINT64_MAX for the last one. */
uint64_t stats_bucket_us(size_t index);
const char *stats_who_label(enum stats_who who);
const char *stats_kind_label(enum frame_kind kind);
const char *stats_limit_label(enum stats_limit limit);

#endif
