#include "wire/response.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#define ACCEPT_LEN       28 /* base64 of a SHA-1 */
#define KEY_LEN          24
#define CHUNK_SIZE_MAX   8 /* hex digits */
#define CLOSE_FIELDS     "Connection: close\r\n"
#define CLOSE_FIELDS_426 "Connection: close, Upgrade\r\nUpgrade: websocket\r\n"

static struct response bad(const char *why)
{
    return (struct response){.kind = RESPONSE_BAD, .why = why};
}

/* base64(SHA-1(key + GUID)) of RFC 6455 4.2.2, with a NUL. */
static bool accept_of(const uint8_t *key, char out[ACCEPT_LEN + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t text[KEY_LEN + sizeof(guid) - 1], digest[SHA_DIGEST_LENGTH];

    memcpy(text, key, KEY_LEN);
    memcpy(text + KEY_LEN, guid, sizeof(guid) - 1);
    if (!SHA1(text, sizeof(text), digest))
        return false;
    return EVP_EncodeBlock((uint8_t *)out, digest, sizeof(digest)) == ACCEPT_LEN;
}

/* The value of the only field of that name, NULL when there is none or several; *count says how many. */
static const struct head_slice *only(const struct head *h, const uint8_t *bytes, const char *name,
                                     size_t *count)
{
    const struct head_field *f;
    size_t at = 0;

    *count = head_count(h, bytes, name);
    f = head_find(h, bytes, name, &at);
    return *count == 1 ? &f->value : NULL;
}

static const char *check_switch(const struct head *h, const uint8_t *bytes)
{
    const struct head_slice *v;
    size_t count;

    if (h->minor != 1)
        return "the backend answered 101 in HTTP/1.0";
    v = only(h, bytes, "Upgrade", &count);
    if (!v || !head_slice_is_icase(*v, bytes, "websocket"))
        return "the backend's 101 does not say `Upgrade: websocket`";
    if (!head_has_token(h, bytes, "Connection", "upgrade"))
        return "the backend's 101 does not say `Connection: Upgrade`";
    if (head_count(h, bytes, "Transfer-Encoding"))
        return "the backend's 101 announces a body";
    v = only(h, bytes, "Content-Length", &count);
    if (count && (!v || !head_slice_is(*v, bytes, "0")))
        return "the backend's 101 announces a body";
    return NULL;
}

static const char *check_accept(const struct head *h, const uint8_t *bytes, const uint8_t *key)
{
    const struct head_slice *v;
    char want[ACCEPT_LEN + 1];
    size_t count;

    v = only(h, bytes, "Sec-WebSocket-Accept", &count);
    if (!v)
        return count ? "the backend's 101 has more than one Sec-WebSocket-Accept"
                     : "the backend's 101 has no Sec-WebSocket-Accept";
    if (!accept_of(key, want))
        return "Sec-WebSocket-Accept could not be computed";
    if (!head_slice_is(*v, bytes, want))
        return "the backend's Sec-WebSocket-Accept does not fit the key";
    return NULL;
}

static const char *check_protocol(const struct head *h, const uint8_t *bytes, const struct head *request_head,
                                  const uint8_t *request_bytes, struct head_slice *agreed)
{
    const struct head_slice *v;
    struct offer offered;
    size_t count;

    v = only(h, bytes, "Sec-WebSocket-Protocol", &count);
    if (!count)
        return NULL;
    if (!v)
        return "the backend's 101 has more than one Sec-WebSocket-Protocol";
    if (!offer_protocols(request_head, request_bytes, &offered) ||
        !offer_holds(&offered, request_bytes, *v, bytes))
        return "the backend chose a subprotocol that the client did not offer";
    *agreed = *v;
    return NULL;
}

static const char *check_extensions(const struct head *h, const uint8_t *bytes,
                                    const struct head *request_head, const uint8_t *request_bytes,
                                    uint8_t *rsv_mask)
{
    struct offer offered, agreed;
    size_t i;

    if (head_count(h, bytes, "Sec-WebSocket-Extensions") > 1)
        return "the backend's 101 has more than one Sec-WebSocket-Extensions";
    if (!offer_extensions(h, bytes, &agreed))
        return "the backend's Sec-WebSocket-Extensions is malformed";
    if (!offer_unique(&agreed, bytes))
        return "the backend names an extension twice";
    if (!offer_extensions(request_head, request_bytes, &offered))
        return "the client's Sec-WebSocket-Extensions is malformed";
    for (i = 0; i < agreed.count; i++) {
        if (!offer_holds(&offered, request_bytes, agreed.names[i], bytes))
            return "the backend chose an extension that the client did not offer";
        if (head_slice_is(agreed.names[i], bytes, "permessage-deflate") ||
            head_slice_is(agreed.names[i], bytes, "x-webkit-deflate-frame"))
            *rsv_mask |= RESPONSE_RSV1;
        else
            *rsv_mask |= RESPONSE_RSV_ALL;
    }
    return NULL;
}

struct response response_check(const struct head *h, const uint8_t *bytes, const struct head *request_head,
                               const uint8_t *request_bytes, const struct request *r)
{
    struct response out = {.kind = RESPONSE_UPGRADE};

    if (h->status < 100 || h->status > 599)
        return bad("the backend's status is not within 100 to 599");
    if (h->status != 101) {
        out.kind = h->status < 200 ? RESPONSE_INTERIM : RESPONSE_FINAL;
        return out;
    }
    out.why = check_switch(h, bytes);
    if (!out.why)
        out.why = check_accept(h, bytes, request_bytes + r->key.off);
    if (!out.why)
        out.why = check_protocol(h, bytes, request_head, request_bytes, &out.protocol);
    if (!out.why)
        out.why = check_extensions(h, bytes, request_head, request_bytes, &out.rsv_mask);
    return out.why ? bad(out.why) : out;
}

static int add_status_line(struct buf *out, const uint8_t *bytes, const struct head *h)
{
    return buf_addf(out, "HTTP/1.1 %d ", h->status) || head_add_slice(out, bytes, h->reason) ||
                   buf_add_str(out, "\r\n")
               ? -1
               : 0;
}

static bool hop_by_hop(struct head_slice name, const uint8_t *bytes)
{
    static const char *const names[] = {"Connection", "Upgrade", "Keep-Alive",        "Proxy-Connection",
                                        "TE",         "Trailer", "Proxy-Authenticate"};
    size_t i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (head_slice_is_icase(name, bytes, names[i]))
            return true;
    return false;
}

/* Fields that say how the bytes behind the head are read: Connection cannot name them away. */
static bool is_framing(struct head_slice name, const uint8_t *bytes)
{
    static const char handshake[] = "Sec-WebSocket-";
    struct head_slice begin = {name.off, sizeof(handshake) - 1};

    return head_slice_is_icase(name, bytes, "Content-Length") ||
           head_slice_is_icase(name, bytes, "Transfer-Encoding") ||
           (name.len > begin.len && head_slice_is_icase(begin, bytes, handshake));
}

/* All fields but the hop-by-hop ones and, when there is no body to describe, those that would. */
static int add_fields(struct buf *out, const uint8_t *bytes, const struct head *h, bool drop_length,
                      bool drop_coding)
{
    bool named[HEAD_MAX_FIELDS];
    size_t i;

    if (!head_mark_named(h, bytes, named))
        return -1;
    for (i = 0; i < h->field_count; i++) {
        struct head_slice name = h->fields[i].name;

        if (hop_by_hop(name, bytes) || (named[i] && !is_framing(name, bytes)) ||
            (drop_length && head_slice_is_icase(name, bytes, "Content-Length")) ||
            (drop_coding && head_slice_is_icase(name, bytes, "Transfer-Encoding")))
            continue;
        if (head_add_field(out, bytes, &h->fields[i]))
            return -1;
    }
    return 0;
}

int response_forward_upgrade(const struct head *h, const uint8_t *bytes, struct buf *out)
{
    if (add_status_line(out, bytes, h) || add_fields(out, bytes, h, true, true))
        return -1;
    return buf_add_str(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
}

static bool parse_length(const uint8_t *p, size_t len, uint64_t *out)
{
    uint64_t n = 0;
    size_t i;

    if (len < 1 || len > 18)
        return false;
    for (i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(p[i] - '0');
    }
    *out = n;
    return true;
}

static bool setup_body(const struct head *h, const uint8_t *bytes, struct body *body)
{
    const struct head_slice *length, *coding;
    size_t lengths, codings;

    memset(body, 0, sizeof(*body));
    length = only(h, bytes, "Content-Length", &lengths);
    coding = only(h, bytes, "Transfer-Encoding", &codings);
    if (lengths && (codings || !length || !parse_length(bytes + length->off, length->len, &body->left)))
        return false;
    if (codings && (h->minor != 1 || !coding || !head_slice_is_icase(*coding, bytes, "chunked")))
        return false;
    if (h->status < 200 || h->status == 204 || h->status == 304)
        body->kind = BODY_NONE;
    else if (codings)
        body->kind = BODY_CHUNKED;
    else
        body->kind = lengths ? BODY_LENGTH : BODY_UNTIL_EOF;
    body->done = body->kind == BODY_NONE || (body->kind == BODY_LENGTH && !body->left);
    return true;
}

int response_forward_final(const struct head *h, const uint8_t *bytes, struct buf *out, struct body *body)
{
    /* A 426 says what to upgrade to (RFC 9110 15.5.22), and that is for our hop to say. */
    bool says_upgrade = h->status == 426 && head_count(h, bytes, "Upgrade");
    struct body b;

    if (!setup_body(h, bytes, &b) || add_status_line(out, bytes, h) ||
        add_fields(out, bytes, h, h->status == 204, b.kind == BODY_NONE) ||
        buf_add_str(out, says_upgrade ? CLOSE_FIELDS_426 : CLOSE_FIELDS) || buf_add_str(out, "\r\n"))
        return -1;
    *body = b;
    return 0;
}

/* RFC 9112 7.1. Each state names what comes next.
 *
 *   SIZE -> [EXTENSION ->] SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE ...
 *   SIZE -> [EXTENSION ->] SIZE_LF -> TRAILER -> [NAME -> VALUE -> VALUE_LF -> TRAILER ->] END_LF */
enum chunk_state {
    CHUNK_SIZE = 0,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER,
    CHUNK_NAME,
    CHUNK_VALUE,
    CHUNK_VALUE_LF,
    CHUNK_END_LF,
    CHUNK_BAD,
};

static bool is_control(uint8_t c)
{
    return (c < 0x20 && c != '\t') || c == 0x7f;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum chunk_state step_size(struct body *b, uint8_t c)
{
    int digit = hex_digit(c);

    if (digit >= 0) {
        if (++b->digits > CHUNK_SIZE_MAX)
            return CHUNK_BAD;
        b->left = b->left << 4 | (uint64_t)digit;
        return CHUNK_SIZE;
    }
    if (!b->digits)
        return CHUNK_BAD;
    b->loose = 0;
    return c == ';' ? CHUNK_EXTENSION : c == '\r' ? CHUNK_SIZE_LF : CHUNK_BAD;
}

static enum chunk_state step_trailer(struct body *b, uint8_t c, enum chunk_state state)
{
    if (++b->loose > RESPONSE_MAX_TRAILER)
        return CHUNK_BAD;
    if (state == CHUNK_TRAILER && c == '\r')
        return CHUNK_END_LF;
    if (state != CHUNK_VALUE) {
        if (state == CHUNK_NAME && c == ':')
            return CHUNK_VALUE;
        return head_is_token(&c, 1) ? CHUNK_NAME : CHUNK_BAD;
    }
    if (c == '\r')
        return CHUNK_VALUE_LF;
    return is_control(c) ? CHUNK_BAD : CHUNK_VALUE;
}

/* One byte of the framing. */
static enum chunk_state step_chunk(struct body *b, uint8_t c)
{
    enum chunk_state state = (enum chunk_state)b->chunk_state;

    switch (state) {
    case CHUNK_SIZE: return step_size(b, c);
    case CHUNK_EXTENSION:
        if (c == '\r')
            return CHUNK_SIZE_LF;
        return is_control(c) || ++b->loose > RESPONSE_MAX_CHUNK_EXTENSION ? CHUNK_BAD : CHUNK_EXTENSION;
    case CHUNK_SIZE_LF:
        b->digits = b->loose = 0;
        return c != '\n' ? CHUNK_BAD : b->left ? CHUNK_DATA : CHUNK_TRAILER;
    case CHUNK_DATA_CR: return c == '\r' ? CHUNK_DATA_LF : CHUNK_BAD;
    case CHUNK_DATA_LF: return c == '\n' ? CHUNK_SIZE : CHUNK_BAD;
    case CHUNK_TRAILER:
    case CHUNK_NAME:
    case CHUNK_VALUE: return step_trailer(b, c, state);
    case CHUNK_VALUE_LF: return c == '\n' ? CHUNK_TRAILER : CHUNK_BAD;
    case CHUNK_END_LF: b->done = c == '\n'; return b->done ? CHUNK_END_LF : CHUNK_BAD;
    case CHUNK_DATA:
    case CHUNK_BAD: break;
    }
    return CHUNK_BAD;
}

static size_t feed_chunked(struct body *b, const uint8_t *bytes, size_t len)
{
    size_t i = 0, n;

    while (i < len && !b->done) {
        if (b->chunk_state == CHUNK_DATA) {
            n = len - i < b->left ? len - i : (size_t)b->left;
            b->left -= n;
            i += n;
            if (!b->left)
                b->chunk_state = CHUNK_DATA_CR;
            continue;
        }
        b->chunk_state = (int)step_chunk(b, bytes[i]);
        if (b->chunk_state == CHUNK_BAD) {
            b->failed = true;
            return i;
        }
        i++;
    }
    return i;
}

size_t body_feed(struct body *b, const uint8_t *bytes, size_t len)
{
    size_t room = RESPONSE_MAX_BODY - (size_t)b->total, n = len < room ? len : room;

    if (b->done || b->failed)
        return 0;
    switch (b->kind) {
    case BODY_NONE: return 0;
    case BODY_LENGTH:
        n = n < b->left ? n : (size_t)b->left;
        b->left -= n;
        b->done = !b->left;
        break;
    case BODY_CHUNKED: n = feed_chunked(b, bytes, n); break;
    case BODY_UNTIL_EOF: break;
    }
    b->total += n;
    if (!b->done && n < len)
        b->failed = true;
    return n;
}

const char *answer_reason(int status)
{
    switch (status) {
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 414: return "URI Too Long";
    case 421: return "Misdirected Request";
    case 426: return "Upgrade Required";
    case 431: return "Request Header Fields Too Large";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Internal Server Error";
    }
}

int answer_emit(int status, unsigned retry_after_s, const char *why, struct buf *out)
{
    const char *extra = "";
    char retry[40] = "";

    if (status == 426)
        extra = "Sec-WebSocket-Version: 13\r\n";
    else if (status == 405)
        extra = "Allow: GET\r\n";
    if (retry_after_s)
        snprintf(retry, sizeof(retry), "Retry-After: %u\r\n", retry_after_s);
    return buf_addf(out,
                    "HTTP/1.1 %d %s\r\n"
                    "%s%s%s"
                    "Content-Type: text/plain; charset=utf-8\r\n"
                    "Content-Length: %zu\r\n"
                    "\r\n"
                    "%s\n",
                    status, answer_reason(status), status == 426 ? CLOSE_FIELDS_426 : CLOSE_FIELDS, extra,
                    retry, strlen(why) + 1, why);
}
