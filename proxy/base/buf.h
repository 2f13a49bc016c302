/* buf.h - growable bytes with a limit given at birth
 * Shape:   data[0..len); data is NULL while empty and never NUL-terminated
 * Owner:   whoever embeds it: buf_init ... buf_free; buf_take hands the bytes out
 * Errors:  -1 when the limit would be passed or memory is out; the content is untouched then
 * Limits:  `max` of buf_init
 * Threads: one at a time */
#ifndef PROXY_BASE_BUF_H
#define PROXY_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max;
};

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);
/* Room for `more` bytes behind len; the caller writes there and raises len. */
__attribute__((warn_unused_result)) int buf_reserve(struct buf *b, size_t more);
__attribute__((warn_unused_result)) int buf_add(struct buf *b, const void *bytes, size_t len);
__attribute__((warn_unused_result)) int buf_add_str(struct buf *b, const char *text);
__attribute__((warn_unused_result)) int buf_addf(struct buf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Drops `n` bytes at the front. */
void buf_consume(struct buf *b, size_t n);
/* The bytes, to be freed by the caller; b is empty afterwards. */
uint8_t *buf_take(struct buf *b, size_t *len);

#endif
