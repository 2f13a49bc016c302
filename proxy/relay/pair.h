/* pair.h - a client and its backend: frames from one to the other, and how it ends
 * Shape:   client --bytes--> tracker --verbatim--> backend, and the same way back; at the end
 *            Close passed      both have 5 s for theirs and for TCP's end, then FIN, 5 s later RST
 *            EOF of one side   what it sent is delivered, Close 1011 (client) or 1001 (backend) at a boundary, FIN;
 *                              the other direction goes on for PAIR_FIN_MS at most
 *            offence           Close with its code to the offender, 1011 or 1001 to the other, FIN to both
 *            ours              (idle, age, drain) Close to the client, its answer goes to the backend; ours to the backend
 *                              after 5 s
 *          how each of them goes on is closing.h; who has fallen silent is ping.h, a server that goes drain.h
 * Units:   *_ms on the loop's clock
 * Owner:   pair_new gives it to itself: it frees itself at the end of the turn in which both directions have ended;
 *          it holds one reference to its server and, until it relays, its handshake
 * Errors:  none to the caller: whatever goes wrong ends this pair and is said in its log line
 * Limits:  PAIR_*, all of them within the deadline of a drain; memory as in side.h
 * Threads: the loop's own
 * Source:  RFC 6455 5.5.1, 7.1; design 5 "On the wire"; bars S18-S29, S34-S37 */
#ifndef PROXY_RELAY_PAIR_H
#define PROXY_RELAY_PAIR_H

#include "base/loop.h"
#include "relay/addr.h"
#include "relay/resolve.h"
#include "relay/server.h"
#include "relay/side.h"

#define PAIR_CLOSE_MS  5000
#define PAIR_FIN_MS    30000
#define PAIR_LINGER_MS 2000
/* A pair gives way after this many reads of SIDE_READ_BYTES a direction and turn. */
#define PAIR_READS 2

/* What all pairs of a worker share. */
struct relay {
    struct loop loop;
    struct resolver *resolver;
    struct shared shared;
    unsigned worker; /* which of the workers this is */
    bool deny_local; /* --deny-local-backends */
    struct shared_worker *me;
    bool draining; /* the whole worker ends: see drain.h */
    uint32_t drain_cap_ms;
    uint64_t drain_since_ms;
    LIST_HEAD(, pair) pairs; /* every one, in its handshake or relaying */
    size_t pair_count;
    size_t tunnel_count;
    size_t admitted;    /* tunnels, and handshakes that limit_admit let through */
    size_t random_left; /* random[0..random_left) are still fresh */
    uint8_t random[256];
    uint8_t scratch[FRAME_MAX_HELD + SIDE_READ_BYTES]; /* every read lands here first */
};

struct handshake;

enum pair_who { PAIR_CLIENT = STATS_CLIENT, PAIR_BACKEND = STATS_BACKEND, PAIR_GATEWAY = STATS_GATEWAY };

struct pair {
    LIST_ENTRY(pair) link;
    struct relay *relay;
    struct server *server;
    struct handshake *handshake; /* NULL once frames are relayed */
    struct side client, backend;
    struct loop_timer timer;
    struct loop_task task;
    struct loop_dead dead;
    struct addr client_addr;
    uint64_t conn; /* its number in the log */
    uint64_t start_ms;
    uint64_t end_ms;      /* when patience ends; 0: not ending */
    uint64_t deadline_ms; /* of a drain: when it is cut; 0: none */
    uint64_t age_at_ms;   /* when timeouts.maxAge is over; 0: never */
    uint64_t drain_at_ms; /* when the drain asks it to close; 0: not, or asked already */
    bool tunnel;          /* frames are relayed: it counts as a connection */
    bool drain_asked;     /* the end that has begun is the drain's */
    bool fins_sent;       /* FIN to both, sent or waiting: the next end_ms is the last */
    bool ended;
    bool admitted;     /* see limit.h */
    uint32_t ip_entry; /* of this worker's table, + 1; 0: its address is not counted */
    uint8_t end_who;
    uint16_t end_code; /* 0: nothing has begun the end yet */
    uint8_t end_reason_len;
    uint8_t *end_reason; /* as it came; NULL: none */
    const char *detail;
};

static inline bool pair_is_client(const struct pair *p, const struct side *s)
{
    return s == &p->client;
}

static inline struct side *pair_other(struct pair *p, const struct side *s)
{
    return pair_is_client(p, s) ? &p->backend : &p->client;
}

/* What it sent waits in the kernel because the other side does not take it: then it is not this side that is late. */
static inline bool pair_is_held_up(struct pair *p, const struct side *s)
{
    return side_waits(pair_other(p, s)) && sock_has_input(&s->sock);
}

/* Takes over `fd`, an accepted socket. NULL: out of memory or descriptors, fd is closed. */
struct pair *pair_new(struct relay *r, struct server *server, int fd, const struct addr *client_addr);
/* From the handshake to frames: the 101 is sent, both sockets are open. The bytes are what came early. */
void pair_start(struct pair *p, uint8_t rsv_mask, const uint8_t *client_bytes, size_t client_len,
                const uint8_t *backend_bytes, size_t backend_len);
/* Ends it now: sockets closed, memory freed after the turn. abort: RST instead of FIN. */
void pair_end(struct pair *p, bool abort);
/* Something may be due at at_ms: its timer fires no later. */
void pair_due(struct pair *p, uint64_t at_ms);
/* Bytes from the kernel's generator, each given once; len <= 256. false: there are none, *out is untouched. */
__attribute__((warn_unused_result)) bool pair_random(struct relay *r, void *out, size_t len);

#endif
