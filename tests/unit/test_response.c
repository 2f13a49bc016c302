/* The backend's answer: when the tunnel may open, what the client gets, where a body ends; answers of our own. */
#include "wire/response.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ASKED                                                                                                \
    "GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"               \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define OFFER                                                                                                \
    "Sec-WebSocket-Protocol: chat, v2.chat\r\nSec-WebSocket-Protocol: x\r\n"                                 \
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, foo\r\n"                          \
    "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n"

#define SWITCH "HTTP/1.1 101 Switching Protocols\r\n"
#define UP     "Upgrade: websocket\r\n"
#define CONN   "Connection: Upgrade\r\n"
#define ACCEPT "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
#define GOOD   SWITCH UP CONN ACCEPT
#define EXT    GOOD "Sec-WebSocket-Extensions: "
#define FINAL  "HTTP/1.1 200 OK\r\n"

static void parse(struct head *h, enum head_kind kind, const char *text)
{
    head_init(h, kind);
    if (head_parse(h, (const uint8_t *)text, strlen(text)) != HEAD_DONE)
        fail_msg("`%s` does not parse: %s", text, h->why ? h->why : "incomplete");
}

static struct response check(const char *answer, const char *request)
{
    static const struct spec_server server = {.headers = {.keep_host = true}};
    struct head h, request_head;
    struct request r;

    parse(&request_head, HEAD_REQUEST, request);
    assert_int_equal(request_check(&request_head, (const uint8_t *)request, &server, &r).status, 0);
    parse(&h, HEAD_RESPONSE, answer);
    return response_check(&h, (const uint8_t *)answer, &request_head, (const uint8_t *)request, &r);
}

static const struct {
    const char *head; /* without its empty line */
    enum response_kind kind;
    const char *why;
    uint8_t rsv_mask;
} answers[] = {
    {GOOD, RESPONSE_UPGRADE, NULL, 0},
    {"HTTP/1.1 101\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n" ACCEPT, RESPONSE_UPGRADE,
     NULL, 0},

    /* S13 */
    {FINAL, RESPONSE_FINAL, NULL, 0},
    {FINAL UP CONN ACCEPT, RESPONSE_FINAL, NULL, 0},
    {"HTTP/1.1 426 Upgrade Required\r\n", RESPONSE_FINAL, NULL, 0},
    {"HTTP/1.0 302 Found\r\n", RESPONSE_FINAL, NULL, 0},
    {"HTTP/1.1 599 ?\r\n", RESPONSE_FINAL, NULL, 0},
    {"HTTP/1.1 600 ?\r\n", RESPONSE_BAD, "status", 0},
    {"HTTP/1.1 099 ?\r\n", RESPONSE_BAD, "status", 0},
    {"HTTP/1.1 000 ?\r\n", RESPONSE_BAD, "status", 0},
    {"HTTP/1.1 100 Continue\r\n", RESPONSE_INTERIM, NULL, 0},
    {"HTTP/1.1 102 Processing\r\n", RESPONSE_INTERIM, NULL, 0},
    {"HTTP/1.1 199 ?\r\n" UP CONN ACCEPT, RESPONSE_INTERIM, NULL, 0},

    /* S14 */
    {"HTTP/1.0 101 Switching\r\n" UP CONN ACCEPT, RESPONSE_BAD, "HTTP/1.0", 0},
    {SWITCH CONN ACCEPT, RESPONSE_BAD, "Upgrade: websocket", 0},
    {SWITCH UP UP CONN ACCEPT, RESPONSE_BAD, "Upgrade: websocket", 0},
    {SWITCH "Upgrade: h2c\r\n" CONN ACCEPT, RESPONSE_BAD, "Upgrade: websocket", 0},
    {SWITCH "Upgrade: websocket, h2c\r\n" CONN ACCEPT, RESPONSE_BAD, "Upgrade: websocket", 0},
    {SWITCH UP ACCEPT, RESPONSE_BAD, "Connection", 0},
    {SWITCH UP "Connection: upgrad\r\n" ACCEPT, RESPONSE_BAD, "Connection", 0},
    {SWITCH UP CONN, RESPONSE_BAD, "no Sec-WebSocket-Accept", 0},
    {SWITCH UP CONN ACCEPT ACCEPT, RESPONSE_BAD, "more than one", 0},
    {SWITCH UP CONN "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", RESPONSE_BAD, "fit", 0},
    {SWITCH UP CONN "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo\r\n", RESPONSE_BAD, "fit", 0},
    {SWITCH UP CONN "Sec-WebSocket-Accept:\r\n", RESPONSE_BAD, "fit", 0},
    {GOOD "Content-Length: 0\r\n", RESPONSE_UPGRADE, NULL, 0},
    {GOOD "Content-Length: 1\r\n", RESPONSE_BAD, "body", 0},
    {GOOD "Content-Length: 0\r\nContent-Length: 0\r\n", RESPONSE_BAD, "body", 0},
    {GOOD "Transfer-Encoding: chunked\r\n", RESPONSE_BAD, "body", 0},

    /* S15 */
    {GOOD "Sec-WebSocket-Protocol: v2.chat\r\n", RESPONSE_UPGRADE, NULL, 0},
    {GOOD "Sec-WebSocket-Protocol: x\r\n", RESPONSE_UPGRADE, NULL, 0},
    {GOOD "Sec-WebSocket-Protocol: Chat\r\n", RESPONSE_BAD, "subprotocol", 0},
    {GOOD "Sec-WebSocket-Protocol: chat, x\r\n", RESPONSE_BAD, "subprotocol", 0},
    {GOOD "Sec-WebSocket-Protocol: v2\r\n", RESPONSE_BAD, "subprotocol", 0},
    {GOOD "Sec-WebSocket-Protocol:\r\n", RESPONSE_BAD, "subprotocol", 0},
    {GOOD "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: x\r\n", RESPONSE_BAD, "more than one", 0},
    {EXT "permessage-deflate; server_no_context_takeover\r\n", RESPONSE_UPGRADE, NULL, RESPONSE_RSV1},
    {EXT "x-webkit-deflate-frame\r\n", RESPONSE_UPGRADE, NULL, RESPONSE_RSV1},
    {EXT "foo\r\n", RESPONSE_UPGRADE, NULL, RESPONSE_RSV_ALL},
    {EXT "permessage-deflate, foo; a=\"b\"\r\n", RESPONSE_UPGRADE, NULL, RESPONSE_RSV_ALL},
    {EXT "bar\r\n", RESPONSE_BAD, "extension", 0},
    {EXT "permessage-deflate, bar\r\n", RESPONSE_BAD, "extension", 0},
    {EXT "Permessage-Deflate\r\n", RESPONSE_BAD, "extension", 0},
    {EXT "client_max_window_bits\r\n", RESPONSE_BAD, "extension", 0},
    {EXT "permessage-deflate, permessage-deflate\r\n", RESPONSE_BAD, "twice", 0},
    {EXT "permessage-deflate; a b\r\n", RESPONSE_BAD, "malformed", 0},
    {EXT "\r\n", RESPONSE_BAD, "malformed", 0},
    {EXT "foo\r\nSec-WebSocket-Extensions: permessage-deflate\r\n", RESPONSE_BAD, "more than one", 0},
};

static void each_answer_gets_its_verdict(void **state)
{
    char text[1024];
    struct response r;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        snprintf(text, sizeof(text), "%s\r\n", answers[i].head);
        r = check(text, ASKED OFFER "\r\n");
        if (r.kind != answers[i].kind || r.rsv_mask != answers[i].rsv_mask ||
            (r.kind == RESPONSE_BAD) != (r.why != NULL) || (r.why && !strstr(r.why, answers[i].why)))
            fail_msg("case %zu\n%s-> %d rsv %x %s", i, text, (int)r.kind, r.rsv_mask, r.why ? r.why : "");
    }
}

static void nothing_offered_means_nothing_agreed(void **state)
{
    (void)state;
    assert_int_equal(check(GOOD "\r\n", ASKED "\r\n").kind, RESPONSE_UPGRADE);
    assert_int_equal(check(GOOD "Sec-WebSocket-Protocol: x\r\n\r\n", ASKED "\r\n").kind, RESPONSE_BAD);
    assert_int_equal(check(EXT "foo\r\n\r\n", ASKED "\r\n").kind, RESPONSE_BAD);
}

static void the_agreed_protocol_is_told(void **state)
{
    static const char text[] = GOOD "Sec-WebSocket-Protocol: \tv2.chat \r\n\r\n";
    struct response r = check(text, ASKED OFFER "\r\n");

    (void)state;
    assert_true(head_slice_is(r.protocol, (const uint8_t *)text, "v2.chat"));
    assert_int_equal(check(GOOD "\r\n", ASKED OFFER "\r\n").protocol.len, 0);
}

static void the_101_goes_on_with_its_own_fields(void **state)
{
    static const char text[] =
        "HTTP/1.1 101 Go\r\nSet-Cookie: a\r\nupgrade: WebSocket\r\nConnection: Upgrade, X-Hop\r\n"
        "Connection: sec-websocket-accept\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n" ACCEPT
        "set-cookie:b\r\nContent-Length: 0\r\n"
        "Sec-WebSocket-Protocol: x\r\n\r\n";
    static const char want[] =
        "HTTP/1.1 101 Go\r\nSet-Cookie: a\r\n" ACCEPT "set-cookie: b\r\n"
        "Sec-WebSocket-Protocol: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    struct head h;
    struct buf out;

    (void)state;
    parse(&h, HEAD_RESPONSE, text);
    buf_init(&out, HEAD_MAX_BYTES);
    assert_int_equal(response_forward_upgrade(&h, (const uint8_t *)text, &out), 0);
    assert_int_equal(out.len, sizeof(want) - 1);
    assert_memory_equal(out.data, want, out.len);
    buf_free(&out);
}

struct final_case {
    const char *head; /* without its empty line */
    const char *want; /* NULL: refused */
    enum body_kind kind;
    uint64_t left;
    bool done;
};

#define CLOSE "Connection: close\r\n"

static const struct final_case finals[] = {
    {FINAL, FINAL CLOSE, BODY_UNTIL_EOF, 0, false},
    {"HTTP/1.0 404 Not F\xf6und\r\nContent-length: 12\r\n",
     "HTTP/1.1 404 Not F\xf6und\r\nContent-length: 12\r\n" CLOSE, BODY_LENGTH, 12, false},
    {"HTTP/1.1 401\r\nContent-Length: 0\r\nWWW-Authenticate: Basic\r\nConnection: keep-alive\r\nKeep-Alive: "
     "9\r\n",
     "HTTP/1.1 401 \r\nContent-Length: 0\r\nWWW-Authenticate: Basic\r\n" CLOSE, BODY_LENGTH, 0, true},
    {FINAL "Transfer-Encoding: Chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTrailer: x\r\n",
     FINAL "Transfer-Encoding: Chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n" CLOSE, BODY_CHUNKED, 0, false},
    {FINAL
     "Connection: X-Quite-A-Long-Name\r\nX-Quite-A-Long-Name: 1\r\nContent-Length: 999999999999999999\r\n",
     FINAL "Content-Length: 999999999999999999\r\n" CLOSE, BODY_LENGTH, 999999999999999999, false},
    {FINAL "Content-Length: 0000000000000000000\r\n", NULL, 0, 0, false},
    {FINAL "Connection: Content-Length, X\r\nX: 1\r\nContent-Length: 3\r\n",
     FINAL "Content-Length: 3\r\n" CLOSE, BODY_LENGTH, 3, false},
    {FINAL UP CONN "Proxy-Authenticate: x\r\nProxy-Connection: x\r\n", FINAL CLOSE, BODY_UNTIL_EOF, 0, false},
    {"HTTP/1.1 426 No\r\nUpgrade: h2c\r\nContent-Length: 1\r\n",
     "HTTP/1.1 426 No\r\nContent-Length: 1\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n",
     BODY_LENGTH, 1, false},
    {"HTTP/1.1 426 No\r\nContent-Length: 0\r\n", "HTTP/1.1 426 No\r\nContent-Length: 0\r\n" CLOSE,
     BODY_LENGTH, 0, true},
    {"HTTP/1.1 304 No\r\nContent-Length: 7\r\n", "HTTP/1.1 304 No\r\nContent-Length: 7\r\n" CLOSE, BODY_NONE,
     7, true},
    {"HTTP/1.1 204 No\r\nContent-Length: 7\r\n", "HTTP/1.1 204 No\r\n" CLOSE, BODY_NONE, 7, true},
    {"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n", "HTTP/1.1 204 No\r\n" CLOSE, BODY_NONE, 0, true},
    {FINAL "Content-Length: 3\r\nContent-Length: 3\r\n", NULL, 0, 0, false},
    {FINAL "Content-Length: 3, 3\r\n", NULL, 0, 0, false},
    {FINAL "Content-Length:\r\n", NULL, 0, 0, false},
    {FINAL "Content-Length: +3\r\n", NULL, 0, 0, false},
    {FINAL "Content-Length: 0x3\r\n", NULL, 0, 0, false},
    {FINAL "Content-Length: 18446744073709551617\r\n", NULL, 0, 0, false},
    {FINAL "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", NULL, 0, 0, false},
    {FINAL "Transfer-Encoding: gzip, chunked\r\n", NULL, 0, 0, false},
    {FINAL "Transfer-Encoding: identity\r\n", NULL, 0, 0, false},
    {FINAL "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", NULL, 0, 0, false},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", NULL, 0, 0, false},
    {"HTTP/1.1 304 No\r\nContent-Length: 7\r\nContent-Length: 8\r\n", NULL, 0, 0, false},
};

static void other_answers_go_on_and_say_close(void **state)
{
    char text[1024], want[1024];
    struct body body;
    struct head h;
    struct buf out;
    size_t i;
    int rc;

    (void)state;
    for (i = 0; i < sizeof(finals) / sizeof(finals[0]); i++) {
        snprintf(text, sizeof(text), "%s\r\n", finals[i].head);
        parse(&h, HEAD_RESPONSE, text);
        buf_init(&out, HEAD_MAX_BYTES);
        rc = response_forward_final(&h, (const uint8_t *)text, &out, &body);
        if (rc != (finals[i].want ? 0 : -1))
            fail_msg("case %zu: %d", i, rc);
        if (finals[i].want) {
            snprintf(want, sizeof(want), "%s\r\n", finals[i].want);
            assert_int_equal(buf_add(&out, "", 1), 0);
            assert_string_equal((const char *)out.data, want);
            assert_int_equal(body.kind, finals[i].kind);
            assert_int_equal(body.left, finals[i].left);
            assert_int_equal(body.done, finals[i].done);
            assert_false(body.failed);
        }
        buf_free(&out);
    }
}

/* From exact copies, so that a sanitizer sees each byte read too many. */
static size_t feed(struct body *b, const char *bytes, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    size_t n;

    assert_non_null(copy);
    memcpy(copy, bytes, len);
    n = body_feed(b, copy, len);
    assert_true(n <= len);
    assert_true(n == len || b->done || b->failed);
    free(copy);
    return n;
}

/* Feeds in every cut; all must agree. */
static struct body feed_all(struct body start, const char *bytes, size_t len, size_t *taken)
{
    size_t step = len > 2000 ? len / 50 : 1, cut, n, bytewise = len > 2000 ? 4099 : 1;
    struct body whole = start, b;

    *taken = feed(&whole, bytes, len);
    for (b = start, n = 0, cut = 0; cut < len && !b.done && !b.failed; cut += bytewise)
        n += feed(&b, bytes + cut, len - cut < bytewise ? len - cut : bytewise);
    assert_int_equal(n, *taken);
    assert_int_equal(b.done, whole.done);
    assert_int_equal(b.failed, whole.failed);
    for (cut = 0; cut < len; cut += step) {
        b = start;
        n = feed(&b, bytes, cut);
        if (!b.done && !b.failed)
            n += feed(&b, bytes + cut, len - cut);
        assert_int_equal(n, *taken);
        assert_int_equal(b.total, whole.total);
        assert_int_equal(b.done, whole.done);
        assert_int_equal(b.failed, whole.failed);
    }
    assert_int_equal(whole.total, start.total + *taken);
    b = whole;
    if (b.done || b.failed)
        assert_int_equal(feed(&b, "00000000", 8), 0);
    return whole;
}

static void chunks_are_followed_to_their_end(void **state)
{
    enum { MORE, DONE, FAILED };
    static const struct {
        const char *bytes;
        size_t taken; /* 0: all */
        int result;
    } cases[] = {
        {"0\r\n\r\n", 0, DONE},
        {"0\r\n\r\nnext", 5, DONE},
        {"3\r\nabc\r\n0\r\n\r\n", 0, DONE},
        {"3\r\na\r\n\r\n00000000\r\n\r\n", 0, DONE},
        {"aB\r\n", 0, MORE},
        {"A\r\n0123456789\r\n9\r\n012345678\r\nf\r\n0123456789abcde\r\n0\r\n\r\n", 0, DONE},
        {"1;a=b;c=\"d\t\xff\"\r\nx\r\n0;z\r\n\r\n", 0, DONE},
        {"0\r\nA: b\r\nC-d:\te\r\nF:\r\n\r\nX", 23, DONE},
        {"0\r\nA: b\r\n", 0, MORE},
        {"\r\n", 0, FAILED},
        {"x", 0, FAILED},
        {";\r\n", 0, FAILED},
        {" 1\r\n", 0, FAILED},
        {"1 \r\n", 1, FAILED},
        {"-1\r\n", 0, FAILED},
        {"0x1\r\n", 1, FAILED},
        {"1\n", 1, FAILED},
        {"1\rx", 2, FAILED},
        {"1;\x01", 2, FAILED},
        {"1;a\n", 3, FAILED},
        {"1\r\nab", 4, FAILED},
        {"1\r\na\n", 4, FAILED},
        {"1\r\na\r\r", 5, FAILED},
        {"000000001\r\n", 8, FAILED},
        {"0\r\n\n", 3, FAILED},
        {"0\r\n\rx", 4, FAILED},
        {"0\r\n a: b\r\n\r\n", 3, FAILED},
        {"0\r\n: b\r\n\r\n", 3, FAILED},
        {"0\r\nab\r\n\r\n", 5, FAILED},
        {"0\r\na : b\r\n\r\n", 4, FAILED},
        {"0\r\na: b\n\r\n", 7, FAILED},
        {"0\r\na: b\r\n c\r\n\r\n", 9, FAILED},
        {"0\r\na: \x01", 6, FAILED},
    };
    static const struct body chunked = {.kind = BODY_CHUNKED};
    size_t i, taken;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t len = strlen(cases[i].bytes);
        struct body b = feed_all(chunked, cases[i].bytes, len, &taken);
        size_t want = cases[i].taken || cases[i].result == FAILED ? cases[i].taken : len;

        if (taken != want || b.done != (cases[i].result == DONE) || b.failed != (cases[i].result == FAILED))
            fail_msg("case %zu: %zu bytes, done %d, failed %d", i, taken, b.done, b.failed);
    }
}

static void chunk_extensions_and_trailers_are_bounded(void **state)
{
    static const struct body chunked = {.kind = BODY_CHUNKED};
    static char text[8192];
    size_t extra, taken, n;

    (void)state;
    for (extra = 0; extra < 2; extra++) {
        n = (size_t)sprintf(text, "1;");
        memset(text + n, 'x', RESPONSE_MAX_CHUNK_EXTENSION + extra);
        strcpy(text + n + RESPONSE_MAX_CHUNK_EXTENSION + extra, "\r\na\r\n0\r\n\r\n");
        assert_int_equal(feed_all(chunked, text, strlen(text), &taken).done, !extra);

        /* The trailer's bytes count up to its last CR, without the LFs. */
        n = (size_t)sprintf(text, "0\r\na:");
        memset(text + n, 'x', RESPONSE_MAX_TRAILER - 4 + extra);
        strcpy(text + n + RESPONSE_MAX_TRAILER - 4 + extra, "\r\n\r\n");
        assert_int_equal(feed_all(chunked, text, strlen(text), &taken).done, !extra);
    }
}

static void bodies_end_at_their_length_and_at_the_limit(void **state)
{
    static char text[RESPONSE_MAX_BODY + 10];
    static const struct {
        struct body start;
        size_t len, taken;
        bool done, failed;
    } cases[] = {
        {{.kind = BODY_LENGTH, .left = 5}, 4, 4, false, false},
        {{.kind = BODY_LENGTH, .left = 5}, 5, 5, true, false},
        {{.kind = BODY_LENGTH, .left = 5}, 9, 5, true, false},
        {{.kind = BODY_LENGTH, .left = RESPONSE_MAX_BODY},
         RESPONSE_MAX_BODY + 1,
         RESPONSE_MAX_BODY,
         true,
         false},
        {{.kind = BODY_LENGTH, .left = RESPONSE_MAX_BODY + 1},
         RESPONSE_MAX_BODY,
         RESPONSE_MAX_BODY,
         false,
         false},
        {{.kind = BODY_LENGTH, .left = RESPONSE_MAX_BODY + 1},
         RESPONSE_MAX_BODY + 1,
         RESPONSE_MAX_BODY,
         false,
         true},
        {{.kind = BODY_UNTIL_EOF}, RESPONSE_MAX_BODY, RESPONSE_MAX_BODY, false, false},
        {{.kind = BODY_UNTIL_EOF}, RESPONSE_MAX_BODY + 1, RESPONSE_MAX_BODY, false, true},
        {{.kind = BODY_CHUNKED, .chunk_state = 0}, RESPONSE_MAX_BODY + 1, RESPONSE_MAX_BODY, false, true},
    };
    size_t i, taken;

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "ffffffff\r\n", 10);
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct body b = feed_all(cases[i].start, text, cases[i].len, &taken);

        if (taken != cases[i].taken || b.done != cases[i].done || b.failed != cases[i].failed)
            fail_msg("case %zu: %zu bytes, done %d, failed %d", i, taken, b.done, b.failed);
    }
}

static void our_own_answers_say_why(void **state)
{
    static const struct {
        int status;
        unsigned retry_after_s;
        const char *want;
    } cases[] = {
        {400, 0,
         "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
         "Content-Length: 4\r\n\r\nwhy\n"},
        {405, 0,
         "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nAllow: GET\r\n"
         "Content-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\n\r\nwhy\n"},
        {426, 0,
         "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nContent-Type: text/plain; charset=utf-8\r\n"
         "Content-Length: 4\r\n\r\nwhy\n"},
        {503, 5,
         "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
         "Content-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\n\r\nwhy\n"},
    };
    static const int statuses[] = {400, 403, 405, 408, 414, 421, 426, 431, 500, 502, 503, 504, 505};
    struct body body;
    struct head h;
    struct buf out, again;
    size_t i, k;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buf_init(&out, 1024);
        assert_int_equal(answer_emit(cases[i].status, cases[i].retry_after_s, "why", &out), 0);
        assert_int_equal(out.len, strlen(cases[i].want));
        assert_memory_equal(out.data, cases[i].want, out.len);
        buf_free(&out);
    }
    for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        buf_init(&out, 1024);
        buf_init(&again, 1024);
        assert_int_equal(answer_emit(statuses[i], 0, "a longer sentence that says why", &out), 0);
        head_init(&h, HEAD_RESPONSE);
        assert_int_equal(head_parse(&h, out.data, out.len), HEAD_DONE);
        assert_int_equal(h.status, statuses[i]);
        assert_int_equal(response_forward_final(&h, out.data, &again, &body), 0);
        assert_int_equal(body_feed(&body, out.data + h.len, out.len - h.len), out.len - h.len);
        assert_true(body.done);
        for (k = 0; k < i; k++)
            assert_string_not_equal(answer_reason(statuses[i]), answer_reason(statuses[k]));
        buf_free(&out);
        buf_free(&again);
    }
    buf_init(&out, 100);
    assert_int_equal(answer_emit(400, 0, "why", &out), -1);
    buf_free(&out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_answer_gets_its_verdict),
        cmocka_unit_test(nothing_offered_means_nothing_agreed),
        cmocka_unit_test(the_agreed_protocol_is_told),
        cmocka_unit_test(the_101_goes_on_with_its_own_fields),
        cmocka_unit_test(other_answers_go_on_and_say_close),
        cmocka_unit_test(chunks_are_followed_to_their_end),
        cmocka_unit_test(chunk_extensions_and_trailers_are_bounded),
        cmocka_unit_test(bodies_end_at_their_length_and_at_the_limit),
        cmocka_unit_test(our_own_answers_say_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
