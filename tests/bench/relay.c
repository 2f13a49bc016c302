/* relay.c - the limit that a gateway is measured against: bytes between two sockets, nothing looked at
 *
 *   bench_relay --port N --backend N      (port 0: any free one; the first line of stdout names it)
 *
 * One edge-triggered registration a socket; one read of 64 KiB and one write a message; what a socket does
 * not take at once is kept, and the other side is not read until it is gone. */
#include "bench/net.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK_BYTES 65536
#define EVENTS      256

struct pair;

struct side {
    struct pair *pair;
    struct side *other;
    int fd;
    bool ready;    /* connected */
    bool hup;      /* the peer's FIN was announced: read until it comes */
    bool ended;    /* the peer's FIN was read and passed on, or waits behind `kept` */
    uint8_t *kept; /* bytes that this socket has not taken yet */
    size_t kept_off, kept_len;
};

struct pair {
    struct side side[2];
    struct pair *next_dead;
};

static uint8_t chunk[CHUNK_BYTES];
static struct pair *dead; /* freed after the turn: a later event of it may point there */

static void pair_end(struct pair *p)
{
    if (p->side[0].fd < 0)
        return;
    for (int i = 0; i < 2; i++) {
        close(p->side[i].fd);
        p->side[i].fd = -1;
        free(p->side[i].kept);
    }
    p->next_dead = dead;
    dead = p;
}

static void free_dead(void)
{
    while (dead) {
        struct pair *p = dead;
        dead = p->next_dead;
        free(p);
    }
}

/* Writes to `to` and keeps the rest; false: the connection is gone. */
static bool put(struct side *to, const uint8_t *bytes, size_t len)
{
    ssize_t n = send(to->fd, bytes, len, 0);

    if (n < 0 && errno != EAGAIN)
        return false;
    if (n < 0)
        n = 0;
    if ((size_t)n == len)
        return true;
    to->kept_len = len - (size_t)n;
    to->kept_off = 0;
    to->kept = malloc(to->kept_len);
    if (!to->kept)
        return false;
    memcpy(to->kept, bytes + n, to->kept_len);
    return true;
}

static bool put_kept(struct side *to)
{
    const ssize_t n = send(to->fd, to->kept + to->kept_off, to->kept_len, 0);

    if (n < 0)
        return errno == EAGAIN;
    to->kept_off += (size_t)n;
    to->kept_len -= (size_t)n;
    if (to->kept_len == 0) {
        free(to->kept);
        to->kept = NULL;
    }
    return true;
}

/* Everything that `from` has, to the other side; false: the pair is over. */
static bool pump(struct side *from)
{
    struct side *to = from->other;

    while (to->ready && !to->kept && !from->ended) {
        const ssize_t n = recv(from->fd, chunk, sizeof(chunk), 0);
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0) {
            from->ended = true;
            return !to->ended && shutdown(to->fd, SHUT_WR) == 0;
        }
        if (!put(to, chunk, (size_t)n))
            return false;
        if ((size_t)n < sizeof(chunk) && !from->hup)
            return true;
    }
    return true;
}

static bool handle(struct side *s, uint32_t events)
{
    bool pump_other = false;

    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        s->hup = true;
    if (events & EPOLLOUT && (!s->ready || s->kept)) {
        s->ready = true;
        if (s->kept && !put_kept(s))
            return false;
        pump_other = !s->kept;
    }
    if (pump_other && !pump(s->other))
        return false;
    return !(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) || pump(s);
}

static bool watch(int ep, struct side *s)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};

    return epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e) == 0;
}

static void accept_all(int ep, int listener, uint16_t backend)
{
    int fd;

    while ((fd = net_accept(listener)) >= 0) {
        struct pair *p = calloc(1, sizeof(*p));
        const int out = net_connect(backend);
        if (!p || out < 0)
            net_fail("a new connection");
        p->side[0] = (struct side){.pair = p, .other = &p->side[1], .fd = fd, .ready = true};
        p->side[1] = (struct side){.pair = p, .other = &p->side[0], .fd = out};
        if (!watch(ep, &p->side[0]) || !watch(ep, &p->side[1]))
            net_fail("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        net_fail("accept");
}

static void run(int listener, uint16_t backend)
{
    struct epoll_event events[EVENTS];
    struct epoll_event e = {.events = EPOLLIN};
    const int ep = epoll_create1(EPOLL_CLOEXEC);

    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e))
        net_fail("epoll");
    for (;;) {
        const int n = epoll_wait(ep, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            net_fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct side *s = events[i].data.ptr;
            if (!s)
                accept_all(ep, listener, backend);
            else if (s->fd >= 0 && !handle(s, events[i].events))
                pair_end(s->pair);
        }
        free_dead();
    }
}

int main(int argc, char **argv)
{
    uint16_t port = 0, backend = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port"))
            port = (uint16_t)net_number(argv[i], argv[i + 1], UINT16_MAX);
        else if (!strcmp(argv[i], "--backend"))
            backend = (uint16_t)net_number(argv[i], argv[i + 1], UINT16_MAX);
    }
    if (!backend) {
        fputs("usage: bench_relay --port N --backend N\n", stderr);
        return 2;
    }
    net_process_init();
    const int listener = net_listen(&port);
    printf("%u\n", port);
    fflush(stdout);
    run(listener, backend);
}
