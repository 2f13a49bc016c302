/* hold.c - a crowd of WebSocket clients that stay: each echoes now and then, until stdin ends
 *
 *   bench_hold --port N [--tls] [--connections N] [--period MS] [--report MS] [--size BYTES] [--deaf K]
 *              [--midframe K]
 *
 * Every byte of an echo is compared. A Close is answered by a Close, a Ping by a Pong. A socket that has ended is not
 * opened again. Of the N, --midframe K stop in the middle of sending a frame and read on; --deaf K send frames without
 * pause and never read a byte.
 *
 * Each second (or --report), and last once stdin has ended, one JSON object a line on stdout:
 *   at_ms     CLOCK_MONOTONIC
 *   open      sockets after their 101 that no Close and no end has reached; opening: those before it
 *   echoes, errors (failed handshakes, wrong bytes; `why` is the first one), cut (ends without a Close)
 *   overdue   echoes that are not back after a period; slowest_ms: of the echoes since the line before
 *   closes    how often each code came; reason: the first one's; other_reasons: how many had another one
 *   close_ms  (the last line only) when each Close came, at_ms of each
 *   stalls    (the last line only) [at_ms, how many ms] of each time that this process was kept from its CPU: what came
 *             meanwhile bears the time of the stall's end */
#include "bench/net.h"
#include "bench/peer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS          512
#define OPENING_MAX     64 /* handshakes at a time */
#define CONNECTIONS_MAX 20000
#define PERIOD_MAX_MS   600000
#define SIZE_MAX_BYTES  65536
#define SMALL_BUFFER    4096 /* of a deaf socket: what it does not take is the gateway's to keep */
#define CODES           5000
#define STALL_NS        30000000u /* later than it wanted to go on */
#define STALLS_MAX      1000

enum kind { ECHOES = 0, MIDFRAME, DEAF };

struct hold {
    struct peer_plan plan;
    struct peer *peers;
    unsigned count, deaf, midframe;
    uint64_t period_ns, report_ns, start_ns;
    uint64_t turn; /* of the echoes: turn k is peer k % count's, due at start + k * period / count */
    unsigned started, opening, open;
    uint64_t echoes, errors, cut, slowest_ns;
    const char *why;
    unsigned closes[CODES];
    uint64_t *close_ms; /* of `closed` Closes */
    unsigned closed, other_reasons;
    char reason[PEER_CONTROL_BYTES];
    size_t reason_len;
    uint64_t stalls[STALLS_MAX][2]; /* end and length, ms */
    unsigned stall_count;
};

static enum kind kind_of(const struct hold *h, const struct peer *p)
{
    const unsigned i = (unsigned)(p - h->peers);

    return i < h->deaf ? DEAF : i < h->deaf + h->midframe ? MIDFRAME : ECHOES;
}

static void wrong(struct hold *h)
{
    if (h->errors++ == 0)
        h->why = h->plan.why;
}

/* After a failure of peer.c: what the socket was doing says what that means. */
static void lost(struct hold *h, struct peer *p, enum peer_state before)
{
    const bool ended = !strcmp(h->plan.why, "the connection ended early") ||
                       !strcmp(h->plan.why, "the connection was reset") ||
                       !strcmp(h->plan.why, "a write failed");

    if (before < PEER_OPEN)
        h->opening--;
    if (before == PEER_OPEN && p->state == PEER_OPEN)
        h->open--;
    if (before == PEER_OPEN && ended)
        h->cut += p->state == PEER_OPEN;
    else if (before != PEER_CLOSED || !ended)
        wrong(h);
    peer_end(p);
}

static void on_control(void *arg, struct peer *p, unsigned opcode, const uint8_t *payload, size_t len)
{
    struct hold *h = arg;

    if (opcode == PEER_OP_CLOSE) {
        const unsigned code = len >= 2 ? (unsigned)payload[0] << 8 | payload[1] : 1005;
        const size_t reason_len = len > 2 ? len - 2 : 0;
        h->open--;
        h->closes[code < CODES ? code : 0]++;
        h->close_ms[h->closed++] = net_now_ns() / 1000000;
        if (h->closed == 1) {
            h->reason_len = reason_len;
            memcpy(h->reason, payload + len - reason_len, reason_len);
        } else if (reason_len != h->reason_len ||
                   memcmp(h->reason, payload + len - reason_len, reason_len) != 0) {
            h->other_reasons++;
        }
    }
    if (kind_of(h, p) == ECHOES && opcode != PEER_OP_PONG)
        /* A failure shows again as the end of the connection. */
        (void)peer_answer(p, &h->plan, opcode == PEER_OP_PING ? PEER_OP_PONG : PEER_OP_CLOSE, payload, len);
}

static void start_more(struct hold *h)
{
    const int small = SMALL_BUFFER;

    while (h->started < h->count && h->opening < OPENING_MAX) {
        struct peer *p = &h->peers[h->started++];
        h->opening++;
        if (peer_start(p, &h->plan))
            lost(h, p, PEER_CONNECT);
        else if (kind_of(h, p) == DEAF && (setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) ||
                                           setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small))))
            net_fail("setsockopt");
    }
}

static int opened(struct hold *h, struct peer *p)
{
    h->opening--;
    h->open++;
    switch (kind_of(h, p)) {
    case DEAF: return peer_go_deaf(p, &h->plan);
    case MIDFRAME: return peer_send_half(p, &h->plan);
    case ECHOES: break;
    }
    return 0;
}

static void one_event(struct hold *h, const struct epoll_event *e)
{
    struct peer *p = e->data.ptr;
    enum peer_state before = p->state;
    unsigned echoes = 0;

    if (before == PEER_FREE)
        return;
    int r = peer_handle(p, &h->plan, e->events, &echoes);
    if (!r && before < PEER_OPEN && p->state == PEER_OPEN) {
        r = opened(h, p);
        before = PEER_OPEN;
    }
    if (echoes) {
        const uint64_t took = net_now_ns() - p->sent_ns[0];
        h->slowest_ns = took > h->slowest_ns ? took : h->slowest_ns;
        h->echoes += echoes;
        p->sent_ns[0] = 0;
    }
    if (r)
        lost(h, p, before);
    else if (p->state == PEER_DONE)
        peer_end(p);
}

/* Sends what is due; an echo that is still out is not doubled. Returns when the next one is due. */
static uint64_t send_due(struct hold *h, uint64_t now)
{
    uint64_t due;

    while ((due = h->start_ns + h->turn * h->period_ns / h->count) <= now) {
        struct peer *p = &h->peers[h->turn++ % h->count];
        if (p->state != PEER_OPEN || kind_of(h, p) != ECHOES || p->sent_ns[0])
            continue;
        p->sent_ns[0] = now;
        if (peer_send(p, &h->plan, 1))
            lost(h, p, PEER_OPEN);
    }
    return due;
}

static unsigned overdue(const struct hold *h, uint64_t now)
{
    unsigned n = 0;

    for (unsigned i = 0; i < h->started; i++) {
        const struct peer *p = &h->peers[i];
        n += p->state == PEER_OPEN && p->sent_ns[0] && now - p->sent_ns[0] > h->period_ns;
    }
    return n;
}

static void print_text(const char *text, size_t len)
{
    putchar('"');
    for (size_t i = 0; i < len; i++)
        putchar(text[i] < ' ' || text[i] == '"' || text[i] == '\\' ? '?' : text[i]);
    putchar('"');
}

static void report(struct hold *h, uint64_t now, bool last)
{
    const char *between = "";

    printf("{\"at_ms\": %" PRIu64 ", \"open\": %u, \"opening\": %u, \"echoes\": %" PRIu64
           ", \"errors\": %" PRIu64 ", \"cut\": %" PRIu64
           ", \"overdue\": %u, \"slowest_ms\": %.1f, \"why\": ",
           now / 1000000, h->open, h->count - h->started + h->opening, h->echoes, h->errors, h->cut,
           overdue(h, now), (double)h->slowest_ns / 1e6);
    print_text(h->why, strlen(h->why));
    fputs(", \"closes\": {", stdout);
    for (unsigned code = 0; code < CODES; code++) {
        if (h->closes[code]) {
            printf("%s\"%u\": %u", between, code, h->closes[code]);
            between = ", ";
        }
    }
    fputs("}, \"reason\": ", stdout);
    print_text(h->reason, h->reason_len);
    printf(", \"other_reasons\": %u", h->other_reasons);
    if (last) {
        fputs(", \"close_ms\": [", stdout);
        for (unsigned i = 0; i < h->closed; i++)
            printf("%s%" PRIu64, i ? ", " : "", h->close_ms[i]);
        fputs("], \"stalls\": [", stdout);
        for (unsigned i = 0; i < h->stall_count; i++)
            printf("%s[%" PRIu64 ", %" PRIu64 "]", i ? ", " : "", h->stalls[i][0], h->stalls[i][1]);
        putchar(']');
    }
    puts("}");
    fflush(stdout);
    h->slowest_ns = 0;
}

/* Reads stdin; false at its end. */
static bool is_wanted(void)
{
    char bytes[64];
    const ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* It wanted to go on at `due` and does at `now`. */
static void note_stall(struct hold *h, uint64_t due, uint64_t now)
{
    if (now < due + STALL_NS || h->stall_count == STALLS_MAX)
        return;
    h->stalls[h->stall_count][0] = now / 1000000;
    h->stalls[h->stall_count++][1] = (now - due) / 1000000;
}

static void run(struct hold *h)
{
    struct epoll_event events[EVENTS];
    struct epoll_event in = {.events = EPOLLIN}; /* .data.ptr NULL: stdin */
    bool wanted = true;

    if (epoll_ctl(h->plan.ep, EPOLL_CTL_ADD, STDIN_FILENO, &in))
        net_fail("stdin, which must be a pipe");
    h->start_ns = net_now_ns();
    uint64_t report_at = h->start_ns + h->report_ns;
    while (wanted) {
        start_more(h);
        uint64_t now = net_now_ns(), due = send_due(h, now);
        if (now >= report_at) {
            report(h, now, false);
            report_at = now + h->report_ns;
        }
        due = due < report_at ? due : report_at;
        const int n =
            epoll_wait(h->plan.ep, events, EVENTS, due > now ? (int)((due - now) / 1000000) + 1 : 0);
        if (n < 0 && errno != EINTR)
            net_fail("epoll_wait");
        uint64_t woke = net_now_ns();
        note_stall(h, due, woke);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                one_event(h, &events[i]);
            else
                wanted = is_wanted();
        }
        note_stall(h, woke, net_now_ns());
    }
    report(h, net_now_ns(), true);
}

int main(int argc, char **argv)
{
    static struct hold h = {.count = 1, .period_ns = 1000000000u, .report_ns = 1000000000u, .why = ""};
    uint64_t size_bytes = 64;
    uint16_t port = 0;
    bool tls = false;

    for (int i = 1; i < argc; i++) {
        const char *o = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        i += strcmp(o, "--tls") != 0;
        if (!strcmp(o, "--tls"))
            tls = true;
        else if (!strcmp(o, "--port"))
            port = (uint16_t)net_number(o, value, UINT16_MAX);
        else if (!strcmp(o, "--connections"))
            h.count = (unsigned)net_number(o, value, CONNECTIONS_MAX);
        else if (!strcmp(o, "--period"))
            h.period_ns = net_number(o, value, PERIOD_MAX_MS) * 1000000;
        else if (!strcmp(o, "--report"))
            h.report_ns = net_number(o, value, PERIOD_MAX_MS) * 1000000;
        else if (!strcmp(o, "--size"))
            size_bytes = net_number(o, value, SIZE_MAX_BYTES);
        else if (!strcmp(o, "--deaf"))
            h.deaf = (unsigned)net_number(o, value, CONNECTIONS_MAX);
        else if (!strcmp(o, "--midframe"))
            h.midframe = (unsigned)net_number(o, value, CONNECTIONS_MAX);
        else
            port = 0;
    }
    if (!port || !h.count || !h.period_ns || !h.report_ns || h.deaf + h.midframe > h.count) {
        fputs("usage: bench_hold --port N [options]: see hold.c\n", stderr);
        return 2;
    }
    net_process_init();
    peer_plan_init(&h.plan, port, tls, size_bytes, 1);
    h.plan.on_control = on_control;
    h.plan.arg = &h;
    h.peers = calloc(h.count, sizeof(*h.peers));
    h.close_ms = calloc(h.count, sizeof(*h.close_ms));
    if (!h.peers || !h.close_ms)
        net_fail("calloc");
    run(&h);
    for (unsigned i = 0; i < h.started; i++) {
        if (h.peers[i].state != PEER_FREE)
            peer_end(&h.peers[i]);
    }
    free(h.peers);
    free(h.close_ms);
    peer_plan_done(&h.plan);
    return 0;
}
