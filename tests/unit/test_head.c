/* The head parser: what it takes, what it refuses, at its limits, and in every cut (whole, bytewise, in two). */
#include "wire/head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define REQ  HEAD_REQUEST
#define RESP HEAD_RESPONSE
#define GET  "GET / HTTP/1.1\r\n"
#define OK   "HTTP/1.1 200 OK\r\n"

/* From an exact copy, so that a sanitizer sees each byte read too many, and nothing may point into an old buffer. */
static enum head_result feed(struct head *h, const char *text, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    enum head_result result;

    assert_non_null(copy);
    memcpy(copy, text, len);
    result = head_parse(h, copy, len);
    free(copy);
    return result;
}

static void assert_same_head(const struct head *a, const struct head *b)
{
    assert_int_equal(a->len, b->len);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->minor, b->minor);
    assert_memory_equal(&a->method, &b->method, sizeof(a->method));
    assert_memory_equal(&a->target, &b->target, sizeof(a->target));
    assert_memory_equal(&a->reason, &b->reason, sizeof(a->reason));
    assert_int_equal(a->field_count, b->field_count);
    assert_memory_equal(a->fields, b->fields, a->field_count * sizeof(a->fields[0]));
}

/* Parses in every cut; all must agree. Leaves the head of the whole parse in *h. */
static enum head_result parse(struct head *h, enum head_kind kind, const char *text, size_t len)
{
    size_t step = len > 2000 ? len / 50 : 1, cut;
    enum head_result whole, result;
    struct head other;

    head_init(h, kind);
    whole = feed(h, text, len);
    assert_true(whole == HEAD_MORE || whole == HEAD_DONE || h->why);

    head_init(&other, kind);
    for (cut = 1, result = HEAD_MORE; cut <= len && result == HEAD_MORE; cut++) {
        result = feed(&other, text, cut);
        /* Never behind by more than a CR that waits for its LF: so each byte is searched once or twice. */
        if (result == HEAD_MORE)
            assert_true(other.seen + other.scan + 1 >= cut);
    }
    assert_int_equal(result, whole);
    if (whole == HEAD_DONE)
        assert_same_head(&other, h);

    for (cut = 0; cut < len; cut += step) {
        head_init(&other, kind);
        result = feed(&other, text, cut);
        if (result == HEAD_MORE)
            result = feed(&other, text, len);
        assert_int_equal(result, whole);
        if (whole == HEAD_DONE)
            assert_same_head(&other, h);
    }
    return whole;
}

struct result_case {
    enum head_kind kind;
    const char *text;
    size_t len; /* 0: strlen */
    enum head_result result;
    const char *why; /* a part of it; NULL: any */
};

#define BYTES(text) text, sizeof(text) - 1

static const struct result_case results[] = {
    {REQ, GET "\r\n", 0, HEAD_DONE, NULL},
    {REQ, GET "\r", 0, HEAD_MORE, NULL},
    {REQ, "GET / HTTP/1.0\r\n\r\n", 0, HEAD_DONE, NULL},
    {REQ, GET "A:\r\nB:x\r\nC: \t y \t\r\n\r\nrest \x01", 0, HEAD_DONE, NULL},
    {REQ, GET "A: tab\there \xe4\xff\r\n\r\n", 0, HEAD_DONE, NULL},
    {REQ, GET "!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n", 0, HEAD_DONE, NULL},
    {REQ, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, HEAD_VERSION, "HTTP/1.1"},
    {REQ, "GET / HTTP/1.2\r\n\r\n", 0, HEAD_VERSION, NULL},
    {REQ, "GET / HTTP/0.9\r\n\r\n", 0, HEAD_VERSION, NULL},
    {REQ, "GET / HTTP/3.0\r\n\r\n", 0, HEAD_VERSION, NULL},
    {REQ, "GET / http/1.1\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET / HTTP/1.11\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET / HTTP/11\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET / HTTP/1.1 \r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET / HTTX/1.1\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET /\r\n\r\n", 0, HEAD_BAD, "single spaces"},
    {REQ, "GET\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET  / HTTP/1.1\r\n\r\n", 0, HEAD_BAD, "single spaces"},
    {REQ, "GET /  HTTP/1.1\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET /a b HTTP/1.1\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "GET\t/ HTTP/1.1\r\n\r\n", 0, HEAD_BAD, "tab"},
    {REQ, "GET /\xc3\xa4 HTTP/1.1\r\n\r\n", 0, HEAD_BAD, "above 0x7f"},
    {REQ, "G(T / HTTP/1.1\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, " GET / HTTP/1.1\r\n\r\n", 0, HEAD_BAD, NULL},
    {REQ, "\r\n" GET "\r\n", 0, HEAD_BAD, "empty line"},
    {REQ, "\n" GET "\r\n", 0, HEAD_BAD, "empty line"},
    {REQ, "GET / HTTP/1.1\n\r\n", 0, HEAD_BAD, "bare LF"},
    {REQ, "GET / HTTP/1.1\r\r\n\r\n", 0, HEAD_BAD, "CR without"},
    {REQ, GET "A: b\n\r\n", 0, HEAD_BAD, "bare LF"},
    {REQ, GET "A: b\rc: d\r\n\r\n", 0, HEAD_BAD, "CR without"},
    {REQ, GET "\r\rX", 0, HEAD_BAD, "CR without"},
    {REQ, GET "A: b\r\n\rX", 0, HEAD_BAD, "CR without"},
    {REQ, GET "A: b\r\n\n", 0, HEAD_BAD, "bare LF"},
    {REQ, GET "A: b\r\n c\r\n\r\n", 0, HEAD_BAD, "continued"},
    {REQ, GET "A: b\r\n\tc\r\n\r\n", 0, HEAD_BAD, "continued"},
    {REQ, GET " A: b\r\n\r\n", 0, HEAD_BAD, "continued"},
    {REQ, GET "A : b\r\n\r\n", 0, HEAD_BAD, "colon"},
    {REQ, GET "A\t: b\r\n\r\n", 0, HEAD_BAD, "colon"},
    {REQ, GET "A b: c\r\n\r\n", 0, HEAD_BAD, "white space"},
    {REQ, GET ": b\r\n\r\n", 0, HEAD_BAD, "without a name"},
    {REQ, GET ":\r\n\r\n", 0, HEAD_BAD, "without a name"},
    {REQ, GET "Ab\r\n\r\n", 0, HEAD_BAD, "no colon"},
    {REQ, GET "A\xe4: b\r\n\r\n", 0, HEAD_BAD, "field name"},
    {REQ, GET "A\"b: c\r\n\r\n", 0, HEAD_BAD, "field name"},
    {REQ, BYTES(GET "A: \0\r\n\r\n"), HEAD_BAD, "NUL"},
    {REQ, BYTES("GET /\0 HTTP/1.1\r\n\r\n"), HEAD_BAD, "NUL"},
    {REQ, GET "A: \x01", 0, HEAD_BAD, "control"},
    {REQ, GET "A: \x7f", 0, HEAD_BAD, "control"},
    {REQ, GET "A: \x1b[0m", 0, HEAD_BAD, "control"},
    {REQ, GET "A\x0b: b", 0, HEAD_BAD, "control"},
    {REQ, "\x16\x03\x01\x02\x00\x01", 6, HEAD_BAD, "TLS handshake"},
    {REQ, "\x16", 0, HEAD_BAD, "TLS handshake"},
    {REQ, "\x16X", 0, HEAD_BAD, "not an HTTP request"},
    {REQ, "\x81\x85", 0, HEAD_BAD, "not an HTTP request"},
    {RESP, OK "\r\n", 0, HEAD_DONE, NULL},
    {RESP, "HTTP/1.1 101\r\n\r\n", 0, HEAD_DONE, NULL},
    {RESP, "HTTP/1.1 101 \r\n\r\n", 0, HEAD_DONE, NULL},
    {RESP, "HTTP/1.0 404 Not F\xf6und (really)\r\nA: b\r\n\r\n", 0, HEAD_DONE, NULL},
    {RESP, "HTTP/2.0 200 OK\r\n\r\n", 0, HEAD_VERSION, NULL},
    {RESP, "HTTP/1.1 20 OK\r\n\r\n", 0, HEAD_BAD, "status"},
    {RESP, "HTTP/1.1 2000 OK\r\n\r\n", 0, HEAD_BAD, "status"},
    {RESP, "HTTP/1.1 2x0 OK\r\n\r\n", 0, HEAD_BAD, "status"},
    {RESP, "HTTP/1.1  200 OK\r\n\r\n", 0, HEAD_BAD, "status"},
    {RESP, "HTTP/1.1 200\tOK\r\n\r\n", 0, HEAD_BAD, NULL},
    {RESP, "HTTP/1.1 200 O\tK\r\n\r\n", 0, HEAD_BAD, "tab"},
    {RESP, "HTTP/1.1\r\n\r\n", 0, HEAD_BAD, NULL},
    {RESP, "HTTP/1.1x200 OK\r\n\r\n", 0, HEAD_BAD, NULL},
    {RESP, "HTTP/1.1200 OK\r\n\r\n", 0, HEAD_BAD, NULL},
    {RESP, "HTTP/1.1 200 OK\n\n", 0, HEAD_BAD, "bare LF"},
    {RESP, "SSH-2.0-OpenSSH_9.2\r\n", 0, HEAD_BAD, "not HTTP"},
    {RESP, "\r\nHTTP/1.1 200 OK\r\n\r\n", 0, HEAD_BAD, "not HTTP"},
    {RESP, "\x15\x03\x01\x00\x02\x02\x28", 7, HEAD_BAD, "wss://"},
    {RESP, "HTT", 0, HEAD_MORE, NULL},
};

static void gives_its_result_in_every_cut(void **state)
{
    struct head h;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        const struct result_case *c = &results[i];
        enum head_result result = parse(&h, c->kind, c->text, c->len ? c->len : strlen(c->text));

        if (result != c->result || (c->why && !strstr(h.why, c->why)))
            fail_msg("case %zu `%s`: result %d, why %s", i, c->text, (int)result, h.why ? h.why : "-");
    }
}

static void refuses_every_control_byte_before_its_line_ends(void **state)
{
    static const char *const before[] = {"GET /", GET "Na", GET "Name: va"};
    char text[64];
    struct head h;
    size_t i, n;
    int c;

    (void)state;
    for (i = 0; i < 3; i++)
        for (c = 0; c < 256; c++) {
            if ((c >= 0x20 && c != 0x7f) || c == '\r' || c == '\t')
                continue;
            n = strlen(before[i]);
            memcpy(text, before[i], n);
            text[n] = (char)c;
            assert_int_equal(parse(&h, REQ, text, n + 1), HEAD_BAD);
        }
}

static void slices_say_where_things_stand(void **state)
{
    static const char text[] = "GET /a?b HTTP/1.1\r\nHost: \t x:1 \t\r\nEmpty:  \r\nLast:z\r\n\r\nmore";
    const uint8_t *bytes = (const uint8_t *)text;
    struct head h;

    (void)state;
    assert_int_equal(parse(&h, REQ, text, sizeof(text) - 1), HEAD_DONE);
    assert_int_equal(h.len, sizeof(text) - 1 - 4);
    assert_int_equal(h.minor, 1);
    assert_true(head_slice_is(h.method, bytes, "GET"));
    assert_true(head_slice_is(h.target, bytes, "/a?b"));
    assert_int_equal(h.field_count, 3);
    assert_true(head_slice_is(h.fields[0].name, bytes, "Host"));
    assert_true(head_slice_is(h.fields[0].value, bytes, "x:1"));
    assert_int_equal(h.fields[1].value.len, 0);
    assert_true(head_slice_is(h.fields[2].value, bytes, "z"));
}

static void status_and_reason_are_read(void **state)
{
    static const char text[] = "HTTP/1.0 418 I'm a  pot\r\n\r\n";
    struct head h;

    (void)state;
    assert_int_equal(parse(&h, RESP, text, sizeof(text) - 1), HEAD_DONE);
    assert_int_equal(h.status, 418);
    assert_int_equal(h.minor, 0);
    assert_true(head_slice_is(h.reason, (const uint8_t *)text, "I'm a  pot"));
}

/* prefix + `fill` times 'a' + suffix; the caller frees. */
static char *filled(const char *prefix, size_t fill, const char *suffix, size_t *len)
{
    char *text = malloc(strlen(prefix) + fill + strlen(suffix) + 1);

    assert_non_null(text);
    strcpy(text, prefix);
    memset(text + strlen(prefix), 'a', fill);
    strcpy(text + strlen(prefix) + fill, suffix);
    *len = strlen(text);
    return text;
}

static void limits_hold_to_the_byte(void **state)
{
    static const struct {
        enum head_kind kind;
        const char *prefix;
        size_t fill;
        const char *suffix;
        enum head_result result;
    } cases[] = {
        {REQ, "GET /", HEAD_MAX_TARGET - 1, " HTTP/1.1\r\n\r\n", HEAD_DONE},
        {REQ, "GET /", HEAD_MAX_TARGET, " HTTP/1.1\r\n\r\n", HEAD_TARGET_TOO_LONG},
        {REQ, "GET /", HEAD_MAX_TARGET + 5000, "", HEAD_TARGET_TOO_LONG},
        {REQ, "GET /", HEAD_MAX_TARGET + 5000, "\r\n\r\n", HEAD_TARGET_TOO_LONG},
        {REQ, "GET / ", HEAD_MAX_TARGET + 5000, "", HEAD_BAD},
        {REQ, "", 32, " / HTTP/1.1\r\n\r\n", HEAD_DONE},
        {REQ, "", 33, " / HTTP/1.1\r\n\r\n", HEAD_BAD},
        {REQ, "", 16000, "", HEAD_BAD},
        {REQ, GET "A:", HEAD_MAX_LINE - 2, "\r\n\r\n", HEAD_DONE},
        {REQ, GET "A:", HEAD_MAX_LINE - 1, "\r\n\r\n", HEAD_TOO_LARGE},
        {REQ, GET "A:", HEAD_MAX_LINE - 2, "", HEAD_MORE},
        {REQ, GET "A:", HEAD_MAX_LINE - 1, "", HEAD_TOO_LARGE},
        {RESP, "HTTP/1.1 200 ", HEAD_MAX_LINE - 13, "\r\n\r\n", HEAD_DONE},
        {RESP, "HTTP/1.1 200 ", HEAD_MAX_LINE - 12, "\r\n\r\n", HEAD_TOO_LARGE},
    };
    struct head h;
    size_t i, len;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = filled(cases[i].prefix, cases[i].fill, cases[i].suffix, &len);
        enum head_result result = parse(&h, cases[i].kind, text, len);

        free(text);
        if (result != cases[i].result)
            fail_msg("case %zu: result %d, why %s", i, (int)result, h.why ? h.why : "-");
    }
}

static void field_count_is_bounded(void **state)
{
    char text[HEAD_MAX_BYTES];
    size_t count, n, i;
    struct head h;

    (void)state;
    for (count = HEAD_MAX_FIELDS; count <= HEAD_MAX_FIELDS + 1; count++) {
        n = (size_t)sprintf(text, GET);
        for (i = 0; i < count; i++)
            n += (size_t)sprintf(text + n, "N%zu: v\r\n", i);
        n += (size_t)sprintf(text + n, "\r\n");
        assert_int_equal(parse(&h, REQ, text, n), count > HEAD_MAX_FIELDS ? HEAD_TOO_LARGE : HEAD_DONE);
    }
}

static void head_size_is_bounded(void **state)
{
    size_t extra, len;
    struct head h;

    (void)state;
    for (extra = 0; extra < 3; extra++) {
        size_t first = 8180, fixed = strlen(GET "A: \r\nB: \r\n\r\n");
        char *front = filled(GET "A: ", first, "\r\nB: ", &len);
        char *text = filled(front, HEAD_MAX_BYTES - fixed - first + extra, "\r\n\r\n", &len);

        assert_int_equal(len, HEAD_MAX_BYTES + extra);
        assert_int_equal(parse(&h, REQ, text, len), extra ? HEAD_TOO_LARGE : HEAD_DONE);
        /* Full without an end: it cannot become good. */
        assert_int_equal(parse(&h, REQ, text, HEAD_MAX_BYTES - 1), HEAD_MORE);
        if (extra)
            assert_int_equal(parse(&h, REQ, text, HEAD_MAX_BYTES), HEAD_TOO_LARGE);
        free(front);
        free(text);
    }
}

static void finds_fields_without_case(void **state)
{
    static const char text[] = GET "Cookie: a\r\ncookie: b\r\nCookies: c\r\nAZ^: d\r\n\r\n";
    const uint8_t *bytes = (const uint8_t *)text;
    const struct head_field *f;
    struct head h;
    size_t at = 0;

    (void)state;
    assert_int_equal(parse(&h, REQ, text, sizeof(text) - 1), HEAD_DONE);
    assert_int_equal(head_count(&h, bytes, "COOKIE"), 2);
    f = head_find(&h, bytes, "cookie", &at);
    assert_true(f && head_slice_is(f->value, bytes, "a"));
    f = head_find(&h, bytes, "cookie", &at);
    assert_true(f && head_slice_is(f->value, bytes, "b"));
    assert_null(head_find(&h, bytes, "cookie", &at));
    assert_int_equal(head_count(&h, bytes, "Cook"), 0);
    assert_int_equal(head_count(&h, bytes, "az^"), 1);
    assert_int_equal(head_count(&h, bytes, "az~"), 0); /* 0x20 apart, yet no letters */
}

static void splits_lists_at_commas_outside_quotes(void **state)
{
    static const char text[] = " , a ,,b;c=\"x,\\\",y\"\t, d e ,\"open, f";
    static const char *const want[] = {"a", "b;c=\"x,\\\",y\"", "d e", "\"open, f"};
    struct head_slice rest = {0, sizeof(text) - 1}, item;
    size_t i;

    (void)state;
    for (i = 0; i < 4; i++) {
        assert_true(head_list_next((const uint8_t *)text, &rest, &item));
        assert_true(head_slice_is(item, (const uint8_t *)text, want[i]));
    }
    assert_false(head_list_next((const uint8_t *)text, &rest, &item));
    rest = (struct head_slice){0, 2};
    assert_false(head_list_next((const uint8_t *)text, &rest, &item));
}

static void tokens_are_whole_elements(void **state)
{
    static const char text[] =
        GET "Connection: keep-alive, UpGrade\r\nUpgrade: foo\r\nUpgrade: h2c, websocket\r\n\r\n";
    const uint8_t *bytes = (const uint8_t *)text;
    struct head h;

    (void)state;
    assert_int_equal(parse(&h, REQ, text, sizeof(text) - 1), HEAD_DONE);
    assert_true(head_has_token(&h, bytes, "connection", "upgrade"));
    assert_true(head_has_token(&h, bytes, "Upgrade", "WebSocket"));
    assert_false(head_has_token(&h, bytes, "Connection", "u"));
    assert_false(head_has_token(&h, bytes, "Connection", "keep"));
    assert_false(head_has_token(&h, bytes, "Upgrade", "web"));
}

static void marks_the_fields_that_connection_names(void **state)
{
    static const char text[] =
        GET "A: 1\r\nConnection: x, a\r\nB: 2\r\na: 3\r\nConnection: B\r\nC: 4\r\n\r\n";
    static const bool want[] = {true, false, true, true, false, false};
    bool named[HEAD_MAX_FIELDS];
    struct head h;
    char many[512] = GET "Connection: ";
    int i;

    (void)state;
    assert_int_equal(parse(&h, REQ, text, sizeof(text) - 1), HEAD_DONE);
    assert_true(head_mark_named(&h, (const uint8_t *)text, named));
    assert_memory_equal(named, want, sizeof(want));

    for (i = 0; i < HEAD_MAX_ITEMS; i++)
        strcat(many, "a,");
    strcat(many, "\r\n\r\n");
    assert_int_equal(parse(&h, REQ, many, strlen(many)), HEAD_DONE);
    assert_true(head_mark_named(&h, (const uint8_t *)many, named));
    strcpy(strstr(many, "\r\n\r\n"), "b\r\n\r\n");
    assert_int_equal(parse(&h, REQ, many, strlen(many)), HEAD_DONE);
    assert_false(head_mark_named(&h, (const uint8_t *)many, named));
}

static void tokens_have_the_bytes_of_rfc_9110(void **state)
{
    int c;

    (void)state;
    for (c = 0; c < 256; c++) {
        uint8_t byte = (uint8_t)c;
        bool want = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    (c && c < 0x80 && strchr("!#$%&'*+-.^_`|~", c));

        if (head_is_token(&byte, 1) != want)
            fail_msg("byte 0x%02x", (unsigned)c);
    }
    assert_false(head_is_token((const uint8_t *)"", 0));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_its_result_in_every_cut),
        cmocka_unit_test(refuses_every_control_byte_before_its_line_ends),
        cmocka_unit_test(slices_say_where_things_stand),
        cmocka_unit_test(status_and_reason_are_read),
        cmocka_unit_test(limits_hold_to_the_byte),
        cmocka_unit_test(field_count_is_bounded),
        cmocka_unit_test(head_size_is_bounded),
        cmocka_unit_test(finds_fields_without_case),
        cmocka_unit_test(splits_lists_at_commas_outside_quotes),
        cmocka_unit_test(tokens_are_whole_elements),
        cmocka_unit_test(marks_the_fields_that_connection_names),
        cmocka_unit_test(tokens_have_the_bytes_of_rfc_9110),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
