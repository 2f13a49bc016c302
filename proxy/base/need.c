#include "base/need.h"

#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void need_wait(int tries)
{
    struct timespec wait = {.tv_nsec = NEED_WAIT_MS * 1000000L};

    if (tries >= NEED_TRIES) {
        log_msg(LOG_ERROR, "fatal", "out of memory");
        abort();
    }
    nanosleep(&wait, NULL);
}

char *need_printf(const char *fmt, ...)
{
    char *text;
    va_list ap;
    int n;

    va_start(ap, fmt);
    for (int tries = 0;; tries++) {
        va_list again;

        va_copy(again, ap);
        n = vasprintf(&text, fmt, again);
        va_end(again);
        if (n >= 0)
            break;
        need_wait(tries);
    }
    va_end(ap);
    return text;
}
