/* A library put in front of libc's clocks and waits: CLOCK_MONOTONIC runs `speed` times as fast as it does, so that a minute's
 * silence is a matter of a second; the wall clock is off by `wall_s`. Both stand in the file named by SPEED_SHIM_CONTROL, which is
 * mapped and may change at any time: a wait looks again each LOOK_MS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 20

/* Written by Clock of shims.py. */
struct control {
    volatile uint64_t version; /* odd: being written */
    volatile double speed, wall_s;
    volatile int64_t real_ns, shown_ns; /* since when it is so, by both clocks */
};

static const struct control *control;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SPEED_SHIM_CONTROL");
    const int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);

    if (fd >= 0)
        close(fd);
    if (map == MAP_FAILED)
        abort();
    control = map;
}

static struct control now(void)
{
    struct control c = {.speed = 1};
    uint64_t version;

    if (!control)
        return c;
    do {
        version = control->version;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        c = *control;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (version % 2 || version != control->version);
    return c;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    const int r = (int)syscall(SYS_clock_gettime, clock, t);
    const struct control c = now();

    if (r)
        return r;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        t->tv_sec += (time_t)c.wall_s;
    } else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE) {
        int64_t ns;

        syscall(SYS_clock_gettime, CLOCK_MONOTONIC,
                t); /* one clock for all three: they must not be told apart */
        ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
        ns = c.shown_ns + (int64_t)((double)(ns - c.real_ns) * c.speed);
        t->tv_sec = ns / 1000000000;
        t->tv_nsec = ns % 1000000000;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec wall;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &wall);
    t->tv_sec = wall.tv_sec;
    t->tv_usec = wall.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec wall;

    clock_gettime(CLOCK_REALTIME, &wall);
    if (out)
        *out = wall.tv_sec;
    return wall.tv_sec;
}

/* Of a wait of so long: what the kernel is told. A wait that ends early ends without anything, which its callers bear. */
static int scaled(int ms)
{
    const double wait = ms / now().speed;

    if (ms < 0 || wait > LOOK_MS)
        return LOOK_MS;
    return (int)wait + (ms > 0);
}

int epoll_pwait(int fd, struct epoll_event *events, int max, int ms, const sigset_t *mask)
{
    static int (*real)(int, struct epoll_event *, int, int, const sigset_t *);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_pwait");
    return real(fd, events, max, scaled(ms), mask);
}

int epoll_wait(int fd, struct epoll_event *events, int max, int ms)
{
    return epoll_pwait(fd, events, max, ms, NULL);
}

int poll(struct pollfd *fds, nfds_t count, int ms)
{
    static int (*real)(struct pollfd *, nfds_t, int);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "poll");
    return real(fds, count, scaled(ms));
}
