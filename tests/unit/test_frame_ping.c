#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wire/frame.h"

#define CLIENT  true
#define BACKEND false

static const uint8_t own[FRAME_PING_BYTES] = "0123456789abcdef"; /* without the NUL */
static const uint8_t key[4] = {0x11, 0x22, 0x33, 0x44};

/* A short frame behind out[len], masked for a client; the new length. */
static size_t put(uint8_t *out, size_t len, uint8_t first, const void *payload, size_t payload_bytes,
                  bool client)
{
    const uint8_t *from = payload;

    out[len++] = first;
    out[len++] = (uint8_t)(payload_bytes | (client ? 0x80 : 0));
    if (client) {
        memcpy(out + len, key, 4);
        len += 4;
    }
    for (size_t i = 0; i < payload_bytes; i++)
        out[len++] = client ? from[i] ^ key[i % 4] : from[i];
    return len;
}

/* The stream cut after each `step` bytes as the relay presents it; what passes goes to `passed`. Ours is out until its
 * Pong is swallowed; returns how many were. */
static int relay(struct frame_tracker *t, const uint8_t *stream, size_t len, size_t step, uint8_t *passed,
                 size_t *passed_len)
{
    struct frame_scan scan;
    size_t used = 0;
    int swallowed = 0;

    *passed_len = 0;
    for (size_t end = step; used < len; end += step) {
        if (end > len)
            end = len;
        do {
            frame_scan(t, stream + used, end - used, false, swallowed ? NULL : own, 0, &scan);
            assert_int_equal(scan.violation, 0);
            assert_true(scan.pass <= scan.used && scan.used <= end - used);
            memcpy(passed + *passed_len, stream + used, scan.pass);
            *passed_len += scan.pass;
            used += scan.used;
            swallowed += scan.swallow;
        } while (scan.swallow);
        assert_true(end < len || used == len);
    }
    return swallowed;
}

/* Streams of one side around our Pong: however they are cut, exactly that one frame is missing behind it. */
static void only_the_first_pong_of_ours_is_swallowed(void **state)
{
    (void)state;
    for (int client = 0; client < 2; client++) {
        uint8_t stream[512], want[512], passed[512];
        size_t len = 0, want_len, at, passed_len;

        len = put(stream, len, 0x01, "open", 4, client);                 /* a fragment */
        len = put(stream, len, 0x8A, own, FRAME_PING_BYTES - 1, client); /* too short */
        len = put(stream, len, 0x8A, "0123456789abcdef0", 17, client);   /* too long */
        len = put(stream, len, 0x8A, "0123456789abcdeF", 16, client);    /* another one */
        len = put(stream, len, 0x8A, "", 0, client);
        len = put(stream, len, 0x89, own, FRAME_PING_BYTES, client); /* a Ping is not an answer */
        at = len;
        len = put(stream, len, 0x8A, own, FRAME_PING_BYTES, client); /* this one */
        memcpy(want, stream, at);
        want_len = put(want, at, 0x80, "end", 3, client);
        want_len = put(want, want_len, 0x8A, own, FRAME_PING_BYTES, client); /* a second one is not ours */
        want_len = put(want, want_len, 0x88, "\x03\xe8", 2, client);
        memcpy(stream + len, want + at, want_len - at);
        len += want_len - at;

        for (size_t step = 1; step <= len; step++) {
            struct frame_tracker t;

            frame_init(&t, client, 0, 0);
            assert_int_equal(relay(&t, stream, len, step, passed, &passed_len), 1);
            assert_int_equal(passed_len, want_len);
            assert_memory_equal(passed, want, want_len);
            assert_int_equal(t.messages[FRAME_PONG], 5);
            assert_int_equal(t.messages[FRAME_PING], 1);
            assert_int_equal(t.messages[FRAME_TEXT], 1);
            assert_int_equal(t.messages[FRAME_CLOSE], 1);
        }
    }
}

static void nothing_is_swallowed_while_no_ping_of_ours_is_out(void **state)
{
    uint8_t stream[64];
    size_t len = put(stream, 0, 0x8A, own, FRAME_PING_BYTES, BACKEND);
    struct frame_tracker t;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, BACKEND, 0, 0);
    frame_scan(&t, stream, len, false, NULL, 0, &scan);
    assert_false(scan.swallow);
    assert_int_equal(scan.pass, len);
}

/* A control frame is not payload: bytes that look like our Pong inside a message are the message's. */
static void pong_inside_a_payload_is_payload(void **state)
{
    uint8_t stream[64] = {0x82, 18};
    size_t len = put(stream, 2, 0x8A, own, FRAME_PING_BYTES, BACKEND);
    uint8_t passed[64];
    size_t passed_len;

    (void)state;
    for (size_t step = 1; step <= len; step++) {
        struct frame_tracker t;

        frame_init(&t, BACKEND, 0, 0);
        assert_int_equal(relay(&t, stream, len, step, passed, &passed_len), 0);
        assert_int_equal(passed_len, len);
    }
}

static void rules_hold_for_our_pong_too(void **state)
{
    uint8_t stream[64];
    size_t len = put(stream, 0, 0x8A, own, FRAME_PING_BYTES, BACKEND);
    struct frame_tracker t;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, CLIENT, 0, 0); /* of a client it must be masked */
    frame_scan(&t, stream, len, false, own, 0, &scan);
    assert_int_equal(scan.violation, 1002);
    assert_false(scan.swallow);
    stream[0] = 0x0A;
    frame_init(&t, BACKEND, 0, 0);
    frame_scan(&t, stream, len, false, own, 0, &scan);
    assert_int_equal(scan.violation, 1002);
}

static void scan_for_an_injection_swallows_nothing(void **state)
{
    uint8_t stream[64] = {0x82, 1, 'x'};
    size_t len = put(stream, 3, 0x8A, own, FRAME_PING_BYTES, BACKEND);
    struct frame_tracker t;
    struct frame_scan scan;

    (void)state;
    frame_init(&t, BACKEND, 0, 0);
    frame_scan(&t, stream, 2, false, own, 0, &scan);
    assert_int_equal(scan.pass, 2);
    frame_scan(&t, stream + 2, len - 2, true, own, 0, &scan);
    assert_int_equal(scan.used, 1);
    assert_false(scan.swallow);
    frame_scan(&t, stream + 3, len - 3, false, own, 0, &scan);
    assert_true(scan.swallow);
    assert_int_equal(scan.pass, 0);
    assert_int_equal(scan.used, len - 3);
}

static void ping_of_ours_is_minimal(void **state)
{
    uint8_t out[FRAME_MAX_CONTROL], want[FRAME_MAX_CONTROL];

    (void)state;
    assert_int_equal(frame_ping(out, own, NULL), 18);
    assert_memory_equal(out, want, put(want, 0, 0x89, own, FRAME_PING_BYTES, BACKEND));
    assert_int_equal(frame_ping(out, own, key), 22);
    assert_memory_equal(out, want, put(want, 0, 0x89, own, FRAME_PING_BYTES, CLIENT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_first_pong_of_ours_is_swallowed),
        cmocka_unit_test(nothing_is_swallowed_while_no_ping_of_ours_is_out),
        cmocka_unit_test(pong_inside_a_payload_is_payload),
        cmocka_unit_test(rules_hold_for_our_pong_too),
        cmocka_unit_test(scan_for_an_injection_swallows_nothing),
        cmocka_unit_test(ping_of_ours_is_minimal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
