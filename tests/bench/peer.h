/* peer.h - one WebSocket connection of the load generators
 * Shape:   connect -> (TLS) -> handshake -> equal binary messages, each echoed -> Close answered -> EOF
 *          with on_control: Pings and a Close of the other side may come between the echoes
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

#define PEER_HEAD_BYTES    2048
#define PEER_INFLIGHT_MAX  64
#define PEER_CONTROL_BYTES 127 /* of an unmasked control frame, at most */

enum { PEER_OP_CLOSE = 8, PEER_OP_PING = 9, PEER_OP_PONG = 10 };

struct peer;

/* CLOSING: our Close went first. CLOSED: theirs did; only the end of the connection may follow. */
enum peer_state {
    PEER_FREE = 0,
    PEER_CONNECT,
    PEER_TLS,
    PEER_HEAD,
    PEER_OPEN,
    PEER_CLOSING,
    PEER_CLOSED,
    PEER_DONE
};

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
    /* A Close or Ping between echoes; its Close makes the peer CLOSED. NULL: anything but an echo is an error. */
    void (*on_control)(void *arg, struct peer *p, unsigned opcode, const uint8_t *payload, size_t len);
    void *arg;
};

struct peer {
    int fd;
    enum peer_state state;
    uint32_t armed;
    SSL *ssl;
    const struct peer_bytes *out; /* being sent, again and again, until out_left is 0 */
    size_t out_pos;
    uint64_t out_left;
    struct peer_bytes answer; /* a control frame that goes once out_left is 0 */
    size_t answer_pos;
    bool deaf;
    size_t in_pos;    /* in `echoes`, or in `close_echo` */
    uint8_t *control; /* as far as it came; NULL: none is coming in */
    size_t control_len;
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
/* Masked; waits for the end of the frame that is being sent, and takes the place of an answer that waits already. */
int peer_answer(struct peer *p, struct peer_plan *plan, unsigned opcode, const uint8_t *payload, size_t len);
/* Sends half a frame and no more ever: then neither peer_send nor peer_answer may be called. */
int peer_send_half(struct peer *p, struct peer_plan *plan);
/* Sends frames as long as they are taken, reads nothing any more; peer_handle fails when the connection ends. */
int peer_go_deaf(struct peer *p, struct peer_plan *plan);
void peer_end(struct peer *p);

#endif
