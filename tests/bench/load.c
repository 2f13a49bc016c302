/* load.c - the load generator of the bench: WebSocket clients in a closed loop
 *
 *   bench_load MODE --port N [--tls] [--connections N] [--inflight K] [--size BYTES]
 *              [--warmup MS] [--time MS] [--cpu-of FILE]...
 *
 * echo:    N connections, each with K messages in flight, for --time after --warmup; a message is one echo,
 *          there and back
 * connect: N at a time: connect, handshake, one echo, Close, EOF, and again; counts those that came to the EOF
 * idle:    N connections, one echo each, then held until stdin ends; prints a first line when all are open
 *
 * --cpu-of names a /proc/PID/task/TID/schedstat of what is measured: "cpu_ns" is what these used meanwhile.
 * --time is stretched, by 120 s at most, until one message was counted. Prints one JSON object; what went wrong
 * first, on stderr. Exit 1 when nothing could be counted. */
#include "bench/net.h"
#include "bench/peer.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS          512
#define OPENING_MAX     128 /* handshakes at a time, while all are opened */
#define OPEN_LIMIT_NS   120000000000u
#define CPU_FILES_MAX   32
#define CONNECT_ERRORS  200 /* then `connect` gives up */
#define CONNECTIONS_MAX 100000
#define SIZE_MAX_BYTES  (16u << 20)
#define TIME_MAX_MS     600000

/* Latencies: 32 steps a power of two, so a quantile is off by 3 % at most. */
#define HIST_STEPS_LOG2 5
#define HIST_SLOTS      (64 << HIST_STEPS_LOG2)

struct load {
    struct peer_plan plan;
    struct peer *peers;
    unsigned peer_count, inflight;
    uint64_t warmup_ns, time_ns;
    const char *cpu_files[CPU_FILES_MAX];
    unsigned cpu_file_count;
    bool tls;
    uint16_t port;
    size_t size_bytes;

    unsigned started, opening, ready; /* while they are opened */
    bool counting;
    uint64_t done, errors;
    uint64_t hist[HIST_SLOTS];
    int (*on_open)(struct load *l, struct peer *p, uint64_t now);
    int (*on_echo)(struct load *l, struct peer *p, unsigned echoes, uint64_t now);
    void (*on_end)(struct load *l, struct peer *p, uint64_t now);
};

static unsigned hist_slot(uint64_t ns)
{
    if (ns < (1u << HIST_STEPS_LOG2))
        return (unsigned)ns;
    const unsigned top = 63 - (unsigned)__builtin_clzll(ns);
    const unsigned shift = top - HIST_STEPS_LOG2;
    return ((shift + 1) << HIST_STEPS_LOG2) + (unsigned)(ns >> shift) - (1u << HIST_STEPS_LOG2);
}

static double hist_quantile_us(const struct load *l, double q)
{
    uint64_t total = 0, seen = 0;

    for (unsigned i = 0; i < HIST_SLOTS; i++)
        total += l->hist[i];
    for (unsigned i = 0; i < HIST_SLOTS; i++) {
        seen += l->hist[i];
        if (seen == 0 || (double)seen < q * (double)total)
            continue;
        if (i < (1u << HIST_STEPS_LOG2))
            return i / 1e3;
        const unsigned shift = (i >> HIST_STEPS_LOG2) - 1;
        const uint64_t low = (uint64_t)((i & ((1u << HIST_STEPS_LOG2) - 1)) + (1u << HIST_STEPS_LOG2))
                             << shift;
        return (double)low / 1e3;
    }
    return 0;
}

static uint64_t cpu_ns(const struct load *l)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < l->cpu_file_count; i++) {
        uint64_t ns = 0;
        FILE *f = fopen(l->cpu_files[i], "re");
        if (!f || fscanf(f, "%" SCNu64, &ns) != 1)
            net_fail(l->cpu_files[i]);
        fclose(f);
        sum += ns;
    }
    return sum;
}

static void failed(struct load *l, struct peer *p)
{
    if (l->errors++ == 0)
        fprintf(stderr, "bench_load: first error: %s\n", l->plan.why);
    if (p->state < PEER_OPEN && l->opening)
        l->opening--;
    peer_end(p);
}

static void start_more(struct load *l)
{
    while (l->started < l->peer_count && l->opening < OPENING_MAX) {
        struct peer *p = &l->peers[l->started++];
        l->opening++;
        if (peer_start(p, &l->plan))
            failed(l, p);
    }
}

static int stamp_and_send(struct load *l, struct peer *p, unsigned messages, uint64_t now)
{
    for (unsigned i = 0; i < messages; i++)
        p->sent_ns[(p->sent_first + l->inflight - messages + i) % l->inflight] = now;
    return peer_send(p, &l->plan, messages);
}

static void one_event(struct load *l, const struct epoll_event *e, uint64_t now)
{
    struct peer *p = e->data.ptr;
    const enum peer_state before = p->state;
    unsigned echoes = 0;

    if (before == PEER_FREE)
        return;
    if (peer_handle(p, &l->plan, e->events, &echoes)) {
        failed(l, p);
        if (l->on_end)
            l->on_end(l, p, now);
        return;
    }
    int r = 0;
    if (before < PEER_OPEN && p->state == PEER_OPEN) {
        l->opening -= l->opening ? 1 : 0;
        r = l->on_open(l, p, now);
    }
    if (!r && echoes)
        r = l->on_echo(l, p, echoes, now);
    if (r)
        failed(l, p);
    if ((r || p->state == PEER_DONE) && l->on_end)
        l->on_end(l, p, now);
}

/* One turn, at most until `until`. */
static uint64_t turn(struct load *l, uint64_t until)
{
    struct epoll_event events[EVENTS];
    uint64_t now = net_now_ns();
    const int wait_ms = until > now ? (int)((until - now) / 1000000) + 1 : 0;
    const int n = epoll_wait(l->plan.ep, events, EVENTS, wait_ms);

    if (n < 0 && errno != EINTR)
        net_fail("epoll_wait");
    for (int i = 0; i < n; i++) {
        now = net_now_ns();
        one_event(l, &events[i], now);
    }
    return net_now_ns();
}

/* ---- echo ---- */

static int nothing_yet(struct load *l, struct peer *p, uint64_t now)
{
    (void)p;
    (void)now;
    l->ready++;
    return 0;
}

static int echo_again(struct load *l, struct peer *p, unsigned echoes, uint64_t now)
{
    for (unsigned i = 0; i < echoes; i++) {
        if (l->counting)
            l->hist[hist_slot(now - p->sent_ns[p->sent_first])]++;
        p->sent_first = (p->sent_first + 1) % l->inflight;
    }
    l->done += l->counting ? echoes : 0;
    return stamp_and_send(l, p, echoes, now);
}

/* Opens all; those that are not ready by the limit count as errors. */
static void open_all(struct load *l)
{
    const uint64_t until = net_now_ns() + OPEN_LIMIT_NS;
    uint64_t now = 0;

    do {
        start_more(l);
        now = turn(l, until);
    } while (l->ready + l->errors < l->peer_count && now < until);
    for (unsigned i = 0; i < l->peer_count; i++) {
        if (l->peers[i].state != PEER_FREE && l->peers[i].state != PEER_OPEN) {
            l->plan.why = "no handshake within 120 s";
            failed(l, &l->peers[i]);
        }
    }
}

static void print_counts(const struct load *l, const char *what, uint64_t ns, uint64_t cpu)
{
    printf("{\"%s\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"seconds\": %.4f, \"per_second\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_ns\": %" PRIu64 "}\n",
           what, l->done, l->errors, (double)ns / 1e9, (double)l->done * 1e9 / (double)ns,
           hist_quantile_us(l, 0.5), hist_quantile_us(l, 0.99), cpu);
    fflush(stdout);
}

static int measure(struct load *l, const char *what)
{
    const uint64_t warm_until = net_now_ns() + l->warmup_ns;
    uint64_t now = net_now_ns();

    while (now < warm_until && l->errors < CONNECT_ERRORS)
        now = turn(l, warm_until);
    l->counting = true;
    const uint64_t cpu_before = cpu_ns(l), start = net_now_ns(), until = start + l->time_ns;
    now = start;
    while ((now < until || (!l->done && now < until + OPEN_LIMIT_NS)) && l->errors < CONNECT_ERRORS)
        now = turn(l, now < until ? until : until + OPEN_LIMIT_NS);
    print_counts(l, what, now - start, cpu_ns(l) - cpu_before);
    return l->done ? 0 : 1;
}

static int run_echo(struct load *l)
{
    l->on_open = nothing_yet;
    l->on_echo = echo_again;
    open_all(l);
    for (unsigned i = 0; i < l->peer_count; i++) {
        struct peer *p = &l->peers[i];
        if (p->state == PEER_OPEN && stamp_and_send(l, p, l->inflight, net_now_ns()))
            failed(l, p);
    }
    return measure(l, "messages");
}

/* ---- connect ---- */

static int send_one(struct load *l, struct peer *p, uint64_t now)
{
    (void)now;
    return peer_send(p, &l->plan, 1);
}

static int then_close(struct load *l, struct peer *p, unsigned echoes, uint64_t now)
{
    (void)echoes;
    (void)now;
    return peer_send_close(p, &l->plan);
}

static void begin(struct load *l, struct peer *p, uint64_t now)
{
    if (peer_start(p, &l->plan))
        failed(l, p);
    p->sent_ns[0] = now;
}

static void count_and_begin(struct load *l, struct peer *p, uint64_t now)
{
    if (p->state == PEER_DONE && l->counting) {
        l->done++;
        l->hist[hist_slot(now - p->sent_ns[0])]++;
    }
    peer_end(p);
    begin(l, p, now);
}

static int run_connect(struct load *l)
{
    l->on_open = send_one;
    l->on_echo = then_close;
    l->on_end = count_and_begin;
    for (unsigned i = 0; i < l->peer_count; i++)
        begin(l, &l->peers[i], net_now_ns());
    return measure(l, "connections");
}

/* ---- idle ---- */

static int count_ready(struct load *l, struct peer *p, unsigned echoes, uint64_t now)
{
    (void)p;
    (void)echoes;
    (void)now;
    l->ready++;
    return 0;
}

static int run_idle(struct load *l)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char c;

    l->on_open = send_one;
    l->on_echo = count_ready;
    open_all(l);
    printf("{\"ready\": %u, \"errors\": %" PRIu64 "}\n", l->ready, l->errors);
    fflush(stdout);
    while (poll(&in, 1, TIME_MAX_MS) == 1 && read(STDIN_FILENO, &c, 1) == 1)
        continue;
    turn(l, 0);
    printf("{\"held\": %u, \"errors\": %" PRIu64 "}\n", l->ready, l->errors);
    return l->ready ? 0 : 1;
}

/* ---- */

static void options(struct load *l, int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        const char *o = argv[i];
        if (!strcmp(o, "--tls")) {
            l->tls = true;
            continue;
        }
        const char *value = i + 1 < argc ? argv[++i] : "";
        if (!strcmp(o, "--port"))
            l->port = (uint16_t)net_number(o, value, UINT16_MAX);
        else if (!strcmp(o, "--connections"))
            l->peer_count = (unsigned)net_number(o, value, CONNECTIONS_MAX);
        else if (!strcmp(o, "--inflight"))
            l->inflight = (unsigned)net_number(o, value, PEER_INFLIGHT_MAX);
        else if (!strcmp(o, "--size"))
            l->size_bytes = net_number(o, value, SIZE_MAX_BYTES);
        else if (!strcmp(o, "--warmup"))
            l->warmup_ns = net_number(o, value, TIME_MAX_MS) * 1000000;
        else if (!strcmp(o, "--time"))
            l->time_ns = net_number(o, value, TIME_MAX_MS) * 1000000;
        else if (!strcmp(o, "--cpu-of") && l->cpu_file_count < CPU_FILES_MAX)
            l->cpu_files[l->cpu_file_count++] = value;
        else {
            fprintf(stderr, "bench_load: %s: not understood\n", o);
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    static struct load l = {.peer_count = 1, .inflight = 1, .size_bytes = 64, .time_ns = 1000000000u};
    const char *mode = argc > 1 ? argv[1] : "";
    int r = 2;

    options(&l, argc, argv);
    if (!l.port || !l.peer_count || !l.inflight || !l.time_ns) {
        fputs("usage: bench_load echo|connect|idle --port N [options]: see load.c\n", stderr);
        return 2;
    }
    net_process_init();
    peer_plan_init(&l.plan, l.port, l.tls, l.size_bytes, l.inflight);
    l.peers = calloc(l.peer_count, sizeof(*l.peers));
    if (!l.peers)
        net_fail("calloc");
    if (!strcmp(mode, "echo"))
        r = run_echo(&l);
    else if (!strcmp(mode, "connect"))
        r = run_connect(&l);
    else if (!strcmp(mode, "idle"))
        r = run_idle(&l);
    else
        fprintf(stderr, "bench_load: mode \"%s\": must be echo, connect or idle\n", mode);
    for (unsigned i = 0; i < l.peer_count; i++) {
        if (l.peers[i].state != PEER_FREE)
            peer_end(&l.peers[i]);
    }
    free(l.peers);
    peer_plan_done(&l.plan);
    return r;
}
