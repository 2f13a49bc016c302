/* A library put in front of libc's clocks and waits: CLOCK_MONOTONIC runs `speed` times as fast as it does, so that a minute's
 * silence is a matter of a second; the wall clock is off by `wall_s`. Both stand in the file named by SPEED_SHIM_CONTROL, which is
 * mapped, and may change at any time: a wait looks again each LOOK_MS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
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

struct control {
    volatile double speed, wall_s;
};

static const struct control *control;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double last_speed = 1;
static int64_t real_ns, shown_ns; /* when the speed changed last, by both clocks */

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

static double speed(void)
{
    return control && control->speed > 0 ? control->speed : 1;
}

static int64_t shown(int64_t now_ns)
{
    const double at = speed();
    int64_t out;

    pthread_mutex_lock(&lock);
    if (!real_ns)
        real_ns = shown_ns = now_ns;
    out = shown_ns + (int64_t)((double)(now_ns - real_ns) * last_speed);
    if (at != last_speed) {
        real_ns = now_ns;
        shown_ns = out;
        last_speed = at;
    }
    pthread_mutex_unlock(&lock);
    return out;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    const int r = (int)syscall(SYS_clock_gettime, clock, t);

    if (r)
        return r;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        t->tv_sec += control ? (time_t)control->wall_s : 0;
    } else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE) {
        int64_t ns;

        syscall(SYS_clock_gettime, CLOCK_MONOTONIC,
                t); /* one clock for all three: they must not be told apart */
        ns = shown((int64_t)t->tv_sec * 1000000000 + t->tv_nsec);
        t->tv_sec = ns / 1000000000;
        t->tv_nsec = ns % 1000000000;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

/* Of a wait of so long: what the kernel is told. A wait that ends early ends without anything, which its callers bear. */
static int scaled(int ms)
{
    const double wait = ms / speed();

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
