#include "run/workers.h"

#include "run/control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Above what a child's descriptors are moved to. */
#define FIRST_FD 10

struct process {
    struct workers *all;
    unsigned index;
    pid_t pid; /* 0: dead */
    struct loop_fd control;
    uint32_t watched;
    uint64_t sent, applied; /* generations */
    uint64_t started_ms;
    uint64_t backoff_ms;
    uint64_t restarts;
    struct loop_timer timer; /* of the next start when dead, of the next try when alive */
    uint32_t last_word;      /* DRAIN or STOP: to be sent; 0: none */
};

struct workers {
    struct workers_config c;
    struct process *items;
    uint64_t generation;
    int spec_fd;
    uint64_t checked_ms;
    bool ending;
};

extern char **environ;

static void sync_one(struct process *p);

static void control_end(struct process *p)
{
    if (p->control.fd >= 0)
        close(p->control.fd);
    p->control.fd = -1;
    p->watched = 0;
}

static void watch(struct process *p, uint32_t events)
{
    struct err err;

    if (p->control.fd >= 0 && loop_watch(p->all->c.loop, &p->control, &p->watched, events, &err))
        log_msg(LOG_ERROR, "worker", "%u: %s", p->index, err.msg);
}

/* The ports that it lacks, CONTROL_FDS a message. */
static int send_ports(struct process *p)
{
    struct ports *ports = p->all->c.ports;

    for (size_t i = 0; i < ports->count;) {
        struct control m = {.type = CONTROL_PORTS};
        struct port *these[CONTROL_FDS];
        int fds[CONTROL_FDS], r;

        for (; i < ports->count && m.count < CONTROL_FDS; i++) {
            struct port *port = ports->items[i];

            if (port->closing || port->sent[p->index])
                continue;
            these[m.count] = port;
            fds[m.count] = port->fds[p->index];
            m.ports[m.count++] = port->number;
        }
        r = m.count ? control_send(p->control.fd, &m, fds, m.count) : CONTROL_OK;
        if (r != CONTROL_OK)
            return r;
        for (uint32_t k = 0; k < m.count; k++)
            these[k]->sent[p->index] = true;
    }
    return CONTROL_OK;
}

static int send_spec(struct process *p)
{
    struct control m = {.type = CONTROL_APPLY, .generation = p->all->generation};
    int r = send_ports(p);

    if (r == CONTROL_OK)
        r = control_send(p->control.fd, &m, &p->all->spec_fd, 1);
    if (r == CONTROL_OK)
        p->sent = p->all->generation;
    return r;
}

static int send_word(struct process *p)
{
    struct control m = {.type = p->last_word};
    int r = control_send(p->control.fd, &m, NULL, 0);

    if (r == CONTROL_OK)
        p->last_word = 0;
    return r;
}

/* Says what there is to say; what does not fit is said when there is room. */
static void sync_one(struct process *p)
{
    int r = CONTROL_OK;

    if (p->control.fd < 0)
        return;
    if (!p->all->ending && p->sent < p->all->generation)
        r = send_spec(p);
    if (r == CONTROL_OK && p->last_word)
        r = send_word(p);
    watch(p, r == CONTROL_AGAIN ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void on_applied(struct process *p, const struct control *m)
{
    struct workers *w = p->all;

    if (!m->count) {
        p->applied = m->generation;
        w->c.changed(w->c.arg);
        return;
    }
    ports_forget_sent(w->c.ports, p->index); /* it may have lost one for want of memory */
    log_msg(LOG_ERROR, "worker", "%u: could not apply the spec: %.400s; trying again in %d ms", p->index,
            m->text, WORKERS_RETRY_MS);
    loop_timer_set(w->c.loop, &p->timer, w->c.loop->now_ms + WORKERS_RETRY_MS);
}

static void on_control(struct loop_fd *f, uint32_t events)
{
    struct process *p = (struct process *)((char *)f - offsetof(struct process, control));
    struct control m;
    int fds[CONTROL_FDS], r;
    size_t count;

    (void)events;
    while ((r = control_recv(f->fd, &m, fds, &count)) == CONTROL_OK) {
        for (size_t i = 0; i < count; i++)
            close(fds[i]);
        m.text[sizeof m.text - 1] = '\0';
        if (m.type == CONTROL_APPLIED)
            on_applied(p, &m);
    }
    if (r == CONTROL_GONE)
        control_end(p); /* SIGCHLD says the rest */
    else
        sync_one(p);
}

/* A copy that dup2 to CONTROL_FD and CONTROL_SHARED_FD cannot run over. */
static int out_of_the_way(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD);

    close(fd);
    return high;
}

static int spawn(struct process *p, int child_end, struct err *err)
{
    const struct workers_config *c = &p->all->c;
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    char index[16], drain[24];
    char *argv[9] = {"tidegate-proxy", "--worker", index, "--log-level", (char *)levels[c->log_level]};
    size_t argc = 5;
    posix_spawn_file_actions_t files;
    int r;

    snprintf(index, sizeof index, "%u", p->index);
    snprintf(drain, sizeof drain, "%ums", c->max_drain_ms);
    if (c->deny_local)
        argv[argc++] = "--deny-local-backends";
    if (c->max_drain_ms) {
        argv[argc++] = "--max-drain";
        argv[argc++] = drain;
    }
    posix_spawn_file_actions_init(&files);
    r = posix_spawn_file_actions_adddup2(&files, child_end, CONTROL_FD);
    if (!r)
        r = posix_spawn_file_actions_adddup2(&files, c->shared_fd, CONTROL_SHARED_FD);
    if (!r)
        r = posix_spawn(&p->pid, "/proc/self/exe", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (r) {
        p->pid = 0;
        return err_set(err, ERR_IO, "worker %u: %s", p->index, strerror(r));
    }
    return 0;
}

static int start_one(struct process *p, struct err *err)
{
    struct workers *w = p->all;
    int ends[2], r;

    p->started_ms = w->c.loop->now_ms; /* in any case: a start that fails backs off as a death does */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return err_set(err, ERR_IO, "worker %u: socketpair: %s", p->index, strerror(errno));
    ends[1] = out_of_the_way(ends[1]);
    p->sent = p->applied = 0;
    ports_forget_sent(w->c.ports, p->index);
    atomic_store(&shared_worker(w->c.shared, p->index)->heartbeat_ms, p->started_ms);
    r = ends[1] < 0 ? err_set(err, ERR_IO, "worker %u: %s", p->index, strerror(errno))
                    : spawn(p, ends[1], err);
    if (ends[1] >= 0)
        close(ends[1]);
    if (r) {
        close(ends[0]);
        return -1;
    }
    p->control = (struct loop_fd){.fd = ends[0], .ready = on_control};
    log_msg(LOG_INFO, "worker", "%u started, pid %d", p->index, (int)p->pid);
    sync_one(p);
    return 0;
}

static void start_later(struct process *p)
{
    uint64_t now = p->all->c.loop->now_ms, lived = now - p->started_ms;

    /* The first death of a worker that has served a while is answered at once. */
    p->backoff_ms = lived >= WORKERS_BACKOFF_MS ? 0 : p->backoff_ms ? 2 * p->backoff_ms : 100;
    if (p->backoff_ms > WORKERS_BACKOFF_MS)
        p->backoff_ms = WORKERS_BACKOFF_MS;
    loop_timer_set(p->all->c.loop, &p->timer, now + p->backoff_ms);
}

static void start_again(struct process *p)
{
    struct err err;

    p->restarts++;
    if (start_one(p, &err)) {
        log_msg(LOG_ERROR, "worker", "%s", err.msg);
        start_later(p);
    }
    p->all->c.changed(p->all->c.arg);
}

static void on_timer(struct loop_timer *t)
{
    struct process *p = (struct process *)((char *)t - offsetof(struct process, timer));

    if (p->all->ending)
        return;
    if (!p->pid) {
        start_again(p);
    } else {
        p->sent = 0;
        sync_one(p);
    }
}

static void on_death(struct process *p, int status)
{
    struct workers *w = p->all;

    control_end(p);
    loop_timer_clear(&p->timer);
    shared_worker_clear(w->c.shared, p->index);
    if (w->ending && WIFEXITED(status) && !WEXITSTATUS(status))
        log_msg(LOG_INFO, "worker", "%u ended, pid %d", p->index, (int)p->pid);
    else if (WIFSIGNALED(status))
        log_msg(LOG_ERROR, "worker", "%u died, pid %d: %s", p->index, (int)p->pid,
                strsignal(WTERMSIG(status)));
    else
        log_msg(LOG_ERROR, "worker", "%u died, pid %d: exit code %d", p->index, (int)p->pid,
                WEXITSTATUS(status));
    p->pid = 0;
    if (!w->ending && w->c.loop->now_ms - p->started_ms >= WORKERS_BACKOFF_MS) {
        p->backoff_ms = 0;
        start_again(p);
        return;
    }
    if (!w->ending)
        start_later(p);
    w->c.changed(w->c.arg);
}

void workers_reap(struct workers *w)
{
    for (unsigned i = 0; i < w->c.count; i++) {
        struct process *p = &w->items[i];
        int status;

        if (p->pid && waitpid(p->pid, &status, WNOHANG) == p->pid)
            on_death(p, status);
    }
}

struct workers *workers_new(const struct workers_config *c, struct err *err)
{
    struct workers *w = calloc(1, sizeof *w);

    if (w)
        w->items = calloc(c->count, sizeof *w->items);
    if (!w || !w->items) {
        free(w);
        err_set(err, ERR_LIMIT, "out of memory");
        return NULL;
    }
    w->c = *c;
    w->spec_fd = -1;
    w->checked_ms = c->loop->now_ms;
    for (unsigned i = 0; i < c->count; i++) {
        w->items[i] = (struct process){.all = w, .index = i, .control.fd = -1, .timer.fire = on_timer};
    }
    return w;
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    w->ending = true;
    workers_kill(w);
    for (unsigned i = 0; i < w->c.count; i++) {
        if (w->items[i].pid)
            waitpid(w->items[i].pid, NULL, 0);
        control_end(&w->items[i]);
        loop_timer_clear(&w->items[i].timer);
    }
    free(w->items);
    free(w);
}

int workers_start(struct workers *w, struct err *err)
{
    for (unsigned i = 0; i < w->c.count; i++)
        if (start_one(&w->items[i], err))
            return -1;
    return 0;
}

void workers_apply(struct workers *w, uint64_t generation, int spec_fd)
{
    w->generation = generation;
    w->spec_fd = spec_fd;
    for (unsigned i = 0; i < w->c.count; i++)
        sync_one(&w->items[i]);
}

uint64_t workers_applied(const struct workers *w)
{
    uint64_t oldest = UINT64_MAX;

    for (unsigned i = 0; i < w->c.count; i++)
        if (w->items[i].pid && w->items[i].applied < oldest)
            oldest = w->items[i].applied;
    return oldest == UINT64_MAX ? 0 : oldest;
}

bool workers_failing(const struct workers *w)
{
    for (unsigned i = 0; i < w->c.count; i++)
        if (w->items[i].pid || w->items[i].backoff_ms < WORKERS_BACKOFF_MS)
            return false;
    return true;
}

void workers_check(struct workers *w)
{
    uint64_t now = w->c.loop->now_ms;
    /* When we were asleep ourselves (a frozen container), nobody's silence means anything. */
    bool slept = now - w->checked_ms > WORKERS_SILENT_MS / 2;

    w->checked_ms = now;
    for (unsigned i = 0; i < w->c.count; i++) {
        struct process *p = &w->items[i];
        struct shared_worker *s = shared_worker(w->c.shared, i);
        uint64_t beat = atomic_load(&s->heartbeat_ms);

        if (!p->pid)
            continue;
        if (slept) {
            atomic_store(&s->heartbeat_ms, now);
        } else if (now > beat && now - beat > WORKERS_SILENT_MS) {
            log_msg(LOG_ERROR, "worker", "%u has been silent for %d s: killed, pid %d", i,
                    WORKERS_SILENT_MS / 1000, (int)p->pid);
            kill(p->pid, SIGKILL);
        }
    }
}

static void end_all(struct workers *w, enum control_type word)
{
    w->ending = true;
    for (unsigned i = 0; i < w->c.count; i++) {
        loop_timer_clear(&w->items[i].timer);
        w->items[i].last_word = word;
        sync_one(&w->items[i]);
    }
}

void workers_drain(struct workers *w)
{
    end_all(w, CONTROL_DRAIN);
}

void workers_stop(struct workers *w)
{
    end_all(w, CONTROL_STOP);
}

void workers_kill(struct workers *w)
{
    for (unsigned i = 0; i < w->c.count; i++)
        if (w->items[i].pid)
            kill(w->items[i].pid, SIGKILL);
}

unsigned workers_alive(const struct workers *w)
{
    unsigned n = 0;

    for (unsigned i = 0; i < w->c.count; i++)
        n += w->items[i].pid != 0;
    return n;
}

pid_t workers_pid(const struct workers *w, unsigned i)
{
    return w->items[i].pid;
}

uint64_t workers_restarts(const struct workers *w, unsigned i)
{
    return w->items[i].restarts;
}

bool workers_current(const struct workers *w, unsigned i)
{
    return w->items[i].pid && w->items[i].applied == w->generation;
}
