/* shared.h - the memory that the master and its workers share: counters, heartbeats, ticket keys, pressure
 * Shape:   one memfd, mapped by all:
 *              shared_head | slots[SHARED_SLOTS] | worker 0 | worker 1 | ...
 *              a worker:  shared_worker | ip_entries of shared_ip | cells[SHARED_SLOTS]
 *          a slot is a server's name: its counters live on over new versions of the server, under the same slot
 * Units:   *_ms of CLOCK_MONOTONIC, *_us microseconds
 * Owner:   struct shared is each process's own view; the master makes the memory and assigns slots; what a worker's
 *          block holds is written by that worker only, but for the master's clearing of a dead one
 * Errors:  IO and LIMIT
 * Limits:  SHARED_SLOTS servers, SHARED_MAX_WORKERS; pages that nobody touches cost nothing
 * Threads: readers see each word whole; ticket keys stand behind a sequence number
 * Source:  design.md 2.4 and 4 "shared counters"; bars S31, S33, S41 */
#ifndef PROXY_RELAY_SHARED_H
#define PROXY_RELAY_SHARED_H

#include "base/err.h"
#include "relay/stats.h"
#include "spec/spec.h"

#include <stdbool.h>

#define SHARED_SLOTS       SPEC_MAX_SERVERS
#define SHARED_MAX_WORKERS 256
#define SHARED_TICKET_KEYS 2 /* the one that seals new tickets, and the one before it */

enum shared_pressure {
    SHARED_CALM = 0,
    SHARED_REFUSE, /* memory is short: no new handshakes */
    SHARED_SHED,   /* very short: connections that are idle go */
};

struct shared_ticket_key {
    uint8_t name[16], aes[32], hmac[32];
};

struct shared_slot {
    _Atomic uint32_t used;
    char name[SPEC_MAX_NAME + 1];
    _Atomic uint64_t next_handshake_us; /* limits.handshakesPerSecond: when the next one is due (GCRA) */
};

struct shared_head {
    uint32_t workers;
    uint32_t ip_entries; /* a worker's, a power of two */
    uint64_t ip_seed[2];
    _Atomic uint64_t next_conn;       /* numbers of connections, for the log */
    _Atomic uint32_t pressure;        /* enum shared_pressure */
    _Atomic uint32_t ticket_sequence; /* odd: being written */
    struct shared_ticket_key ticket_keys[SHARED_TICKET_KEYS];
};

/* How many connections one address has to one server; see limit.h. */
struct shared_ip {
    _Atomic uint64_t tag; /* of (slot, address) */
    _Atomic uint64_t count;
};

struct shared_worker {
    _Alignas(64) _Atomic uint64_t heartbeat_ms;
    _Atomic uint64_t pairs;          /* all connections, gauge */
    _Atomic uint64_t max_tunnels;    /* what its descriptors allow */
    _Atomic uint64_t server_objects; /* versions of servers that are alive, gauge */
    _Atomic uint64_t log_dropped;
    _Atomic uint64_t accepted;
};

struct shared {
    void *base;
    size_t bytes;
    struct shared_head *head;
    struct shared_slot *slots;
};

/* The master's: makes the memory; *fd is to be handed to the workers. fd_limit bounds the connections of a worker. */
__attribute__((warn_unused_result)) int shared_new(struct shared *s, unsigned workers, uint64_t fd_limit,
                                                   int *fd, struct err *err);
/* A worker's: maps what the master made. */
__attribute__((warn_unused_result)) int shared_map(struct shared *s, int fd, struct err *err);
void shared_done(struct shared *s);

struct shared_worker *shared_worker(const struct shared *s, unsigned worker);
struct shared_ip *shared_ips(const struct shared *s, unsigned worker);
struct stats_cell *shared_cell(const struct shared *s, unsigned worker, unsigned slot);

/* The slot of this name, -1: none. */
int shared_slot_find(const struct shared *s, const char *name);
/* The master's: the same, taken if need be; -1: all are in use. */
int shared_slot_take(struct shared *s, const char *name);
/* The master's: frees it and zeroes its counters; nothing may refer to it any more. */
void shared_slot_free(struct shared *s, unsigned slot);
/* The master's: gauges and per-address counts of a worker that has died. */
void shared_worker_clear(struct shared *s, unsigned worker);

/* A new key in front; the last one goes. */
__attribute__((warn_unused_result)) int shared_ticket_rotate(struct shared *s, struct err *err);
void shared_ticket_keys(const struct shared *s, struct shared_ticket_key out[SHARED_TICKET_KEYS]);

#endif
