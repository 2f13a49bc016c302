#include "relay/pair.h"

#include "base/log.h"
#include "relay/limit.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static void on_client_ready(struct loop_fd *f, uint32_t events);
static void on_backend_ready(struct loop_fd *f, uint32_t events);

static bool is_client(const struct pair *p, const struct side *s)
{
    return s == &p->client;
}

static struct side *other(struct pair *p, struct side *s)
{
    return is_client(p, s) ? &p->backend : &p->client;
}

static enum pair_who who_is(const struct pair *p, const struct side *s)
{
    return is_client(p, s) ? PAIR_CLIENT : PAIR_BACKEND;
}

static void release(struct loop_dead *d)
{
    struct pair *p = (struct pair *)((char *)d - offsetof(struct pair, dead));

    server_unref(p->server);
    free(p->end_reason);
    free(p);
}

struct pair *pair_new(struct relay *r, struct server *server, int fd, const struct addr *client_addr)
{
    struct pair *p = calloc(1, sizeof *p);
    struct err err;

    if (!p || sock_open(&p->client.sock, &r->loop, fd, on_client_ready, &err)) {
        close(fd);
        free(p);
        return NULL;
    }
    p->relay = r;
    p->server = server_ref(server);
    p->backend.sock.lf.fd = -1;
    p->backend.sock.lf.ready = on_backend_ready;
    p->client_addr = *client_addr;
    p->conn = atomic_fetch_add(&r->shared.head->next_conn, 1) + 1;
    p->start_ms = p->active_ms = r->loop.now_ms;
    p->dead.release = release;
    LIST_INSERT_HEAD(&r->pairs, p, link);
    r->pair_count++;
    return p;
}

static void log_close(const struct pair *p)
{
    static const char *const who[] = {"client", "backend", "gateway"};
    struct log_line l;
    uint64_t messages[2] = {0, 0};

    if (!log_wants(LOG_INFO))
        return;
    for (int i = 0; i < FRAME_KINDS; i++) {
        messages[0] += p->client.in.messages[i];
        messages[1] += p->backend.in.messages[i];
    }
    log_begin(&l, LOG_INFO, "close");
    log_num(&l, "conn", p->conn);
    log_str(&l, "server", p->server->spec->name);
    log_num(&l, "code", p->end_code);
    log_str(&l, "initiator", who[p->end_who]);
    log_bytes(&l, "reason", p->end_reason, p->end_reason_len);
    if (p->detail)
        log_str(&l, "detail", p->detail);
    log_num(&l, "client_bytes", p->client.in_bytes);
    log_num(&l, "backend_bytes", p->backend.in_bytes);
    log_num(&l, "client_messages", messages[0]);
    log_num(&l, "backend_messages", messages[1]);
    log_num(&l, "duration_ms", p->relay->loop.now_ms - p->start_ms);
    log_end(&l);
}

void pair_end(struct pair *p, bool abort)
{
    if (p->ended)
        return;
    p->ended = true;
    limit_release(p);
    if (!p->handshake)
        log_close(p);
    side_done(&p->client, abort);
    side_done(&p->backend, abort);
    loop_timer_clear(&p->timer);
    loop_task_clear(&p->relay->loop, &p->task);
    LIST_REMOVE(p, link);
    p->relay->pair_count--;
    loop_free_later(&p->relay->loop, &p->dead);
}

/* Who and what began the end; the first cause counts. */
static void note_end(struct pair *p, enum pair_who who, uint16_t code, const void *reason, size_t len)
{
    if (p->end_code)
        return;
    p->end_who = (uint8_t)who;
    p->end_code = code;
    p->end_reason = len ? malloc(len) : NULL;
    if (p->end_reason) {
        memcpy(p->end_reason, reason, len);
        p->end_reason_len = (uint8_t)len;
    }
}

static void end_within(struct pair *p, uint64_t ms)
{
    uint64_t at = p->relay->loop.now_ms + ms;

    p->end_ms = at;
    if (!p->timer.at_ms || p->timer.at_ms > at)
        loop_timer_set(&p->relay->loop, &p->timer, at);
}

/* Masking keys come from the kernel, 64 at a time, each used once (RFC 6455 5.3). */
static bool fresh_mask(struct relay *r, uint8_t mask[4])
{
    if (r->mask_at == 0) {
        if (getrandom(r->masks, sizeof r->masks, 0) != sizeof r->masks)
            return false;
        r->mask_at = sizeof r->masks;
    }
    r->mask_at -= 4;
    memcpy(mask, r->masks + r->mask_at, 4);
    return true;
}

/* A Close of ours to `to`, right here: the stream towards it stands at a boundary. */
static void put_close(struct pair *p, struct side *to, uint16_t code, const char *reason)
{
    uint8_t frame[FRAME_MAX_CONTROL], mask[4];
    bool masked = !is_client(p, to);
    size_t len;

    if (masked && !fresh_mask(p->relay, mask))
        return; /* without a key there is no frame; the FIN follows anyway */
    len = frame_close(frame, code, reason, masked ? mask : NULL);
    to->close_out = true;
    to->inject_code = 0;
    other(p, to)->in_drop = true;
    if (side_send(to, frame, len))
        pair_end(p, true);
}

/* The same with the FIN behind it, in one segment. */
static void put_last(struct pair *p, struct side *to, uint16_t code, const char *reason)
{
    to->sock.cork = true;
    put_close(p, to, code, reason);
    to->sock.cork = false;
    side_fin(to);
}

/* A Close of ours to `to`, at the next frame end at the latest. */
static void ask_close(struct pair *p, struct side *to, uint16_t code, const char *reason)
{
    if (to->close_out || to->out_dead)
        return;
    if (frame_at_boundary(&other(p, to)->in)) {
        put_close(p, to, code, reason);
    } else if (!to->inject_code) {
        to->inject_code = code;
        to->inject_reason = reason;
    }
}

static uint16_t innocent_code(const struct pair *p, const struct side *s)
{
    return is_client(p, s) ? 1011 : 1001;
}

/* `bad` broke a rule: nothing of it counts any more. */
static void offend(struct pair *p, struct side *bad, uint16_t code, const char *why)
{
    struct side *good = other(p, bad);

    note_end(p, PAIR_GATEWAY, code, why, strlen(why));
    p->detail = is_client(p, bad) ? "the client broke the protocol or a limit"
                                  : "the backend broke the protocol or a limit";
    bad->in_drop = true;
    side_unhold(bad);
    ask_close(p, good, innocent_code(p, good),
              is_client(p, good) ? "the backend broke the protocol" : "the client broke the protocol");
    side_fin(good);
    ask_close(p, bad, code, why);
    if (bad->close_out || bad->out_dead)
        side_fin(bad);
    end_within(p, PAIR_CLOSE_MS);
}

static const char *fault_of(const struct pair *p, const struct side *s)
{
    bool client = is_client(p, s);

    if (s->sock.rekeys > SOCK_MAX_REKEYS)
        return client ? "the client sent too many TLS KeyUpdates"
                      : "the backend sent too many TLS KeyUpdates";
    if (s->sock.tls_dead && !s->sock.last_errno)
        return client ? "the client broke TLS" : "the backend broke TLS";
    return client ? "the client's connection was reset" : "the backend's connection was reset";
}

/* Nothing more comes from `from`. */
static void side_ended(struct pair *p, struct side *from, bool reset)
{
    struct side *to = other(p, from);
    bool said = from->close_in || to->close_out;

    from->in_eof = true;
    side_unhold(from);
    if (reset)
        side_kill(from);
    if (!p->detail && reset)
        p->detail = fault_of(p, from);
    else if (!p->detail && from->sock.truncated)
        p->detail = is_client(p, from) ? "the client ended TLS without close_notify"
                                       : "the backend ended TLS without close_notify";
    note_end(p, from->sock.rekeys > SOCK_MAX_REKEYS ? PAIR_GATEWAY : who_is(p, from), 1006, NULL, 0);
    if (!said && !to->out_dead && frame_at_boundary(&from->in))
        put_last(p, to, innocent_code(p, to),
                 is_client(p, to) ? "the backend went away" : "the client went away");
    to->inject_code = 0;
    side_fin(to);
    if (reset)
        to->in_drop = true;
    if (!p->end_ms || reset)
        end_within(p, reset ? PAIR_CLOSE_MS : PAIR_FIN_MS);
}

/* Bytes of `from`, those that were held in front. */
static void feed(struct pair *p, struct side *from, uint8_t *bytes, size_t len)
{
    struct side *to = other(p, from);
    struct frame_scan scan;

    if (from->in_drop)
        return;
    frame_scan(&from->in, bytes, len, to->inject_code != 0, p->relay->loop.now_ms, &scan);
    if (side_send(to, bytes, scan.pass)) {
        p->detail = "out of memory";
        pair_end(p, true);
        return;
    }
    if (scan.close) {
        from->close_in = true;
        to->close_out = true;
        to->inject_code = 0;
        note_end(p, who_is(p, from), scan.close_code, scan.close_reason, scan.close_reason_len);
        end_within(p, PAIR_CLOSE_MS);
    }
    if (scan.violation) {
        offend(p, from, (uint16_t)scan.violation, scan.why);
        return;
    }
    if (to->inject_code && frame_at_boundary(&from->in)) {
        put_close(p, to, to->inject_code, to->inject_reason);
        if (to->in_drop) /* an offender: there is nothing to wait for */
            side_fin(to);
        return;
    }
    if (scan.used == len) {
        if (from->held)
            side_unhold(from);
    } else if (side_hold(from, bytes + scan.used, len - scan.used, p->relay->loop.now_ms)) {
        p->detail = "out of memory";
        pair_end(p, true);
    }
}

/* Reads what `from` has and passes it on while the other side takes it. */
static void pull(struct pair *p, struct side *from)
{
    struct side *to = other(p, from);
    uint8_t *scratch = p->relay->scratch;

    for (int reads = 0; sock_has_input(&from->sock) && !from->in_eof && !p->ended; reads++) {
        ssize_t n;

        if (side_waits(to))
            return; /* back-pressure: flushing `to` comes back here */
        if (reads == PAIR_READS) {
            loop_task_add(&p->relay->loop, &p->task);
            return;
        }
        if (from->held_len)
            memcpy(scratch, from->held, from->held_len);
        n = sock_read(&from->sock, scratch + from->held_len, SIDE_READ_BYTES);
        if (n > 0) {
            from->in_bytes += (uint64_t)n;
            p->active_ms = p->relay->loop.now_ms;
            feed(p, from, scratch, from->held_len + (size_t)n);
        } else if (n != SOCK_AGAIN) {
            side_ended(p, from, n == SOCK_ERROR);
        }
    }
}

static void on_timer(struct loop_timer *t);

/* The earliest of the deadlines that are on; a timer that fires early only asks again. */
static void arm(struct pair *p)
{
    const struct spec_server *spec = p->server->spec;
    uint64_t at = p->end_ms;
    uint64_t held = p->client.held_since_ms;

    if (p->backend.held_since_ms && (!held || p->backend.held_since_ms < held))
        held = p->backend.held_since_ms;
    if (held && (!at || held + spec->timeouts.handshake_ms < at))
        at = held + spec->timeouts.handshake_ms;
    if (spec->timeouts.idle_ms && !p->end_ms && (!at || p->active_ms + spec->timeouts.idle_ms < at))
        at = p->active_ms + spec->timeouts.idle_ms;
    if (at && (!p->timer.at_ms || at < p->timer.at_ms))
        loop_timer_set(&p->relay->loop, &p->timer, at);
}

/* Nothing more will pass to `to`, which has ended its own direction too. */
static void fin_if_over(struct pair *p, struct side *to)
{
    const struct side *from = other(p, to);

    if (to->in_eof && !to->out_dead && !to->fin_wanted && (from->close_in || from->in_drop))
        side_fin(to);
}

static void settle(struct pair *p)
{
    if (p->ended)
        return;
    fin_if_over(p, &p->client);
    fin_if_over(p, &p->backend);
    if (side_finished(&p->client) && side_finished(&p->backend)) {
        pair_end(p, false);
        return;
    }
    /* Nothing can go anywhere any more: only let both read what was sent. */
    if (p->client.out_dead && p->backend.out_dead && !p->fins_sent) {
        p->fins_sent = true;
        end_within(p, PAIR_LINGER_MS);
    }
    arm(p);
}

static void run_side(struct pair *p, struct side *s)
{
    if (side_waits(s) || (s->fin_wanted && !s->out_dead)) {
        side_flush(s);
        if (!side_waits(s))
            pull(p, other(p, s));
    }
    if (!p->ended)
        pull(p, s);
    settle(p);
}

static void on_client_ready(struct loop_fd *f, uint32_t events)
{
    struct pair *p = (struct pair *)((char *)f - offsetof(struct pair, client.sock.lf));

    sock_event(&p->client.sock, events);
    run_side(p, &p->client);
}

static void on_backend_ready(struct loop_fd *f, uint32_t events)
{
    struct pair *p = (struct pair *)((char *)f - offsetof(struct pair, backend.sock.lf));

    sock_event(&p->backend.sock, events);
    run_side(p, &p->backend);
}

static void on_task(struct loop_task *t)
{
    struct pair *p = (struct pair *)((char *)t - offsetof(struct pair, task));

    run_side(p, &p->client);
    if (!p->ended)
        run_side(p, &p->backend);
}

/* Patience has ended: first a Close where one is still owed and FIN to both, then RST. */
static void give_up(struct pair *p)
{
    struct side *sides[] = {&p->client, &p->backend};

    if (p->fins_sent) {
        pair_end(p, side_waits(&p->client) || side_waits(&p->backend));
        return;
    }
    p->fins_sent = true;
    for (int i = 0; i < 2 && !p->ended; i++) {
        struct side *s = sides[i];

        if (!s->close_out && !s->out_dead && frame_at_boundary(&other(p, s)->in))
            put_close(p, s, innocent_code(p, s), "the other side did not finish its close");
        s->inject_code = 0;
        side_fin(s);
    }
    if (!p->ended)
        end_within(p, PAIR_CLOSE_MS);
}

static void check_held(struct pair *p, struct side *s)
{
    if (s->held_since_ms &&
        p->relay->loop.now_ms >= s->held_since_ms + p->server->spec->timeouts.handshake_ms) {
        s->held_since_ms = 0;
        if (!s->in_drop && !s->in_eof)
            offend(p, s, 1002, "a frame header or control frame was not completed in time");
    }
}

void pair_close(struct pair *p, uint16_t code, const char *reason)
{
    note_end(p, PAIR_GATEWAY, code, reason, strlen(reason));
    ask_close(p, &p->client, code, reason);
    if (!p->ended)
        end_within(p, PAIR_CLOSE_MS);
    settle(p);
}

static void on_timer(struct loop_timer *t)
{
    struct pair *p = (struct pair *)((char *)t - offsetof(struct pair, timer));
    uint64_t now = p->relay->loop.now_ms;
    uint32_t idle_ms = p->server->spec->timeouts.idle_ms;

    if (p->end_ms && now >= p->end_ms)
        give_up(p);
    if (!p->ended)
        check_held(p, &p->client);
    if (!p->ended)
        check_held(p, &p->backend);
    if (!p->ended && !p->end_ms && idle_ms && now >= p->active_ms + idle_ms) {
        pair_close(p, 1001, "idle timeout");
        return;
    }
    settle(p);
}

void pair_start(struct pair *p, uint8_t rsv_mask, const uint8_t *client_bytes, size_t client_len,
                const uint8_t *backend_bytes, size_t backend_len)
{
    const struct spec_server *spec = p->server->spec;
    uint64_t now = p->relay->loop.now_ms;

    frame_init(&p->client.in, true, rsv_mask, spec->limits.client_max_message_bytes);
    frame_init(&p->backend.in, false, rsv_mask, spec->limits.backend_max_message_bytes);
    p->client.sock.lf.ready = on_client_ready;
    p->backend.sock.lf.ready = on_backend_ready;
    p->timer.fire = on_timer;
    p->task.run = on_task;
    loop_timer_clear(&p->timer);
    p->active_ms = now;
    p->client.in_bytes = client_len;
    p->backend.in_bytes = backend_len;
    /* Early bytes are fed from where they stand; feed keeps what is not complete. */
    if (backend_len) {
        memcpy(p->relay->scratch, backend_bytes, backend_len);
        feed(p, &p->backend, p->relay->scratch, backend_len);
    }
    if (client_len && !p->ended) {
        memcpy(p->relay->scratch, client_bytes, client_len);
        feed(p, &p->client, p->relay->scratch, client_len);
    }
    if (!p->ended)
        on_task(&p->task);
}
