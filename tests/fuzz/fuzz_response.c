/* A backend's answer: however it is cut, head and body are read the same; what goes on is one clean head.
 * Input: a byte that picks the request that it answers, a byte that seeds the cuts, the answer. */
#include "wire/response.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

#define ASKED                                                                                                \
    "GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"               \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

static const char *const requests[] = {
    ASKED "\r\n",
    ASKED "Sec-WebSocket-Protocol: chat, v2.chat\r\n\r\n",
    ASKED "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, foo\r\n\r\n",
    ASKED "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
};

static unsigned next_piece(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return 1 + (*seed >> 16) % (*seed & 0x8000 ? 3 : 200);
}

static void check_same(const struct head *a, const struct head *b)
{
    CHECK(a->len == b->len && a->minor == b->minor && a->status == b->status);
    CHECK(a->field_count == b->field_count && !memcmp(&a->reason, &b->reason, sizeof(a->reason)));
    CHECK(!memcmp(a->fields, b->fields, a->field_count * sizeof(a->fields[0])));
}

/* Exact copies of the prefixes: ASan sees each byte read too many. */
static enum head_result parse_in_pieces(struct head *h, const uint8_t *bytes, size_t len, unsigned seed)
{
    enum head_result result = HEAD_MORE;
    size_t upto = 0;

    head_init(h, HEAD_RESPONSE);
    while (result == HEAD_MORE && upto < len) {
        uint8_t *copy;

        upto += next_piece(&seed);
        if (upto > len)
            upto = len;
        copy = malloc(upto);
        CHECK(copy);
        memcpy(copy, bytes, upto);
        result = head_parse(h, copy, upto);
        free(copy);
    }
    return result;
}

static void parse_forwarded(struct head *h, const struct buf *out)
{
    head_init(h, HEAD_RESPONSE);
    CHECK(head_parse(h, out->data, out->len) == HEAD_DONE && h->len == out->len);
    CHECK(head_count(h, out->data, "Connection") == 1);
    CHECK(!head_count(h, out->data, "Keep-Alive") && !head_count(h, out->data, "Proxy-Connection"));
}

static void check_upgrade(const struct head *h, const uint8_t *bytes, const struct response *r)
{
    struct head again;
    struct buf out;

    CHECK(h->status == 101 && head_count(h, bytes, "Sec-WebSocket-Accept") == 1);
    CHECK(r->rsv_mask == 0 || head_count(h, bytes, "Sec-WebSocket-Extensions") == 1);
    buf_init(&out, 2 * HEAD_MAX_BYTES);
    /* Refused only when Connection names too many fields. */
    if (!response_forward_upgrade(h, bytes, &out) && out.len <= HEAD_MAX_BYTES &&
        h->field_count < HEAD_MAX_FIELDS - 2) {
        parse_forwarded(&again, &out);
        CHECK(head_count(&again, out.data, "Upgrade") == 1);
        CHECK(head_count(&again, out.data, "Content-Length") == 0);
        CHECK(head_count(&again, out.data, "Sec-WebSocket-Accept") == 1);
        CHECK(head_count(&again, out.data, "Sec-WebSocket-Protocol") == (r->protocol.len ? 1u : 0u));
    }
    buf_free(&out);
}

static void check_body(struct body start, const uint8_t *bytes, size_t len, unsigned seed)
{
    struct body whole = start, pieces = start;
    size_t taken = body_feed(&whole, bytes, len), at = 0, piece;

    CHECK(taken <= len && whole.total == taken && whole.total <= RESPONSE_MAX_BODY);
    CHECK(taken == len || whole.done || whole.failed);
    CHECK(!whole.done || !whole.failed);
    while (at < len && !pieces.done && !pieces.failed) {
        piece = next_piece(&seed);
        if (piece > len - at)
            piece = len - at;
        at += body_feed(&pieces, bytes + at, piece);
    }
    CHECK(at == taken && pieces.total == whole.total);
    CHECK(pieces.done == whole.done && pieces.failed == whole.failed);
}

static void check_final(const struct head *h, const uint8_t *bytes, size_t len, unsigned seed)
{
    struct body body;
    struct head again;
    struct buf out;

    buf_init(&out, 2 * HEAD_MAX_BYTES);
    if (!response_forward_final(h, bytes, &out, &body)) {
        if (out.len <= HEAD_MAX_BYTES && h->field_count < HEAD_MAX_FIELDS - 2) {
            parse_forwarded(&again, &out);
            CHECK(again.status == h->status && head_has_token(&again, out.data, "Connection", "close"));
            CHECK(head_count(&again, out.data, "Upgrade") <= (h->status == 426 ? 1u : 0u));
            CHECK(head_count(&again, out.data, "Transfer-Encoding") == (body.kind == BODY_CHUNKED ? 1u : 0u));
        }
        check_body(body, bytes + h->len, len - h->len, seed);
    }
    buf_free(&out);
}

static void check_answer(const struct head *h, const uint8_t *bytes, size_t len, const char *request,
                         unsigned seed)
{
    static const struct spec_server server = {.headers = {.keep_host = true}};
    const uint8_t *request_bytes = (const uint8_t *)request;
    struct head request_head;
    struct request asked;
    struct response r;

    head_init(&request_head, HEAD_REQUEST);
    CHECK(head_parse(&request_head, request_bytes, strlen(request)) == HEAD_DONE);
    CHECK(request_check(&request_head, request_bytes, &server, &asked).status == 0);
    r = response_check(h, bytes, &request_head, request_bytes, &asked);
    CHECK((r.kind == RESPONSE_BAD) == (r.why != NULL));
    if (r.kind == RESPONSE_UPGRADE)
        check_upgrade(h, bytes, &r);
    else if (r.kind == RESPONSE_FINAL)
        check_final(h, bytes, len, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum head_result whole, pieces;
    struct head h, other;

    if (size < 3)
        return 0;
    head_init(&h, HEAD_RESPONSE);
    whole = head_parse(&h, data + 2, size - 2);
    pieces = parse_in_pieces(&other, data + 2, size - 2, data[1]);
    CHECK(whole == pieces);
    CHECK(whole == HEAD_MORE || whole == HEAD_DONE || h.why);
    if (whole != HEAD_DONE)
        return 0;
    check_same(&h, &other);
    check_answer(&h, data + 2, size - 2, requests[data[0] % 4], data[1]);
    return 0;
}
