/* json.h - JSON written piece by piece into a buf, and the escapes that log lines and answers share
 * Shape:   json_open(j, NULL, '{') json_num(j, "pid", 7) json_close(j, '}') -> {"pid":7}; keys are NULL inside arrays
 * Units:   times are seconds since 1970, written as RFC 3339 in UTC
 * Owner:   struct json is a local; the buf is the caller's
 * Errors:  a piece that does not fit is remembered: ask `failed` once, at the end; the text is no JSON then
 * Limits:  those of the buf
 * Threads: one at a time
 * Source:  RFC 8259. Texts are untrusted: ", \, control bytes (C1 too: they drive terminals) are escaped, each byte of
 *          invalid UTF-8 as \u00XX */
#ifndef PROXY_BASE_JSON_H
#define PROXY_BASE_JSON_H

#include "base/buf.h"

#include <time.h>

struct json {
    struct buf *out;
    bool failed;
    bool comma; /* something stands in front at this level */
};

void json_init(struct json *j, struct buf *out);
/* `bracket` is '{' or '[', and '}' or ']'. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
/* NULL: null */
void json_str(struct json *j, const char *key, const char *text);
void json_num(struct json *j, const char *key, uint64_t n);
void json_bool(struct json *j, const char *key, bool b);
/* 0: null */
void json_time(struct json *j, const char *key, time_t at);

/* How many bytes from here on stand in a JSON string as they are. */
size_t json_plain_len(const uint8_t *p, size_t len);
/* What is written for the bytes at p, the first of which is not plain; *take says how many they are. */
size_t json_escape(const uint8_t *p, size_t left, char out[8], size_t *take);

#endif
