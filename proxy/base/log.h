/* log.h - one JSON line an event on stderr
 * Shape:   {"ts":"2026-11-23T09:00:00.000Z","level":"info","event":"open",...}; fields in the order of the calls
 * Units:   fields say theirs in their names
 * Owner:   struct log_line is a local; log_end queues it; log_flush writes what is queued, once a loop turn
 * Errors:  none; a line that stderr does not take at once is kept, beyond LOG_QUEUE_BYTES it is dropped and counted
 * Limits:  LOG_LINE_BYTES a line: a field that does not fit is cut (strings) or left out, the line stays valid JSON
 * Threads: one a process; several processes may share stderr, their lines stay whole in a pipe and in a file
 * Source:  RFC 3339 for ts; untrusted bytes are escaped as json.h says */
#ifndef PROXY_BASE_LOG_H
#define PROXY_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_BYTES  4096
#define LOG_QUEUE_BYTES 65536

enum log_level { LOG_DEBUG = 0, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_line {
    size_t len;
    char text[LOG_LINE_BYTES];
};

/* Makes stderr's writes non-blocking for us without touching the flags that others share. */
void log_init(enum log_level least);
/* "debug", "info", "warn", "error" -> true */
bool log_level_parse(const char *text, enum log_level *level);
bool log_wants(enum log_level level);

void log_begin(struct log_line *l, enum log_level level, const char *event);
void log_str(struct log_line *l, const char *key, const char *text);
void log_bytes(struct log_line *l, const char *key, const void *bytes, size_t len);
void log_num(struct log_line *l, const char *key, uint64_t n);
void log_end(struct log_line *l);

/* A line of {"msg": ...}; written at once. For what happens outside the relay. */
void log_msg(enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void log_flush(void);
bool log_pending(void);
/* Lines lost so far because stderr did not take them. */
uint64_t log_dropped(void);

#endif
