#include "run/master.h"

#include "admin/admin.h"
#include "base/log.h"
#include "base/rundir.h"
#include "run/cgroup.h"
#include "run/reload.h"
#include "run/workers.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct master {
    const struct options *o;
    struct loop loop;
    struct loop_fd signals;
    uint32_t signals_watched;
    struct rundir rundir;
    bool has_rundir;
    struct shared shared;
    int shared_fd;
    struct ports ports;
    struct workers *workers;
    struct reload *reload;
    struct watch *watch;
    struct admin *admin; /* NULL: both ports are off */
    struct cgroup_memory memory;
    struct status status;

    struct loop_timer tick;
    struct loop_timer stop_limit;
    uint64_t status_written_ms;
    uint64_t ticket_rotated_ms;
    bool status_changed;
    bool said_ready;
    bool said_unwritten;
};

static void handled_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGCHLD);
}

void master_block_signals(void)
{
    sigset_t set;

    handled_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

void master_unblock_signals(void)
{
    sigset_t set;

    handled_signals(&set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* status.json */

static void write_status(struct master *m)
{
    struct buf out;
    struct err err;

    m->status_changed = false;
    m->status_written_ms = m->loop.now_ms;
    if (!m->has_rundir)
        return;
    buf_init(&out, SPEC_MAX_BYTES);
    if (status_json(&m->status, &out, &err) || rundir_write_status(&m->rundir, out.data, out.len, &err)) {
        if (!m->said_unwritten)
            log_msg(LOG_ERROR, "status", "status.json: %s; trying again each second", err.msg);
        m->said_unwritten = true;
        m->status_written_ms = 0; /* the next tick */
    } else {
        m->said_unwritten = false;
    }
    buf_free(&out);
}

static void fill_workers(struct master *m)
{
    for (unsigned i = 0; i < m->status.worker_count; i++) {
        struct status_worker *w = &m->status.workers[i];

        w->pid = workers_pid(m->workers, i);
        w->restarts = workers_restarts(m->workers, i);
        w->current = workers_current(m->workers, i);
    }
}

static bool all_current(const struct master *m)
{
    for (unsigned i = 0; i < m->status.worker_count; i++)
        if (!m->status.workers[i].current)
            return false;
    return true;
}

/* What follows from the workers' and the plan's state, however it came about. */
static void refresh(struct master *m)
{
    bool was_ready = m->status.ready;

    fill_workers(m);
    m->status_changed |= reload_applied(m->reload, workers_applied(m->workers));
    /* Once ready, a worker that dies does not make it less so: its siblings and its queue are there. */
    m->status.ready = !m->status.stopping && m->status.revision[0] &&
                      ((was_ready && !workers_failing(m->workers)) || all_current(m));
    m->status_changed |= m->status.ready != was_ready;
    if (m->status.ready && !m->said_ready) {
        m->said_ready = true;
        log_msg(LOG_INFO, "ready", "servers: %zu, workers: %zu, each for up to %llu connections",
                m->status.server_count, m->status.worker_count,
                (unsigned long long)atomic_load(&shared_worker(&m->shared, 0)->max_tunnels));
    }
}

/* Reloads */

static bool read_spec(struct master *m, bool log)
{
    bool changed = reload_read(m->reload, log);
    struct err err;

    if (m->has_rundir && rundir_keep(&m->rundir, &err))
        log_msg(LOG_ERROR, "rundir", "%s", err.msg);
    return changed;
}

static void hand_on(struct master *m, bool changed)
{
    if (changed)
        workers_apply(m->workers, reload_generation(m->reload), reload_spec_fd(m->reload));
    m->status_changed = true;
    refresh(m);
}

static void on_files_changed(void *arg)
{
    struct master *m = arg;

    if (m->status.stopping)
        return;
    hand_on(m, read_spec(m, true));
    reload_watch(m->reload, m->watch);
}

static void on_workers_changed(void *arg)
{
    struct master *m = arg;

    m->status_changed = true;
    refresh(m);
    if (m->status.stopping) {
        if (!workers_alive(m->workers))
            m->loop.stop = true;
        return;
    }
    if (ports_closed(&m->ports, workers_applied(m->workers)) && reload_is_waiting(m->reload))
        hand_on(m, reload_again(m->reload));
}

/* The end */

static void on_stop_limit(struct loop_timer *t)
{
    struct master *m = (struct master *)((char *)t - offsetof(struct master, stop_limit));

    log_msg(LOG_WARN, "stop", "%u workers have not ended in time: killed", workers_alive(m->workers));
    workers_kill(m->workers);
}

static void begin_stop(struct master *m, const char *why)
{
    uint32_t drain_ms = reload_longest_drain_ms(m->reload);

    if (m->o->max_drain_ms && drain_ms > m->o->max_drain_ms)
        drain_ms = m->o->max_drain_ms;
    log_msg(LOG_INFO, "stop", "%s; draining for up to %u ms", why, drain_ms);
    m->status.stopping = true;
    for (size_t i = 0; i < m->ports.count; i++)
        m->ports.items[i]->wanted = false;
    ports_close_unwanted(&m->ports, reload_generation(m->reload) + 1);
    workers_drain(m->workers);
    loop_timer_set(&m->loop, &m->stop_limit, m->loop.now_ms + drain_ms + MASTER_GRACE_MS);
    on_workers_changed(m);
}

static void stop_now(struct master *m)
{
    uint64_t limit_ms = m->loop.now_ms + MASTER_GRACE_MS;

    log_msg(LOG_INFO, "stop", "asked again: now");
    workers_stop(m->workers);
    if (m->stop_limit.at_ms > limit_ms) /* asked again and again, it comes no later */
        loop_timer_set(&m->loop, &m->stop_limit, limit_ms);
}

static void on_signal(struct loop_fd *f, uint32_t events)
{
    struct master *m = (struct master *)((char *)f - offsetof(struct master, signals));
    struct signalfd_siginfo info;

    (void)events;
    while (read(f->fd, &info, sizeof info) == sizeof info) {
        switch (info.ssi_signo) {
        case SIGHUP: watch_now(m->watch); break;
        case SIGCHLD: workers_reap(m->workers); break;
        default:
            if (m->status.stopping)
                stop_now(m);
            else
                begin_stop(m, strsignal((int)info.ssi_signo));
        }
    }
}

/* Each second */

static void check_memory(struct master *m)
{
    static const char *const what[] = {"enough again", "short: new handshakes are refused",
                                       "very short: idle connections are closed"};
    enum shared_pressure before = (enum shared_pressure)atomic_load(&m->shared.head->pressure), now;
    uint64_t limit = 0, used = 0;

    /* Without a limit, or without one any more, there is enough. */
    now = cgroup_memory_read(&m->memory, &limit, &used) ? cgroup_pressure(before, limit, used) : SHARED_CALM;
    if (now == before)
        return;
    atomic_store(&m->shared.head->pressure, now);
    log_msg(now > before ? LOG_WARN : LOG_INFO, "memory", "%s; %llu of %llu bytes", what[now],
            (unsigned long long)used, (unsigned long long)limit);
}

static void rotate_ticket_key(struct master *m)
{
    struct err err;

    if (m->loop.now_ms - m->ticket_rotated_ms < MASTER_TICKET_KEY_MS)
        return;
    m->ticket_rotated_ms = m->loop.now_ms;
    if (shared_ticket_rotate(&m->shared, &err))
        log_msg(LOG_ERROR, "tls", "no new ticket key: %s", err.msg);
}

static void on_tick(struct loop_timer *t)
{
    struct master *m = (struct master *)((char *)t - offsetof(struct master, tick));

    loop_timer_set(&m->loop, t, m->loop.now_ms + MASTER_TICK_MS);
    workers_reap(m->workers); /* should a SIGCHLD ever be missed */
    workers_check(m->workers);
    check_memory(m);
    rotate_ticket_key(m);
    m->status_changed |= reload_forget(m->reload, workers_applied(m->workers));
    if (!m->status.stopping && reload_is_waiting(m->reload)) {
        ports_closed(&m->ports,
                     workers_applied(m->workers)); /* a plan may close ports that no worker ever had */
        if (reload_again(m->reload))
            hand_on(m, true);
    }
    if (m->loop.now_ms - m->status_written_ms >= MASTER_COUNTS_MS)
        m->status_changed = true;
}

static void on_turn_end(struct loop *l)
{
    struct master *m = (struct master *)((char *)l - offsetof(struct master, loop));

    if (m->status_changed)
        write_status(m);
    if (log_pending())
        log_flush();
}

/* The beginning */

static int watch_signals(struct master *m, struct err *err)
{
    sigset_t set;

    handled_signals(&set);
    m->signals = (struct loop_fd){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = on_signal};
    if (m->signals.fd < 0)
        return err_set(err, ERR_IO, "signalfd: %s", strerror(errno));
    return loop_watch(&m->loop, &m->signals, &m->signals_watched, EPOLLIN, err);
}

static uint64_t raise_fd_limit(void)
{
    struct rlimit lim = {.rlim_cur = 1024};

    if (getrlimit(RLIMIT_NOFILE, &lim))
        return lim.rlim_cur;
    lim.rlim_cur = lim.rlim_max < MASTER_MAX_FDS ? lim.rlim_max : MASTER_MAX_FDS;
    setrlimit(RLIMIT_NOFILE, &lim);
    return lim.rlim_cur;
}

static int make_workers(struct master *m, uint64_t fd_limit, struct err *err)
{
    unsigned count = m->o->workers ? m->o->workers : cgroup_cpus();
    struct workers_config c = {
        .log_level = m->o->log_level, .max_drain_ms = m->o->max_drain_ms, .deny_local = m->o->deny_local};

    if (count > SHARED_MAX_WORKERS)
        count = SHARED_MAX_WORKERS;
    if (shared_new(&m->shared, count, fd_limit, &m->shared_fd, err))
        return -1;
    m->ports.workers = c.count = count;
    c.loop = &m->loop;
    c.shared = &m->shared;
    c.shared_fd = m->shared_fd;
    c.ports = &m->ports;
    c.changed = on_workers_changed;
    c.arg = m;
    m->workers = workers_new(&c, err);
    m->status.workers = calloc(count, sizeof *m->status.workers);
    if (!m->workers || !m->status.workers)
        return err_set(err, ERR_LIMIT, "out of memory");
    m->status.worker_count = count;
    m->status.shared = &m->shared;
    return 0;
}

/* Without a run dir there is nobody to mend the file meanwhile: its problems end it. With one, the controller has yet to
 * write it when a pod begins: no trouble, and nothing that an operator should be shown as an error. */
static int first_spec(struct master *m, struct err *err)
{
    bool early = m->has_rundir && access(m->o->config, F_OK) && errno == ENOENT;
    bool changed = read_spec(m, m->has_rundir && !early);

    if (!m->has_rundir && m->status.seen.result != STATUS_APPLIED) {
        reload_print_problems(m->reload, stderr);
        err->msg[0] = '\0'; /* all is said */
        return -1;
    }
    if (changed)
        workers_apply(m->workers, reload_generation(m->reload), reload_spec_fd(m->reload));
    else
        log_msg(early ? LOG_INFO : LOG_WARN, "waiting", "for a good %s", m->o->config);
    reload_watch(m->reload, m->watch);
    return 0;
}

static int begin(struct master *m, struct err *err)
{
    uint64_t fd_limit = raise_fd_limit();

    cgroup_memory_open(&m->memory); /* first of all: end() closes it in any case */
    if (m->o->run_dir) {
        if (rundir_open(m->o->run_dir, &m->rundir, err))
            return -1;
        m->has_rundir = true;
    }
    signal(SIGPIPE, SIG_IGN);
    if (loop_init(&m->loop, err) || watch_signals(m, err) || make_workers(m, fd_limit, err))
        return -1;
    m->status.pid = getpid();
    m->status.started_at = time(NULL);
    m->reload = reload_new(m->o->config, &m->ports, &m->shared, &m->status, err);
    m->watch = watch_new(&m->loop, on_files_changed, m, err);
    if (!m->reload || !m->watch)
        return -1;
    write_status(m);
    if ((m->o->admin || m->o->health) && !(m->admin = admin_new(&m->status, m->o->admin, m->o->health, err)))
        return -1;
    m->ticket_rotated_ms = m->loop.now_ms;
    m->stop_limit.fire = on_stop_limit;
    m->tick.fire = on_tick;
    m->loop.turn_end = on_turn_end;
    loop_timer_set(&m->loop, &m->tick, m->loop.now_ms + MASTER_TICK_MS);
    return first_spec(m, err) ? -1 : workers_start(m->workers, err);
}

static void end(struct master *m)
{
    workers_free(m->workers);
    if (m->status.stopping)
        write_status(m);
    admin_free(m->admin);
    watch_free(m->watch);
    ports_free(&m->ports);
    reload_free(m->reload);
    free(m->status.workers);
    cgroup_memory_close(&m->memory);
    rundir_done(&m->rundir);
    shared_done(&m->shared);
    if (m->shared_fd >= 0)
        close(m->shared_fd);
    if (m->signals.fd >= 0)
        close(m->signals.fd);
    loop_done(&m->loop);
    log_flush();
}

int master_run(const struct options *o)
{
    struct master *m = calloc(1, sizeof *m);
    struct err err = {.msg = "out of memory"};
    int r = 1;

    log_init(o->log_level);
    if (m) {
        m->o = o;
        m->shared_fd = m->signals.fd = m->loop.epoll_fd = -1;
    }
    if (!m || begin(m, &err)) {
        if (err.msg[0])
            log_msg(LOG_ERROR, "fatal", "%s", err.msg);
    } else {
        if (m->admin)
            admin_run(m->admin, &m->loop);
        else
            loop_run(&m->loop);
        log_msg(LOG_INFO, "stopped", "all workers have ended");
        r = 0;
    }
    if (m)
        end(m);
    if (m && m->has_rundir)
        rundir_give_up(&m->rundir);
    free(m);
    return r;
}
