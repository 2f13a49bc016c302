#include "relay/listener.h"

#include "base/log.h"
#include "relay/handshake.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct listener {
    struct loop_fd lf;
    uint32_t watched;
    struct relay *relay;
    struct server *server;
    uint16_t port;
    struct loop_timer pause;
    struct loop_dead dead;
    uint64_t said_ms; /* when the lack of descriptors was logged last */
};

static void watch(struct listener *l, uint32_t events)
{
    struct err err;

    if (loop_watch(&l->relay->loop, &l->lf, &l->watched, events, &err))
        log_msg(LOG_ERROR, "listener", "port %u: %s", l->port, err.msg);
}

static void on_pause_over(struct loop_timer *t)
{
    watch((struct listener *)((char *)t - offsetof(struct listener, pause)), EPOLLIN);
}

static void pause_accepting(struct listener *l, int error)
{
    uint64_t now = l->relay->loop.now_ms;

    watch(l, 0);
    loop_timer_set(&l->relay->loop, &l->pause, now + LISTENER_PAUSE_MS);
    if (!l->said_ms || now >= l->said_ms + 1000) {
        log_msg(LOG_ERROR, "accept", "port %u: %s; accepting again in %d ms", l->port, strerror(error),
                LISTENER_PAUSE_MS);
        l->said_ms = now;
    }
}

static bool accept_one(struct listener *l)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    struct addr peer;
    struct pair *p;
    int fd = accept4(l->lf.fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            pause_accepting(l, errno);
            return false;
        }
        return errno != EAGAIN; /* the rest is the fate of one connection (accept(2)) */
    }
    peer = addr_from_sockaddr(&ss);
    p = pair_new(l->relay, l->server, fd, &peer);
    if (!p) {
        pause_accepting(l, ENOMEM);
        return false;
    }
    atomic_fetch_add_explicit(&l->relay->me->accepted, 1, memory_order_relaxed);
    handshake_start(p);
    return true;
}

/* Level-triggered: the quieter the worker, the fewer it takes at once, and the less often it asks in vain. */
static void on_ready(struct loop_fd *f, uint32_t events)
{
    struct listener *l = (struct listener *)((char *)f - offsetof(struct listener, lf));
    int count = 1 + l->relay->loop.ready_count / 8;

    (void)events;
    while (count-- && accept_one(l))
        ;
}

static void release(struct loop_dead *d)
{
    struct listener *l = (struct listener *)((char *)d - offsetof(struct listener, dead));

    server_unref(l->server);
    free(l);
}

struct listener *listener_new(struct relay *r, int fd, uint16_t port, struct err *err)
{
    struct listener *l = calloc(1, sizeof *l);

    if (!l) {
        close(fd);
        err_set(err, ERR_LIMIT, "port %u: out of memory", port);
        return NULL;
    }
    l->relay = r;
    l->port = port;
    l->lf = (struct loop_fd){.fd = fd, .ready = on_ready};
    l->pause.fire = on_pause_over;
    l->dead.release = release;
    return l;
}

int listener_serve(struct listener *l, struct server *server, struct err *err)
{
    struct server *before = l->server;

    if (!before && loop_watch(&l->relay->loop, &l->lf, &l->watched, EPOLLIN, err))
        return err_prefix(err, "port %u", l->port);
    l->server = server_ref(server);
    server_unref(before);
    return 0;
}

void listener_close(struct listener *l)
{
    if (!l)
        return;
    loop_timer_clear(&l->pause);
    for (int left = 2 * LISTENER_BACKLOG; l->server && left > 0 && accept_one(l); left--)
        ;
    loop_timer_clear(&l->pause); /* a lack of descriptors has set it again */
    watch(l, 0); /* our descriptor may not be the last one of this socket: then it would still be reported */
    close(l->lf.fd);
    l->lf.fd = -1;
    loop_free_later(&l->relay->loop, &l->dead);
}
