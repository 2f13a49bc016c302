#include "relay/ping.h"

#include "relay/closing.h"

static uint32_t interval_ms(const struct pair *p)
{
    return p->server->spec->ping.interval_ms;
}

static uint32_t timeout_ms(const struct pair *p)
{
    return p->server->spec->ping.timeout_ms;
}

uint64_t ping_due_ms(const struct pair *p, const struct side *s)
{
    if (s->pinged_ms)
        return s->pinged_ms + timeout_ms(p);
    return s->ping_waits || s->out_dead ? 0 : s->active_ms + interval_ms(p);
}

/* From now on a sign of life is due. To be called before the Ping joins what is on its way. */
static void wait_for_life(struct pair *p, struct side *s)
{
    s->pinged_ms = p->relay->loop.now_ms;
    s->pinged_acked = side_waits(s) || sock_unacked(&s->sock) ? sock_acked(&s->sock) : 0;
}

/* A slow reader of much meets our Ping late: as long as its kernel acknowledges more and more, it is alive. One that has
 * nothing but the Ping to read has no such excuse. */
static bool is_taking(struct side *s)
{
    uint64_t acked = s->pinged_acked ? sock_acked(&s->sock) : 0;

    if (acked == s->pinged_acked)
        return false;
    s->pinged_acked = acked;
    return true;
}

static void send_ping(struct pair *p, struct side *s)
{
    uint8_t frame[FRAME_MAX_CONTROL], mask[4];
    bool masked = !pair_is_client(p, s);

    /* The next one while Pongs are out has the same payload, so that each of them is known as ours. */
    if ((!s->pings_out && !pair_random(p->relay, s->ping, sizeof s->ping)) ||
        (masked && !pair_random(p->relay, mask, sizeof mask)))
        return;
    if (s->pings_out < UINT8_MAX)
        s->pings_out++;
    wait_for_life(p, s);
    if (side_send(s, frame, frame_ping(frame, s->ping, masked ? mask : NULL))) {
        p->detail = "out of memory";
        pair_end(p, true);
    }
}

static bool is_silent(const struct pair *p, const struct side *s)
{
    return p->relay->loop.now_ms >= s->active_ms + interval_ms(p);
}

static void give_up(struct pair *p, struct side *s)
{
    if (pair_is_client(p, s))
        closing_fault(p, s, 1001, "ping timeout", "the client did not answer a Ping",
                      "the client does not answer");
    else
        closing_fault(p, s, 1001, "ping timeout", "the backend did not answer a Ping",
                      "the backend does not answer");
}

void ping_check(struct pair *p, struct side *s)
{
    uint64_t now = p->relay->loop.now_ms;

    if (pair_is_held_up(p, s)) {
        s->active_ms = now;
        s->pinged_ms = 0;
        return;
    }
    if (s->pinged_ms) {
        if (now < s->pinged_ms + timeout_ms(p))
            return;
        if (is_taking(s))
            s->pinged_ms = now;
        else
            give_up(p, s);
        return;
    }
    if (!is_silent(p, s) || s->ping_waits || s->out_dead)
        return;
    if (s->relayed_ping_ms > s->active_ms)
        wait_for_life(p, s);
    else if (frame_at_boundary(&pair_other(p, s)->in))
        send_ping(p, s);
    else
        s->ping_waits = true;
}

void ping_answered(struct pair *p, struct side *s)
{
    s->pinged_ms = 0;
    pair_due(p, s->active_ms + interval_ms(p));
}

void ping_put_waiting(struct pair *p, struct side *s)
{
    s->ping_waits = false;
    if (p->end_ms)
        return;
    ping_check(p, s);
    if (!p->ended && !p->end_ms)
        pair_due(p, ping_due_ms(p, s));
}
