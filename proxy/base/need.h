/* need.h - memory that must be there: outside the relay a process without it has nothing better to do than to say so
 * Shape:   `char *copy = need(strdup(text));`
 * Owner:   the caller's, as the allocation was
 * Errors:  NULL ends the process with a line on stderr; in the relay a pair ends instead, so nothing there calls this
 * Threads: any
 * Source:  style.md C5 */
#ifndef PROXY_BASE_NEED_H
#define PROXY_BASE_NEED_H

#include <stdio.h>
#include <stdlib.h>

static inline void *need(void *p)
{
    if (!p) {
        fputs("tidegate: out of memory\n", stderr);
        abort();
    }
    return p;
}

#endif
