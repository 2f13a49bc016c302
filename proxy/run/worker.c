#include "run/worker.h"

#include "base/log.h"
#include "relay/drain.h"
#include "relay/handshake.h"
#include "relay/listener.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct worker {
    struct relay relay;
    struct loop_fd signals;
    uint32_t signals_watched;
    struct listener **listeners;
    size_t listener_count;
};

static void handled_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

void worker_block_signals(void)
{
    sigset_t set;

    handled_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static void raise_fd_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim))
        return;
    lim.rlim_cur = lim.rlim_max < WORKER_MAX_FDS ? lim.rlim_max : WORKER_MAX_FDS;
    setrlimit(RLIMIT_NOFILE, &lim);
}

static void close_listeners(struct worker *w)
{
    for (size_t i = 0; i < w->listener_count; i++)
        listener_close(w->listeners[i]);
    w->listener_count = 0;
}

static void on_signal(struct loop_fd *f, uint32_t events)
{
    struct worker *w = (struct worker *)((char *)f - offsetof(struct worker, signals));
    struct signalfd_siginfo info;

    (void)events;
    while (read(f->fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGHUP) {
            log_msg(LOG_INFO, "stop", "%s", strsignal((int)info.ssi_signo));
            close_listeners(w);
            if (w->relay.draining)
                drain_now(&w->relay);
            else
                drain_slots(&w->relay, NULL, 2000);
        }
}

static int watch_signals(struct worker *w, struct err *err)
{
    sigset_t set;

    handled_signals(&set);
    w->signals = (struct loop_fd){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = on_signal};
    if (w->signals.fd < 0)
        return err_set(err, ERR_IO, "signalfd: %s", strerror(errno));
    return loop_watch(&w->relay.loop, &w->signals, &w->signals_watched, EPOLLIN, err);
}

static int open_listeners(struct worker *w, struct spec *spec, struct err *err)
{
    w->listeners = calloc(spec->count ? spec->count : 1, sizeof *w->listeners);
    if (!w->listeners)
        return err_set(err, ERR_LIMIT, "out of memory");
    for (size_t i = 0; i < spec->count; i++) {
        int slot = shared_slot_take(&w->relay.shared, spec->servers[i].name);
        struct server *s = server_new(&spec->servers[i], &w->relay.shared, 0, (unsigned)slot, err);
        struct listener *l = s ? listener_open(&w->relay, s, err) : NULL;

        if (l) {
            w->listeners[w->listener_count++] = l;
            log_msg(LOG_INFO, "listen", "server \"%s\" on port %u, %s, backend %s", s->spec->name,
                    s->spec->port, s->spec->https ? "TLS" : "plain", s->spec->backend.text);
        }
        server_unref(s);
        if (!l)
            return -1;
    }
    return 0;
}

static void on_turn_end(struct loop *l)
{
    const struct relay *r = (const struct relay *)((char *)l - offsetof(struct relay, loop));

    if (log_pending())
        log_flush();
    if (r->draining && !r->pair_count)
        l->stop = true;
}

static void stop(struct worker *w)
{
    struct pair *p;

    close_listeners(w);
    free(w->listeners);
    while ((p = LIST_FIRST(&w->relay.pairs))) {
        if (p->handshake)
            handshake_abort(p->handshake);
        else
            pair_end(p, false);
    }
    resolver_free(w->relay.resolver);
    if (w->signals.fd >= 0)
        close(w->signals.fd);
    loop_done(&w->relay.loop);
    log_flush();
}

int worker_run(struct spec *spec, struct err *err)
{
    struct worker *w = calloc(1, sizeof *w);
    int r = -1, fd = -1;

    if (!w)
        return err_set(err, ERR_LIMIT, "out of memory");
    w->signals.fd = -1;
    raise_fd_limit();
    if (shared_new(&w->relay.shared, 1, 20000, &fd, err)) {
        free(w);
        return -1;
    }
    w->relay.me = shared_worker(&w->relay.shared, 0);
    if (!sock_global_init(err) && !loop_init(&w->relay.loop, err)) {
        w->relay.loop.turn_end = on_turn_end;
        w->relay.resolver = resolver_new(&w->relay.loop, err);
        if (w->relay.resolver && !watch_signals(w, err) && !open_listeners(w, spec, err)) {
            log_msg(LOG_INFO, "ready", "%zu servers", spec->count);
            loop_run(&w->relay.loop);
            r = 0;
        }
        stop(w);
    }
    shared_done(&w->relay.shared);
    close(fd);
    free(w);
    return r;
}
