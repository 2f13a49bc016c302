#include "base/log.h"

#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A value is cut here, so that one long path does not push the other fields out of its line. */
#define LOG_VALUE_BYTES 1024
/* "}\n" always fits. */
#define LOG_TAIL_BYTES 2

/* How stderr can be written without waiting for its reader. */
enum log_sink {
    LOG_SINK_PLAIN = 0, /* a file, or our own O_NONBLOCK description of a pipe or terminal */
    LOG_SINK_SOCKET,    /* MSG_DONTWAIT */
    LOG_SINK_POLLED,    /* a pipe that may not be reopened: POLLOUT promises PIPE_BUF bytes */
};

static struct {
    int fd;
    enum log_sink sink;
    bool pipe;
    enum log_level least;
    uint64_t dropped; /* not said yet */
    uint64_t dropped_total;
    time_t second; /* that `stamp` was made for */
    char stamp[32];
    size_t start, len; /* queue[start..start+len) waits */
    char queue[LOG_QUEUE_BYTES];
} logger = {.fd = STDERR_FILENO, .least = LOG_INFO, .second = -1};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_init(enum log_level least)
{
    struct stat st;
    int fd;

    logger.least = least;
    if (fstat(STDERR_FILENO, &st))
        return;
    logger.pipe = S_ISFIFO(st.st_mode);
    if (S_ISSOCK(st.st_mode)) {
        logger.sink = LOG_SINK_SOCKET;
    } else if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_APPEND | O_CLOEXEC | O_NOCTTY);
        if (fd >= 0)
            logger.fd = fd;
        else
            logger.sink = LOG_SINK_POLLED, logger.pipe = true;
    }
}

bool log_level_parse(const char *text, enum log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++)
        if (!strcmp(text, level_names[i])) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}

bool log_wants(enum log_level level)
{
    return level >= logger.least;
}

static void line_raw(struct log_line *l, const char *bytes, size_t len)
{
    memcpy(l->text + l->len, bytes, len);
    l->len += len;
}

static size_t line_room(const struct log_line *l)
{
    return sizeof l->text - LOG_TAIL_BYTES - l->len;
}

/* `,"key":` when it fits together with `value_bytes`. */
static bool line_key(struct log_line *l, const char *key, size_t value_bytes)
{
    size_t n = strlen(key);

    if (line_room(l) < n + 4 + value_bytes)
        return false;
    line_raw(l, ",\"", 2);
    line_raw(l, key, n);
    line_raw(l, "\":", 2);
    return true;
}

void log_begin(struct log_line *l, enum log_level level, const char *event)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != logger.second) {
        struct tm tm;

        gmtime_r(&now.tv_sec, &tm);
        strftime(logger.stamp, sizeof logger.stamp, "%Y-%m-%dT%H:%M:%S", &tm);
        logger.second = now.tv_sec;
    }
    l->len =
        (size_t)snprintf(l->text, sizeof l->text, "{\"ts\":\"%s.%03dZ\",\"level\":\"%s\",\"event\":\"%s\"",
                         logger.stamp, (int)(now.tv_nsec / 1000000), level_names[level], event);
}

void log_str(struct log_line *l, const char *key, const char *text)
{
    log_bytes(l, key, text, strlen(text));
}

void log_bytes(struct log_line *l, const char *key, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    size_t end;

    if (!line_key(l, key, 2))
        return;
    end = l->len + LOG_VALUE_BYTES;
    if (end > sizeof l->text - LOG_TAIL_BYTES - 1)
        end = sizeof l->text - LOG_TAIL_BYTES - 1;
    line_raw(l, "\"", 1);
    for (size_t i = 0, take; i < len; i += take) {
        char text[8];
        size_t n;

        take = json_plain_len(p + i, len - i);
        if (take) {
            n = take < end - l->len ? take : end - l->len;
            line_raw(l, (const char *)p + i, n);
            if (n < take)
                break;
            continue;
        }
        n = json_escape(p + i, len - i, text, &take);
        if (n > end - l->len)
            break;
        line_raw(l, text, n);
    }
    line_raw(l, "\"", 1);
}

void log_num(struct log_line *l, const char *key, uint64_t n)
{
    char text[24];
    size_t len = (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)n);

    if (line_key(l, key, len))
        line_raw(l, text, len);
}

static bool queue_put(const char *text, size_t len)
{
    if (len > sizeof logger.queue - logger.len)
        return false;
    if (logger.start + logger.len + len > sizeof logger.queue) {
        memmove(logger.queue, logger.queue + logger.start, logger.len);
        logger.start = 0;
    }
    memcpy(logger.queue + logger.start + logger.len, text, len);
    logger.len += len;
    return true;
}

/* Says how many lines were lost, once one fits again. */
static void queue_dropped(void)
{
    struct log_line l;

    log_begin(&l, LOG_WARN, "log_dropped");
    log_num(&l, "lines", logger.dropped);
    line_raw(&l, "}\n", 2);
    if (queue_put(l.text, l.len))
        logger.dropped = 0;
}

void log_end(struct log_line *l)
{
    line_raw(l, "}\n", 2);
    if (sizeof logger.queue - logger.len < 2 * sizeof l->text)
        log_flush();
    if (logger.dropped && sizeof logger.queue - logger.len >= 2 * sizeof l->text)
        queue_dropped();
    if (logger.dropped || !queue_put(l->text, l->len))
        logger.dropped++, logger.dropped_total++;
}

void log_msg(enum log_level level, const char *event, const char *fmt, ...)
{
    struct log_line l;
    char text[1024];
    va_list ap;

    if (!log_wants(level))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_begin(&l, level, event);
    log_str(&l, "msg", text);
    log_end(&l);
    log_flush();
}

static ssize_t sink_write(const char *bytes, size_t len)
{
    struct pollfd pfd = {.fd = logger.fd, .events = POLLOUT};

    switch (logger.sink) {
    case LOG_SINK_SOCKET: return send(logger.fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    case LOG_SINK_POLLED:
        if (poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLOUT)) {
            errno = EAGAIN;
            return -1;
        }
        return write(logger.fd, bytes, len);
    default: return write(logger.fd, bytes, len);
    }
}

/* How much goes into one write. Several processes write to one pipe: only what fits PIPE_BUF stays together there. */
static size_t sink_chunk(const char *bytes, size_t len)
{
    const char *end;

    if (!logger.pipe || len <= PIPE_BUF)
        return len;
    end = memrchr(bytes, '\n', PIPE_BUF);
    return end ? (size_t)(end - bytes) + 1 : PIPE_BUF;
}

void log_flush(void)
{
    while (logger.len) {
        const char *bytes = logger.queue + logger.start;
        ssize_t n = sink_write(bytes, sink_chunk(bytes, logger.len));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* its reader is slow or gone; log_end counts what is lost */
        logger.start += (size_t)n;
        logger.len -= (size_t)n;
    }
    logger.start = 0;
}

bool log_pending(void)
{
    return logger.len > 0;
}

uint64_t log_dropped(void)
{
    return logger.dropped_total;
}
