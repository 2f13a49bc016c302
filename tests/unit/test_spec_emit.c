#include "spec/spec.h"

#include "spec/spec_values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static uint64_t seed;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* Pieces that YAML, shells and logs like to misread; all are allowed in a path or a header's value. */
static const char *const pieces[] = {
    "a",
    "B",
    "0",
    "true",
    "null",
    "~",
    ": ",
    " #",
    "- ",
    "---",
    "...",
    "%YAML",
    "!!x",
    "&a",
    "*a",
    "<<",
    "'",
    "\"",
    "\\",
    "\\n",
    "\\u0000",
    "{",
    "}",
    "[",
    "]",
    ",",
    "?",
    "|",
    ">",
    "@",
    "`",
    "$(x)",
    "${x}",
    "../",
    "\xc3\xa9",
    "\xe2\x82\xac",
    "\xef\xbb\xbf",
    "\xf0\x9f\x98\x80",
    "\xef\xbf\xbe",
    "\xc2\xa0",
    "=",
    "0x10",
    "1e3",
    "yes",
    ";",
    "\xf4\x8f\xbf\xbf",
};

static char *draw_text(size_t most)
{
    char text[1024] = "x";
    size_t n = 1;

    for (size_t left = draw(most) + 1; left; left--) {
        const char *p = pieces[draw(COUNT(pieces))];

        memcpy(text + n, p, strlen(p) + 1);
        n += strlen(p);
    }
    text[n++] = 'x'; /* a header's value must not end with a space */
    text[n] = '\0';
    return strdup(text);
}

static void draw_pem(struct spec_pem *pem, bool file)
{
    if (file) {
        pem->file = draw_text(40);
        return;
    }
    pem->len = draw(200) + 1;
    pem->data = malloc(pem->len);
    assert_non_null(pem->data);
    for (size_t i = 0; i < pem->len; i++)
        pem->data[i] = (uint8_t)draw(256);
}

static void draw_url(struct spec_url *url)
{
    static const char *const texts[] = {"ws://localhost:3001", "wss://A.b/c?d=\"e\"'f'", "ws://[::1]:1",
                                        "wss://10.0.0.1?%"};
    const char *text = texts[draw(COUNT(texts))];
    struct err err;

    assert_int_equal(spec_value_url(text, strlen(text), url, &err), 0);
}

static void draw_backends(struct spec_server *s)
{
    static const char *const hosts[] = {"chat.default.svc", "null:1", "[::1]:80", "[::1]", "0x.a"};

    s->backends_given = draw(4);
    s->backend_count = s->backends_given ? draw(6) : 0;
    s->backends = calloc(s->backend_count + 1, sizeof *s->backends);
    assert_non_null(s->backends);
    for (size_t i = 0; i < s->backend_count; i++) {
        struct spec_backend *b = &s->backends[i];
        char text[64];
        struct err err;
        int n = snprintf(text, sizeof text, draw(2) ? "ws://b%zu:1?'\"" : "wss://[::%zu]", i);

        assert_int_equal(spec_value_url(text, (size_t)n, &b->url, &err), 0);
        b->weight = draw(2) ? 1 : (uint32_t)draw(SPEC_MAX_WEIGHT + 1);
        if (draw(2))
            b->host = strdup(hosts[draw(COUNT(hosts))]);
    }
}

static void draw_strings(struct spec_strings *s, bool origins)
{
    s->count = draw(5);
    s->items = calloc(s->count + 1, sizeof *s->items);
    s->pos = calloc(s->count + 1, sizeof *s->pos);
    for (size_t i = 0; i < s->count; i++) {
        char text[64];

        snprintf(text, sizeof text, origins ? "app-%llu://h%zu:%llu" : "X-%llu-%zu_!#$%%&'*+^`|~%llu",
                 (unsigned long long)draw(9), i, (unsigned long long)draw(60000) + 1);
        s->items[i] = strdup(origins && !draw(8) ? "null" : text);
    }
}

static void draw_headers(struct spec_server *s)
{
    draw_strings(&s->headers.remove, false);
    s->headers.keep_host = draw(2);
    s->headers.set_count = draw(5);
    s->headers.set = calloc(s->headers.set_count + 1, sizeof *s->headers.set);
    for (size_t i = 0; i < s->headers.set_count; i++) {
        static const char *const names[] = {"~", "null", "True", "0x1", "X-A"};

        s->headers.set[i].name = strdup(names[i]);
        s->headers.set[i].value = draw(6) ? draw_text(40) : strdup("");
    }
}

static void draw_proxies(struct spec_server *s)
{
    s->trusted_proxy_count = draw(5);
    s->trusted_proxies = calloc(s->trusted_proxy_count + 1, sizeof *s->trusted_proxies);
    for (size_t i = 0; i < s->trusted_proxy_count; i++) {
        struct spec_cidr *c = &s->trusted_proxies[i];
        bool v4 = draw(2);

        c->bits = (uint8_t)(v4 ? 96 + draw(33) : draw(129));
        for (unsigned bit = v4 ? 96 : 0; bit < c->bits; bit++)
            c->addr[bit / 8] |= (uint8_t)(draw(2) << (7 - bit % 8));
        if (v4)
            c->addr[10] = c->addr[11] = 0xff;
    }
}

static void draw_tls(struct spec_server *s)
{
    bool files = draw(2);

    if (draw(2)) {
        draw_pem(&s->cert, files);
        draw_pem(&s->key, files);
    }
    if (draw(2))
        draw_pem(&s->wss_cert, false);
    if (draw(2))
        draw_pem(&s->wss_key, false);
    s->tls_given = s->cert.file || draw(2);
    if (s->tls_given) {
        s->tls.min_version = draw(2) ? SPEC_TLS_1_3 : SPEC_TLS_1_2;
        if (draw(2))
            draw_pem(&s->tls.client_ca, draw(2));
    }
    s->backend_tls_given = draw(2);
    if (s->backend_tls_given) {
        s->backend_tls.insecure_skip_verify = draw(2);
        if (draw(2))
            draw_pem(&s->backend_tls.ca, draw(2));
        if (draw(2))
            s->backend_tls.server_name = strdup(draw(2) ? "a.example" : "2001:db8::1");
    }
}

static void draw_server(struct spec_server *s)
{
    static const char *const names[] = {"a",   "websocketSvr", "null", "true", "0",
                                        "1e3", "ns/name",      "0.0",  "n/0x1"};

    *s = (struct spec_server){.https = draw(2), .port = (uint16_t)draw(65536)};
    if (draw(9))
        s->name = strdup(names[draw(COUNT(names))]);
    if (draw(3))
        draw_url(&s->backend);
    else
        draw_backends(s);
    draw_tls(s);
    draw_strings(&s->allowed_origins, true);
    draw_headers(s);
    draw_proxies(s);
    s->timeouts.connect_ms = draw(2) ? 5000 : (uint32_t)draw(86400000) + 1;
    s->timeouts.handshake_ms = draw(2) ? 10000 : (uint32_t)draw(1000) * 1000 + 1000;
    s->timeouts.idle_ms = (uint32_t)(draw(2) * draw(86400001));
    s->limits.client_max_message_bytes = draw(2) * draw(INT64_MAX);
    s->limits.backend_max_message_bytes = draw(2) * draw(1 << 20);
    s->timeouts.max_age_ms = (uint32_t)(draw(2) * draw(86400001));
    s->timeouts.drain_ms = draw(2) ? 30000 : (uint32_t)(draw(2) * draw(86400001));
    s->ping.interval_ms = (uint32_t)(draw(2) * draw(86400001));
    s->ping.timeout_ms = draw(2) ? 10000 : (uint32_t)draw(86400000) + 1;
    s->limits.max_connections = (uint32_t)(draw(2) * draw(UINT32_MAX + 1ull));
    s->limits.max_connections_per_ip = (uint32_t)(draw(2) * draw(UINT32_MAX + 1ull));
    s->limits.handshakes_per_second = (uint32_t)(draw(2) * draw(UINT32_MAX + 1ull));
}

static struct spec draw_spec(void)
{
    struct spec s = {.count = draw(4)};

    s.servers = calloc(s.count + 1, sizeof *s.servers);
    for (size_t i = 0; i < s.count; i++)
        draw_server(&s.servers[i]);
    return s;
}

static struct buf emitted(const struct spec *s)
{
    struct buf out;
    struct err err;

    buf_init(&out, SPEC_MAX_BYTES);
    if (spec_emit(s, &out, &err))
        fail_msg("%s", err.msg);
    return out;
}

static struct spec parsed(const struct buf *b)
{
    struct spec_problems p = {0};
    struct spec s;

    if (spec_parse(b->data, b->len, &s, &p)) {
        spec_problems_print(&p, "emitted", stderr);
        fail_msg("not parsed:\n%.*s", (int)b->len, (const char *)b->data);
    }
    return s;
}

/* The lines that a reader would cut the text at. */
static size_t cuts_of(const struct buf *b)
{
    size_t cuts = 0;

    for (size_t i = 0; i + 3 <= b->len; i++)
        cuts += (!i || b->data[i - 1] == '\n') && !memcmp(b->data + i, "---", 3);
    return cuts;
}

static void what_is_emitted_parses_to_the_same(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 5000; n++) {
        struct spec s, back;
        struct buf once, twice, again;

        seed = n * 0x9e3779b97f4a7c15u;
        s = draw_spec();
        once = emitted(&s);
        twice = emitted(&s);
        back = parsed(&once);
        again = emitted(&back);
        assert_int_equal(back.count, s.count);
        assert_int_equal(cuts_of(&once), s.count);
        for (size_t i = 0; i < s.count; i++)
            if (!spec_server_equal(&s.servers[i], &back.servers[i]))
                fail_msg("seed %llu: server %zu differs:\n%.*s", (unsigned long long)n, i, (int)once.len,
                         (const char *)once.data);
        assert_int_equal(once.len, twice.len);
        assert_int_equal(once.len, again.len);
        if (once.len) {
            assert_memory_equal(once.data, twice.data, once.len);
            assert_memory_equal(once.data, again.data, once.len);
        }
        buf_free(&once);
        buf_free(&twice);
        buf_free(&again);
        spec_free(&s);
        spec_free(&back);
    }
}

static struct spec parsed_text(const char *text)
{
    struct buf b = {.data = (uint8_t *)(uintptr_t)text, .len = strlen(text)};

    return parsed(&b);
}

static void a_difference_in_any_field_is_a_difference(void **state)
{
    static const char *const texts[] = {
        "name: b",
        "https: true",
        "port: 1",
        "backend: ws://b",
        "backend: ws://b:80",
        "backend: wss://b",
        "backend: ws://B",
        "backends: []",
        "backends: [{url: ws://b}]",
        "backends: [{url: ws://b:80}]",
        "backends: [{url: wss://b}]",
        "backends: [{url: ws://b, weight: 0}]",
        "backends: [{url: ws://b, weight: 2}]",
        "backends: [{url: ws://b, host: b}]",
        "backends: [{url: ws://b, host: \"b:80\"}]",
        "backends: [{url: ws://b}, {url: ws://c}]",
        "backends: [{url: ws://c}, {url: ws://b}]",
        "certBase64: YQ==",
        "certBase64: YWE=",
        "keyBase64: YQ==",
        "wssCertBase64: YQ==",
        "wssKeyBase64: YQ==",
        "tls: {}",
        "tls: {certFile: a}",
        "tls: {certFile: b}",
        "tls: {keyFile: a}",
        "tls: {minVersion: TLSv1.3}",
        "tls: {clientCAFile: a}",
        "tls: {clientCABase64: YQ==}",
        "backendTLS: {}",
        "backendTLS: {caFile: a}",
        "backendTLS: {caBase64: YQ==}",
        "backendTLS: {serverName: a}",
        "backendTLS: {insecureSkipVerify: true}",
        "allowedOrigins: [\"http://a\"]",
        "allowedOrigins: [\"http://b\"]",
        "allowedOrigins: [\"http://a\", \"http://b\"]",
        "headers: {set: {A: a}}",
        "headers: {set: {A: b}}",
        "headers: {set: {B: a}}",
        "headers: {set: {A: a, B: a}}",
        "headers: {remove: [A]}",
        "headers: {remove: [B]}",
        "headers: {keepHost: false}",
        "trustedProxies: [10.0.0.0/8]",
        "trustedProxies: [10.0.0.0/9]",
        "trustedProxies: [11.0.0.0/8]",
        "timeouts: {connect: 1s}",
        "timeouts: {handshake: 1s}",
        "timeouts: {idle: 1s}",
        "timeouts: {maxAge: 1s}",
        "timeouts: {drain: 1s}",
        "timeouts: {drain: 0}",
        "ping: {interval: 1s}",
        "ping: {timeout: 1s}",
        "limits: {clientMaxMessageBytes: 1}",
        "limits: {backendMaxMessageBytes: 1}",
        "limits: {maxConnections: 1}",
        "limits: {maxConnectionsPerIP: 1}",
        "limits: {handshakesPerSecond: 1}",
        "limits: {}",
    };
    struct spec s[COUNT(texts)];

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        char text[256];

        snprintf(text, sizeof text, "kind: WebSocketServer\n%s\n", texts[i]);
        s[i] = parsed_text(text);
    }
    for (size_t i = 0; i < COUNT(texts); i++)
        for (size_t j = 0; j < COUNT(texts); j++)
            if (spec_server_equal(&s[i].servers[0], &s[j].servers[0]) != (i == j))
                fail_msg("\"%s\" and \"%s\"", texts[i], texts[j]);
    for (size_t i = 0; i < COUNT(texts); i++)
        spec_free(&s[i]);
}

static void positions_make_no_difference(void **state)
{
    struct spec a = parsed_text("kind: WebSocketServer\nname: a\nport: 1\nhttps: false\n");
    struct spec b = parsed_text("---\n\n{port: 1, name: 'a', headers: {}, kind: WebSocketServer}\n");

    (void)state;
    assert_true(spec_server_equal(&a.servers[0], &b.servers[0]));
    spec_free(&a);
    spec_free(&b);
}

static void leaves_defaults_out_and_keeps_one_form(void **state)
{
    struct spec s =
        parsed_text("{kind: WebSocketServer, port: 10020, backend: 'ws://localhost:3001', name: n/a,\n"
                    " https: false, timeouts: {connect: 5000ms, handshake: 0.5m, idle: 90s},\n"
                    " headers: {set: {X-A: \"\xc3\xa9\\\"\"}}, trustedProxies: [10.0.0.0/8, 'FD00::/8'],\n"
                    " ping: {interval: 0, timeout: 10s}, limits: {clientMaxMessageBytes: 0}, backendTLS: "
                    "{insecureSkipVerify: false}}\n"
                    "---\n{kind: WebSocketServer, backends: []}\n"
                    "---\n{kind: WebSocketServer, backends: [{weight: 1, url: 'ws://A.b'},\n"
                    " {host: 'Chat:80', url: 'wss://[FD00::1]:8443', weight: 3}]}\n"
                    "---\n{kind: WebSocketServer, timeouts: {drain: 0s, maxAge: 1h}, ping: {interval: 20s},\n"
                    " limits: {handshakesPerSecond: 50, maxConnectionsPerIP: 20, maxConnections: 1000}}\n"
                    "---\nkind: WebSocketServer\n");
    struct buf out = emitted(&s);
    static const char expected[] = "---\n"
                                   "kind: \"WebSocketServer\"\n"
                                   "name: \"n/a\"\n"
                                   "port: 10020\n"
                                   "backend: \"ws://localhost:3001\"\n"
                                   "backendTLS: {}\n"
                                   "headers:\n"
                                   "  set:\n"
                                   "    \"X-A\": \"\\u00E9\\\"\"\n"
                                   "trustedProxies:\n"
                                   "  - \"10.0.0.0/8\"\n"
                                   "  - \"fd00::/8\"\n"
                                   "timeouts:\n"
                                   "  handshake: \"30s\"\n"
                                   "  idle: \"1m30s\"\n"
                                   "---\n"
                                   "kind: \"WebSocketServer\"\n"
                                   "backends: []\n"
                                   "---\n"
                                   "kind: \"WebSocketServer\"\n"
                                   "backends:\n"
                                   "  - url: \"ws://A.b\"\n"
                                   "  - url: \"wss://[FD00::1]:8443\"\n"
                                   "    weight: 3\n"
                                   "    host: \"chat:80\"\n"
                                   "---\n"
                                   "kind: \"WebSocketServer\"\n"
                                   "timeouts:\n"
                                   "  maxAge: \"1h\"\n"
                                   "  drain: \"0s\"\n"
                                   "ping:\n"
                                   "  interval: \"20s\"\n"
                                   "limits:\n"
                                   "  maxConnections: 1000\n"
                                   "  maxConnectionsPerIP: 20\n"
                                   "  handshakesPerSecond: 50\n"
                                   "---\n"
                                   "kind: \"WebSocketServer\"\n";

    (void)state;
    assert_int_equal(out.len, strlen(expected));
    assert_memory_equal(out.data, expected, out.len);
    buf_free(&out);
    spec_free(&s);
}

/* Whatever a text holds, the document can be cut at its lines "---" only, and each part is a document of its own. */
static void can_be_cut_into_documents_at_its_lines(void **state)
{
    struct spec s = parsed_text(
        "kind: WebSocketServer\nname: a\ntls: {certFile: x}\nheaders: {set: {A: a}, remove: [B]}\n"
        "allowedOrigins: [\"http://a\"]\n---\nkind: WebSocketServer\nname: b\n");
    struct buf whole, parts;
    struct err err;

    (void)state;
    free(s.servers[0].tls.client_ca.file);
    s.servers[0].tls.client_ca.file = strdup("\n---\n--- a\n...\n\xe2\x80\xa8---\r---\xc2\x85---\n");
    free(s.servers[0].headers.set[0].value);
    s.servers[0].headers.set[0].value = strdup("---\n---");
    free(s.servers[0].headers.set[0].name);
    s.servers[0].headers.set[0].name = strdup("---");
    free(s.servers[0].allowed_origins.items[0]);
    s.servers[0].allowed_origins.items[0] = strdup("---\n---\n");
    whole = emitted(&s);
    assert_int_equal(cuts_of(&whole), 2);
    buf_init(&parts, whole.len);
    for (size_t i = 0; i < s.count; i++)
        assert_int_equal(spec_emit_server(&s.servers[i], &parts, &err), 0);
    assert_int_equal(parts.len, whole.len);
    assert_memory_equal(parts.data, whole.data, whole.len);
    parts.len = 0;
    assert_int_equal(spec_emit_server(&s.servers[1], &parts, &err), 0);
    assert_memory_equal(parts.data, "---\nkind: ", 10);
    assert_int_equal(cuts_of(&parts), 1);
    buf_free(&parts);
    buf_free(&whole);
    spec_free(&s);
}

static void refuses_text_that_is_not_utf_8_and_leaves_the_buffer_alone(void **state)
{
    static const char *const bad[] = {"\xff",     "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xe2\x82", "\xc3",     "a\x80"};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct spec s = parsed_text("kind: WebSocketServer\ntls: {certFile: a}\n");
        struct buf out;
        struct err err;

        free(s.servers[0].cert.file);
        s.servers[0].cert.file = strdup(bad[i]);
        buf_init(&out, 1000);
        assert_int_equal(buf_add_str(&out, "before"), 0);
        assert_int_equal(spec_emit(&s, &out, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_int_equal(out.len, 6);
        buf_free(&out);
        spec_free(&s);
    }
}

static void says_when_the_buffer_is_too_small(void **state)
{
    struct spec s = parsed_text("kind: WebSocketServer\nname: a\n");
    struct buf whole = emitted(&s);

    (void)state;
    for (size_t max = 0; max < whole.len; max++) {
        struct buf out;
        struct err err;

        buf_init(&out, max);
        assert_int_equal(spec_emit(&s, &out, &err), -1);
        assert_int_equal(err.code, ERR_LIMIT);
        assert_int_equal(out.len, 0);
        buf_free(&out);
    }
    buf_free(&whole);
    spec_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_emitted_parses_to_the_same),
        cmocka_unit_test(a_difference_in_any_field_is_a_difference),
        cmocka_unit_test(positions_make_no_difference),
        cmocka_unit_test(leaves_defaults_out_and_keeps_one_form),
        cmocka_unit_test(can_be_cut_into_documents_at_its_lines),
        cmocka_unit_test(refuses_text_that_is_not_utf_8_and_leaves_the_buffer_alone),
        cmocka_unit_test(says_when_the_buffer_is_too_small),
    };

    return cmocka_run_group_tests_name("spec_emit", tests, NULL, NULL);
}
