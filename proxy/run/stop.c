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

static int wait_gone(int pidfd, struct err *err)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    while (poll(&p, 1, -1) < 0)
        if (errno != EINTR)
            return err_set(err, ERR_IO, "poll: %s", strerror(errno));
    return 0;
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
    return wait_gone(pidfd, err);
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
