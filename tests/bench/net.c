#include "bench/net.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4096

void net_fail(const char *what)
{
    perror(what);
    exit(1);
}

uint64_t net_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void net_process_init(void)
{
    struct rlimit limit;

    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &limit))
        net_fail("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        net_fail("setrlimit");
}

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

int net_listen(uint16_t *port)
{
    struct sockaddr_in a = loopback(*port);
    socklen_t len = sizeof(a);
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
        net_fail("socket");
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, BACKLOG))
        net_fail("listen");
    if (getsockname(fd, (struct sockaddr *)&a, &len))
        net_fail("getsockname");
    *port = ntohs(a.sin_port);
    return fd;
}

int net_connect(uint16_t port)
{
    const struct sockaddr_in a = loopback(port);
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) && errno != EINPROGRESS) {
        const int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

int net_accept(int listener)
{
    const int on = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

uint64_t net_number(const char *option, const char *text, uint64_t max)
{
    char *end = NULL;
    errno = 0;
    const uint64_t n = strtoull(text, &end, 10);

    if (errno || end == text || *end || *text == '-' || n > max) {
        fprintf(stderr, "%s: \"%s\" is not a number up to %llu\n", option, text, (unsigned long long)max);
        exit(2);
    }
    return n;
}
