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
    struct loop_timer pause;
    struct loop_dead dead;
    struct tls_picker picker;
    uint64_t said_ms; /* when the lack of descriptors was logged last */
};

static void watch(struct listener *l, uint32_t events)
{
    struct err err;

    if (loop_watch(&l->relay->loop, &l->lf, &l->watched, events, &err))
        log_msg(LOG_ERROR, "listener", "port %u: %s", l->server->spec->port, err.msg);
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
        log_msg(LOG_ERROR, "accept", "port %u: %s; accepting again in %d ms", l->server->spec->port,
                strerror(error), LISTENER_PAUSE_MS);
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
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            pause_accepting(l, errno);
        /* The rest is the fate of one connection (accept(2)); what is still queued is announced again. */
        return false;
    }
    peer = addr_from_sockaddr(&ss);
    p = pair_new(l->relay, l->server, fd, &peer);
    if (!p) {
        pause_accepting(l, ENOMEM);
        return false;
    }
    handshake_start(p, &l->picker);
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

/* One server a port for now: it serves every name. */
static SSL_CTX *pick(void *arg, const char *name)
{
    struct listener *l = arg;

    (void)name;
    return l->server->accept_ctx;
}

static int open_socket(uint16_t port, struct err *err)
{
    struct addr any = {.port = port};
    struct sockaddr_storage ss;
    socklen_t len = addr_to_sockaddr(&any, &ss);
    int on = 1, off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (fd < 0 && errno == EAFNOSUPPORT) {
        addr_parse_ip("0.0.0.0", &any.ip);
        len = addr_to_sockaddr(&any, &ss);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0)
        return err_set(err, ERR_IO, "socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sock_set_options(fd);
    if (bind(fd, (struct sockaddr *)&ss, len) || listen(fd, LISTENER_BACKLOG)) {
        err_set(err, ERR_IO, "%s", strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

static void release(struct loop_dead *d)
{
    struct listener *l = (struct listener *)((char *)d - offsetof(struct listener, dead));

    server_unref(l->server);
    free(l);
}

struct listener *listener_open(struct relay *r, struct server *server, struct err *err)
{
    struct listener *l = calloc(1, sizeof *l);
    int fd = open_socket(server->spec->port, err);

    if (!l || fd < 0 ||
        (l->relay = r, l->lf = (struct loop_fd){.fd = fd, .ready = on_ready},
         loop_watch(&r->loop, &l->lf, &l->watched, EPOLLIN, err))) {
        if (fd >= 0)
            close(fd);
        free(l);
        err_prefix(err, "server \"%s\": port %u", server->spec->name, server->spec->port);
        return NULL;
    }
    l->server = server_ref(server);
    l->pause.fire = on_pause_over;
    l->picker = (struct tls_picker){.pick = pick, .arg = l};
    l->dead.release = release;
    return l;
}

void listener_close(struct listener *l)
{
    if (!l)
        return;
    loop_timer_clear(&l->pause);
    close(l->lf.fd);
    l->lf.fd = -1;
    loop_free_later(&l->relay->loop, &l->dead);
}
