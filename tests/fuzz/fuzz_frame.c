/* fuzz_frame.c - the frame tracker against a second parser, which keeps the whole stream and decides frame by
 * frame in the dullest way. Input: 4 bytes (see struct setup), then the stream. Both must agree, after every
 * chunk while the stream is short, on the bytes passed and swallowed, violation, Close, counts and boundary. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"

#define SETUP_BYTES    4
#define FLOOD_BYTES    (2 * (FRAME_MAX_CONTROLS - 2))
#define MAX_STREAM     16384
#define MAX_EVERY_STEP 300

#define MUST(what)                                                                                           \
    do {                                                                                                     \
        if (!(what))                                                                                         \
            abort();                                                                                         \
    } while (0)

typedef unsigned __int128 wide;

struct setup {
    bool from_client;
    uint8_t rsv_mask;
    uint64_t max_message_bytes;
    bool pinged;         /* a Ping of ours, of zeros, is out */
    bool flooded;        /* the stream begins with nearly as many Pings as a second may have */
    uint32_t chunk_seed; /* 0: in one piece, 1: byte by byte, else pieces of pseudo-random size */
    uint64_t ms_a_byte;
};

struct outcome {
    size_t passed;
    size_t swallowed, swallowed_at;
    int violation;
    bool closed;
    unsigned close_code;
    size_t reason_len;
    uint8_t reason[FRAME_MAX_REASON];
    uint64_t counts[FRAME_KINDS];
    bool at_boundary;
};

static uint8_t stream[MAX_STREAM];
static uint64_t arrived_ms[MAX_STREAM]; /* of each byte */
static uint8_t edge[MAX_STREAM];        /* what is scanned ends where this ends: a read too far is seen */

static struct setup read_setup(const uint8_t *data)
{
    static const uint8_t masks[] = {0x00, 0x40, 0x70, 0x20};
    static const uint64_t limits[] = {0, 1, 3, 125, 126, 200, 65535, 65536, 1u << 20, INT64_MAX, UINT64_MAX};
    static const uint64_t paces[] = {0, 1, 7, 100};
    return (struct setup){
        .from_client = data[0] & 1,
        .rsv_mask = masks[data[0] >> 1 & 3],
        .flooded = data[0] >> 3 & 1,
        .pinged = data[0] >> 4 & 1,
        .max_message_bytes = limits[data[1] % (sizeof limits / sizeof limits[0])],
        .chunk_seed = data[2],
        .ms_a_byte = paces[data[3] % 4],
    };
}

/* The dull parser */

static void put_reason(struct outcome *o, const uint8_t *payload, const uint8_t *key, size_t len)
{
    for (size_t i = 2; i < len; i++)
        o->reason[i - 2] = key ? payload[i] ^ key[i % 4] : payload[i];
    o->reason_len = len < 2 ? 0 : len - 2;
}

static bool dull_code_good(unsigned code)
{
    switch (code) {
    case 1000:
    case 1001:
    case 1002:
    case 1003:
    case 1007:
    case 1008:
    case 1009:
    case 1010:
    case 1011:
    case 1012:
    case 1013:
    case 1014: return true;
    default: return code / 1000 == 3 || code / 1000 == 4;
    }
}

/* One frame, as far as it is there: `have` bytes from f on. */
struct dull_frame {
    bool fin, data, whole_header;
    unsigned opcode, code;
    size_t head;
    wide len;
    const uint8_t *key;
};

static bool dull_length_bad(struct dull_frame *d, const uint8_t *f, size_t have)
{
    d->head = 2;
    d->len = f[1] % 128;
    size_t more = d->len == 126 ? 2 : d->len == 127 ? 8 : 0;
    d->head += more;
    if (!more || have < d->head)
        return false;
    d->len = 0;
    for (size_t i = 0; i < more; i++)
        d->len = d->len * 256 + f[2 + i];
    return d->len >> 63 || (more == 2 && d->len <= 125) || (more == 8 && d->len <= 65535);
}

static int dull_header(const struct setup *s, const uint8_t *f, size_t have, bool open_message, wide sum,
                       struct dull_frame *d)
{
    unsigned rsv = f[0] & 0x70;
    *d = (struct dull_frame){.fin = f[0] >> 7, .opcode = f[0] & 15, .code = FRAME_CLOSE_NONE};
    d->data = d->opcode <= 2;
    if ((d->opcode >= 3 && d->opcode <= 7) || d->opcode >= 11)
        return 1002;
    if ((rsv | s->rsv_mask) != s->rsv_mask || (rsv != 0 && d->opcode != 1 && d->opcode != 2))
        return 1002;
    if (d->data ? (d->opcode == 0) != open_message : !d->fin)
        return 1002;
    if (have < 2)
        return 0;
    if ((f[1] >= 128) != s->from_client || (!d->data && f[1] % 128 > 125))
        return 1002;
    if ((d->opcode == 8 && f[1] % 128 == 1) || dull_length_bad(d, f, have))
        return 1002;
    if (have < d->head)
        return 0;
    if (d->data && s->max_message_bytes && sum + d->len > s->max_message_bytes)
        return 1009;
    if (s->from_client) {
        d->key = f + d->head;
        d->head += 4;
    }
    d->whole_header = have >= d->head;
    if (d->opcode != 8 || d->len < 2 || have < d->head + 2)
        return 0;
    const uint8_t *code = f + d->head;
    d->code = d->key ? (code[0] ^ d->key[0]) * 256u + (code[1] ^ d->key[1]) : code[0] * 256u + code[1];
    return dull_code_good(d->code) ? 0 : 1002;
}

static bool dull_is_our_pong(const struct setup *s, const struct dull_frame *d, const uint8_t *f)
{
    if (!s->pinged || d->opcode != 10 || d->len != FRAME_PING_BYTES)
        return false;
    for (size_t i = 0; i < FRAME_PING_BYTES; i++)
        if (f[d->head + i] != (d->key ? d->key[i % 4] : 0))
            return false;
    return true;
}

static struct outcome dull(const struct setup *s, size_t n)
{
    struct outcome o = {.at_boundary = true};
    struct dull_frame d;
    bool open_message = false, text = false;
    wide sum = 0;
    uint64_t second = 0;
    unsigned in_second = 0;
    size_t at = 0;

    for (; at < n && !o.closed; at = o.passed + o.swallowed) {
        const uint8_t *f = stream + at;
        o.violation = dull_header(s, f, n - at, open_message, sum, &d);
        if (o.violation || !d.whole_header)
            break;
        wide end = at + (d.head + d.len);
        if (!d.data && end > n)
            break;
        if (!o.swallowed && dull_is_our_pong(s, &d, f)) {
            o.swallowed_at = at;
            o.swallowed = d.head + FRAME_PING_BYTES;
            continue;
        }
        if (d.data) {
            text = d.opcode == 0 ? text : d.opcode == 1;
            open_message = !d.fin;
            sum += d.len;
            o.at_boundary = end <= n;
            if (d.fin) {
                o.counts[text ? FRAME_TEXT : FRAME_BINARY] += o.at_boundary;
                sum = 0;
            }
        } else if (d.opcode == 8) {
            o.closed = true;
            o.close_code = d.code;
            put_reason(&o, f + d.head, d.key, (size_t)d.len);
            o.counts[FRAME_CLOSE]++;
        } else {
            uint64_t now = arrived_ms[(size_t)end - 1] / 1000;
            in_second = now == second ? in_second + 1 : 1;
            second = now;
            if (in_second > FRAME_MAX_CONTROLS) {
                o.violation = 1008;
                break;
            }
            o.counts[d.opcode == 9 ? FRAME_PING : FRAME_PONG]++;
        }
        o.passed = (end > n ? n : (size_t)end) - o.swallowed;
    }
    return o;
}

/* The tracker, fed as the relay does */

struct feeder {
    struct frame_tracker tracker;
    struct outcome o;
    size_t used;
    bool pinged;
};

/* true: to be scanned again, for our Pong has been taken out. */
static bool one_scan(struct feeder *f, size_t end, bool until_boundary, uint64_t now_ms)
{
    struct frame_scan scan;
    bool was_open = !frame_at_boundary(&f->tracker), was_closed = f->tracker.closed;
    size_t len = end - f->used;
    uint8_t *bytes = edge + sizeof edge - len;
    memcpy(bytes, stream + f->used, len);
    static const uint8_t zeros[FRAME_PING_BYTES];
    frame_scan(&f->tracker, bytes, len, until_boundary, f->pinged ? zeros : NULL, now_ms, &scan);

    MUST(scan.pass <= scan.used && scan.used <= len);
    MUST(scan.pass == 0 || f->o.passed + f->o.swallowed == f->used);
    MUST(scan.pass == scan.used || f->tracker.closed || scan.swallow);
    MUST(!scan.swallow || (f->pinged && !until_boundary && !scan.violation && !scan.close));
    MUST(!scan.violation || scan.why);
    MUST(!was_closed || (scan.pass == 0 && scan.used == len && !scan.violation && !scan.close));
    if (until_boundary && !was_closed) {
        MUST(was_open || scan.used == 0);
        MUST(scan.used <= len && !scan.violation && !scan.close);
    } else {
        MUST(scan.swallow || len - scan.used <= FRAME_MAX_HELD);
    }
    if (scan.swallow) {
        f->pinged = false;
        f->o.swallowed_at = f->used + scan.pass;
        f->o.swallowed = scan.used - scan.pass;
    }
    f->o.passed += scan.pass;
    f->used += scan.used;
    if (scan.violation)
        f->o.violation = scan.violation;
    if (scan.close) {
        f->o.closed = true;
        f->o.close_code = scan.close_code;
        f->o.reason_len = scan.close_reason_len;
        memcpy(f->o.reason, scan.close_reason, scan.close_reason_len);
    }
    return scan.swallow;
}

static void compare(const struct feeder *f, const struct setup *s, size_t n)
{
    struct outcome want = dull(s, n);
    MUST(f->o.passed == want.passed);
    MUST(f->o.swallowed == want.swallowed && f->o.swallowed_at == want.swallowed_at);
    MUST(f->o.violation == want.violation);
    MUST(f->o.closed == want.closed);
    if (want.closed) {
        MUST(f->o.close_code == want.close_code);
        MUST(f->o.reason_len == want.reason_len);
        MUST(memcmp(f->o.reason, want.reason, want.reason_len) == 0);
    }
    MUST(memcmp(f->tracker.messages, want.counts, sizeof want.counts) == 0);
    MUST(frame_at_boundary(&f->tracker) == want.at_boundary);
}

static size_t fill_stream(const struct setup *s, const uint8_t *data, size_t len)
{
    size_t n = 0;
    if (s->flooded) {
        size_t step = s->from_client ? 6 : 2;
        for (; n < FLOOD_BYTES / 2 * step; n += step) {
            memset(stream + n, 0, step);
            stream[n] = 0x89;
            stream[n + 1] = s->from_client ? 0x80 : 0;
        }
    }
    if (len > MAX_STREAM - n)
        len = MAX_STREAM - n;
    memcpy(stream + n, data, len);
    return n + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < SETUP_BYTES)
        return 0;
    struct setup s = read_setup(data);
    size_t n = fill_stream(&s, data + SETUP_BYTES, len - SETUP_BYTES);
    struct feeder f = {.pinged = s.pinged};
    frame_init(&f.tracker, s.from_client, s.rsv_mask, s.max_message_bytes);

    uint32_t random = s.chunk_seed;
    size_t end = 0;
    while (end < n) {
        size_t chunk = n - end;
        bool until_boundary = false;
        if (s.chunk_seed > 0) {
            random = random * 1664525 + 1013904223;
            size_t most = s.chunk_seed == 1 ? 1 : random >> 28 == 0 ? 4096 : 16;
            size_t wanted = 1 + (random >> 16) % most;
            chunk = wanted < chunk ? wanted : chunk;
            until_boundary = random >> 13 & 1;
        }
        uint64_t now_ms = (end + chunk) * s.ms_a_byte;
        for (size_t i = 0; i < chunk; i++)
            arrived_ms[end + i] = now_ms;
        end += chunk;
        if (until_boundary)
            one_scan(&f, end, true, now_ms);
        while (one_scan(&f, end, false, now_ms))
            ;
        if (n <= MAX_EVERY_STEP)
            compare(&f, &s, end);
    }
    compare(&f, &s, n);
    return 0;
}
