/* frame.h - follows the frames of one direction without touching a byte
 * Shape:   bytes received -> how many of them go on verbatim, and what they were
 *              |<- payload of an open frame ->|<- whole frames ... ->|<- a header or control frame, cut ->|
 *              0                                                   pass                                  len
 *          Only validated headers and whole control frames pass, so behind `pass` the outgoing stream stands
 *          either inside a payload (frame_at_boundary false) or where a frame of ours may be put in.
 * Units:   bytes; messages count data messages and control frames that passed whole
 * Owner:   embedded in a side; no allocation; the caller keeps the bytes behind `used` (at most
 *          FRAME_MAX_HELD) and presents them again in front of the next ones
 * Errors:  a close code for the offender (1002, 1008, 1009) and a static sentence; nothing passes afterwards
 * Limits:  max_message_bytes (0 = none; wire bytes of the payloads, compressed ones where deflate is on),
 *          FRAME_MAX_CONTROLS Pings and Pongs a second
 * Threads: one at a time; pure, the clock is passed in
 * Source:  RFC 6455 5.1-5.5, 7.4, 10.4; RFC 7692 6; bars S18-S23, S25, S27 */
#ifndef PROXY_WIRE_FRAME_H
#define PROXY_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX_HEADER   14
#define FRAME_MAX_CONTROL  131 /* 2 + 4 + 125 */
#define FRAME_MAX_HELD     (FRAME_MAX_CONTROL - 1)
#define FRAME_MAX_REASON   123
#define FRAME_MAX_CONTROLS 1000
#define FRAME_PING_BYTES   16 /* payload of a Ping of ours */

#define FRAME_CLOSE_NONE 1005 /* a Close without a code; never on the wire */

enum frame_kind { FRAME_TEXT = 0, FRAME_BINARY, FRAME_PING, FRAME_PONG, FRAME_CLOSE, FRAME_KINDS };

struct frame_tracker {
    uint64_t payload_left;      /* of the data frame that is open */
    uint64_t message_bytes;     /* payload of the open message so far */
    uint64_t max_message_bytes; /* 0: none */
    uint64_t messages[FRAME_KINDS];
    uint32_t window_start_s; /* second in which controls were counted */
    uint16_t window_controls;
    uint8_t rsv_mask;    /* RSV bits allowed on the first frame of a message */
    uint8_t from_client; /* frames must be masked; else they must not be */
    uint8_t in_message;  /* between the first and the last frame of a message */
    uint8_t is_text;     /* of the open message */
    uint8_t final;       /* the open frame ends its message */
    uint8_t closed;      /* a Close has passed, or a violation was seen: whatever follows is dropped */
};

struct frame_scan {
    size_t pass; /* bytes that go on */
    /* Bytes dealt with; those behind it are held. used > pass only behind a Close or a violation (all that is left is
     * dropped, now and in every later scan) and with `swallow`. */
    size_t used;
    bool
        swallow; /* [pass, used) is the Pong that answers our Ping; what stands behind it is to be scanned again */
    int violation; /* close code for the offender, 0: none */
    const char *why;
    bool close; /* a Close passed in this scan: */
    uint16_t close_code;
    uint8_t close_reason_len;
    uint8_t close_reason[FRAME_MAX_REASON]; /* unmasked, not checked for UTF-8 */
};

void frame_init(struct frame_tracker *t, bool from_client, uint8_t rsv_mask, uint64_t max_message_bytes);
/* `own_ping`: the payload of a Ping of ours that this side has not answered yet, else NULL. The first Pong with these
 * bytes ends the scan; it neither passes nor counts.
 * `until_boundary`: stop behind the end of the frame that is open, where a frame of ours waits to be put in;
 * where no frame is open it can go at once, and the scan takes nothing (pass = used = 0). A violation is
 * reported by one scan, as soon as its deciding byte is there; what stands before it still passes. */
void frame_scan(struct frame_tracker *t, const uint8_t *bytes, size_t len, bool until_boundary,
                const uint8_t own_ping[FRAME_PING_BYTES], uint64_t now_ms, struct frame_scan *out);
bool frame_at_boundary(const struct frame_tracker *t);

/* A Close frame of ours into out[FRAME_MAX_CONTROL]; masked with `mask` unless NULL (frames to a client). The
 * reason is cut to FRAME_MAX_REASON bytes. Returns its length. */
size_t frame_close(uint8_t *out, uint16_t code, const char *reason, const uint8_t mask[4]);
/* The same for a Ping of FRAME_PING_BYTES. */
size_t frame_ping(uint8_t *out, const uint8_t payload[FRAME_PING_BYTES], const uint8_t mask[4]);
/* May this code stand in a Close frame? */
bool frame_code_valid(unsigned code);

#endif
