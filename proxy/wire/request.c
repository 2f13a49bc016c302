#include "wire/request.h"

#include <arpa/inet.h>
#include <string.h>

#define HOST_MAX 255
#define KEY_LEN  24 /* base64 of 16 bytes */

static struct verdict refuse(int status, const char *why)
{
    return (struct verdict){status, why};
}

static const struct verdict good = {0, NULL};

static bool is_alnum(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static struct head_slice behind(struct head_slice s, size_t skip)
{
    return (struct head_slice){(uint16_t)(s.off + skip), (uint16_t)(s.len - skip)};
}

/* The only field of that name, or NULL; *count says how many there are. */
static const struct head_field *only(const struct head *h, const uint8_t *bytes, const char *name,
                                     size_t *count)
{
    const struct head_field *f;
    size_t at = 0;

    f = head_find(h, bytes, name, &at);
    *count = f ? 1 : 0;
    while (f && head_find(h, bytes, name, &at))
        ++*count;
    return *count == 1 ? f : NULL;
}

/* 1 to 5 digits, 1 to 65535. */
static bool port_ok(const uint8_t *p, size_t len)
{
    unsigned port = 0;
    size_t i;

    if (len < 1 || len > 5)
        return false;
    for (i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        port = port * 10 + (unsigned)(p[i] - '0');
    }
    return port >= 1 && port <= 65535;
}

/* host[:port]: a name of letters, digits, '-', '.' and '_', an IPv4 address, or an IPv6 address in brackets. Percent
 * signs and the other marks of RFC 3986 are refused: no name in use has them, and they read differently elsewhere. */
static bool authority_ok(const uint8_t *p, size_t len)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    size_t host = 0;

    if (len && p[0] == '[') {
        const uint8_t *close = memchr(p, ']', len);
        size_t n = close ? (size_t)(close - p) - 1 : 0;

        if (!n || n >= sizeof(text))
            return false;
        memcpy(text, p + 1, n);
        text[n] = '\0';
        if (inet_pton(AF_INET6, text, &addr) != 1)
            return false;
        host = n + 2;
    } else {
        while (host < len && (is_alnum(p[host]) || p[host] == '-' || p[host] == '.' || p[host] == '_'))
            host++;
        if (!host || host > HOST_MAX)
            return false;
    }
    return host == len || (p[host] == ':' && port_ok(p + host + 1, len - host - 1));
}

static struct verdict check_target(const struct head *h, const uint8_t *bytes, struct request *out,
                                   bool *absolute)
{
    static const char *const schemes[] = {"http://", "https://", "ws://", "wss://"};
    const uint8_t *t = bytes + h->target.off;
    size_t len = h->target.len, i, n, end;

    if (memchr(t, '#', len))
        return refuse(400, "the request target holds a '#': fragments are never sent");
    *absolute = false;
    if (t[0] == '/')
        return good;
    for (i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        n = strlen(schemes[i]);
        if (len < n ||
            !head_slice_is_icase((struct head_slice){h->target.off, (uint16_t)n}, bytes, schemes[i]))
            continue;
        for (end = n; end < len && t[end] != '/' && t[end] != '?'; end++)
            ;
        if (!authority_ok(t + n, end - n))
            return refuse(400, "the host in the request target is not host[:port]");
        out->host = (struct head_slice){(uint16_t)(h->target.off + n), (uint16_t)(end - n)};
        out->path = behind(h->target, end);
        *absolute = true;
        return good;
    }
    return refuse(400, "the request target is neither a path nor an absolute http or ws URL");
}

static struct verdict check_host(const struct head *h, const uint8_t *bytes, bool absolute,
                                 struct request *out)
{
    const struct head_field *f;
    size_t count;

    f = only(h, bytes, "Host", &count);
    if (!f)
        return refuse(400, count ? "more than one Host field" : "the Host field is missing");
    if (!authority_ok(bytes + f->value.off, f->value.len))
        return refuse(400, "the Host field is not host[:port]");
    if (!absolute)
        out->host = f->value;
    return good;
}

static bool key_ok(const uint8_t *k, size_t len)
{
    size_t i;

    if (len != KEY_LEN || k[22] != '=' || k[23] != '=')
        return false;
    for (i = 0; i < 22; i++)
        if (!is_alnum(k[i]) && k[i] != '+' && k[i] != '/')
            return false;
    return true;
}

static struct verdict check_upgrade(const struct head *h, const uint8_t *bytes, struct request *out)
{
    const struct head_field *f;
    bool named[HEAD_MAX_FIELDS];
    size_t count;

    if (!head_has_token(h, bytes, "Upgrade", "websocket"))
        return refuse(426, "this is a WebSocket endpoint: the request does not ask for `Upgrade: websocket`");
    if (!head_has_token(h, bytes, "Connection", "upgrade"))
        return refuse(400, "the Connection field does not hold the token Upgrade");
    if (!head_mark_named(h, bytes, named))
        return refuse(400, "the Connection field holds too many elements");
    f = only(h, bytes, "Sec-WebSocket-Version", &count);
    if (!f)
        return refuse(426, count ? "more than one Sec-WebSocket-Version field"
                                 : "the Sec-WebSocket-Version field is missing: version 13 is spoken here");
    if (!head_slice_is(f->value, bytes, "13"))
        return refuse(426, "Sec-WebSocket-Version is not 13");
    f = only(h, bytes, "Sec-WebSocket-Key", &count);
    if (!f)
        return refuse(400, count ? "more than one Sec-WebSocket-Key field"
                                 : "the Sec-WebSocket-Key field is missing");
    if (!key_ok(bytes + f->value.off, f->value.len))
        return refuse(400, "Sec-WebSocket-Key is not the base64 of 16 bytes");
    out->key = f->value;
    return good;
}

/* The value of a parameter: a token, or a quoted string that is one once unescaped. Returns its end, 0: neither. */
static size_t param_value_end(const uint8_t *bytes, size_t i, size_t end)
{
    size_t from = i;

    if (i < end && bytes[i] == '"') {
        for (i++; i < end && bytes[i] != '"'; i++) {
            if (bytes[i] == '\\')
                i++;
            if (i >= end || !head_is_token(bytes + i, 1))
                return 0;
        }
        return i < end && i > from + 1 ? i + 1 : 0;
    }
    while (i < end && head_is_token(bytes + i, 1))
        i++;
    return i > from ? i : 0;
}

static size_t token_end(const uint8_t *bytes, size_t i, size_t end)
{
    while (i < end && head_is_token(bytes + i, 1))
        i++;
    return i;
}

static size_t space_end(const uint8_t *bytes, size_t i, size_t end)
{
    while (i < end && (bytes[i] == ' ' || bytes[i] == '\t'))
        i++;
    return i;
}

/* extension = token *( ";" token [ "=" value ] ), white space around ';' only (RFC 6455 9.1). */
static bool extension_ok(const uint8_t *bytes, struct head_slice item, struct head_slice *name)
{
    size_t i = item.off, end = i + item.len, from;

    i = token_end(bytes, i, end);
    *name = (struct head_slice){item.off, (uint16_t)(i - item.off)};
    if (!name->len)
        return false;
    while ((i = space_end(bytes, i, end)) < end) {
        if (bytes[i] != ';')
            return false;
        from = space_end(bytes, i + 1, end);
        i = token_end(bytes, from, end);
        if (i == from)
            return false;
        if (i < end && bytes[i] == '=' && !(i = param_value_end(bytes, i + 1, end)))
            return false;
    }
    return true;
}

static bool protocol_ok(const uint8_t *bytes, struct head_slice item, struct head_slice *name)
{
    *name = item;
    return head_is_token(bytes + item.off, item.len);
}

static bool take_offer(const struct head *h, const uint8_t *bytes, const char *field,
                       bool (*ok)(const uint8_t *, struct head_slice, struct head_slice *), struct offer *out)
{
    const struct head_field *f;
    struct head_slice rest, item;
    size_t at = 0;

    out->count = 0;
    while ((f = head_find(h, bytes, field, &at)))
        for (rest = f->value; head_list_next(bytes, &rest, &item); out->count++)
            if (out->count == HEAD_MAX_ITEMS || !ok(bytes, item, &out->names[out->count]))
                return false;
    return out->count > 0 || !head_count(h, bytes, field);
}

bool offer_protocols(const struct head *h, const uint8_t *bytes, struct offer *out)
{
    return take_offer(h, bytes, "Sec-WebSocket-Protocol", protocol_ok, out);
}

bool offer_extensions(const struct head *h, const uint8_t *bytes, struct offer *out)
{
    return take_offer(h, bytes, "Sec-WebSocket-Extensions", extension_ok, out);
}

bool offer_holds(const struct offer *o, const uint8_t *bytes, struct head_slice name,
                 const uint8_t *name_bytes)
{
    size_t i;

    for (i = 0; i < o->count; i++)
        if (o->names[i].len == name.len &&
            memcmp(bytes + o->names[i].off, name_bytes + name.off, name.len) == 0)
            return true;
    return false;
}

bool offer_unique(const struct offer *o, const uint8_t *bytes)
{
    struct offer before = *o;

    for (before.count = 0; before.count < o->count; before.count++)
        if (offer_holds(&before, bytes, o->names[before.count], bytes))
            return false;
    return true;
}

static struct verdict check_offers(const struct head *h, const uint8_t *bytes)
{
    struct offer offer;

    if (!offer_protocols(h, bytes, &offer))
        return refuse(400, "Sec-WebSocket-Protocol is not a list of at most 64 tokens");
    if (!offer_unique(&offer, bytes))
        return refuse(400, "Sec-WebSocket-Protocol names a subprotocol twice");
    if (!offer_extensions(h, bytes, &offer))
        return refuse(400, "Sec-WebSocket-Extensions is not a list of at most 64 extensions");
    return good;
}

static struct verdict check_no_body(const struct head *h, const uint8_t *bytes)
{
    const struct head_field *f;
    size_t count;

    if (head_count(h, bytes, "Transfer-Encoding"))
        return refuse(400, "a handshake has no body, yet there is a Transfer-Encoding field");
    f = only(h, bytes, "Content-Length", &count);
    if (count > 1 || (f && !head_slice_is(f->value, bytes, "0")))
        return refuse(400, "a handshake has no body, yet Content-Length is not 0");
    return good;
}

static struct verdict check_origin(const struct head *h, const uint8_t *bytes,
                                   const struct spec_strings *allowed, struct request *out)
{
    const struct head_field *f;
    size_t count, i;

    f = only(h, bytes, "Origin", &count);
    if (count > 1)
        return refuse(400, "more than one Origin field");
    /* Only browsers send it, and only browsers can be misled into a connection. */
    if (!f)
        return good;
    out->has_origin = true;
    out->origin = f->value;
    /* An origin is a scheme, a host and a port: all of it without case. */
    for (i = 0; i < allowed->count; i++)
        if (head_slice_is_icase(f->value, bytes, allowed->items[i]))
            return good;
    return allowed->count ? refuse(403, "this Origin is not allowed here") : good;
}

struct verdict request_check(const struct head *h, const uint8_t *bytes, const struct spec_server *server,
                             struct request *out)
{
    struct verdict v;
    bool absolute;

    memset(out, 0, sizeof(*out));
    out->path = h->target;
    if (!head_slice_is(h->method, bytes, "GET"))
        return refuse(405, "a WebSocket handshake is a GET request");
    v = check_target(h, bytes, out, &absolute);
    if (v.status)
        return v;
    if (h->minor != 1)
        return refuse(400, "a WebSocket handshake needs HTTP/1.1");
    v = check_host(h, bytes, absolute, out);
    if (v.status)
        return v;
    v = check_upgrade(h, bytes, out);
    if (v.status)
        return v;
    v = check_offers(h, bytes);
    if (v.status)
        return v;
    v = check_no_body(h, bytes);
    if (v.status)
        return v;
    return check_origin(h, bytes, &server->allowed_origins, out);
}

bool request_trusts(const struct spec_server *server, const struct in6_addr *addr)
{
    size_t i;

    for (i = 0; i < server->trusted_proxy_count; i++) {
        const struct spec_cidr *c = &server->trusted_proxies[i];
        size_t whole = c->bits / 8, rest = c->bits % 8;

        if (memcmp(c->addr, addr->s6_addr, whole) == 0 &&
            (!rest || (c->addr[whole] ^ addr->s6_addr[whole]) >> (8 - rest) == 0))
            return true;
    }
    return false;
}

/* a.b.c.d, a.b.c.d:port, v6, [v6], [v6]:port */
static bool forwarded_addr(const uint8_t *p, size_t len, struct in6_addr *out)
{
    char text[INET6_ADDRSTRLEN + sizeof(":65535")];
    char *host = text, *end;

    if (!len || len >= sizeof(text))
        return false;
    memcpy(text, p, len);
    text[len] = '\0';
    if (*text == '[') {
        host++;
        end = strchr(host, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        *end = '\0';
    } else if ((end = strchr(text, ':')) && !strchr(end + 1, ':')) {
        *end = '\0';
    }
    if (inet_pton(AF_INET6, host, out) == 1)
        return true;
    memset(out, 0, sizeof(*out));
    out->s6_addr[10] = out->s6_addr[11] = 0xFF;
    return inet_pton(AF_INET, host, out->s6_addr + 12) == 1;
}

/* The last element of what is left of a list, which then ends in front of it. Empty ones count for nothing. */
static bool list_last(const uint8_t *bytes, struct head_slice *rest, struct head_slice *item)
{
    size_t from, end = rest->off + rest->len;

    while (end > rest->off && (bytes[end - 1] == ',' || bytes[end - 1] == ' ' || bytes[end - 1] == '\t'))
        end--;
    for (from = end; from > rest->off && bytes[from - 1] != ','; from--)
        ;
    rest->len = (uint16_t)(from - rest->off);
    from = space_end(bytes, from, end);
    *item = (struct head_slice){(uint16_t)from, (uint16_t)(end - from)};
    return item->len > 0;
}

struct in6_addr request_client(const struct head *h, const uint8_t *bytes, const struct spec_server *server,
                               const struct in6_addr *peer)
{
    struct in6_addr client = *peer, before;
    struct head_slice rest, item;
    size_t i;

    for (i = h->field_count; i-- > 0;) {
        if (!head_slice_is_icase(h->fields[i].name, bytes, "X-Forwarded-For"))
            continue;
        rest = h->fields[i].value;
        while (request_trusts(server, &client) && list_last(bytes, &rest, &item)) {
            if (!forwarded_addr(bytes + item.off, item.len, &before))
                return client;
            client = before;
        }
    }
    return client;
}

/* Case folded and '_' taken for '-', as CGI-like backends read names: X_Forwarded_For must not pass for ours. */
static uint8_t fold_name(uint8_t c)
{
    if (c == '_')
        return '-';
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* How much of `text` the name begins with. */
static size_t common(struct head_slice name, const uint8_t *bytes, const char *text)
{
    size_t i;

    for (i = 0; i < name.len && text[i]; i++)
        if (fold_name(bytes[name.off + i]) != fold_name((uint8_t)text[i]))
            break;
    return i;
}

static bool begins_like(struct head_slice name, const uint8_t *bytes, const char *text)
{
    return !text[common(name, bytes, text)];
}

static bool reads_like(struct head_slice name, const uint8_t *bytes, const char *text)
{
    size_t i = common(name, bytes, text);

    return i == name.len && !text[i];
}

static bool reads_like_any(struct head_slice name, const uint8_t *bytes, const char *const *texts,
                           size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        if (reads_like(name, bytes, texts[i]))
            return true;
    return false;
}

/* Which of the client's fields go on. */
enum field_use {
    USE_PASS = 0,
    USE_DROP,
    USE_NAMED, /* passes unless Connection names it */
};

static enum field_use forwarded_use(struct head_slice name, const uint8_t *bytes, bool trusted)
{
    bool for_field = reads_like(name, bytes, "X-Forwarded-For");
    bool host_or_proto =
        reads_like(name, bytes, "X-Forwarded-Host") || reads_like(name, bytes, "X-Forwarded-Proto");

    /* Collected into ours, or replaced by it. */
    if (for_field || !trusted)
        return USE_DROP;
    if (host_or_proto && memchr(bytes + name.off, '_', name.len))
        return USE_DROP;
    return USE_PASS;
}

static enum field_use field_use(struct head_slice name, const uint8_t *bytes,
                                const struct spec_server *server, bool trusted)
{
    static const char *const hop_by_hop[] = {
        "Host",    "Connection",        "Upgrade",        "Keep-Alive",    "TE",
        "Trailer", "Transfer-Encoding", "Content-Length", "HTTP2-Settings"};
    size_t i;

    if (reads_like_any(name, bytes, hop_by_hop, sizeof(hop_by_hop) / sizeof(hop_by_hop[0])) ||
        begins_like(name, bytes, "Proxy-"))
        return USE_DROP;
    for (i = 0; i < server->headers.set_count; i++)
        if (reads_like(name, bytes, server->headers.set[i].name))
            return USE_DROP;
    if (reads_like_any(name, bytes, (const char *const *)server->headers.remove.items,
                       server->headers.remove.count))
        return USE_DROP;
    if (begins_like(name, bytes, "X-Forwarded-") || reads_like(name, bytes, "X-Real-IP") ||
        reads_like(name, bytes, "Forwarded"))
        return forwarded_use(name, bytes, trusted);
    /* A backend that checks Origin must get to see it. */
    if (begins_like(name, bytes, "Sec-WebSocket-") || reads_like(name, bytes, "Origin"))
        return USE_PASS;
    return USE_NAMED;
}

/* GET path HTTP/1.1 and Host. */
static int add_start(struct buf *out, const uint8_t *bytes, const struct request *r,
                     const struct spec_server *server, const struct request_via *via)
{
    /* http://host?query has an empty path, which an origin-form target writes as "/". */
    bool rooted = r->path.len && bytes[r->path.off] == '/';

    if (buf_add_str(out, rooted ? "GET " : "GET /") || head_add_slice(out, bytes, r->path) ||
        buf_add_str(out, " HTTP/1.1\r\nHost: "))
        return -1;
    if (server->headers.keep_host ? head_add_slice(out, bytes, r->host) : buf_add_str(out, via->backend_host))
        return -1;
    return buf_add_str(out, "\r\n");
}

static int add_forwarded_for(struct buf *out, const struct head *h, const uint8_t *bytes,
                             const struct request_via *via)
{
    const struct head_field *f;
    size_t at = 0;

    if (buf_add_str(out, "X-Forwarded-For: "))
        return -1;
    while (via->client_trusted && (f = head_find(h, bytes, "X-Forwarded-For", &at)))
        if (f->value.len && (head_add_slice(out, bytes, f->value) || buf_add_str(out, ", ")))
            return -1;
    return buf_add_str(out, via->client_addr) || buf_add_str(out, "\r\n") ? -1 : 0;
}

static int add_forwarded(struct buf *out, const struct head *h, const uint8_t *bytes, const struct request *r,
                         const struct request_via *via)
{
    if (add_forwarded_for(out, h, bytes, via))
        return -1;
    if (!(via->client_trusted && head_count(h, bytes, "X-Forwarded-Host")) &&
        (buf_add_str(out, "X-Forwarded-Host: ") || head_add_slice(out, bytes, r->host) ||
         buf_add_str(out, "\r\n")))
        return -1;
    if (!(via->client_trusted && head_count(h, bytes, "X-Forwarded-Proto")) &&
        buf_add_str(out, via->client_tls ? "X-Forwarded-Proto: https\r\n" : "X-Forwarded-Proto: http\r\n"))
        return -1;
    return 0;
}

int request_forward(const struct head *h, const uint8_t *bytes, const struct request *r,
                    const struct spec_server *server, const struct request_via *via, struct buf *out)
{
    bool named[HEAD_MAX_FIELDS];
    enum field_use use;
    size_t i;

    /* request_check has bounded the list. */
    (void)head_mark_named(h, bytes, named);
    if (buf_reserve(out, h->len) || add_start(out, bytes, r, server, via))
        return -1;
    for (i = 0; i < h->field_count; i++) {
        use = field_use(h->fields[i].name, bytes, server, via->client_trusted);
        if (use == USE_DROP || (use == USE_NAMED && named[i]))
            continue;
        if (head_add_field(out, bytes, &h->fields[i]))
            return -1;
    }
    if (buf_add_str(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n") ||
        add_forwarded(out, h, bytes, r, via))
        return -1;
    for (i = 0; i < server->headers.set_count; i++)
        if (buf_add_str(out, server->headers.set[i].name) || buf_add_str(out, ": ") ||
            buf_add_str(out, server->headers.set[i].value) || buf_add_str(out, "\r\n"))
            return -1;
    return buf_add_str(out, "\r\n");
}
