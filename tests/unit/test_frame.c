#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wire/frame.h"

#define MAX_INPUT 1024
#define CLIENT    true
#define BACKEND   false

/* A stream and what must become of it, however it is cut. Bytes are written in hex; blanks are for the
 * reader. */
struct stream_case {
    const char *says;
    const char *bytes;
    bool from_client;
    uint8_t rsv_mask;
    uint64_t max_bytes;
    size_t pass; /* bytes that go on in all */
    int violation;
    size_t known_at;     /* number of bytes after which the violation must be reported */
    unsigned close_code; /* of a Close that passed, 0: none */
    bool inside_frame;   /* a frame is open at the end */
};

/* All that a stream did, gathered over its scans. */
struct outcome {
    size_t pass;
    size_t known_at;
    size_t received;
    unsigned violations, closes;
    struct frame_scan violation, close;
    uint8_t passed[MAX_INPUT];
};

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t len = 0;
    int high = -1;
    for (; *hex; hex++) {
        if (*hex == ' ')
            continue;
        int digit = *hex <= '9' ? *hex - '0' : (*hex | 0x20) - 'a' + 10;
        assert_in_range(digit, 0, 15);
        if (high >= 0) {
            assert_true(len < MAX_INPUT);
            out[len++] = (uint8_t)(high << 4 | digit);
            high = -1;
        } else {
            high = digit;
        }
    }
    assert_int_equal(high, -1);
    return len;
}

/* One chunk as the relay presents it: what was held stands in front. */
static void feed(struct frame_tracker *t, const uint8_t *stream, size_t *used, size_t end, struct outcome *o)
{
    struct frame_scan scan;
    frame_scan(t, stream + *used, end - *used, false, NULL, 0, &scan);
    o->received = end;
    assert_true(scan.pass <= scan.used);
    assert_true(scan.used <= end - *used);
    assert_true(end - *used - scan.used <= FRAME_MAX_HELD);
    memcpy(o->passed + o->pass, stream + *used, scan.pass);
    o->pass += scan.pass;
    if (scan.violation) {
        assert_non_null(scan.why);
        assert_true(strlen(scan.why) <= FRAME_MAX_REASON);
        o->violation = scan;
        o->known_at = end;
        o->violations++;
    }
    if (scan.close) {
        o->close = scan;
        o->closes++;
    }
    *used += scan.used;
}

static void run_cut(struct frame_tracker *t, const uint8_t *stream, size_t len, size_t first, size_t step,
                    struct outcome *o)
{
    size_t used = 0;
    memset(o, 0, sizeof *o);
    for (size_t end = first; end < len; end += step)
        feed(t, stream, &used, end, o);
    feed(t, stream, &used, len, o);
    assert_memory_equal(o->passed, stream, o->pass);
}

static void check_case(const struct stream_case *c, const uint8_t *stream, size_t len, size_t first,
                       size_t step)
{
    struct frame_tracker t;
    struct outcome o;
    frame_init(&t, c->from_client, c->rsv_mask, c->max_bytes);
    run_cut(&t, stream, len, first, step, &o);
    assert_int_equal(o.pass, c->pass);
    assert_int_equal(o.violation.violation, c->violation);
    assert_int_equal(o.violations, c->violation ? 1 : 0);
    if (c->violation && step == 1 && first <= c->known_at)
        assert_int_equal(o.known_at, c->known_at);
    assert_int_equal(o.closes, c->close_code ? 1 : 0);
    if (c->close_code)
        assert_int_equal(o.close.close_code, c->close_code);
    assert_int_equal(frame_at_boundary(&t), !c->inside_frame);
}

static void check_table(const struct stream_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t stream[MAX_INPUT];
        size_t len = from_hex(cases[i].bytes, stream);
        print_message("    %s\n", cases[i].says);
        check_case(&cases[i], stream, len, len, 1);
        check_case(&cases[i], stream, len, 1, 1);
        for (size_t split = 0; split < len; split++)
            check_case(&cases[i], stream, len, split, len);
    }
}

#define CHECK_TABLE(cases) check_table(cases, sizeof(cases) / sizeof((cases)[0]))

/* S18, F1 */
static void wrong_mask_bit_is_known_at_byte_two(void **state)
{
    static const struct stream_case cases[] = {
        {"masked frame of a client passes", "81 82 01020304 6868", CLIENT, .pass = 8},
        {"unmasked frame of a backend passes", "81 02 6868", BACKEND, .pass = 4},
        {"unmasked frame of a client", "81 02 6868", CLIENT, .violation = 1002, .known_at = 2},
        {"masked frame of a backend", "81 82 01020304 6868", BACKEND, .violation = 1002, .known_at = 2},
        {"unmasked Ping of a client", "89 00", CLIENT, .violation = 1002, .known_at = 2},
        {"masked Close of a backend", "88 80 00000000", BACKEND, .violation = 1002, .known_at = 2},
        {"unmasked frame behind a good one", "81 80 01020304 81 00", CLIENT, .pass = 6, .violation = 1002,
         .known_at = 8},
        {"126 and 0 unmasked", "82 7e 0000", CLIENT, .violation = 1002, .known_at = 2},
    };
    (void)state;
    CHECK_TABLE(cases);
}

/* S19, F2-F5 */
static void wrong_first_byte_is_known_at_byte_one(void **state)
{
    static const struct stream_case cases[] = {
        {"RSV1 without an extension", "c1 00", BACKEND, .violation = 1002, .known_at = 1},
        {"RSV2 without an extension", "a1 00", BACKEND, .violation = 1002, .known_at = 1},
        {"RSV3 without an extension", "92 00", BACKEND, .violation = 1002, .known_at = 1},
        {"RSV1 with deflate", "c1 00", BACKEND, 0x40, .pass = 2},
        {"RSV2 with deflate", "a1 00", BACKEND, 0x40, .violation = 1002, .known_at = 1},
        {"every RSV bit with an extension that takes all", "f2 00", BACKEND, 0x70, .pass = 2},
        {"RSV1 on a Ping with deflate", "c9 00", BACKEND, 0x40, .violation = 1002, .known_at = 1},
        {"RSV1 on a Close with deflate", "c8 00", BACKEND, 0x40, .violation = 1002, .known_at = 1},
        {"RSV1 on a continuation with deflate", "41 01 61 c0 01 62", BACKEND, 0x40, .pass = 3,
         .violation = 1002, .known_at = 4},
        {"continuation without RSV1 with deflate", "41 01 61 80 01 62", BACKEND, 0x40, .pass = 6},
        {"opcode 3", "83 00", BACKEND, .violation = 1002, .known_at = 1},
        {"opcode 7", "87 00", BACKEND, .violation = 1002, .known_at = 1},
        {"opcode B", "8b 00", BACKEND, .violation = 1002, .known_at = 1},
        {"opcode F", "8f 00", BACKEND, .violation = 1002, .known_at = 1},
        {"fragmented Ping", "09 00", BACKEND, .violation = 1002, .known_at = 1},
        {"fragmented Close", "08 00", BACKEND, .violation = 1002, .known_at = 1},
    };
    (void)state;
    CHECK_TABLE(cases);
}

static void wrong_length_is_known_once_it_is_there(void **state)
{
    static const struct stream_case cases[] = {
        {"Ping of 126", "89 7e 007e", BACKEND, .violation = 1002, .known_at = 2},
        {"Pong of 65536", "8a ff 0000000000010000", CLIENT, .violation = 1002, .known_at = 2},
        {"Close of 126", "88 fe 007e", CLIENT, .violation = 1002, .known_at = 2},
        {"125 in 16 bits", "82 7e 007d", BACKEND, .violation = 1002, .known_at = 4},
        {"126 in 16 bits, of a client, before its mask", "82 fe 007e 01", CLIENT, .pass = 0},
        {"0 in 16 bits, of a client", "82 fe 0000", CLIENT, .violation = 1002, .known_at = 4},
        {"65535 in 64 bits", "82 7f 000000000000ffff", BACKEND, .violation = 1002, .known_at = 10},
        {"65536 in 64 bits", "82 7f 0000000000010000", BACKEND, .pass = 10, .inside_frame = true},
        {"highest bit set", "82 7f 8000000000000000", BACKEND, .violation = 1002, .known_at = 10},
        {"every bit set, before the mask key", "82 ff ffffffffffffffff", CLIENT, .violation = 1002,
         .known_at = 10},
        {"2^63-1 without a limit", "82 7f 7fffffffffffffff aabb", BACKEND, .pass = 12, .inside_frame = true},
    };
    (void)state;
    CHECK_TABLE(cases);
}

/* S20, S23, F14 */
static void message_limit_is_kept_before_the_payload(void **state)
{
    static const struct stream_case cases[] = {
        {"as long as the limit", "82 03 616263", BACKEND, .max_bytes = 3, .pass = 5},
        {"one byte longer, all of it there", "82 04 61616161", BACKEND, .max_bytes = 3, .violation = 1009,
         .known_at = 2},
        {"one byte longer, before the mask key", "82 84", CLIENT, .max_bytes = 3, .violation = 1009,
         .known_at = 2},
        {"2^60", "82 7f 1000000000000000", BACKEND, .max_bytes = 3, .violation = 1009, .known_at = 10},
        {"2^63-1", "82 ff 7fffffffffffffff", CLIENT, .max_bytes = 3, .violation = 1009, .known_at = 10},
        {"SIZE_MAX-13", "82 ff fffffffffffffff2", CLIENT, .max_bytes = 3, .violation = 1002, .known_at = 10},
        {"126 in 16 bits", "82 7e 007e", BACKEND, .max_bytes = 125, .violation = 1009, .known_at = 4},
        {"sum of fragments at the limit", "02 02 6161 00 00 80 01 61", BACKEND, .max_bytes = 3, .pass = 9},
        {"sum of fragments over the limit", "02 02 6161 00 00 80 02 6161", BACKEND, .max_bytes = 3, .pass = 6,
         .violation = 1009, .known_at = 8},
        {"each message has its own sum", "82 02 6161 81 02 6161 82 03 616161", BACKEND, .max_bytes = 3,
         .pass = 13},
        {"control frames do not count", "02 02 6161 89 04 61616161 80 01 61", BACKEND, .max_bytes = 3,
         .pass = 13},
    };
    (void)state;
    CHECK_TABLE(cases);
}

/* S21, F8, F13 */
static void fragments_come_in_order(void **state)
{
    static const struct stream_case cases[] = {
        {"continuation first", "80 00", BACKEND, .violation = 1002, .known_at = 1},
        {"continuation that is not final first", "00 00", BACKEND, .violation = 1002, .known_at = 1},
        {"continuation behind a whole message", "81 01 61 80 01 61", BACKEND, .pass = 3, .violation = 1002,
         .known_at = 4},
        {"text inside a message", "01 01 61 81 01 61", BACKEND, .pass = 3, .violation = 1002, .known_at = 4},
        {"binary inside a message", "01 01 61 02 01 61", BACKEND, .pass = 3, .violation = 1002,
         .known_at = 4},
        {"Ping, Pong and Close between fragments", "01 01 61 89 00 8a 01 61 80 01 61 88 00", BACKEND,
         .pass = 13, .close_code = FRAME_CLOSE_NONE},
        {"three fragments, one of them empty", "02 01 61 00 00 80 01 61", BACKEND, .pass = 8},
        {"empty fragments only", "01 00 00 00 80 00", BACKEND, .pass = 6},
    };
    (void)state;
    CHECK_TABLE(cases);
}

/* S22, F9 */
static void close_frames_are_judged(void **state)
{
    static const struct stream_case cases[] = {
        {"without a code", "88 00", BACKEND, .pass = 2, .close_code = FRAME_CLOSE_NONE},
        {"without a code, of a client", "88 80 01020304", CLIENT, .pass = 6, .close_code = FRAME_CLOSE_NONE},
        {"1 byte", "88 01 03", BACKEND, .violation = 1002, .known_at = 2},
        {"1 byte, of a client", "88 81 01020304 02", CLIENT, .violation = 1002, .known_at = 2},
        {"1000", "88 02 03e8", BACKEND, .pass = 4, .close_code = 1000},
        {"1000 with a reason", "88 05 03e8 627965", BACKEND, .pass = 7, .close_code = 1000},
        {"1000 masked", "88 82 ff00ff00 fce8", CLIENT, .pass = 8, .close_code = 1000},
        {"4999", "88 02 1387", BACKEND, .pass = 4, .close_code = 4999},
        {"0", "88 02 0000", BACKEND, .violation = 1002, .known_at = 4},
        {"1005 before its reason", "88 05 03ed", BACKEND, .violation = 1002, .known_at = 4},
        {"1005 masked before its reason", "88 85 ff00ff00 fced", CLIENT, .violation = 1002, .known_at = 8},
        {"5000", "88 02 1388", BACKEND, .violation = 1002, .known_at = 4},
        {"held until its last byte", "88 05 03e8 6279", BACKEND, .pass = 0},
    };
    (void)state;
    CHECK_TABLE(cases);
}

/* S27, F11 */
static void nothing_follows_a_close(void **state)
{
    static const struct stream_case cases[] = {
        {"data behind a Close", "88 00 81 01 61", BACKEND, .pass = 2, .close_code = FRAME_CLOSE_NONE},
        {"a second Close", "88 02 03e8 88 02 03e9", BACKEND, .pass = 4, .close_code = 1000},
        {"garbage behind a Close", "81 00 88 00 ff ff ff ff", BACKEND, .pass = 4,
         .close_code = FRAME_CLOSE_NONE},
        {"data behind a violation", "81 00 83 00 81 00", BACKEND, .pass = 2, .violation = 1002,
         .known_at = 3},
    };
    (void)state;
    CHECK_TABLE(cases);
}

static void headers_and_control_frames_pass_only_whole(void **state)
{
    static const struct stream_case cases[] = {
        {"first byte", "81", BACKEND, .pass = 0},
        {"mask key not complete", "81 83 010203", CLIENT, .pass = 0},
        {"header of a client without payload", "81 83 01020304", CLIENT, .pass = 6, .inside_frame = true},
        {"length of 16 bits not complete", "81 7e 01", BACKEND, .pass = 0},
        {"length of 64 bits not complete", "81 7f 00000000000100", BACKEND, .pass = 0},
        {"payload passes as it comes", "81 03 6161", BACKEND, .pass = 4, .inside_frame = true},
        {"Ping not complete", "81 01 61 89 04 616161", BACKEND, .pass = 3},
        {"Pong not complete", "8a 84 01020304 616161", CLIENT, .pass = 0},
        {"nothing", "", BACKEND, .pass = 0},
    };
    (void)state;
    CHECK_TABLE(cases);
}

static void codes_of_a_close_are_those_of_the_registry(void **state)
{
    (void)state;
    for (unsigned code = 0; code <= 70000; code++) {
        bool good = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
                    (code >= 3000 && code < 5000);
        assert_int_equal(frame_code_valid(code), good);
    }
}

static void reason_of_a_close_is_unmasked(void **state)
{
    static const uint8_t mask[4] = {0x11, 0x22, 0x33, 0x44};
    char reason[FRAME_MAX_REASON + 1];
    uint8_t stream[FRAME_MAX_CONTROL];
    struct frame_tracker t;
    struct outcome o;

    (void)state;
    memset(reason, 'r', FRAME_MAX_REASON);
    reason[0] = 'f';
    reason[FRAME_MAX_REASON - 1] = 'l';
    reason[FRAME_MAX_REASON] = 0;
    size_t len = frame_close(stream, 3999, reason, mask);
    assert_int_equal(len, FRAME_MAX_CONTROL);
    for (size_t split = 0; split < len; split++) {
        frame_init(&t, CLIENT, 0, 0);
        run_cut(&t, stream, len, split, len, &o);
        assert_int_equal(o.closes, 1);
        assert_int_equal(o.close.close_code, 3999);
        assert_int_equal(o.close.close_reason_len, FRAME_MAX_REASON);
        assert_memory_equal(o.close.close_reason, reason, FRAME_MAX_REASON);
        assert_int_equal(t.messages[FRAME_CLOSE], 1);
    }
}

static void messages_count_when_their_last_byte_passes(void **state)
{
    /* text "ab" in two fragments with a Ping between them, empty binary, Pong, Close */
    uint8_t stream[MAX_INPUT];
    size_t len = from_hex("01 01 61 89 01 70 80 01 62 82 00 8a 00 88 00", stream);
    static const size_t ends[FRAME_KINDS] = {9, 11, 6, 13, 15};
    struct frame_tracker t;
    struct outcome o = {0};
    size_t used = 0;

    (void)state;
    frame_init(&t, BACKEND, 0, 0);
    for (size_t end = 1; end <= len; end++) {
        feed(&t, stream, &used, end, &o);
        for (int kind = 0; kind < FRAME_KINDS; kind++)
            assert_int_equal(t.messages[kind], end >= ends[kind] ? 1 : 0);
    }
}

/* S25 */
static void scan_for_an_injection_stops_at_the_end_of_the_open_frame(void **state)
{
    uint8_t stream[MAX_INPUT];
    size_t len = from_hex("01 04 61616161 80 01 62 81 01 63", stream);
    struct frame_tracker t;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, BACKEND, 0, 0);
    frame_scan(&t, stream, len, true, NULL, 0, &scan); /* nothing open: ours goes first */
    assert_int_equal(scan.pass, 0);
    assert_int_equal(scan.used, 0);

    frame_scan(&t, stream, 3, false, NULL, 0, &scan);
    assert_int_equal(scan.pass, 3);
    assert_false(frame_at_boundary(&t));
    frame_scan(&t, stream + 3, 2, true, NULL, 0, &scan); /* not there yet */
    assert_int_equal(scan.pass, 2);
    assert_false(frame_at_boundary(&t));
    frame_scan(&t, stream + 5, len - 5, true, NULL, 0, &scan); /* between fragments is a boundary */
    assert_int_equal(scan.pass, 1);
    assert_int_equal(scan.used, 1);
    assert_true(frame_at_boundary(&t));

    frame_scan(&t, stream + 6, len - 6, false, NULL, 0, &scan);
    assert_int_equal(scan.pass, len - 6);
    assert_int_equal(t.messages[FRAME_TEXT], 2);
}

/* S25: a part of a header may be held where ours goes in; it stays held */
static void held_header_leaves_the_boundary_open(void **state)
{
    uint8_t stream[MAX_INPUT];
    size_t len = from_hex("81 01 61 81 fe", stream);
    struct frame_tracker t;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, BACKEND, 0, 0);
    frame_scan(&t, stream, len - 1, false, NULL, 0, &scan);
    assert_int_equal(scan.pass, 3);
    assert_int_equal(scan.used, 3);
    assert_true(frame_at_boundary(&t));
    frame_scan(&t, stream + 3, 1, true, NULL, 0, &scan);
    assert_int_equal(scan.used, 0);
}

static void flood_of_empty_fragments_changes_nothing(void **state)
{
    static const uint8_t first[] = {0x01, 0x00}, empty[] = {0x00, 0x00}, last[] = {0x80, 0x00};
    struct frame_tracker t;
    struct frame_tracker before;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, BACKEND, 0, 1);
    frame_scan(&t, first, 2, false, NULL, 0, &scan);
    before = t;
    for (int i = 0; i < 1000000; i++) {
        frame_scan(&t, empty, 2, false, NULL, 0, &scan);
        assert_true(scan.pass == 2 && !scan.violation);
    }
    assert_memory_equal(&t, &before, sizeof t);
    frame_scan(&t, last, 2, false, NULL, 0, &scan);
    assert_int_equal(t.messages[FRAME_TEXT], 1);
}

static void sum_of_a_message_saturates(void **state)
{
    uint8_t header[MAX_INPUT];
    struct frame_tracker t;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, BACKEND, 0, 0);
    (void)from_hex("02 7f 7fffffffffffffff", header);
    for (int i = 0; i < 4; i++) {
        frame_scan(&t, header, 10, false, NULL, 0, &scan);
        assert_int_equal(scan.pass, 10);
        assert_true(t.payload_left == INT64_MAX);
        t.payload_left = 0; /* as if 2^63-1 bytes had passed */
        header[0] = 0x00;
    }
    assert_true(t.message_bytes == UINT64_MAX);
}

/* S23 */
static void control_frames_have_a_rate(void **state)
{
    static const uint8_t ping[] = {0x89, 0x00}, pong[] = {0x8a, 0x00};
    static const uint8_t close[] = {0x88, 0x00}, text[] = {0x81, 0x00};
    struct frame_tracker t;
    struct frame_tracker full;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, BACKEND, 0, 0);
    for (uint64_t second = 7; second < 9; second++) { /* each second anew */
        for (int i = 0; i < FRAME_MAX_CONTROLS; i++) {
            frame_scan(&t, i % 2 ? ping : pong, 2, false, NULL, second * 1000 + (uint64_t)(i % 1000), &scan);
            assert_int_equal(scan.pass, 2);
        }
    }
    frame_scan(&t, text, 2, false, NULL, 8999, &scan);
    assert_int_equal(scan.pass, 2);
    full = t;
    frame_scan(&t, close, 2, false, NULL, 8999, &scan); /* a Close ends the flood, it is no part of it */
    assert_int_equal(scan.violation, 0);
    assert_true(scan.close);

    t = full;
    frame_scan(&t, ping, 1, false, NULL, 8999, &scan);
    assert_int_equal(scan.violation, 0);
    frame_scan(&t, ping, 2, false, NULL, 8999, &scan);
    assert_int_equal(scan.violation, 1008);
    assert_int_equal(scan.pass, 0);
    assert_int_equal(t.messages[FRAME_PING] + t.messages[FRAME_PONG], 2 * FRAME_MAX_CONTROLS);
    frame_scan(&t, text, 2, false, NULL, 9000, &scan); /* the next second forgives nothing */
    assert_int_equal(scan.pass, 0);
    assert_int_equal(scan.used, 2);
}

static void close_of_ours_is_minimal(void **state)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    uint8_t out[FRAME_MAX_CONTROL];

    (void)state;
    assert_int_equal(frame_close(out, FRAME_CLOSE_NONE, "not sent", NULL), 2);
    assert_memory_equal(out, "\x88\x00", 2);
    assert_int_equal(frame_close(out, FRAME_CLOSE_NONE, NULL, mask), 6);
    assert_memory_equal(out, "\x88\x80\x01\x02\x03\x04", 6);
    assert_int_equal(frame_close(out, 1001, NULL, NULL), 4);
    assert_memory_equal(out, "\x88\x02\x03\xe9", 4);
    assert_int_equal(frame_close(out, 1001, "bye", NULL), 7);
    assert_memory_equal(out,
                        "\x88\x05\x03\xe9"
                        "bye",
                        7);
    assert_int_equal(frame_close(out, 1001, "", mask), 8);
    assert_memory_equal(out, "\x88\x82\x01\x02\x03\x04\x02\xeb", 8);
}

static void long_reason_is_cut_between_characters(void **state)
{
    /* bytes of one character, and the length that is left of a text of 123 - offset 'a' and such characters
     */
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    uint8_t out[FRAME_MAX_CONTROL];
    char reason[256];

    (void)state;
    for (size_t c = 0; c < 3; c++) {
        size_t width = strlen(characters[c]);
        for (size_t behind = 0; behind <= width; behind++) { /* bytes of the character that would still fit */
            size_t plain = FRAME_MAX_REASON - behind;
            memset(reason, 'a', plain);
            memcpy(reason + plain, characters[c], width + 1);
            memcpy(reason + plain + width, "tail", 5);
            size_t kept = behind == width ? FRAME_MAX_REASON : plain;
            assert_int_equal(frame_close(out, 1002, reason, NULL), 4 + kept);
            assert_int_equal(out[1], 2 + kept);
            assert_memory_equal(out + 4, reason, kept);
        }
    }
    memset(reason, 0x80, sizeof reason - 1); /* no character begins anywhere */
    reason[sizeof reason - 1] = 0;
    assert_int_equal(frame_close(out, 1002, reason, NULL), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_mask_bit_is_known_at_byte_two),
        cmocka_unit_test(wrong_first_byte_is_known_at_byte_one),
        cmocka_unit_test(wrong_length_is_known_once_it_is_there),
        cmocka_unit_test(message_limit_is_kept_before_the_payload),
        cmocka_unit_test(fragments_come_in_order),
        cmocka_unit_test(close_frames_are_judged),
        cmocka_unit_test(nothing_follows_a_close),
        cmocka_unit_test(headers_and_control_frames_pass_only_whole),
        cmocka_unit_test(codes_of_a_close_are_those_of_the_registry),
        cmocka_unit_test(reason_of_a_close_is_unmasked),
        cmocka_unit_test(messages_count_when_their_last_byte_passes),
        cmocka_unit_test(scan_for_an_injection_stops_at_the_end_of_the_open_frame),
        cmocka_unit_test(held_header_leaves_the_boundary_open),
        cmocka_unit_test(flood_of_empty_fragments_changes_nothing),
        cmocka_unit_test(sum_of_a_message_saturates),
        cmocka_unit_test(control_frames_have_a_rate),
        cmocka_unit_test(close_of_ours_is_minimal),
        cmocka_unit_test(long_reason_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
