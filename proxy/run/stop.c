#include "run/stop.h"

#include "base/cleanup.h"
#include "base/err.h"
#include "base/rundir.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 20

static void wait_delay(uint32_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* Until it has ended, or has given its lock up as the last thing it does (rundir_give_up). */
static int wait_gone(const struct options *o, int pidfd, pid_t pid, struct err *err)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    for (;;) {
        pid_t now = 0;
        int n = poll(&p, 1, LOOK_MS), held;

        if (n < 0 && errno != EINTR)
            return err_set(err, ERR_IO, "poll: %s", strerror(errno));
        held = n > 0 ? 0 : rundir_holder(o->run_dir, &now, err);
        if (held <= 0 || now != pid)
            return held < 0 ? -1 : 0;
    }
}

static int stop(const struct options *o, struct err *err)
{
    cleanup_close int pidfd = -1;
    pid_t pid = 0;

    if (rundir_open_holder(o->run_dir, &pidfd, &pid, err))
        return -1;
    if (pidfd < 0) {
        fprintf(stderr, "tidegate-proxy: --stop: no proxy runs on %s\n", o->run_dir);
        return 0;
    }
    if (pidfd_send_signal(pidfd, SIGTERM, NULL, 0) && errno != ESRCH)
        return err_set(err, ERR_IO, "process %ld: %s", (long)pid, strerror(errno));
    return wait_gone(o, pidfd, pid, err);
}

int stop_main(const struct options *o)
{
    struct err err;

    wait_delay(o->stop_delay_ms);
    if (stop(o, &err)) {
        fprintf(stderr, "tidegate-proxy: --stop: %s\n", err.msg);
        return 1;
    }
    return 0;
}
