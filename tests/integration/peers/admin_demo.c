/* The admin port over figures that are made up and move: for the tests of the port, and to look at the page.
 *
 *     admin_demo ADMIN HEALTH SERVERS WORKERS      e.g. 127.0.0.1:9901 - 12 2 ("-": no such port)
 *
 * USR1: it begins to stop (readyz false). USR2: one line in the log. TERM: it ends. */
#include "admin/admin.h"
#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define MAX_WORKERS                16
#define STEP_MS                    100
#define REVISION                   "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

struct demo {
    struct loop loop;
    struct loop_fd signals;
    struct loop_timer step;
    struct shared shared;
    struct status status;
    struct status_worker workers[MAX_WORKERS];
    uint32_t seed;
};

static uint32_t below(struct demo *d, uint32_t n)
{
    d->seed = d->seed * 1664525u + 1013904223u;
    return n ? (d->seed >> 8) % n : 0;
}

static void move_cell(struct demo *d, struct stats_cell *c, uint32_t weight)
{
    static const int answers[] = {101, 101, 101, 101, 101, 101, 101, 101, 401, 404, 502, 503, 504, 0};
    static const unsigned codes[STATS_WHOS][4] = {
        {1000, 1000, 1001, 1005}, {1000, 1000, 1011, 4001}, {1001, 1001, 1009, 1002}};

    for (uint32_t i = below(d, weight / 4 + 2); i > 0; i--) {
        int status = answers[below(d, sizeof answers / sizeof *answers)];

        stats_add(&c->handshakes_total[stats_status_index(status)], 1);
        if (status != 101)
            continue;
        stats_add(&c->connections_total, 1);
        stats_add(&c->connections, 1);
        stats_handshake_took(c, 400 + below(d, 1u << below(d, 18)));
    }
    for (uint32_t i = below(d, weight / 4 + 2); i > 0 && stats_read(&c->connections) > weight; i--) {
        unsigned who = below(d, 10) % STATS_WHOS;

        stats_add(&c->connections, (uint64_t)-1);
        stats_add(&c->closes[who][stats_close_index(codes[who][below(d, 4)])], 1);
    }
    atomic_store(&c->handshakes, below(d, weight / 8 + 1));
    for (int from = 0; from < 2; from++) {
        uint32_t n = weight * (5 + below(d, 5)) / (from ? 2 : 1);

        stats_add(&c->messages[from][FRAME_TEXT], n);
        stats_add(&c->messages[from][FRAME_PING], below(d, 2));
        stats_add(&c->bytes[from], (uint64_t)n * (80 + below(d, 900)));
    }
    if (!below(d, 200))
        stats_add(&c->limited[below(d, STATS_LIMITS)], 1);
}

static void on_step(struct loop_timer *t)
{
    struct demo *d = CONTAINER(t, struct demo, step);

    for (size_t w = 0; w < d->status.worker_count; w++) {
        struct shared_worker *worker = shared_worker(&d->shared, (unsigned)w);
        uint64_t pairs = 0;

        for (size_t i = 0; i < d->status.server_count; i++) {
            const struct status_server *s = &d->status.servers[i];
            struct stats_cell *c;

            if (s->slot < 0)
                continue;
            c = shared_cell(&d->shared, (unsigned)w, (unsigned)s->slot);
            if (s->state != STATUS_DRAINING) {
                move_cell(d, c, (uint32_t)(160 / (i + 1)) + 1);
            } else if (stats_read(&c->connections)) {
                stats_add(&c->connections, (uint64_t)-1);
                stats_add(&c->drained, 1);
                stats_add(&c->closes[STATS_GATEWAY][stats_close_index(1001)], 1);
            }
            pairs += stats_read(&c->connections) + stats_read(&c->handshakes);
        }
        atomic_store(&worker->pairs, pairs);
        atomic_store(&worker->server_objects, d->status.server_count);
        stats_add(&worker->accepted, below(d, 9));
    }
    loop_timer_set(&d->loop, t, d->loop.now_ms + STEP_MS);
}

static void on_signal(struct loop_fd *f, uint32_t events)
{
    struct demo *d = CONTAINER(f, struct demo, signals);
    struct signalfd_siginfo info;

    (void)events;
    while (read(f->fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGTERM)
            d->loop.stop = true;
        d->status.stopping = d->status.stopping || info.ssi_signo == SIGUSR1;
        d->status.ready = !d->status.stopping;
        log_msg(LOG_INFO, "signal", "%u", info.ssi_signo);
    }
}

static void add_server(struct demo *d, size_t i)
{
    static const char *const words[] = {"chat", "ticker", "orders", "telemetry",
                                        "game", "notify", "board",  "voice"};
    struct status_server *s = &d->status.servers[i];
    char name[64], backend[64];

    snprintf(name, sizeof name, "%s/%s-%zu", i % 3 ? "prod" : "staging", words[i % 8], i);
    snprintf(backend, sizeof backend, "ws://%s.svc:%zu", words[i % 8], 3000 + i % 100);
    *s = (struct status_server){.name = strdup(name),
                                .backend = strdup(backend),
                                .tls = i % 2 == 0,
                                .port = (uint16_t)(10020 + i),
                                .slot = shared_slot_take(&d->shared, name)};
    if (s->tls) {
        s->not_after = time(NULL) + (time_t)(2 + 7 * i % 90) * 86400;
        snprintf(s->cert_sha256, STATUS_HEX_BYTES, "%s", REVISION);
    }
    if (i % 16 == 3) {
        s->state = STATUS_STALE;
        s->message =
            strdup("keyBase64: the key is not that of the certificate; <b>its last good version serves</b>");
    } else if (i % 16 == 5) {
        *s = (struct status_server){.name = s->name,
                                    .backend = s->backend,
                                    .slot = -1,
                                    .state = STATUS_FAILED,
                                    .message = strdup("port: 10025 is taken by another process")};
    } else if (i % 16 == 6) {
        s->state = STATUS_DRAINING;
        s->message = strdup("gone from the file");
        atomic_store(&shared_cell(&d->shared, 0, (unsigned)s->slot)->connections, 900);
    }
}

static int start(struct demo *d, size_t servers, size_t workers, struct err *err)
{
    static char *errors[] = {
        "41:3: server \"staging/telemetry-3\": keyBase64: the key is not that of the certificate",
        "58:7: server \"prod/notify-5\": port: 10025 is taken by another process"};
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    d->signals = (struct loop_fd){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = on_signal};
    if (shared_new(&d->shared, (unsigned)workers, 1024, &fd, err) || loop_init(&d->loop, err) ||
        loop_add(&d->loop, &d->signals, EPOLLIN, err))
        return -1;
    close(fd);
    d->status = (struct status){.pid = getpid(),
                                .started_at = time(NULL),
                                .ready = true,
                                .revision = REVISION,
                                .applied_at = time(NULL),
                                .workers = d->workers,
                                .worker_count = workers,
                                .servers = calloc(servers + 1, sizeof *d->status.servers),
                                .server_count = servers,
                                .reloads = {0, 3, 1, 1},
                                .shared = &d->shared};
    snprintf(d->status.seen.revision, STATUS_HEX_BYTES, "%s", REVISION);
    d->status.seen.result = servers > 5 ? STATUS_PARTIAL : STATUS_APPLIED;
    d->status.seen.errors = errors;
    d->status.seen.error_count = servers > 5 ? 2 : 0;
    for (size_t i = 0; i < servers; i++)
        add_server(d, i);
    for (size_t w = 0; w < workers; w++)
        d->workers[w] =
            (struct status_worker){.pid = getpid() + 1 + (pid_t)w, .restarts = w % 2, .current = true};
    d->step.fire = on_step;
    loop_timer_set(&d->loop, &d->step, d->loop.now_ms + STEP_MS);
    return 0;
}

static void end(struct demo *d)
{
    for (size_t i = 0; i < d->status.server_count; i++) {
        free(d->status.servers[i].name);
        free(d->status.servers[i].backend);
        free(d->status.servers[i].message);
    }
    free(d->status.servers);
    loop_done(&d->loop);
    shared_done(&d->shared);
}

int main(int argc, char **argv)
{
    static struct demo d = {.seed = 7};
    struct admin *admin = NULL;
    struct err err;
    size_t workers;

    if (argc != 5)
        return 2;
    workers = strtoul(argv[4], NULL, 10);
    log_init(LOG_INFO);
    if (workers >= 1 && workers <= MAX_WORKERS && !start(&d, strtoul(argv[3], NULL, 10), workers, &err))
        admin = admin_new(&d.status, strcmp(argv[1], "-") ? argv[1] : NULL,
                          strcmp(argv[2], "-") ? argv[2] : NULL, &err);
    if (!admin) {
        log_msg(LOG_ERROR, "fatal", "%s", err.msg);
        return 1;
    }
    log_msg(LOG_INFO, "ready", "%s %s", argv[1], argv[2]);
    admin_run(admin, &d.loop);
    admin_free(admin);
    end(&d);
    return 0;
}
