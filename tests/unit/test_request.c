/* The opening handshake: which requests are one, what each other is told, and what the backend gets to see. */
#include "wire/request.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GET   "GET /chat?x=1 HTTP/1.1\r\n"
#define HOST  "Host: example.com\r\n"
#define UP    "Upgrade: websocket\r\n"
#define CONN  "Connection: Upgrade\r\n"
#define VER   "Sec-WebSocket-Version: 13\r\n"
#define KEY   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define WS    UP CONN VER KEY
#define GOOD  GET HOST WS
#define PROTO GOOD "Sec-WebSocket-Protocol: "
#define EXT   GOOD "Sec-WebSocket-Extensions: "

static void parse(struct head *h, const char *text)
{
    head_init(h, HEAD_REQUEST);
    if (head_parse(h, (const uint8_t *)text, strlen(text)) != HEAD_DONE)
        fail_msg("`%s` does not parse: %s", text, h->why ? h->why : "incomplete");
}

static struct in6_addr ip(const char *text)
{
    struct in6_addr addr = {.s6_addr = {[10] = 0xFF, [11] = 0xFF}};

    assert_true(inet_pton(AF_INET6, text, &addr) == 1 || inet_pton(AF_INET, text, addr.s6_addr + 12) == 1);
    return addr;
}

struct check_case {
    const char *head; /* without its empty line */
    int status;
    const char *why; /* a part of it */
};

static const struct check_case checks[] = {
    {GOOD, 0, NULL},
    {GET "host: EXAMPLE.com:8080\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n"
         "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
     0, NULL},

    /* S3, H1 */
    {"POST / HTTP/1.1\r\n" HOST WS, 405, "GET"},
    {"get / HTTP/1.1\r\n" HOST WS, 405, "GET"},
    {"HEAD / HTTP/1.1\r\n" HOST, 405, NULL},
    {"OPTIONS * HTTP/1.1\r\n" HOST, 405, NULL},
    {"CONNECT example.com:443 HTTP/1.1\r\n" HOST, 405, NULL},
    {"GET / HTTP/1.0\r\n" HOST WS, 400, "HTTP/1.1"},
    {GOOD "Content-Length: 0\r\n", 0, NULL},
    {GOOD "Content-Length: 1\r\n", 400, "Content-Length"},
    {GOOD "Content-Length:\r\n", 400, "Content-Length"},
    {GOOD "Content-Length: -0\r\n", 400, "Content-Length"},
    {GOOD "Content-Length: 0\r\nContent-Length: 0\r\n", 400, "Content-Length"},
    {GOOD "Transfer-Encoding: chunked\r\n", 400, "Transfer-Encoding"},
    {GOOD "Transfer-Encoding: identity\r\n", 400, "Transfer-Encoding"},
    {GOOD "Content-Length: 0\r\nTransfer-Encoding:\r\n", 400, "Transfer-Encoding"},

    /* the target: S11 */
    {"GET * HTTP/1.1\r\n" HOST WS, 400, "target"},
    {"GET example.com:80 HTTP/1.1\r\n" HOST WS, 400, "target"},
    {"GET chat HTTP/1.1\r\n" HOST WS, 400, "target"},
    {"GET /a#b HTTP/1.1\r\n" HOST WS, 400, "#"},
    {"GET http://example.com/#b HTTP/1.1\r\n" HOST WS, 400, "#"},
    {"GET ftp://example.com/ HTTP/1.1\r\n" HOST WS, 400, "target"},
    {"GET http:/example.com/ HTTP/1.1\r\n" HOST WS, 400, "target"},
    {"GET http:// HTTP/1.1\r\n" HOST WS, 400, "host in the request target"},
    {"GET http://u@example.com/ HTTP/1.1\r\n" HOST WS, 400, "host in the request target"},
    {"GET http://example.com:0/ HTTP/1.1\r\n" HOST WS, 400, "host in the request target"},
    {"GET WSS://example.com/ HTTP/1.1\r\n" HOST WS, 0, NULL},
    {"GET http://other:81/ HTTP/1.1\r\n" WS, 400, "Host field is missing"},

    /* S5, H2 */
    {GET WS, 400, "Host field is missing"},
    {GET HOST HOST WS, 400, "more than one Host"},
    {GET "Host:\r\n" WS, 400, "Host field"},
    {GET "Host: :80\r\n" WS, 400, "Host field"},
    {GET "Host: a b\r\n" WS, 400, "Host field"},
    {GET "Host: a,b\r\n" WS, 400, "Host field"},
    {GET "Host: u@a\r\n" WS, 400, "Host field"},
    {GET "Host: a/b\r\n" WS, 400, "Host field"},
    {GET "Host: a%2eb\r\n" WS, 400, "Host field"},
    {GET "Host: \xe4.de\r\n" WS, 400, "Host field"},
    {GET "Host: a:\r\n" WS, 400, "Host field"},
    {GET "Host: a:65536\r\n" WS, 400, "Host field"},
    {GET "Host: a:0\r\n" WS, 400, "Host field"},
    {GET "Host: a:80a\r\n" WS, 400, "Host field"},
    {GET "Host: a:000080\r\n" WS, 400, "Host field"},
    {GET "Host: a:b:80\r\n" WS, 400, "Host field"},
    {GET "Host: ::1\r\n" WS, 400, "Host field"},
    {GET "Host: [::1\r\n" WS, 400, "Host field"},
    {GET "Host: []\r\n" WS, 400, "Host field"},
    {GET "Host: [::g]\r\n" WS, 400, "Host field"},
    {GET "Host: [fe80::1%25eth0]\r\n" WS, 400, "Host field"},
    {GET "Host: [127.0.0.1]\r\n" WS, 400, "Host field"},
    {GET "Host: [::1]80\r\n" WS, 400, "Host field"},
    {GET "Host: [::1]:\r\n" WS, 400, "Host field"},
    {GET "Host: [1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa]\r\n" WS, 400, "Host field"},
    {GET "Host: [::1]\r\n" WS, 0, NULL},
    {GET "Host: [2001:db8::ffff:1.2.3.4]:65535\r\n" WS, 0, NULL},
    {GET "Host: 127.0.0.1:1\r\n" WS, 0, NULL},
    {GET "Host: h9:9090\r\n" WS, 0, NULL},
    {GET "Host: [1111:2222:3333:4444:5555:6666:123.123.123.1234]\r\n" WS, 400, "Host field"},
    {GET "Host: a_b.c-d.\r\n" WS, 0, NULL},

    /* S4, H3, H4 */
    {GET HOST, 426, "WebSocket endpoint"},
    {GET HOST "Accept: text/html\r\nConnection: keep-alive\r\n", 426, "WebSocket endpoint"},
    {GET HOST "Upgrade: h2c\r\n" CONN VER KEY, 426, "websocket"},
    {GET HOST "Upgrade: websockets\r\n" CONN VER KEY, 426, "websocket"},
    {GET HOST "Upgrade: websocket/13\r\n" CONN VER KEY, 426, "websocket"},
    {GET HOST "Upgrade: foo\r\nUpgrade: h2c, websocket\r\n" CONN VER KEY, 0, NULL},
    {GET HOST UP VER KEY, 400, "Connection"},
    {GET HOST UP "Connection: u\r\n" VER KEY, 400, "Connection"},
    {GET HOST UP "Connection: keep-alive, upgraded\r\n" VER KEY, 400, "Connection"},
    {GET HOST UP "Connection: close\r\nConnection: a, Upgrade\r\n" VER KEY, 0, NULL},

    /* S1, H6 */
    {GET HOST UP CONN KEY, 426, "missing"},
    {GET HOST UP CONN KEY "Sec-WebSocket-Version: 12\r\n", 426, "not 13"},
    {GET HOST UP CONN KEY "Sec-WebSocket-Version: 13abc\r\n", 426, "not 13"},
    {GET HOST UP CONN KEY "Sec-WebSocket-Version: 013\r\n", 426, "not 13"},
    {GET HOST UP CONN KEY "Sec-WebSocket-Version: 8, 13\r\n", 426, "not 13"},
    {GET HOST UP CONN KEY "Sec-WebSocket-Version:\r\n", 426, "not 13"},
    {GET HOST UP CONN KEY VER VER, 426, "more than one"},

    /* S2, H5 */
    {GET HOST UP CONN VER, 400, "Key field is missing"},
    {GET HOST UP CONN VER KEY KEY, 400, "more than one Sec-WebSocket-Key"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key:\r\n", 400, "base64"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", 400, "base64"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key: SGVsbG8sIHdvcmxkIQ==\r\n", 400, "base64"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n", 400, "base64"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA\r\n", 400, "base64"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key: dGhlIHNhb-BsZSBub25jZQ==\r\n", 400, "base64"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==AAAA\r\n", 400, "base64"},
    {GET HOST UP CONN VER "Sec-WebSocket-Key: +/AAAAAAAAAAAAAAAAAAAA==\r\n", 0, NULL},

    /* H11 */
    {PROTO "chat, v2.chat\r\nSec-WebSocket-Protocol: x\r\n", 0, NULL},
    {PROTO "chat, Chat\r\n", 0, NULL},
    {PROTO "\r\n", 400, "Protocol"},
    {PROTO ",\r\n", 400, "Protocol"},
    {PROTO "a b\r\n", 400, "Protocol"},
    {PROTO "\"a\"\r\n", 400, "Protocol"},
    {PROTO "a/b\r\n", 400, "Protocol"},
    {PROTO "a, b, a\r\n", 400, "twice"},
    {PROTO "a\r\nSec-WebSocket-Protocol: a\r\n", 400, "twice"},
    {EXT "permessage-deflate\r\n", 0, NULL},
    {EXT "permessage-deflate; client_max_window_bits, permessage-deflate\r\n", 0, NULL},
    {EXT "a;b=c ; d=\"e\\f\";g , h\r\nSec-WebSocket-Extensions: i\r\n", 0, NULL},
    {EXT "\r\n", 400, "Extensions"},
    {EXT "a b\r\n", 400, "Extensions"},
    {EXT ";a\r\n", 400, "Extensions"},
    {EXT "a;\r\n", 400, "Extensions"},
    {EXT "a; =b\r\n", 400, "Extensions"},
    {EXT "a; b=\r\n", 400, "Extensions"},
    {EXT "a; b=\"\"\r\n", 400, "Extensions"},
    {EXT "a; b=\"c\r\n", 400, "Extensions"},
    {EXT "a; b=\"c\\\r\n", 400, "Extensions"},
    {EXT "a; b=\"c d\"\r\n", 400, "Extensions"},
    {EXT "a; b=\"c\"d\r\n", 400, "Extensions"},
    {EXT "a; b=c=d\r\n", 400, "Extensions"},
    {EXT "\"a\"\r\n", 400, "Extensions"},
};

static void each_request_gets_its_verdict(void **state)
{
    static const struct spec_server server = {.headers = {.keep_host = true}};
    char text[2048];
    struct request r;
    struct verdict v;
    struct head h;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        const struct check_case *c = &checks[i];

        snprintf(text, sizeof(text), "%s\r\n", c->head);
        parse(&h, text);
        v = request_check(&h, (const uint8_t *)text, &server, &r);
        if (v.status != c->status || (v.status != 0) != (v.why != NULL) || (c->why && !strstr(v.why, c->why)))
            fail_msg("case %zu\n%s-> %d %s", i, c->head, v.status, v.why ? v.why : "");
    }
}

static void lists_are_bounded(void **state)
{
    static const char *const fields[] = {"Connection: Upgrade", "Sec-WebSocket-Protocol: x",
                                         "Sec-WebSocket-Extensions: x"};
    static const struct spec_server server = {.headers = {.keep_host = true}};
    char text[4096];
    struct request r;
    struct head h;
    size_t i, n;
    int count, k;

    (void)state;
    for (i = 0; i < 3; i++)
        for (count = HEAD_MAX_ITEMS; count <= HEAD_MAX_ITEMS + 1; count++) {
            n = (size_t)sprintf(text, GET HOST UP "%s" VER KEY "%s", i ? CONN : "", fields[i]);
            for (k = 1; k < count; k++)
                n += (size_t)sprintf(text + n, ", n%d", k);
            sprintf(text + n, "\r\n\r\n");
            parse(&h, text);
            assert_int_equal(request_check(&h, (const uint8_t *)text, &server, &r).status,
                             count > HEAD_MAX_ITEMS ? 400 : 0);
        }
}

static void host_names_are_bounded(void **state)
{
    static const struct spec_server server = {.headers = {.keep_host = true}};
    char text[1024];
    struct request r;
    struct head h;
    int len;

    (void)state;
    for (len = 255; len <= 256; len++) {
        snprintf(text, sizeof(text), GET "Host: %0*d\r\n" WS "\r\n", len, 0);
        parse(&h, text);
        assert_int_equal(request_check(&h, (const uint8_t *)text, &server, &r).status, len > 255 ? 400 : 0);
    }
}

static void origins_are_held_against_the_list(void **state)
{
    static char *origins[] = {"https://app.example", "http://localhost:3000", "null"};
    const struct spec_server listed = {.allowed_origins = {.items = origins, .count = 3}};
    const struct spec_server open = {.allowed_origins = {.count = 0}};
    static const struct {
        const char *field;
        int listed, open;
    } cases[] = {
        {"", 0, 0},
        {"Origin: https://app.example\r\n", 0, 0},
        {"Origin: HTTPS://App.Example\r\n", 0, 0},
        {"Origin: null\r\n", 0, 0},
        {"Origin: http://app.example\r\n", 403, 0},
        {"Origin: https://app.example:8443\r\n", 403, 0},
        {"Origin: https://app.example.evil\r\n", 403, 0},
        {"Origin: https://app.exampl\r\n", 403, 0},
        {"Origin: https://evil/https://app.example\r\n", 403, 0},
        {"Origin:\r\n", 403, 0},
        {"Origin: null\r\nOrigin: null\r\n", 400, 400},
    };
    char text[1024];
    struct request r;
    struct head h;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), GOOD "%s\r\n", cases[i].field);
        parse(&h, text);
        assert_int_equal(request_check(&h, (const uint8_t *)text, &listed, &r).status, cases[i].listed);
        assert_int_equal(request_check(&h, (const uint8_t *)text, &open, &r).status, cases[i].open);
        assert_int_equal(r.has_origin, cases[i].open == 0 && cases[i].field[0]);
    }
}

/* Forwards `head` and compares all of it. */
static void assert_forwarded(const char *head, const struct spec_server *server,
                             const struct request_via *via, const char *want)
{
    char text[4096], expected[4096];
    struct request r;
    struct verdict v;
    struct head h;
    struct buf out;

    snprintf(text, sizeof(text), "%s\r\n", head);
    snprintf(expected, sizeof(expected), "%s\r\n", want);
    parse(&h, text);
    v = request_check(&h, (const uint8_t *)text, server, &r);
    if (v.status)
        fail_msg("refused: %s\n%s", v.why, head);
    buf_init(&out, 2 * HEAD_MAX_BYTES);
    assert_int_equal(request_forward(&h, (const uint8_t *)text, &r, server, via, &out), 0);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_string_equal((const char *)out.data, expected);
    buf_free(&out);
}

#define TAIL(addr, host, proto)                                                                              \
    CONN UP "X-Forwarded-For: " addr "\r\nX-Forwarded-Host: " host "\r\nX-Forwarded-Proto: " proto "\r\n"

static const struct spec_server plain = {.headers = {.keep_host = true}};
static const struct request_via stranger = {.client_addr = "192.0.2.7", .backend_host = "backend:9000"};
static const struct request_via proxy = {
    .client_addr = "10.0.0.1", .client_trusted = true, .client_tls = true, .backend_host = "backend:9000"};

static void other_fields_keep_order_and_spelling(void **state)
{
    (void)state;
    assert_forwarded("GET /chat?x=1 HTTP/1.1\r\ncOOkie:a=b\r\nHost: example.com\r\n" WS
                     "Origin: http://a\r\nCookie:  c=d \r\nAuthorization: Basic eA==\r\nEmpty:\r\n"
                     "Sec-WebSocket-Protocol: a,b\r\nSec-WebSocket-Extensions: permessage-deflate;x\r\n",
                     &plain, &stranger,
                     "GET /chat?x=1 HTTP/1.1\r\nHost: example.com\r\ncOOkie: a=b\r\n" VER KEY
                     "Origin: http://a\r\nCookie: c=d\r\nAuthorization: Basic eA==\r\nEmpty: \r\n"
                     "Sec-WebSocket-Protocol: a,b\r\nSec-WebSocket-Extensions: permessage-deflate;x\r\n" TAIL(
                         "192.0.2.7", "example.com", "http"));
}

static void targets_go_on_byte_for_byte(void **state)
{
    static const char *const same[] = {"/",        "/%0d%0aX:%20y", "/a/..;/b",
                                       "//evil/x", "/a/../../b",    "/?a?b&",
                                       "/%",       "/{}|\\^`\"",    "/http://example.com/"};
    char head[256], want[512];
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\n" HOST WS, same[i]);
        snprintf(want, sizeof(want), "GET %s HTTP/1.1\r\n" HOST VER KEY "%s", same[i],
                 TAIL("192.0.2.7", "example.com", "http"));
        assert_forwarded(head, &plain, &stranger, want);
    }
}

static void absolute_targets_become_paths_and_override_host(void **state)
{
    static const char *const targets[][2] = {{"http://other:81/a//b?c", "/a//b?c"},
                                             {"WS://other:81", "/"},
                                             {"https://other:81?q=/x", "/?q=/x"},
                                             {"wss://other:81/", "/"}};
    char head[256], want[512];
    size_t i;

    (void)state;
    for (i = 0; i < 4; i++) {
        snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\n" HOST WS, targets[i][0]);
        snprintf(want, sizeof(want), "GET %s HTTP/1.1\r\nHost: other:81\r\n" VER KEY "%s", targets[i][1],
                 TAIL("192.0.2.7", "other:81", "http"));
        assert_forwarded(head, &plain, &stranger, want);
    }
}

static void hop_by_hop_fields_stay_behind(void **state)
{
    (void)state;
    assert_forwarded(
        GET HOST VER KEY
        "Upgrade: foo\r\nUpgrade: h2c, websocket\r\nConnection: keep-alive, HTTP2-Settings\r\n"
        "Connection: Upgrade, x-secret, close\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n"
        "HTTP2-Settings: AAMAAABk\r\nTE: trailers\r\nTrailer: x\r\nX-Secret: 1\r\nx-secret: 2\r\n"
        "Proxy-Authorization: Basic eA==\r\nContent-Length: 0\r\nTransfer_Encoding: chunked\r\n"
        "X-Stays: 1\r\n",
        &plain, &stranger, GET HOST VER KEY "X-Stays: 1\r\n" TAIL("192.0.2.7", "example.com", "http"));
}

static void connection_names_no_field_of_the_handshake_away(void **state)
{
    (void)state;
    assert_forwarded(GET HOST UP VER KEY
                     "Connection: Upgrade, Host, X-Forwarded-For, X-Real-IP, Sec-WebSocket-Key, Origin\r\n"
                     "Connection: Sec-WebSocket-Version, Sec-WebSocket-Protocol, X-Forwarded-Proto, X-Own\r\n"
                     "Sec-WebSocket-Protocol: a\r\nOrigin: http://a\r\nX-Own: client's\r\n",
                     &plain, &stranger,
                     GET HOST VER KEY "Sec-WebSocket-Protocol: a\r\nOrigin: http://a\r\n" TAIL(
                         "192.0.2.7", "example.com", "http"));
}

static void a_stranger_cannot_say_where_it_comes_from(void **state)
{
    (void)state;
    assert_forwarded(GOOD "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n"
                          "x-forwarded-port: 1\r\nX-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n"
                          "X_Forwarded_For: 1.1.1.1\r\nX-Forwarded_Proto: https\r\nx_real_ip: 1.1.1.1\r\n"
                          "X_Forwarded-Anything: 1\r\nX-Forwarded: stays\r\n",
                     &plain, &stranger,
                     GET HOST VER KEY "X-Forwarded: stays\r\n" TAIL("192.0.2.7", "example.com", "http"));
}

static void a_trusted_peer_is_believed(void **state)
{
    (void)state;
    assert_forwarded(GOOD "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-Host: first.example\r\n"
                          "X-Real-IP: 1.1.1.1\r\nX-Forwarded-For:\r\nX-Forwarded-Proto: http\r\n"
                          "Forwarded: for=1.1.1.1\r\nX-Forwarded-Port: 443\r\nx-forwarded-for: 3.3.3.3\r\n"
                          "X_Forwarded_For: 9.9.9.9\r\nX_Forwarded_Proto: ws\r\n",
                     &plain, &proxy,
                     GET HOST VER KEY "X-Forwarded-Host: first.example\r\nX-Real-IP: 1.1.1.1\r\n"
                                      "X-Forwarded-Proto: http\r\nForwarded: for=1.1.1.1\r\n"
                                      "X-Forwarded-Port: 443\r\n" CONN UP
                                      "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1\r\n");
    assert_forwarded(GOOD, &plain, &proxy, GET HOST VER KEY TAIL("10.0.0.1", "example.com", "https"));
}

static void a_trusted_peers_fields_cannot_be_named_away(void **state)
{
    (void)state;
    assert_forwarded(GET HOST UP VER KEY
                     "Connection: Upgrade, X-Forwarded-For, X-Real-IP, X-Forwarded-Host\r\n"
                     "X-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n"
                     "X-Forwarded-Host: first\r\n",
                     &plain, &proxy,
                     GET HOST VER KEY "X-Real-IP: 1.1.1.1\r\nX-Forwarded-Host: first\r\n" CONN UP
                                      "X-Forwarded-For: 1.1.1.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n");
}

static void the_spec_sets_removes_and_hides_the_host(void **state)
{
    static struct spec_header set[] = {{.name = "X-User", .value = "gateway"},
                                       {.name = "X-New", .value = ""}};
    static char *remove[] = {"Cookie", "X-Debug", "AZ-M^"};
    static const struct spec_server server = {
        .headers = {.set = set, .set_count = 2, .remove = {.items = remove, .count = 3}, .keep_host = false}};

    (void)state;
    assert_forwarded(GOOD "x-user: evil\r\nX_User: evil\r\ncookie: a\r\nX_Debug: 1\r\naz_m^: 1\r\naz-m~: "
                          "stays\r\nX-User-Agent: stays\r\n",
                     &server, &stranger,
                     "GET /chat?x=1 HTTP/1.1\r\nHost: backend:9000\r\n" VER KEY
                     "az-m~: stays\r\nX-User-Agent: stays\r\n" TAIL("192.0.2.7", "example.com",
                                                                    "http") "X-User: gateway\r\nX-New: \r\n");
}

static void a_full_buffer_is_said(void **state)
{
    static struct spec_header set[] = {{.name = "X", .value = "y"}};
    static const struct spec_server server = {.headers = {.set = set, .set_count = 1}};
    static const char text[] = GOOD "Cookie: a\r\n\r\n";
    struct request r;
    struct head h;
    struct buf out;
    size_t max;

    (void)state;
    parse(&h, text);
    assert_int_equal(request_check(&h, (const uint8_t *)text, &server, &r).status, 0);
    for (max = 1;; max++) {
        int rc;

        buf_init(&out, max);
        rc = request_forward(&h, (const uint8_t *)text, &r, &server, &stranger, &out);
        assert_true(rc == 0 || rc == -1);
        assert_true(out.len <= max);
        buf_free(&out);
        if (!rc)
            break;
        assert_true(max < 1000);
    }
}

static void refusals_still_say_host_and_path(void **state)
{
    static const char text[] = "GET http://a:1/b HTTP/1.1\r\n" HOST "\r\n";
    const uint8_t *bytes = (const uint8_t *)text;
    struct request r;
    struct head h;

    (void)state;
    parse(&h, text);
    assert_int_equal(request_check(&h, bytes, &plain, &r).status, 426);
    assert_true(head_slice_is(r.host, bytes, "a:1"));
    assert_true(head_slice_is(r.path, bytes, "/b"));
}

/* X-Forwarded-For of a request from `peer`, and whose it is with 10.0.0.0/8, 192.0.2.128/25 and fd00::/9 trusted. */
static void the_client_is_the_last_address_that_is_not_trusted(void **state)
{
    static struct spec_cidr trusted[] = {
        {.addr = {[10] = 0xFF, [11] = 0xFF, [12] = 10}, .bits = 104},
        {.addr = {[10] = 0xFF, [11] = 0xFF, [12] = 192, [13] = 0, [14] = 2, [15] = 128}, .bits = 121},
        {.addr = {0xFD, 0}, .bits = 9},
    };
    static const struct {
        const char *fields, *peer, *client;
    } cases[] = {
        {"X-Forwarded-For: 203.0.113.7\r\n", "198.51.100.1", "198.51.100.1"},
        {"", "10.1.1.1", "10.1.1.1"},
        {"X-Forwarded-For: 203.0.113.7\r\n", "10.1.1.1", "203.0.113.7"},
        {"x-forwarded-for: 203.0.113.7\r\n", "fd7f::1", "203.0.113.7"},
        {"X-Forwarded-For: 203.0.113.7\r\n", "fd80::1", "fd80::1"},
        {"X-Forwarded-For: 203.0.113.7\r\n", "192.0.2.128", "203.0.113.7"},
        {"X-Forwarded-For: 203.0.113.7\r\n", "192.0.2.127", "192.0.2.127"},
        {"X-Forwarded-For: 203.0.113.6, 203.0.113.7\r\n", "10.1.1.1", "203.0.113.7"},
        {"X-Forwarded-For: 203.0.113.7 ,10.2.2.2,\t10.3.3.3\r\n", "10.1.1.1", "203.0.113.7"},
        {"X-Forwarded-For: 203.0.113.6\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 10.2.2.2\r\n",
         "10.1.1.1", "203.0.113.7"},
        {"X-Forwarded-For: 10.2.2.2, 10.3.3.3\r\n", "10.1.1.1", "10.2.2.2"},
        {"X-Forwarded-For: ,, 203.0.113.7,\t, ,\r\n", "10.1.1.1", "203.0.113.7"},
        {"X-Forwarded-For:\r\nX-Forwarded-For: ,\r\n", "10.1.1.1", "10.1.1.1"},
        {"X-Forwarded-For: 203.0.113.7:4711\r\n", "10.1.1.1", "203.0.113.7"},
        {"X-Forwarded-For: 2001:db8::7\r\n", "10.1.1.1", "2001:db8::7"},
        {"X-Forwarded-For: [2001:db8::7]\r\n", "10.1.1.1", "2001:db8::7"},
        {"X-Forwarded-For: [2001:db8::7]:4711\r\n", "10.1.1.1", "2001:db8::7"},
        {"X-Forwarded-For: ::ffff:203.0.113.7\r\n", "10.1.1.1", "203.0.113.7"},
        {"X-Forwarded-For: 203.0.113.7, unknown, 10.2.2.2\r\n", "10.1.1.1", "10.2.2.2"},
        {"X-Forwarded-For: 203.0.113.7, [10.2.2.2\r\n", "10.1.1.1", "10.1.1.1"},
        {"X-Forwarded-For: 203.0.113.7, [2001:db8::7]x\r\n", "10.1.1.1", "10.1.1.1"},
        {"X-Forwarded-For: 203.0.113.7, 1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd\r\n",
         "10.1.1.1", "10.1.1.1"},
        {"X_Forwarded_For: 203.0.113.7\r\nX-Forwarded-Host: 203.0.113.8\r\n", "10.1.1.1", "10.1.1.1"},
    };
    struct spec_server server = {.trusted_proxies = trusted, .trusted_proxy_count = 3};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct in6_addr peer = ip(cases[i].peer), want = ip(cases[i].client), got;
        char text[1024];
        struct head h;

        snprintf(text, sizeof(text), GOOD "%s\r\n", cases[i].fields);
        parse(&h, text);
        got = request_client(&h, (const uint8_t *)text, &server, &peer);
        if (memcmp(&got, &want, sizeof(got)))
            fail_msg("`%s` from %s is not %s", cases[i].fields, cases[i].peer, cases[i].client);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_request_gets_its_verdict),
        cmocka_unit_test(lists_are_bounded),
        cmocka_unit_test(host_names_are_bounded),
        cmocka_unit_test(origins_are_held_against_the_list),
        cmocka_unit_test(other_fields_keep_order_and_spelling),
        cmocka_unit_test(targets_go_on_byte_for_byte),
        cmocka_unit_test(absolute_targets_become_paths_and_override_host),
        cmocka_unit_test(hop_by_hop_fields_stay_behind),
        cmocka_unit_test(connection_names_no_field_of_the_handshake_away),
        cmocka_unit_test(a_stranger_cannot_say_where_it_comes_from),
        cmocka_unit_test(a_trusted_peer_is_believed),
        cmocka_unit_test(a_trusted_peers_fields_cannot_be_named_away),
        cmocka_unit_test(the_spec_sets_removes_and_hides_the_host),
        cmocka_unit_test(a_full_buffer_is_said),
        cmocka_unit_test(refusals_still_say_host_and_path),
        cmocka_unit_test(the_client_is_the_last_address_that_is_not_trusted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
