#include "run/worker.h"

#include "base/log.h"
#include "relay/drain.h"
#include "relay/handshake.h"
#include "relay/limit.h"
#include "relay/listener.h"
#include "run/control.h"
#include "run/table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct worker {
    struct relay relay;
    struct loop_fd control;
    uint32_t control_watched;
    struct loop_timer beat;
    struct table table;
    struct table_build build; /* the next one, while there are bytes */
    uint8_t *bytes;
    size_t byte_count;
    uint64_t generation; /* of `build` */
    struct loop_task build_more;
    struct listener *listeners[UINT16_MAX + 1]; /* by port; NULL: none */
    uint32_t max_drain_ms;
    uint64_t dropped_told; /* lines; the count of the worker before us goes on */
    unsigned own_fds;      /* descriptors that are open before there is a port or a connection */
};

static void on_turn_end(struct loop *l)
{
    struct worker *w = (struct worker *)((char *)l - offsetof(struct worker, relay.loop));

    if (log_pending())
        log_flush();
    if (w->relay.draining && !w->relay.pair_count)
        l->stop = true;
}

static void on_beat(struct loop_timer *t)
{
    struct worker *w = (struct worker *)((char *)t - offsetof(struct worker, beat));
    struct relay *r = &w->relay;

    atomic_store(&r->me->heartbeat_ms, r->loop.now_ms);
    atomic_fetch_add(&r->me->log_dropped, log_dropped() - w->dropped_told);
    w->dropped_told = log_dropped();
    if (atomic_load(&r->shared.head->pressure) >= SHARED_SHED)
        limit_shed(r);
    loop_timer_set(&r->loop, t, r->loop.now_ms + WORKER_BEAT_MS);
}

static void say_applied(struct worker *w, uint64_t generation, const char *failed)
{
    struct control m = {.type = CONTROL_APPLIED, .generation = generation, .count = failed != NULL};

    if (failed)
        snprintf(m.text, sizeof m.text, "%s", failed);
    /* Few and small messages that the master always reads: the socket's buffer takes them, or it is gone. */
    if (control_send(w->control.fd, &m, NULL, 0) != CONTROL_OK)
        log_msg(LOG_ERROR, "worker", "the master does not listen");
}

static void take_ports(struct worker *w, const struct control *m, const int *fds, size_t count)
{
    struct err err;

    for (size_t i = 0; i < count; i++) {
        struct listener **l = &w->listeners[m->ports[i]];

        listener_close(*l); /* the port was closed and opened anew before we heard of it */
        *l = listener_new(&w->relay, fds[i], m->ports[i], &err);
        if (!*l)
            log_msg(LOG_ERROR, "worker", "%s", err.msg);
    }
}

/* How many tunnels the descriptors allow that ports and our own leave. */
static void set_ceiling(struct worker *w, unsigned ports)
{
    struct rlimit lim = {.rlim_cur = 1024};

    getrlimit(RLIMIT_NOFILE, &lim);
    atomic_store(&w->relay.me->max_tunnels, limit_max_tunnels(lim.rlim_cur, w->own_fds + ports));
}

/* Every server behind its port; the ports that no server has are closed. */
static int serve(struct worker *w, struct err *err)
{
    static uint8_t used[(UINT16_MAX + 1) / 8];
    unsigned ports = 0;

    memset(used, 0, sizeof used);
    for (size_t i = 0; i < w->table.count; i++) {
        struct server *s = w->table.entries[i].server;
        struct listener *l = w->listeners[s->spec->port];

        if (!l)
            return err_set(err, ERR_NOT_FOUND, "server \"%s\": no socket for port %u", s->spec->name,
                           s->spec->port);
        if (listener_serve(l, s, err))
            return err_prefix(err, "server \"%s\"", s->spec->name);
        used[s->spec->port / 8] |= (uint8_t)(1 << s->spec->port % 8);
    }
    for (size_t port = 1; port <= UINT16_MAX; port++) {
        if (w->listeners[port] && !(used[port / 8] & 1 << port % 8)) {
            listener_close(w->listeners[port]);
            w->listeners[port] = NULL;
        }
        ports += w->listeners[port] != NULL;
    }
    set_ceiling(w, ports);
    return 0;
}

/* Slots that are in `a` and not in `b`. */
static bool slots_without(const uint64_t *a, const uint64_t *b, uint64_t *out)
{
    bool any = false;

    for (size_t i = 0; i < SHARED_SLOTS / 64; i++) {
        out[i] = a[i] & ~b[i];
        any |= out[i] != 0;
    }
    return any;
}

/* Handshakes that still dial do so among the backends of now. */
static void follow(struct worker *w)
{
    static struct server *now[SHARED_SLOTS];
    struct pair *p, *next;

    memset(now, 0, sizeof now);
    for (size_t i = 0; i < w->table.count; i++)
        now[w->table.entries[i].server->slot] = w->table.entries[i].server;
    for (p = LIST_FIRST(&w->relay.pairs); p; p = next) {
        next = LIST_NEXT(p, link);
        if (p->handshake && now[p->server->slot])
            handshake_follow(p->handshake, now[p->server->slot]);
    }
}

/* The table that was built becomes the table. */
static void apply(struct worker *w)
{
    uint64_t before[SHARED_SLOTS / 64], after[SHARED_SLOTS / 64], changed[SHARED_SLOTS / 64];
    struct table last = w->table;
    struct err err;
    int failed;

    table_slots(&last, before);
    table_slots(&w->build.next, after);
    w->table = w->build.next;
    failed = serve(w, &err);
    if (slots_without(after, before, changed))
        drain_cancel(&w->relay, changed);
    if (slots_without(before, after, changed))
        drain_slots(&w->relay, changed, w->max_drain_ms);
    follow(w);
    table_free(&last);
    say_applied(w, w->generation, failed ? err.msg : NULL);
}

static void watch_control(struct worker *w, uint32_t events)
{
    struct err err;

    if (loop_watch(&w->relay.loop, &w->control, &w->control_watched, events, &err))
        log_msg(LOG_ERROR, "worker", "%s", err.msg);
}

/* A part of the next table a turn, so that connections do not wait for thousands of certificates. What else the master
 * says comes behind it. */
static void on_build_more(struct loop_task *t)
{
    struct worker *w = (struct worker *)((char *)t - offsetof(struct worker, build_more));
    uint64_t end_ms = loop_clock_ms() + WORKER_BUILD_MS;
    struct err err;
    int r;

    do
        r = table_step(&w->build, &w->table, &w->relay, &err);
    while (r > 0 && loop_clock_ms() < end_ms);
    if (r > 0) {
        loop_task_add(&w->relay.loop, &w->build_more);
        return;
    }
    if (w->byte_count)
        munmap(w->bytes, w->byte_count);
    w->bytes = NULL;
    if (r < 0)
        say_applied(w, w->generation, err.msg);
    else
        apply(w);
    watch_control(w, EPOLLIN);
}

/* NULL, or why not. */
static const char *map_spec(struct worker *w, int fd)
{
    static uint8_t nothing[1];
    struct stat st;

    if (fd < 0)
        return "no descriptor is left for it";
    if (fstat(fd, &st))
        return strerror(errno);
    w->byte_count = (size_t)st.st_size;
    w->bytes = nothing;
    if (!st.st_size)
        return NULL;
    w->bytes = mmap(NULL, w->byte_count, PROT_READ, MAP_PRIVATE, fd, 0);
    if (w->bytes != MAP_FAILED)
        return NULL;
    w->bytes = NULL;
    return strerror(errno);
}

static void take_spec(struct worker *w, uint64_t generation, int fd)
{
    const char *failed = map_spec(w, fd);
    struct err err;

    if (!failed && table_begin(&w->build, w->bytes, w->byte_count, &err)) {
        failed = err.msg;
        if (w->byte_count)
            munmap(w->bytes, w->byte_count);
        w->bytes = NULL;
    }
    if (failed) {
        say_applied(w, generation, failed);
        return;
    }
    w->generation = generation;
    watch_control(w, 0);
    loop_task_add(&w->relay.loop, &w->build_more);
}

static void close_listeners(struct worker *w)
{
    for (size_t port = 1; port <= UINT16_MAX; port++) {
        listener_close(w->listeners[port]);
        w->listeners[port] = NULL;
    }
}

static void begin_drain(struct worker *w)
{
    if (w->relay.draining)
        return;
    drain_slots(&w->relay, NULL, w->max_drain_ms);
    close_listeners(w); /* what is queued is taken, and drains too */
}

static void stop_now(struct worker *w)
{
    begin_drain(w);
    drain_now(&w->relay);
}

static void on_control(struct loop_fd *f, uint32_t events)
{
    struct worker *w = (struct worker *)((char *)f - offsetof(struct worker, control));
    int fds[CONTROL_FDS], r = CONTROL_AGAIN;
    struct control m;
    size_t count;

    (void)events;
    while (!w->bytes && (r = control_recv(f->fd, &m, fds, &count)) == CONTROL_OK) {
        if (m.type == CONTROL_PORTS) {
            take_ports(w, &m, fds, count);
            continue; /* the listeners have them now */
        }
        if (m.type == CONTROL_APPLY && !w->relay.draining)
            take_spec(w, m.generation, count ? fds[0] : -1);
        else if (m.type == CONTROL_DRAIN)
            begin_drain(w);
        else if (m.type == CONTROL_STOP)
            stop_now(w);
        for (size_t i = 0; i < count; i++)
            close(fds[i]);
    }
    if (r == CONTROL_GONE) {
        log_msg(LOG_ERROR, "worker", "the master is gone: draining");
        watch_control(w, 0);
        begin_drain(w);
    }
}

static unsigned open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static int init(struct worker *w, unsigned index, struct err *err)
{
    struct relay *r = &w->relay;

    if (shared_map(&r->shared, CONTROL_SHARED_FD, err))
        return -1;
    close(CONTROL_SHARED_FD);
    if (index >= r->shared.head->workers)
        return err_set(err, ERR_INVALID, "worker %u of %u", index, r->shared.head->workers);
    r->worker = index;
    r->me = shared_worker(&r->shared, index);
    if (sock_global_init(err) || loop_init(&r->loop, err))
        return -1;
    r->resolver = resolver_new(&r->loop, err);
    if (!r->resolver)
        return -1;
    r->loop.turn_end = on_turn_end;
    w->control = (struct loop_fd){.fd = CONTROL_FD, .ready = on_control};
    w->beat.fire = on_beat;
    w->build_more.run = on_build_more;
    fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC);
    w->own_fds = open_descriptors();
    on_beat(&w->beat);
    return loop_watch(&r->loop, &w->control, &w->control_watched, EPOLLIN, err);
}

int worker_main(unsigned index, uint32_t max_drain_ms, bool deny_local)
{
    struct worker *w = calloc(1, sizeof *w);
    struct err err = {.msg = "out of memory"};

    if (!w || (w->max_drain_ms = max_drain_ms, init(w, index, &err))) {
        log_msg(LOG_ERROR, "fatal", "worker: %s", err.msg);
        free(w);
        return 1;
    }
    w->relay.deny_local = deny_local;
    loop_run(&w->relay.loop);
    if (w->bytes) /* what was on its way */
        table_free(&w->build.next);
    close_listeners(w);
    table_free(&w->table);
    resolver_free(w->relay.resolver);
    loop_done(&w->relay.loop);
    log_flush();
    shared_done(&w->relay.shared);
    free(w);
    return 0;
}
