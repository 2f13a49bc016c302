/* side.h - one end of a pair: its socket, what waits to go out, and what was counted
 * Shape:   bytes in -> tracker (by the pair); bytes out -> socket, or `out` while the socket does not take them
 *              out:  |-- sent already --|---- waits ----|
 *                    0               out_off         out_len
 * Units:   bytes, milliseconds
 * Owner:   embedded in a pair; `out` exists only while something waits, `held` only while a frame is incomplete
 * Errors:  a side that cannot be written any more is `out_dead`: what is sent there is dropped
 * Limits:  `out` holds at most what one read brought (SIDE_READ_BYTES) and the frames of ours behind it
 * Threads: the loop's own
 * Source:  RFC 6455 5.5.1, 7.1; bars S25, S27, S28, S35 */
#ifndef PROXY_RELAY_SIDE_H
#define PROXY_RELAY_SIDE_H

#include "relay/sock.h"
#include "wire/frame.h"

#define SIDE_READ_BYTES 65536

struct side {
    struct sock sock;
    struct frame_tracker in; /* frames that come from this side */
    uint64_t in_bytes;
    uint64_t active_ms; /* when a byte of it came last */
    uint64_t pinged_ms; /* since when a sign of life is waited for; 0: it is not */
    uint64_t
        pinged_acked; /* what its kernel had acknowledged, if more was on its way than the Ping; else 0 */
    uint64_t relayed_ping_ms; /* when a Ping of the other side was passed to it last */
    uint8_t *out;
    uint32_t out_off, out_len;
    uint16_t inject_code;      /* a Close of ours waits for the next frame end towards this side; 0: none */
    const char *inject_reason; /* static text */
    uint8_t ping[FRAME_PING_BYTES]; /* the payload of our last Ping to it */
    bool ping_waits;                /* a Ping of ours waits for the next frame end towards this side */
    uint8_t pings_out;              /* that were sent with it, and whose Pongs have not come */
    uint8_t held_len;
    bool in_eof;     /* nothing more comes */
    bool in_reset;   /* it ended by an error */
    bool in_drop;    /* what comes is read and dropped */
    bool out_dead;   /* nothing can be sent any more */
    bool close_in;   /* its Close has come */
    bool close_out;  /* a Close was sent to it: nothing may follow */
    bool fin_wanted; /* FIN when `out` is empty */
    uint64_t held_since_ms;
    uint8_t *held; /* held_len bytes, the start of a frame that is not complete; NULL: none */
};

/* Sends or queues. -1: out of memory, the pair must end. A dead side takes everything. */
__attribute__((warn_unused_result)) int side_send(struct side *s, const uint8_t *bytes, size_t len);
/* Keeps the start of a frame (len > 0) for the next read. -1: out of memory. */
__attribute__((warn_unused_result)) int side_hold(struct side *s, const uint8_t *bytes, size_t len,
                                                  uint64_t now_ms);
/* Nothing is held any more. */
void side_unhold(struct side *s);
/* Tries what waits, then the FIN that is wanted. */
void side_flush(struct side *s);
static inline bool side_waits(const struct side *s)
{
    return s->out_len > s->out_off;
}
/* No more bytes to this side: FIN behind what waits. */
void side_fin(struct side *s);
/* The socket is broken: nothing comes, nothing goes. */
void side_kill(struct side *s);
/* Frees what waits and closes the socket. */
void side_done(struct side *s, bool abort);
/* Both directions have ended. */
bool side_finished(const struct side *s);

#endif
