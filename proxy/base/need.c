#include "base/need.h"

#include "base/log.h"

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
