/* cleanup.h - locals that free themselves, and how to hand one out
 * Shape:   `cleanup_free char *p = NULL;` is freed at the end of its scope; `return STEAL(p);` gives it away
 * Owner:   the scope, until STEAL
 * Threads: any */
#ifndef PROXY_BASE_CLEANUP_H
#define PROXY_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_ptr(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_close_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define cleanup_free  __attribute__((cleanup(cleanup_free_ptr)))
#define cleanup_close __attribute__((cleanup(cleanup_close_fd)))

#define STEAL(p)                                                                                             \
    __extension__({                                                                                          \
        __typeof__(p) steal_tmp_ = (p);                                                                      \
        (p) = NULL;                                                                                          \
        steal_tmp_;                                                                                          \
    })

#endif
