#include "run/stop.h"

#include "base/cleanup.h"
#include "base/err.h"
#include "run/rundir.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>
#include <unistd.h>

/* The holder may end, and another begin, between two questions. */
#define HOLDER_TRIES 8

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

/* The descriptor of a process that held the lock after it was opened: *fd stays -1 when nobody does. */
static int open_holder(const char *dir, int *fd, pid_t *pid, struct err *err)
{
    for (int i = 0; i < HOLDER_TRIES; i++) {
        pid_t again = 0;
        int held = rundir_holder(dir, pid, err), opened;

        if (held <= 0)
            return held;
        if (!*pid)
            return err_set(err, ERR_IO,
                           "%s is in use by a process of another PID namespace; run --stop in that one", dir);
        opened = pidfd_open(*pid, 0);
        if (opened < 0 && errno != ESRCH)
            return err_set(err, ERR_IO, "process %ld: %s", (long)*pid, strerror(errno));
        if (opened < 0)
            continue;
        held = rundir_holder(dir, &again, err);
        if (held > 0 && again == *pid) {
            *fd = opened;
            return 0;
        }
        close(opened);
        if (held < 0)
            return -1;
    }
    return err_set(err, ERR_IO, "%s is in use by others in turn", dir);
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

    if (open_holder(o->run_dir, &pidfd, &pid, err))
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
