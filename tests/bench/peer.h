/* peer.h - one WebSocket connection of the load generator
 * Shape:   connect -> (TLS) -> handshake -> equal binary messages, each echoed -> Close answered -> EOF
 * Units:   *_bytes, *_ns; `events` are EPOLL*
 * Owner:   peer_start ... peer_end; the plan outlives its peers
 * Errors:  -1 when the connection failed or an answer differs by one byte; `why` of the plan says which
 * Limits:  an answer's head PEER_HEAD_BYTES; messages in flight PEER_INFLIGHT_MAX
 * Threads: one
 * Source:  RFC 6455 4.1, 5.2, 5.5.1; one masking key for all frames, which only a load generator may do */
#ifndef TESTS_BENCH_PEER_H
#define TESTS_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#define PEER_HEAD_BYTES   2048
#define PEER_INFLIGHT_MAX 64

enum peer_state { PEER_FREE = 0, PEER_CONNECT, PEER_TLS, PEER_HEAD, PEER_OPEN, PEER_CLOSING, PEER_DONE };

/* Bytes that repeat: `count` equal frames, one after the other. */
struct peer_bytes {
    uint8_t *data;
    size_t len;
};

struct peer_plan {
    uint16_t port;
    int ep;
    SSL_CTX *tls; /* NULL: plain */
    size_t echo_bytes;
    size_t frame_bytes;
    struct peer_bytes request, frames, echoes, close_frame, close_echo;
    const char *why; /* of the last failure */
};

struct peer {
    int fd;
    enum peer_state state;
    uint32_t armed;
    SSL *ssl;
    const struct peer_bytes *out; /* being sent, again and again, until out_left is 0 */
    size_t out_pos;
    uint64_t out_left;
    size_t in_pos; /* in `echoes`, or in `close_echo` */
    char *head;
    size_t head_len;
    uint64_t sent_ns[PEER_INFLIGHT_MAX]; /* a ring: when the messages in flight were sent */
    unsigned sent_first;
};

void peer_plan_init(struct peer_plan *plan, uint16_t port, bool tls, size_t payload_bytes, unsigned inflight);
void peer_plan_done(struct peer_plan *plan);

int peer_start(struct peer *p, struct peer_plan *plan);
/* After epoll said `events`. *echoes: how many messages came back whole by this. */
int peer_handle(struct peer *p, struct peer_plan *plan, uint32_t events, unsigned *echoes);
/* Only in PEER_OPEN. */
int peer_send(struct peer *p, struct peer_plan *plan, unsigned messages);
int peer_send_close(struct peer *p, struct peer_plan *plan);
void peer_end(struct peer *p);

#endif
