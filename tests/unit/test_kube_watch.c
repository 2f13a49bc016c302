/* test_kube_watch.c - the same events however the bytes are cut; what cannot be read ends it after what could */
#include "kube/kube_watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct kube_watch watch;
static struct err err;
static char seen[4096]; /* "A:a M:b ...": the type's first letter and the name */
static size_t seen_len, largest, stop_after;

static int setup(void **state)
{
    (void)state;
    kube_watch_init(&watch);
    seen[0] = '\0';
    seen_len = largest = 0;
    stop_after = SIZE_MAX;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kube_watch_done(&watch);
    return 0;
}

static bool on_event(void *arg, enum kube_event_type type, json_t *object)
{
    const char *name = json_string_value(json_object_get(json_object_get(object, "metadata"), "name"));
    const char *blob = json_string_value(json_object_get(object, "blob"));

    assert_ptr_equal(arg, &watch);
    assert_true(json_is_object(object));
    if (blob && strlen(blob) > largest)
        largest = strlen(blob);
    seen_len += (size_t)snprintf(seen + seen_len, sizeof seen - seen_len, "%c:%s ", "AMDBEU"[type],
                                 name ? name : "-");
    return --stop_after > 0;
}

static int feed(const void *bytes, size_t len)
{
    /* An exact copy: a byte read too many is seen. */
    uint8_t *copy = malloc(len ? len : 1);
    int rc;

    assert_non_null(copy);
    memcpy(copy, bytes, len);
    rc = kube_watch_feed(&watch, copy, len, on_event, &watch, &err);
    free(copy);
    return rc;
}

#define EVENT(type, name) "{\"type\":\"" type "\",\"object\":{\"metadata\":{\"name\":\"" name "\"}}}\n"
#define BOOKMARK                                                                                             \
    "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{"            \
    "\"resourceVersion\":\"9\"}}}\n"

static const char stream[] = EVENT("ADDED", "a") EVENT("MODIFIED", "b") BOOKMARK EVENT("DELETED", "c")
    EVENT("FANCY", "d") "\n\r\n{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410}}\r\n" EVENT(
        "ADDED", "e");
static const char stream_seen[] = "A:a M:b B:- D:c U:d E:- A:e ";

static void gives_the_same_events_for_chunks_of_every_size(void **state)
{
    for (size_t size = 1; size <= sizeof stream; size++) {
        setup(state);
        for (size_t at = 0; at < sizeof stream - 1; at += size) {
            size_t left = sizeof stream - 1 - at;

            assert_int_equal(feed(stream + at, left < size ? left : size), 0);
        }
        assert_string_equal(seen, stream_seen);
        assert_int_equal(watch.line.len, 0);
        teardown(state);
    }
}

static void keeps_half_an_event_until_the_rest_comes(void **state)
{
    static const char three_and_a_half[] =
        EVENT("ADDED", "a") EVENT("ADDED", "b") EVENT("ADDED", "c") "{\"type\":\"ADDED\",\"obj";
    static const char rest[] = "ect\":{\"metadata\":{\"name\":\"d\"}}}";

    (void)state;
    assert_int_equal(feed(three_and_a_half, sizeof three_and_a_half - 1), 0);
    assert_string_equal(seen, "A:a A:b A:c ");
    assert_int_equal(feed("", 0), 0);
    assert_int_equal(feed(rest, sizeof rest - 1), 0);
    assert_string_equal(seen, "A:a A:b A:c ");
    assert_int_equal(feed("\n", 1), 0);
    assert_string_equal(seen, "A:a A:b A:c A:d ");
}

static char *large_event(size_t blob, size_t *len)
{
    static const char head[] = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"big\"},\"blob\":\"";
    char *text = malloc(sizeof head + blob + 8);

    assert_non_null(text);
    memcpy(text, head, sizeof head - 1);
    memset(text + sizeof head - 1, 'x', blob);
    memcpy(text + sizeof head - 1 + blob, "\"}}\n", 4);
    *len = sizeof head - 1 + blob + 4;
    return text;
}

static void takes_an_object_of_2_mib_and_gives_its_memory_back(void **state)
{
    size_t len;
    char *text = large_event(2u << 20, &len);

    (void)state;
    for (size_t at = 0; at < len; at += 16384)
        assert_int_equal(feed(text + at, len - at < 16384 ? len - at : 16384), 0);
    free(text);
    assert_string_equal(seen, "A:big ");
    assert_int_equal(largest, 2u << 20);
    assert_true(watch.line.cap < 1u << 20);
}

static void refuses_a_line_over_the_limit_after_what_came_before(void **state)
{
    size_t len;
    char *text = large_event(KUBE_WATCH_LINE, &len);

    assert_int_equal(feed(EVENT("ADDED", "a"), strlen(EVENT("ADDED", "a"))), 0);
    assert_int_equal(feed(text, len), -1); /* with its newline in the same chunk */
    assert_int_equal(err.code, ERR_LIMIT);
    teardown(state);
    setup(state);
    assert_int_equal(feed(EVENT("ADDED", "a"), strlen(EVENT("ADDED", "a"))), 0);
    assert_int_equal(feed(text, KUBE_WATCH_LINE - 1), 0);
    assert_int_equal(feed("xx", 2), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_string_equal(seen, "A:a ");
    free(text);
}

static void stops_at_a_bad_line_after_the_good_ones(void **state)
{
    static const char *const bad[] = {
        "<html>\n",
        "[]\n",
        "17\n",
        "{\"type\":\"ADDED\"}\n",
        "{\"type\":\"ADDED\",\"object\":null}\n",
        "{\"type\":\"ADDED\",\"object\":[]}\n",
        "{\"type\":\"ADDED\",\"object\":{}} {}\n",
        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"\xff\"}}}\n",
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        int len = snprintf(text, sizeof text, "%s%s%s", EVENT("ADDED", "a"), bad[i], EVENT("ADDED", "b"));

        setup(state);
        assert_int_equal(feed(text, (size_t)len), -1);
        assert_int_equal(err.code, ERR_SYNTAX);
        assert_string_equal(seen, "A:a ");
        teardown(state);
    }
}

static void takes_null_fields_and_nul_characters(void **state)
{
    static const char odd[] =
        "{\"type\":null,\"object\":{\"metadata\":null}}\n"
        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":null}}}\n"
        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"x\":\"\\u0000\"}}}\n";

    (void)state;
    assert_int_equal(feed(odd, sizeof odd - 1), 0);
    assert_string_equal(seen, "U:- A:- A:a ");
}

static void gives_nothing_more_once_the_receiver_has_enough(void **state)
{
    (void)state;
    stop_after = 2;
    assert_int_equal(feed(stream, sizeof stream - 1), 0);
    assert_string_equal(seen, "A:a M:b ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_same_events_for_chunks_of_every_size),
        cmocka_unit_test_setup_teardown(keeps_half_an_event_until_the_rest_comes, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_an_object_of_2_mib_and_gives_its_memory_back, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_a_line_over_the_limit_after_what_came_before, setup,
                                        teardown),
        cmocka_unit_test(stops_at_a_bad_line_after_the_good_ones),
        cmocka_unit_test_setup_teardown(takes_null_fields_and_nul_characters, setup, teardown),
        cmocka_unit_test_setup_teardown(gives_nothing_more_once_the_receiver_has_enough, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
