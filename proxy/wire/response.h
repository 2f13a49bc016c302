/* response.h - the backend's answer: may the tunnel open, and what the client is sent; and answers of our own
 * Shape:   struct head of the answer + that of the request -> verdict; then bytes for the client
 * Owner:   `out` bufs are the caller's; nothing is kept
 * Errors:  RESPONSE_BAD with a static sentence (the client gets 502)
 * Limits:  RESPONSE_MAX_INTERIM 1xx answers (counted by the caller), RESPONSE_MAX_BODY bytes of another answer's body
 * Threads: any; pure
 * Source:  RFC 6455 4.1 (1-6) and 11.3, RFC 7692 7, RFC 9112 6.3 (length of a body), 7.1 (chunks); bars S13-S16 */
#ifndef PROXY_WIRE_RESPONSE_H
#define PROXY_WIRE_RESPONSE_H

#include "base/buf.h"
#include "wire/head.h"
#include "wire/request.h"

#define RESPONSE_MAX_INTERIM         5
#define RESPONSE_MAX_BODY            (1024u * 1024)
#define RESPONSE_MAX_CHUNK_EXTENSION 256
#define RESPONSE_MAX_TRAILER         4096

enum response_kind {
    RESPONSE_UPGRADE = 0, /* a 101 that holds in every point */
    RESPONSE_INTERIM,     /* 100, 102-199: skip it, another head follows */
    RESPONSE_FINAL,       /* 200-599: relay it and close */
    RESPONSE_BAD,         /* 502 */
};

#define RESPONSE_RSV1    0x40
#define RESPONSE_RSV_ALL 0x70

struct response {
    enum response_kind kind;
    const char *why; /* of RESPONSE_BAD */
    uint8_t
        rsv_mask; /* RSV bits that the agreed extensions may set on data frames, as they stand in byte 0 */
    struct head_slice protocol; /* Sec-WebSocket-Protocol agreed on; len 0: none */
};

struct response response_check(const struct head *h, const uint8_t *bytes, const struct head *request_head,
                               const uint8_t *request_bytes, const struct request *r);

/* How far the body of a RESPONSE_FINAL goes; fed with the bytes behind the head. */
enum body_kind { BODY_NONE = 0, BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_EOF };
struct body {
    enum body_kind kind;
    uint64_t left;     /* of the length, or of the current chunk */
    uint64_t total;    /* bytes passed, framing included */
    int chunk_state;   /* of the chunk scanner */
    uint32_t digits;   /* of the size of the current chunk */
    uint32_t loose;    /* bytes of the current chunk's extensions, or of the trailer */
    bool done, failed; /* failed: bad chunk, or over RESPONSE_MAX_BODY */
};

/* The verified 101, hop-by-hop fields replaced by exactly `Connection: Upgrade` and `Upgrade: websocket`. */
__attribute__((warn_unused_result)) int response_forward_upgrade(const struct head *h, const uint8_t *bytes,
                                                                 struct buf *out);
/* Another answer: status line and fields, hop-by-hop ones replaced by `Connection: close` (and `Upgrade:
 * websocket` in a 426 that had an Upgrade field); sets up the body.
 * Content-Length twice or unreadable, or beside Transfer-Encoding, or a coding other than chunked: -1 (502). */
__attribute__((warn_unused_result)) int response_forward_final(const struct head *h, const uint8_t *bytes,
                                                               struct buf *out, struct body *body);
/* How many of these bytes belong to the body and go to the client; sets done or failed. A body over RESPONSE_MAX_BODY
 * (framing included) is cut there and failed: its head has long gone on. Of BODY_UNTIL_EOF the caller sees the end. */
size_t body_feed(struct body *b, const uint8_t *bytes, size_t len);

/* An answer of our own: text/plain body `why`, Connection: close, Content-Length; 426 also carries
 * `Upgrade: websocket` (and its connection option: RFC 9110 7.8) and `Sec-WebSocket-Version: 13`; 405 `Allow: GET`;
 * any of them Retry-After, unless retry_after_s is 0. */
__attribute__((warn_unused_result)) int answer_emit(int status, unsigned retry_after_s, const char *why,
                                                    struct buf *out);
const char *answer_reason(int status);

#endif
