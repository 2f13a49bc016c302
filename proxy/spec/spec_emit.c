#include "spec/spec.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* A failure sticks, so that the lines below need no checks. */
struct emit {
    struct buf *out;
    struct err *err;
    bool failed;
    const char *parent; /* the mapping of the numbers below, until its first line is written */
};

static void put_bytes(struct emit *e, const void *bytes, size_t len)
{
    if (!e->failed && buf_add(e->out, bytes, len)) {
        err_set(e->err, ERR_LIMIT, "the spec does not fit %zu bytes", e->out->max);
        e->failed = true;
    }
}

static void put(struct emit *e, const char *text)
{
    put_bytes(e, text, strlen(text));
}

/* Short texts of our own only. */
__attribute__((format(printf, 2, 3))) static void putf(struct emit *e, const char *fmt, ...)
{
    char text[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put(e, text);
}

/* The code point at *at, which moves behind it; -1: not UTF-8. */
static int32_t utf8_next(const unsigned char **at)
{
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *p = *at;
    size_t more = *p < 0x80                 ? 0
                  : *p >= 0xc2 && *p < 0xe0 ? 1
                  : (*p & 0xf0) == 0xe0     ? 2
                  : (*p & 0xf8) == 0xf0     ? 3
                                            : 4;
    int32_t c;

    if (more == 4)
        return -1;
    c = more ? *p & (0x3f >> more) : *p;
    for (size_t i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return -1;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return -1;
    *at = p + more + 1;
    return c;
}

/* In double quotes, all but printable ASCII escaped: one line, one form, nothing that YAML could read otherwise. */
static void put_quoted(struct emit *e, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    put(e, "\"");
    while (*at && !e->failed) {
        const unsigned char *run = at;
        int32_t c;

        while (*at >= 0x20 && *at < 0x7f && *at != '"' && *at != '\\')
            at++;
        put_bytes(e, run, (size_t)(at - run));
        if (!*at)
            break;
        c = utf8_next(&at);
        if (c < 0) {
            err_set(e->err, ERR_INVALID, "a text of the spec is not UTF-8");
            e->failed = true;
        } else if (c == '"' || c == '\\') {
            putf(e, "\\%c", (char)c);
        } else {
            putf(e, c < 0x10000 ? "\\u%04" PRIX32 : "\\U%08" PRIX32, (uint32_t)c);
        }
    }
    put(e, "\"");
}

static void text_line(struct emit *e, const char *key, const char *text)
{
    if (!text)
        return;
    put(e, key);
    put(e, ": ");
    put_quoted(e, text);
    put(e, "\n");
}

static void base64_line(struct emit *e, const char *key, const struct spec_pem *pem)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = pem->data;
    size_t left = pem->len;

    if (!p || pem->file)
        return;
    putf(e, "%s: \"", key);
    while (left) {
        char chunk[1024];
        size_t n = 0;

        while (left && n < sizeof chunk) {
            size_t take = left < 3 ? left : 3;
            uint32_t bits =
                (uint32_t)p[0] << 16 | (take > 1 ? (uint32_t)p[1] << 8 : 0) | (take > 2 ? p[2] : 0);

            chunk[n++] = digits[bits >> 18];
            chunk[n++] = digits[bits >> 12 & 63];
            chunk[n++] = take > 1 ? digits[bits >> 6 & 63] : '=';
            chunk[n++] = take > 2 ? digits[bits & 63] : '=';
            p += take;
            left -= take;
        }
        put_bytes(e, chunk, n);
    }
    put(e, "\"\n");
}

/* Opens the mapping with the first number that differs from its default. */
static void put_parent(struct emit *e)
{
    if (e->parent)
        putf(e, "%s:\n", e->parent);
    e->parent = NULL;
}

static void duration_line(struct emit *e, const char *key, uint32_t ms, uint32_t absent)
{
    uint32_t hours = ms / 3600000, minutes = ms / 60000 % 60, seconds = ms / 1000 % 60, rest = ms % 1000;

    if (ms == absent)
        return;
    put_parent(e);
    putf(e, "  %s: \"", key);
    if (hours)
        putf(e, "%" PRIu32 "h", hours);
    if (minutes)
        putf(e, "%" PRIu32 "m", minutes);
    if (seconds || !ms)
        putf(e, "%" PRIu32 "s", seconds);
    if (rest)
        putf(e, "%" PRIu32 "ms", rest);
    put(e, "\"\n");
}

static void limit_line(struct emit *e, const char *key, uint64_t limit)
{
    if (!limit)
        return;
    put_parent(e);
    putf(e, "  %s: %" PRIu64 "\n", key, limit);
}

/* Opens a mapping that may turn out empty: "tls: {}" differs from no tls. */
static size_t map_open(struct emit *e, const char *key)
{
    putf(e, "%s:\n", key);
    return e->out->len;
}

static void map_close(struct emit *e, size_t opened)
{
    if (e->failed || e->out->len > opened)
        return;
    e->out->len--;
    put(e, " {}\n");
}

static void emit_tls(struct emit *e, const struct spec_server *s)
{
    size_t opened;

    if (!s->tls_given && !s->cert.file && !s->key.file)
        return;
    opened = map_open(e, "tls");
    text_line(e, "  certFile", s->cert.file);
    text_line(e, "  keyFile", s->key.file);
    if (s->tls.min_version == SPEC_TLS_1_3)
        put(e, "  minVersion: \"TLSv1.3\"\n");
    text_line(e, "  clientCAFile", s->tls.client_ca.file);
    base64_line(e, "  clientCABase64", &s->tls.client_ca);
    map_close(e, opened);
}

static void emit_backend_tls(struct emit *e, const struct spec_server *s)
{
    size_t opened;

    if (!s->backend_tls_given)
        return;
    opened = map_open(e, "backendTLS");
    text_line(e, "  caFile", s->backend_tls.ca.file);
    base64_line(e, "  caBase64", &s->backend_tls.ca);
    text_line(e, "  serverName", s->backend_tls.server_name);
    if (s->backend_tls.insecure_skip_verify)
        put(e, "  insecureSkipVerify: true\n");
    map_close(e, opened);
}

static void emit_list(struct emit *e, const char *indent, const char *key, const struct spec_strings *s)
{
    if (s->count)
        putf(e, "%s%s:\n", indent, key);
    for (size_t i = 0; i < s->count; i++) {
        putf(e, "%s  - ", indent);
        put_quoted(e, s->items[i]);
        put(e, "\n");
    }
}

static void emit_headers(struct emit *e, const struct spec_server *s)
{
    if (!s->headers.set_count && !s->headers.remove.count && s->headers.keep_host)
        return;
    put(e, "headers:\n");
    if (s->headers.set_count)
        put(e, "  set:\n");
    for (size_t i = 0; i < s->headers.set_count; i++) {
        put(e, "    ");
        put_quoted(e, s->headers.set[i].name);
        put(e, ": ");
        put_quoted(e, s->headers.set[i].value);
        put(e, "\n");
    }
    emit_list(e, "  ", "remove", &s->headers.remove);
    if (!s->headers.keep_host)
        put(e, "  keepHost: false\n");
}

static void emit_proxies(struct emit *e, const struct spec_server *s)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (s->trusted_proxy_count)
        put(e, "trustedProxies:\n");
    for (size_t i = 0; i < s->trusted_proxy_count; i++) {
        const struct spec_cidr *c = &s->trusted_proxies[i];
        bool v4 = c->bits >= 96 && !memcmp(c->addr, mapped, sizeof mapped);
        char text[INET6_ADDRSTRLEN] = "";

        inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? c->addr + 12 : c->addr, text, sizeof text);
        putf(e, "  - \"%s/%u\"\n", text, v4 ? c->bits - 96u : c->bits);
    }
}

static void emit_numbers(struct emit *e, const struct spec_server *s)
{
    e->parent = "timeouts";
    duration_line(e, "connect", s->timeouts.connect_ms, 5000);
    duration_line(e, "handshake", s->timeouts.handshake_ms, 10000);
    duration_line(e, "idle", s->timeouts.idle_ms, 0);
    duration_line(e, "maxAge", s->timeouts.max_age_ms, 0);
    duration_line(e, "drain", s->timeouts.drain_ms, 30000);
    e->parent = "ping";
    duration_line(e, "interval", s->ping.interval_ms, 0);
    duration_line(e, "timeout", s->ping.timeout_ms, 10000);
    e->parent = "limits";
    limit_line(e, "clientMaxMessageBytes", s->limits.client_max_message_bytes);
    limit_line(e, "backendMaxMessageBytes", s->limits.backend_max_message_bytes);
    limit_line(e, "maxConnections", s->limits.max_connections);
    limit_line(e, "maxConnectionsPerIP", s->limits.max_connections_per_ip);
    limit_line(e, "handshakesPerSecond", s->limits.handshakes_per_second);
}

static void emit_backends(struct emit *e, const struct spec_server *s)
{
    if (s->backends_given)
        put(e, s->backend_count ? "backends:\n" : "backends: []\n");
    for (size_t i = 0; i < s->backend_count; i++) {
        const struct spec_backend *b = &s->backends[i];

        text_line(e, "  - url", b->url.text);
        if (b->weight != 1)
            putf(e, "    weight: %" PRIu32 "\n", b->weight);
        text_line(e, "    host", b->host);
    }
}

static void emit_server(struct emit *e, const struct spec_server *s)
{
    put(e, "---\nkind: \"WebSocketServer\"\n");
    text_line(e, "name", s->name);
    if (s->https)
        put(e, "https: true\n");
    if (s->port)
        putf(e, "port: %u\n", s->port);
    text_line(e, "backend", s->backend.text);
    emit_backends(e, s);
    base64_line(e, "certBase64", &s->cert);
    base64_line(e, "keyBase64", &s->key);
    base64_line(e, "wssCertBase64", &s->wss_cert);
    base64_line(e, "wssKeyBase64", &s->wss_key);
    emit_tls(e, s);
    emit_backend_tls(e, s);
    emit_list(e, "", "allowedOrigins", &s->allowed_origins);
    emit_headers(e, s);
    emit_proxies(e, s);
    emit_numbers(e, s);
}

int spec_emit_server(const struct spec_server *s, struct buf *out, struct err *err)
{
    struct emit e = {.out = out, .err = err};
    size_t before = out->len;

    emit_server(&e, s);
    if (e.failed)
        out->len = before;
    return e.failed ? -1 : 0;
}

int spec_emit(const struct spec *s, struct buf *out, struct err *err)
{
    size_t before = out->len;

    for (size_t i = 0; i < s->count; i++)
        if (spec_emit_server(&s->servers[i], out, err)) {
            out->len = before;
            return -1;
        }
    return 0;
}
