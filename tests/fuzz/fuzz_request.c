/* A client's head: however it is cut, the parser says the same; what passes the check is forwarded as one clean head.
 * Input: a byte of options, a byte that seeds the cuts, the head. */
#include "wire/request.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

enum { OPT_TRUSTED = 1, OPT_OWN_HOST = 2, OPT_HEADERS = 4, OPT_ORIGINS = 8 };

static char *origins[] = {"https://app.example", "null"};
static char *removed[] = {"Cookie", "X-Debug"};
static struct spec_header set[] = {{.name = "X-User", .value = "gateway"}};

static void check_same(const struct head *a, const struct head *b)
{
    CHECK(a->len == b->len && a->minor == b->minor && a->field_count == b->field_count);
    CHECK(!memcmp(&a->method, &b->method, sizeof(a->method)));
    CHECK(!memcmp(&a->target, &b->target, sizeof(a->target)));
    CHECK(!memcmp(a->fields, b->fields, a->field_count * sizeof(a->fields[0])));
}

/* The prefixes are exact copies: ASan sees each byte read too many. */
static enum head_result parse_in_pieces(struct head *h, const uint8_t *bytes, size_t len, unsigned seed)
{
    enum head_result result = HEAD_MORE;
    size_t upto = 0;

    head_init(h, HEAD_REQUEST);
    while (result == HEAD_MORE && upto < len) {
        uint8_t *copy;

        seed = seed * 1103515245 + 12345;
        upto += 1 + (seed >> 16) % (seed & 0x8000 ? 3 : 200);
        if (upto > len)
            upto = len;
        copy = malloc(upto);
        CHECK(copy);
        memcpy(copy, bytes, upto);
        result = head_parse(h, copy, upto);
        free(copy);
        CHECK(result != HEAD_MORE || h->seen + h->scan + 1 >= upto);
    }
    return result;
}

static bool begins_like(const struct head_field *f, const uint8_t *bytes, const char *text)
{
    size_t i;

    for (i = 0; text[i]; i++) {
        uint8_t c = i < f->name.len ? bytes[f->name.off + i] : 0;

        if (c >= 'A' && c <= 'Z')
            c |= 0x20;
        if (c == '_')
            c = '-';
        if (c != (uint8_t)text[i])
            return false;
    }
    return true;
}

static void check_forwarded(const struct head *h, const uint8_t *bytes, const struct request *r,
                            unsigned options, const struct buf *out)
{
    static const char *const once[] = {
        "Host", "Upgrade", "Connection", "X-Forwarded-For", "Sec-WebSocket-Key", "Sec-WebSocket-Version"};
    static const char *const gone[] = {"Keep-Alive",    "Proxy-Connection",  "TE",
                                       "Trailer",       "Transfer-Encoding", "Content-Length",
                                       "HTTP2-Settings"};
    bool trusted = options & OPT_TRUSTED;
    size_t i, at = 0, ours = 0, skip;
    const struct head_field *f;
    struct head again;

    head_init(&again, HEAD_REQUEST);
    CHECK(head_parse(&again, out->data, out->len) == HEAD_DONE && again.len == out->len);
    for (i = 0; i < sizeof(once) / sizeof(once[0]); i++)
        CHECK(head_count(&again, out->data, once[i]) == 1);
    for (i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
        CHECK(head_count(&again, out->data, gone[i]) == 0);
    CHECK(head_slice_is(again.method, out->data, "GET") && again.minor == 1);
    skip = again.target.len - r->path.len;
    CHECK(skip <= 1 && (!skip || out->data[again.target.off] == '/'));
    CHECK(!memcmp(out->data + again.target.off + skip, bytes + r->path.off, r->path.len));
    f = head_find(&again, out->data, "Sec-WebSocket-Key", &at);
    CHECK(f->value.len == r->key.len && !memcmp(out->data + f->value.off, bytes + r->key.off, r->key.len));
    for (i = 0; i < again.field_count; i++) {
        f = &again.fields[i];
        ours += begins_like(f, out->data, "x-forwarded-");
        CHECK(trusted || (!begins_like(f, out->data, "x-real-ip") || f->name.len != 9));
        CHECK(!(options & OPT_HEADERS) || !begins_like(f, out->data, "cookie") || f->name.len != 6);
    }
    CHECK(trusted || ours == 3);
    CHECK(head_count(&again, out->data, "Origin") == head_count(h, bytes, "Origin"));
}

/* The client that a trusted proxy of ours would find in what we forward is the one that we found. */
static void check_client(const struct head *h, const uint8_t *bytes, const struct spec_server *server,
                         const struct buf *out)
{
    struct in6_addr peer = {.s6_addr = {[10] = 0xFF, [11] = 0xFF, [12] = 192, [13] = 0, [14] = 2, [15] = 7}};
    struct in6_addr next = peer, mine = request_client(h, bytes, server, &peer), theirs;
    struct head again;

    CHECK(server->trusted_proxy_count || !memcmp(&mine, &peer, sizeof(mine)));
    head_init(&again, HEAD_REQUEST);
    CHECK(head_parse(&again, out->data, out->len) == HEAD_DONE);
    next.s6_addr[15] = 1;
    theirs = request_client(&again, out->data, server, &next);
    CHECK(!server->trusted_proxy_count || !memcmp(&mine, &theirs, sizeof(mine)));
}

static void check_request(const struct head *h, const uint8_t *bytes, unsigned options)
{
    const struct request_via via = {
        .client_addr = "192.0.2.7", .client_trusted = options & OPT_TRUSTED, .backend_host = "backend:9000"};
    struct spec_server server = {.headers = {.keep_host = !(options & OPT_OWN_HOST)}};
    struct spec_cidr proxies[] = {
        {.addr = {[10] = 0xFF, [11] = 0xFF, [12] = 192, [13] = 0, [14] = 2}, .bits = 96 + 24},
        {.addr = {[10] = 0xFF, [11] = 0xFF, [12] = 10}, .bits = 96 + 8}};
    struct request r;
    struct verdict v;
    struct buf out;

    if (options & OPT_TRUSTED) {
        server.trusted_proxies = proxies;
        server.trusted_proxy_count = 2;
    }
    if (options & OPT_HEADERS) {
        server.headers.set = set;
        server.headers.set_count = 1;
        server.headers.remove = (struct spec_strings){.items = removed, .count = 2};
    }
    if (options & OPT_ORIGINS)
        server.allowed_origins = (struct spec_strings){.items = origins, .count = 2};
    v = request_check(h, bytes, &server, &r);
    CHECK((v.status == 0) == (v.why == NULL));
    CHECK(v.status == 0 || (v.status >= 400 && v.status < 430));
    CHECK(r.path.off + (size_t)r.path.len <= h->len && r.host.off + (size_t)r.host.len <= h->len);
    if (v.status)
        return;
    buf_init(&out, 2 * HEAD_MAX_BYTES);
    CHECK(request_forward(h, bytes, &r, &server, &via, &out) == 0);
    /* With what we add, a head at the limits may pass them. */
    if (out.len <= HEAD_MAX_BYTES && h->field_count < HEAD_MAX_FIELDS - 8) {
        check_forwarded(h, bytes, &r, options, &out);
        check_client(h, bytes, &server, &out);
    }
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum head_result whole, pieces;
    struct head h, other;

    if (size < 3)
        return 0;
    head_init(&h, HEAD_REQUEST);
    whole = head_parse(&h, data + 2, size - 2);
    pieces = parse_in_pieces(&other, data + 2, size - 2, data[1]);
    CHECK(whole == pieces);
    CHECK(whole == HEAD_MORE || whole == HEAD_DONE || h.why);
    if (whole != HEAD_DONE)
        return 0;
    check_same(&h, &other);
    check_request(&h, data + 2, data[0]);
    return 0;
}
