/* need.h - memory that must be there: outside the relay there is nothing better to do without it than to wait a moment
 * Shape:   `char *copy = need(strdup(text));` The expression is evaluated again while it gives NULL
 * Units:   milliseconds
 * Owner:   the caller's, as the allocation was
 * Errors:  none: after NEED_TRIES the process ends with a line in the log. For a pair there is a better end, its own, so
 *          nothing that is done for one pair calls this
 * Limits:  NEED_TRIES x NEED_WAIT_MS
 * Threads: any
 * Source:  style.md C5; bar S33 */
#ifndef PROXY_BASE_NEED_H
#define PROXY_BASE_NEED_H

#define NEED_TRIES   50
#define NEED_WAIT_MS 10

#define need(expression)                                                                                     \
    __extension__({                                                                                          \
        void *needed_;                                                                                       \
        for (int tries_ = 0; !(needed_ = (expression)); tries_++)                                            \
            need_wait(tries_);                                                                               \
        need_known(needed_);                                                                                 \
        needed_;                                                                                             \
    })

/* The text, to be freed by the caller. */
char *need_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Waits, or ends the process when it is too late for that. */
void need_wait(int tries);

/* clang-tidy knows nothing of cleanup_free: what has passed through a function it cannot see, it does not report as lost. */
#ifdef __clang_analyzer__
void need_known(void *memory);
#else
#define need_known(memory) ((void)0)
#endif

#endif
