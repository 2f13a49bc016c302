#include "wire/frame.h"

#include <string.h>

enum {
    OP_CONTINUATION = 0x0,
    OP_TEXT = 0x1,
    OP_BINARY = 0x2,
    OP_CLOSE = 0x8,
    OP_PING = 0x9,
    OP_PONG = 0xA,
};

#define FIN          0x80
#define RSV          0x70
#define OPCODE       0x0F
#define MASKED       0x80
#define LENGTH       0x7F
#define LENGTH_16    126
#define LENGTH_64    127
#define MASK_BYTES   4
#define MAX_CONTROL  125
#define CODE_PROTO   1002
#define CODE_POLICY  1008
#define CODE_TOO_BIG 1009

/* What read_header made of the bytes; any other value is the close code of a violation. */
#define HEADER_WHOLE   0
#define HEADER_MORE    (-1)
#define HEADER_SWALLOW (-2) /* a whole Pong that answers our Ping */

struct header {
    uint64_t payload_bytes;
    size_t bytes; /* of the header itself */
    uint8_t first;
    const char *why;
};

void frame_init(struct frame_tracker *t, bool from_client, uint8_t rsv_mask, uint64_t max_message_bytes)
{
    *t = (struct frame_tracker){
        .max_message_bytes = max_message_bytes,
        .rsv_mask = rsv_mask & RSV,
        .from_client = from_client,
    };
}

bool frame_at_boundary(const struct frame_tracker *t)
{
    return t->payload_left == 0;
}

bool frame_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static uint64_t read_be(const uint8_t *bytes, size_t count)
{
    uint64_t n = 0;
    for (size_t i = 0; i < count; i++)
        n = n << 8 | bytes[i];
    return n;
}

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static int offend(struct header *h, int code, const char *why)
{
    h->why = why;
    return code;
}

static inline int check_first_byte(const struct frame_tracker *t, struct header *h)
{
    uint8_t opcode = h->first & OPCODE;
    if (opcode > OP_PONG || (opcode > OP_BINARY && opcode < OP_CLOSE))
        return offend(h, CODE_PROTO, "reserved opcode");
    bool begins_message = opcode == OP_TEXT || opcode == OP_BINARY;
    if (h->first & RSV & ~(begins_message ? t->rsv_mask : 0))
        return offend(h, CODE_PROTO, "RSV bit set without an extension that uses it");
    if (opcode >= OP_CLOSE && !(h->first & FIN))
        return offend(h, CODE_PROTO, "fragmented control frame");
    if (opcode == OP_CONTINUATION && !t->in_message)
        return offend(h, CODE_PROTO, "continuation frame outside a message");
    if (begins_message && t->in_message)
        return offend(h, CODE_PROTO, "new message inside a fragmented message");
    return HEADER_WHOLE;
}

static inline int check_second_byte(const struct frame_tracker *t, uint8_t second, struct header *h)
{
    if ((second & MASKED) != (t->from_client ? MASKED : 0))
        return offend(h, CODE_PROTO,
                      t->from_client ? "frame of a client is not masked" : "frame of a backend is masked");
    if ((h->first & OPCODE) < OP_CLOSE)
        return HEADER_WHOLE;
    if ((second & LENGTH) > MAX_CONTROL)
        return offend(h, CODE_PROTO, "control frame longer than 125 bytes");
    if ((h->first & OPCODE) == OP_CLOSE && (second & LENGTH) == 1)
        return offend(h, CODE_PROTO, "Close frame with a payload of 1 byte");
    return HEADER_WHOLE;
}

/* The length of the payload, from the second byte on. */
static inline int read_length(const uint8_t *bytes, size_t len, struct header *h)
{
    h->payload_bytes = bytes[1] & LENGTH;
    h->bytes = 2;
    if (h->payload_bytes < LENGTH_16)
        return HEADER_WHOLE;
    bool is_64 = h->payload_bytes == LENGTH_64;
    h->bytes = is_64 ? 10 : 4;
    if (len < h->bytes)
        return HEADER_MORE;
    h->payload_bytes = read_be(bytes + 2, h->bytes - 2);
    if (h->payload_bytes > INT64_MAX)
        return offend(h, CODE_PROTO, "frame length with its highest bit set");
    if (h->payload_bytes < (is_64 ? 65536 : LENGTH_16))
        return offend(h, CODE_PROTO, "frame length not in its shortest form");
    return HEADER_WHOLE;
}

/* Every check stands as early as its last byte arrives: an offender is not waited for. */
static inline int read_header(const struct frame_tracker *t, const uint8_t *bytes, size_t len,
                              struct header *h)
{
    h->first = bytes[0];
    int result = check_first_byte(t, h);
    if (result != HEADER_WHOLE)
        return result;
    if (len < 2)
        return HEADER_MORE;
    result = check_second_byte(t, bytes[1], h);
    if (result != HEADER_WHOLE)
        return result;
    result = read_length(bytes, len, h);
    if (result != HEADER_WHOLE)
        return result;
    if (t->max_message_bytes > 0 && (h->first & OPCODE) < OP_CLOSE &&
        add_saturating(t->message_bytes, h->payload_bytes) > t->max_message_bytes)
        return offend(h, CODE_TOO_BIG, "message larger than the limit");
    if (t->from_client)
        h->bytes += MASK_BYTES;
    return len < h->bytes ? HEADER_MORE : HEADER_WHOLE;
}

static void end_data_frame(struct frame_tracker *t)
{
    if (!t->final)
        return;
    t->messages[t->is_text ? FRAME_TEXT : FRAME_BINARY]++;
    t->in_message = 0;
    t->message_bytes = 0;
}

static void begin_data_frame(struct frame_tracker *t, const struct header *h)
{
    uint8_t opcode = h->first & OPCODE;
    if (opcode != OP_CONTINUATION)
        t->is_text = opcode == OP_TEXT;
    t->in_message = 1;
    t->final = (h->first & FIN) != 0;
    t->message_bytes = add_saturating(t->message_bytes, h->payload_bytes);
    t->payload_left = h->payload_bytes;
    if (t->payload_left == 0)
        end_data_frame(t);
}

/* The code is judged on its own bytes, before the rest of the reason is there. */
static int read_close(const struct frame_tracker *t, const uint8_t *bytes, size_t len, struct header *h,
                      struct frame_scan *out)
{
    static const uint8_t unmasked[MASK_BYTES];
    const uint8_t *mask = t->from_client ? bytes + h->bytes - MASK_BYTES : unmasked;
    const uint8_t *payload = bytes + h->bytes;
    size_t payload_bytes = (size_t)h->payload_bytes;
    unsigned code = FRAME_CLOSE_NONE;

    if (payload_bytes > 0) {
        if (len < h->bytes + 2)
            return HEADER_MORE;
        code = (unsigned)(payload[0] ^ mask[0]) << 8 | (unsigned)(payload[1] ^ mask[1]);
        if (!frame_code_valid(code))
            return offend(h, CODE_PROTO, "Close frame with a reserved code");
    }
    if (len < h->bytes + payload_bytes)
        return HEADER_MORE;

    size_t reason_len = payload_bytes > 2 ? payload_bytes - 2 : 0;
    for (size_t i = 0; i < reason_len; i++)
        out->close_reason[i] = payload[i + 2] ^ mask[(i + 2) % MASK_BYTES];
    out->close_reason_len = (uint8_t)reason_len;
    out->close_code = (uint16_t)code;
    out->close = true;
    return HEADER_WHOLE;
}

static int count_control(struct frame_tracker *t, uint64_t now_ms, struct header *h)
{
    uint32_t now_s = (uint32_t)(now_ms / 1000);
    if (now_s != t->window_start_s) {
        t->window_start_s = now_s;
        t->window_controls = 0;
    }
    if (t->window_controls == FRAME_MAX_CONTROLS)
        return offend(h, CODE_POLICY, "too many control frames");
    t->window_controls++;
    return HEADER_WHOLE;
}

static bool answers(const struct frame_tracker *t, const uint8_t *bytes, const struct header *h,
                    const uint8_t *own_ping)
{
    static const uint8_t unmasked[MASK_BYTES];
    const uint8_t *mask = t->from_client ? bytes + h->bytes - MASK_BYTES : unmasked;
    const uint8_t *payload = bytes + h->bytes;

    if ((h->first & OPCODE) != OP_PONG || !own_ping || h->payload_bytes != FRAME_PING_BYTES)
        return false;
    for (size_t i = 0; i < FRAME_PING_BYTES; i++)
        if ((payload[i] ^ mask[i % MASK_BYTES]) != own_ping[i])
            return false;
    return true;
}

/* A control frame passes whole or not at all: HEADER_WHOLE is said of all its bytes. */
static int pass_control(struct frame_tracker *t, const uint8_t *bytes, size_t len, const uint8_t *own_ping,
                        uint64_t now_ms, struct header *h, struct frame_scan *out)
{
    uint8_t opcode = h->first & OPCODE;
    if (opcode == OP_CLOSE) {
        int result = read_close(t, bytes, len, h, out);
        if (result != HEADER_WHOLE)
            return result;
        t->closed = 1;
        t->messages[FRAME_CLOSE]++;
        return HEADER_WHOLE;
    }
    if (len < h->bytes + h->payload_bytes)
        return HEADER_MORE;
    if (answers(t, bytes, h, own_ping))
        return HEADER_SWALLOW;
    int result = count_control(t, now_ms, h);
    if (result == HEADER_WHOLE)
        t->messages[opcode == OP_PING ? FRAME_PING : FRAME_PONG]++;
    return result;
}

/* One header, and with it a whole control frame. Returns how many bytes of it pass: 0 ends the scan. */
static inline size_t pass_header(struct frame_tracker *t, const uint8_t *bytes, size_t len,
                                 const uint8_t *own_ping, uint64_t now_ms, struct frame_scan *out)
{
    struct header h;
    bool control = false;
    int result = read_header(t, bytes, len, &h);
    if (result == HEADER_WHOLE && (h.first & OPCODE) >= OP_CLOSE) {
        control = true;
        result = pass_control(t, bytes, len, own_ping, now_ms, &h, out);
    }
    if (result == HEADER_MORE)
        return 0;
    if (result == HEADER_SWALLOW) {
        out->swallow = true;
        out->used = h.bytes + FRAME_PING_BYTES;
        return 0;
    }
    if (result != HEADER_WHOLE) {
        out->violation = result;
        out->why = h.why;
        t->closed = 1;
        return 0;
    }
    if (control)
        return h.bytes + (size_t)h.payload_bytes;
    begin_data_frame(t, &h);
    return h.bytes;
}

/* The commonest frame, a whole message of at most 125 bytes, without a detour: 0 for any other. */
static inline size_t pass_short_message(struct frame_tracker *t, const uint8_t *bytes, size_t len)
{
    if (len < 2 || t->in_message)
        return 0;
    uint8_t first = (uint8_t)(bytes[0] & ~t->rsv_mask);
    uint8_t masked = t->from_client ? MASKED : 0;
    size_t payload_bytes = bytes[1] ^ masked; /* over 125 as well when the mask bit is wrong */
    size_t frame_bytes = payload_bytes + 2 + (masked ? MASK_BYTES : 0);
    if ((first != (FIN | OP_TEXT) && first != (FIN | OP_BINARY)) || payload_bytes > MAX_CONTROL ||
        len < frame_bytes || (t->max_message_bytes > 0 && payload_bytes > t->max_message_bytes))
        return 0;
    t->messages[first == (FIN | OP_TEXT) ? FRAME_TEXT : FRAME_BINARY]++;
    return frame_bytes;
}

void frame_scan(struct frame_tracker *t, const uint8_t *bytes, size_t len, bool until_boundary,
                const uint8_t own_ping[FRAME_PING_BYTES], uint64_t now_ms, struct frame_scan *out)
{
    size_t at = 0; /* bytes[0..at) pass */
    out->used = 0; /* until the end: of a swallowed Pong */
    out->swallow = false;
    out->violation = 0;
    out->why = NULL;
    out->close = false;

    if (!t->closed && !(until_boundary && t->payload_left == 0)) {
        for (;;) {
            if (t->payload_left > len - at) {
                t->payload_left -= len - at;
                at = len;
                break;
            }
            if (t->payload_left > 0) {
                at += (size_t)t->payload_left;
                t->payload_left = 0;
                end_data_frame(t);
                if (until_boundary)
                    break;
            }
            if (at == len)
                break;
            size_t n = pass_short_message(t, bytes + at, len - at);
            if (n == 0)
                n = pass_header(t, bytes + at, len - at, own_ping, now_ms, out);
            at += n;
            if (n == 0 || t->closed)
                break;
        }
    }
    out->pass = at;
    out->used = t->closed ? len : at + out->used;
}

static size_t put_control(uint8_t *out, uint8_t opcode, const uint8_t *payload, size_t len,
                          const uint8_t mask[4])
{
    size_t at = 2;
    out[0] = FIN | opcode;
    out[1] = (uint8_t)((mask ? MASKED : 0) | len);
    if (mask) {
        memcpy(out + at, mask, MASK_BYTES);
        at += MASK_BYTES;
    }
    for (size_t i = 0; i < len; i++)
        out[at + i] = mask ? payload[i] ^ mask[i % MASK_BYTES] : payload[i];
    return at + len;
}

size_t frame_ping(uint8_t *out, const uint8_t payload[FRAME_PING_BYTES], const uint8_t mask[4])
{
    return put_control(out, OP_PING, payload, FRAME_PING_BYTES, mask);
}

size_t frame_close(uint8_t *out, uint16_t code, const char *reason, const uint8_t mask[4])
{
    size_t payload_bytes = 0;
    uint8_t payload[MAX_CONTROL];
    if (code != FRAME_CLOSE_NONE) {
        size_t reason_len = reason ? strnlen(reason, FRAME_MAX_REASON + 1) : 0;
        if (reason_len > FRAME_MAX_REASON) {
            reason_len = FRAME_MAX_REASON;
            while (reason_len > 0 && ((uint8_t)reason[reason_len] & 0xC0) == 0x80)
                reason_len--;
        }
        payload[0] = (uint8_t)(code >> 8);
        payload[1] = (uint8_t)code;
        if (reason_len > 0)
            memcpy(payload + 2, reason, reason_len);
        payload_bytes = reason_len + 2;
    }
    return put_control(out, OP_CLOSE, payload, payload_bytes, mask);
}
