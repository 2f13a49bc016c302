#include "relay/pair.h"

#include "relay/closing.h"
#include "relay/drain.h"
#include "relay/limit.h"
#include "relay/ping.h"
#include "relay/report.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static void on_client_ready(struct loop_fd *f, uint32_t events);
static void on_backend_ready(struct loop_fd *f, uint32_t events);

static void release(struct loop_dead *d)
{
    struct pair *p = (struct pair *)((char *)d - offsetof(struct pair, dead));

    server_unref(p->server);
    free(p->end_reason);
    free(p);
}

bool pair_random(struct relay *r, void *out, size_t len)
{
    if (r->random_left < len) {
        if (getrandom(r->random, sizeof r->random, 0) != sizeof r->random)
            return false;
        r->random_left = sizeof r->random;
    }
    r->random_left -= len;
    memcpy(out, r->random + r->random_left, len);
    return true;
}

static void count_pair(struct relay *r, bool more)
{
    r->pair_count += more ? 1 : (size_t)-1;
    atomic_store_explicit(&r->me->pairs, r->pair_count, memory_order_relaxed);
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
    p->start_ms = r->loop.now_ms;
    p->dead.release = release;
    LIST_INSERT_HEAD(&r->pairs, p, link);
    count_pair(r, true);
    stats_add(&server->cell->handshakes, 1);
    return p;
}

static void end_tunnel(struct pair *p)
{
    struct stats_cell *cell = p->server->cell;

    closing_note(p, PAIR_GATEWAY, 1006, NULL, 0); /* nothing has said why: we cut it */
    stats_add(&cell->closes[p->end_who][stats_close_index(p->end_code)], 1);
    stats_add(&cell->connections,
              (uint64_t)-1); /* the last: at 0 the master may give the cell to another server */
    p->relay->tunnel_count--;
    report_close(p);
}

void pair_end(struct pair *p, bool abort)
{
    if (p->ended)
        return;
    p->ended = true;
    limit_release(p);
    if (p->tunnel)
        end_tunnel(p);
    else
        stats_add(&p->server->cell->handshakes, (uint64_t)-1);
    side_done(&p->client, abort);
    side_done(&p->backend, abort);
    loop_timer_clear(&p->timer);
    loop_task_clear(&p->relay->loop, &p->task);
    LIST_REMOVE(p, link);
    count_pair(p->relay, false);
    loop_free_later(&p->relay->loop, &p->dead);
}

void pair_due(struct pair *p, uint64_t at_ms)
{
    if (!p->ended && (!p->timer.at_ms || p->timer.at_ms > at_ms))
        loop_timer_set(&p->relay->loop, &p->timer, at_ms);
}

static enum stats_who from_whom(const struct pair *p, const struct side *s)
{
    return pair_is_client(p, s) ? STATS_CLIENT : STATS_BACKEND;
}

static void count_bytes(struct pair *p, struct side *from, size_t len)
{
    from->in_bytes += len;
    stats_add(&p->server->cell->bytes[from_whom(p, from)], len);
}

/* What a scan has added to the tracker's own counts. */
static void count_messages(struct pair *p, const struct side *from, const uint64_t before[FRAME_KINDS])
{
    stats_count *counts = p->server->cell->messages[from_whom(p, from)];

    for (int i = 0; i < FRAME_KINDS; i++)
        stats_add(&counts[i], from->in.messages[i] - before[i]);
}

static void out_of_memory(struct pair *p)
{
    p->detail = "out of memory";
    pair_end(p, true);
}

/* One scan, up to where something of ours goes in or is taken out. Returns what is left; *more: to be scanned again. */
static size_t feed_once(struct pair *p, struct side *from, const uint8_t *bytes, size_t len, bool *more)
{
    struct side *to = pair_other(p, from);
    struct frame_scan scan;
    uint64_t before[FRAME_KINDS], now = p->relay->loop.now_ms;

    *more = false;
    memcpy(before, from->in.messages, sizeof before);
    frame_scan(&from->in, bytes, len, to->inject_code || to->ping_waits, from->pings_out ? from->ping : NULL,
               now, &scan);
    count_messages(p, from, before);
    if (from->in.messages[FRAME_PING] != before[FRAME_PING])
        to->relayed_ping_ms = now;
    if (side_send(to, bytes, scan.pass)) {
        out_of_memory(p);
        return 0;
    }
    if (scan.close)
        closing_passed(p, from, &scan);
    if (scan.violation) {
        closing_offend(p, from, (uint16_t)scan.violation, scan.why);
    } else if (scan.swallow) {
        from->pings_out--;
        *more = true;
    } else if (to->inject_code && frame_at_boundary(&from->in)) {
        closing_put_waiting(p, to);
    } else if (to->ping_waits && frame_at_boundary(&from->in)) {
        ping_put_waiting(p, to);
        *more = true;
    }
    return len - scan.used;
}

/* Bytes of `from`, those that were held in front. */
static void feed(struct pair *p, struct side *from, const uint8_t *bytes, size_t len)
{
    bool more = !from->in_drop;
    size_t all = len;

    while (more && len) {
        size_t left = feed_once(p, from, bytes, len, &more);

        bytes += len - left;
        len = left;
        more &= !p->ended;
    }
    if (p->ended || from->in_drop)
        return;
    if (len < all)
        from->held_since_ms =
            0; /* what is left is another frame than the one that was held: it has its own time */
    if (!len) {
        if (from->held)
            side_unhold(from);
    } else if (side_hold(from, bytes, len, p->relay->loop.now_ms)) {
        out_of_memory(p);
    } else {
        pair_due(p, from->held_since_ms + p->server->spec->timeouts.handshake_ms);
    }
}

/* Reads what `from` has and passes it on while the other side takes it. */
static void pull(struct pair *p, struct side *from)
{
    struct side *to = pair_other(p, from);
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
            count_bytes(p, from, (size_t)n);
            from->active_ms = p->relay->loop.now_ms;
            if (from->pinged_ms)
                ping_answered(p, from);
            feed(p, from, scratch, from->held_len + (size_t)n);
        } else if (n != SOCK_AGAIN) {
            closing_side_ended(p, from, n == SOCK_ERROR);
        }
    }
}

static uint64_t active_ms(const struct pair *p)
{
    return p->client.active_ms > p->backend.active_ms ? p->client.active_ms : p->backend.active_ms;
}

/* The earlier of two times, of which 0 is none. */
static uint64_t earlier(uint64_t a, uint64_t b)
{
    return !a || (b && b < a) ? b : a;
}

/* Sets a timer that is not set, to the earliest of the deadlines that are on. One that is set fires no later than any
 * of them (pair_due), so nothing needs to be looked at; one that fires early only asks again. */
static void arm(struct pair *p)
{
    const struct spec_server *spec = p->server->spec;
    uint64_t at, held;

    if (p->timer.at_ms)
        return;
    at = earlier(p->end_ms, earlier(p->deadline_ms, p->drain_at_ms));
    held = earlier(p->client.held_since_ms, p->backend.held_since_ms);
    if (held)
        at = earlier(at, held + spec->timeouts.handshake_ms);
    if (!p->end_ms) {
        at = earlier(at, p->age_at_ms);
        if (spec->timeouts.idle_ms)
            at = earlier(at, active_ms(p) + spec->timeouts.idle_ms);
        if (spec->ping.interval_ms)
            at = earlier(at, earlier(ping_due_ms(p, &p->client), ping_due_ms(p, &p->backend)));
    }
    if (at)
        loop_timer_set(&p->relay->loop, &p->timer, at);
}

static void settle(struct pair *p)
{
    if (!p->ended)
        closing_settle(p);
    if (!p->ended)
        arm(p);
}

static void run_side(struct pair *p, struct side *s)
{
    if (side_waits(s) || (s->fin_wanted && !s->out_dead)) {
        side_flush(s);
        if (!side_waits(s))
            pull(p, pair_other(p, s));
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

static void check_held(struct pair *p, struct side *s)
{
    uint64_t now = p->relay->loop.now_ms;

    if (!s->held_since_ms || now < s->held_since_ms + p->server->spec->timeouts.handshake_ms)
        return;
    s->held_since_ms = 0;
    if (s->in_drop || s->in_eof)
        return;
    if (pair_is_held_up(p, s))
        s->held_since_ms = now;
    else
        closing_offend(p, s, 1002, "a frame header or control frame was not completed in time");
}

/* What may end, or be asked of, a tunnel whose end has not begun. */
static void check_life(struct pair *p)
{
    const struct spec_server *spec = p->server->spec;
    uint64_t now = p->relay->loop.now_ms;

    if (p->age_at_ms && now >= p->age_at_ms) {
        /* What is being sent may come to its end, as in a drain. */
        closing_ours(p, "maximum age",
                     spec->timeouts.drain_ms > PAIR_CLOSE_MS ? spec->timeouts.drain_ms : PAIR_CLOSE_MS);
    } else if (spec->timeouts.idle_ms && now >= active_ms(p) + spec->timeouts.idle_ms) {
        closing_ours(p, "idle timeout", PAIR_CLOSE_MS);
    } else if (spec->ping.interval_ms) {
        ping_check(p, &p->client);
        if (!p->ended && !p->end_ms)
            ping_check(p, &p->backend);
    }
}

static void on_timer(struct loop_timer *t)
{
    struct pair *p = (struct pair *)((char *)t - offsetof(struct pair, timer));

    if (p->deadline_ms)
        drain_due(p);
    if (!p->ended && p->end_ms && p->relay->loop.now_ms >= p->end_ms)
        closing_give_up(p);
    if (!p->ended)
        check_held(p, &p->client);
    if (!p->ended)
        check_held(p, &p->backend);
    if (!p->ended && !p->end_ms)
        check_life(p);
    settle(p);
}

/* 90 to 100 % of max_age_ms from now: what was opened together does not end together. A timer may be a tick late. */
static uint64_t age_at_ms(struct relay *r, uint32_t max_age_ms)
{
    uint32_t span_ms = max_age_ms / 10, random = 0;
    uint64_t first = r->loop.now_ms + max_age_ms - span_ms;

    if (!max_age_ms)
        return 0;
    if (span_ms <= LOOP_TICK_MS || !pair_random(r, &random, sizeof random))
        return first;
    return first + random % (span_ms - LOOP_TICK_MS);
}

static void become_tunnel(struct pair *p)
{
    struct stats_cell *cell = p->server->cell;

    p->tunnel = true;
    p->relay->tunnel_count++;
    stats_add(&cell->handshakes, (uint64_t)-1);
    stats_add(&cell->connections, 1);
    stats_add(&cell->connections_total, 1);
}

void pair_start(struct pair *p, uint8_t rsv_mask, const uint8_t *client_bytes, size_t client_len,
                const uint8_t *backend_bytes, size_t backend_len)
{
    const struct spec_server *spec = p->server->spec;

    become_tunnel(p);
    frame_init(&p->client.in, true, rsv_mask, spec->limits.client_max_message_bytes);
    frame_init(&p->backend.in, false, rsv_mask, spec->limits.backend_max_message_bytes);
    p->client.sock.lf.ready = on_client_ready;
    p->backend.sock.lf.ready = on_backend_ready;
    p->timer.fire = on_timer;
    p->task.run = on_task;
    loop_timer_clear(&p->timer);
    p->client.active_ms = p->backend.active_ms = p->relay->loop.now_ms;
    p->age_at_ms = age_at_ms(p->relay, spec->timeouts.max_age_ms);
    arm(p); /* before a byte is fed, which may ask for a time that is later than these */
    count_bytes(p, &p->client, client_len);
    count_bytes(p, &p->backend, backend_len);
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
