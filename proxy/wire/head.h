/* head.h - one HTTP/1.1 head, strictly, as it arrives
 * Shape:   bytes of a buffer -> start line and fields as slices of that same buffer; no copy, no allocation
 * Units:   offsets and lengths in bytes from the buffer's start
 * Owner:   the caller owns bytes and struct; slices hold as offsets, so the buffer may move between calls
 * Errors:  a result, and `why` (static text) for a person; the parser never reads past `len`
 * Limits:  HEAD_MAX_BYTES the head, HEAD_MAX_TARGET the target, HEAD_MAX_LINE any other line (without its CRLF),
 *          HEAD_MAX_FIELDS, HEAD_MAX_ITEMS
 * Threads: one at a time; pure
 * Source:  RFC 9112 2-5 and RFC 9110 5, without any leniency: CRLF only, no obs-fold, no space before the colon,
 *          no control bytes, no empty names, one space between the parts of a start line; bars S3, S6, S7, S16 */
#ifndef PROXY_WIRE_HEAD_H
#define PROXY_WIRE_HEAD_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_MAX_BYTES  16384
#define HEAD_MAX_LINE   8192
#define HEAD_MAX_TARGET 8192
#define HEAD_MAX_FIELDS 100
#define HEAD_MAX_ITEMS                                                                                       \
    64 /* elements of a list that is compared with another: work stays linear in the bytes */

struct head_slice {
    uint16_t off, len;
};

struct head_field {
    struct head_slice name, value; /* value without the white space around it */
};

enum head_kind { HEAD_REQUEST = 0, HEAD_RESPONSE };

enum head_result {
    HEAD_MORE = 0,        /* give it more bytes behind those it has seen */
    HEAD_DONE,            /* bytes[0..len) are the head; what follows is not ours */
    HEAD_BAD,             /* 400, or 502 from a backend */
    HEAD_TARGET_TOO_LONG, /* 414 */
    HEAD_TOO_LARGE,       /* 431, or 502: bytes, a line or the number of fields */
    HEAD_VERSION, /* 505: a well-formed start line of another HTTP version than 1.0 and 1.1; `PRI *` too */
};

struct head {
    enum head_kind kind;
    struct head_slice method, target; /* request */
    int status;                       /* response */
    struct head_slice reason;         /* response; may be empty */
    int minor;                        /* HTTP/1.minor */
    struct head_field fields[HEAD_MAX_FIELDS];
    size_t field_count;
    size_t len; /* of the whole head with its empty line, once done */

    size_t seen; /* how far the scan is: the start of the line that is not complete yet */
    size_t scan; /* bytes of that line already searched for its end, so 1-byte chunks stay linear */
    const char *why;
};

void head_init(struct head *h, enum head_kind kind);
/* `bytes[0..len)` is everything received so far, the same bytes as before first. After a result other than
 * HEAD_MORE, do not call again. Bad bytes are reported as soon as their line is complete, or sooner. */
enum head_result head_parse(struct head *h, const uint8_t *bytes, size_t len);

/* Name compared without case. The first field from index `*at` on, which then stands behind it; NULL when none. */
const struct head_field *head_find(const struct head *h, const uint8_t *bytes, const char *name, size_t *at);
size_t head_count(const struct head *h, const uint8_t *bytes, const char *name);

/* RFC 9110 5.6.2: what a method, a name and a subprotocol are made of. Empty: false. */
bool head_is_token(const uint8_t *bytes, size_t len);
bool head_slice_is(struct head_slice s, const uint8_t *bytes, const char *text);       /* exact */
bool head_slice_is_icase(struct head_slice s, const uint8_t *bytes, const char *text); /* ASCII case folded */
/* The next element of a comma-separated list, white space trimmed, empty elements skipped, quoted strings whole;
 * `rest` is moved behind it. False at the end. */
bool head_list_next(const uint8_t *bytes, struct head_slice *rest, struct head_slice *item);
/* Is `token` an element of any field of that name? Whole element, ASCII case folded. */
bool head_has_token(const struct head *h, const uint8_t *bytes, const char *name, const char *token);
/* named[i]: an element of Connection is the name of field i. False: it has more than HEAD_MAX_ITEMS elements. */
bool head_mark_named(const struct head *h, const uint8_t *bytes, bool named[HEAD_MAX_FIELDS]);

/* Out again: the bytes of a slice, and `Name: value` with its CRLF. -1: `out` cannot hold it. */
__attribute__((warn_unused_result)) int head_add_slice(struct buf *out, const uint8_t *bytes,
                                                       struct head_slice s);
__attribute__((warn_unused_result)) int head_add_field(struct buf *out, const uint8_t *bytes,
                                                       const struct head_field *f);

#endif
