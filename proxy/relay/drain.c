#include "relay/drain.h"

#include "relay/closing.h"
#include "relay/handshake.h"

/* What is left for answers behind the last Close. */
#define ANSWERS_MS   5000
#define ANSWERS_PART 5

static uint64_t drain_ms(const struct server *s, uint32_t max_drain_ms)
{
    uint32_t ms = s->spec->timeouts.drain_ms;

    return max_drain_ms && max_drain_ms < ms ? max_drain_ms : ms;
}

uint64_t drain_deadline(const struct relay *r, const struct server *s)
{
    return r->drain_since_ms + drain_ms(s, r->drain_cap_ms);
}

static const char *reason_of(const struct pair *p)
{
    return p->relay->draining ? "gateway is shutting down" : "server removed";
}

static void cut(struct pair *p)
{
    stats_add(&p->server->cell->cut, 1);
    if (!p->end_code)
        p->drain_asked = true;
    if (!p->detail)
        p->detail = "cut at the end of the drain";
    closing_cut(p, reason_of(p));
}

void drain_due(struct pair *p)
{
    uint64_t now = p->relay->loop.now_ms;

    if (now >= p->deadline_ms) {
        cut(p);
    } else if (p->drain_at_ms && now >= p->drain_at_ms) {
        p->drain_at_ms = 0;
        if (!p->end_ms) {
            p->drain_asked = true;
            closing_ours(p, reason_of(p), p->deadline_ms - now);
        }
    }
}

static bool is_in(const uint64_t *slots, const struct pair *p)
{
    unsigned slot = p->server->slot;

    return !slots || slots[slot / 64] >> slot % 64 & 1;
}

/* An order of 0..n-1 without a list of them: place i comes i * step later, round and round, by the golden section, so
 * that neighbours in age lie far apart. */
struct order {
    size_t count, at, step;
};

static size_t common_divisor(size_t a, size_t b)
{
    while (b) {
        size_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

static struct order order_of(struct relay *r, size_t count)
{
    struct order o = {.count = count ? count : 1};
    uint32_t random = 0;

    o.step = o.count - o.count * 382 / 1000;
    while (common_divisor(o.step, o.count) != 1)
        o.step++;
    if (pair_random(r, &random, sizeof random))
        o.at = random % o.count;
    return o;
}

/* When the next one is told: somewhere in its own n-th part of the window. */
static uint64_t next_ms(struct relay *r, struct order *o, uint64_t window_ms)
{
    uint32_t jitter = 0;
    uint64_t ms;

    if (!pair_random(r, &jitter, sizeof jitter))
        jitter = UINT32_MAX / 2;
    ms = (o->at * window_ms + (jitter * window_ms >> 32)) / o->count;
    o->at = (o->at + o->step) % o->count;
    return ms;
}

static void drain_tunnel(struct pair *p, struct order *o, uint64_t ms)
{
    struct relay *r = p->relay;
    uint64_t now = r->loop.now_ms, at, answers_ms = ms / ANSWERS_PART;

    if (answers_ms > ANSWERS_MS)
        answers_ms = ANSWERS_MS;
    at = now + next_ms(r, o, ms - answers_ms);
    if (!p->drain_asked && (!p->drain_at_ms || at < p->drain_at_ms))
        p->drain_at_ms = at;
    if (p->end_ms > p->deadline_ms)
        p->end_ms = p->deadline_ms;
    if (now >= p->deadline_ms)
        drain_due(p);
    else
        pair_due(p, p->drain_at_ms ? p->drain_at_ms : p->deadline_ms);
}

void drain_slots(struct relay *r, const uint64_t *slots, uint32_t max_drain_ms)
{
    struct pair *p, *next;
    struct order order;
    size_t count = 0;

    if (!slots) {
        r->draining = true;
        r->drain_cap_ms = max_drain_ms;
        r->drain_since_ms = r->loop.now_ms;
    }
    LIST_FOREACH(p, &r->pairs, link)
    count += p->tunnel && is_in(slots, p);
    order = order_of(r, count);
    for (p = LIST_FIRST(&r->pairs); p; p = next) {
        uint64_t ms = drain_ms(p->server, max_drain_ms), at = r->loop.now_ms + ms;

        next = LIST_NEXT(p, link);
        if (!is_in(slots, p))
            continue;
        if (!p->deadline_ms || at < p->deadline_ms)
            p->deadline_ms = at;
        if (p->tunnel)
            drain_tunnel(p, &order, ms);
        else
            handshake_drain(p->handshake);
    }
}

void drain_cancel(struct relay *r, const uint64_t *slots)
{
    struct pair *p;

    if (r->draining)
        return;
    LIST_FOREACH(p, &r->pairs, link)
    if (p->tunnel && is_in(slots, p) && p->drain_at_ms && !p->end_ms)
        p->deadline_ms = p->drain_at_ms = 0;
}

void drain_now(struct relay *r)
{
    struct pair *p;

    r->draining = true;
    while ((p = LIST_FIRST(&r->pairs))) {
        if (p->tunnel)
            cut(p);
        else
            handshake_abort(p->handshake);
    }
}
