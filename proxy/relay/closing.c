#include "relay/closing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GOING_AWAY 1001
#define FAILED     1011

void closing_note(struct pair *p, enum pair_who who, uint16_t code, const void *reason, size_t len)
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

void closing_within(struct pair *p, uint64_t ms)
{
    p->end_ms = p->relay->loop.now_ms + ms;
    if (p->deadline_ms && p->end_ms > p->deadline_ms)
        p->end_ms = p->deadline_ms;
    pair_due(p, p->end_ms);
}

void closing_put(struct pair *p, struct side *to, uint16_t code, const char *reason)
{
    uint8_t frame[FRAME_MAX_CONTROL], mask[4];
    bool masked = !pair_is_client(p, to);
    size_t len;

    if (p->ended)
        return;
    to->close_out = true;
    to->inject_code = 0;
    pair_other(p, to)->in_drop = true;
    if (masked && !pair_random(p->relay, mask, sizeof mask))
        return; /* without a key there is no frame; the FIN follows anyway */
    len = frame_close(frame, code, reason, masked ? mask : NULL);
    if (p->drain_asked && !masked)
        stats_add(&p->server->cell->drained, 1);
    if (side_send(to, frame, len))
        pair_end(p, true);
}

/* The same with the FIN behind it, in one segment. */
static void put_last(struct pair *p, struct side *to, uint16_t code, const char *reason)
{
    to->sock.cork = true;
    closing_put(p, to, code, reason);
    to->sock.cork = false;
    side_fin(to);
}

void closing_ask(struct pair *p, struct side *to, uint16_t code, const char *reason)
{
    if (to->close_out || to->out_dead)
        return;
    if (frame_at_boundary(&pair_other(p, to)->in)) {
        closing_put(p, to, code, reason);
    } else if (!to->inject_code) {
        to->inject_code = code;
        to->inject_reason = reason;
    }
}

void closing_put_waiting(struct pair *p, struct side *to)
{
    closing_put(p, to, to->inject_code, to->inject_reason);
    if (to->in_drop) /* an offender: there is nothing to wait for */
        side_fin(to);
    else
        closing_within(p, PAIR_CLOSE_MS);
}

uint16_t closing_innocent(const struct pair *p, const struct side *s)
{
    return pair_is_client(p, s) ? FAILED : GOING_AWAY;
}

void closing_ours(struct pair *p, const char *reason, uint64_t frame_ms)
{
    closing_note(p, PAIR_GATEWAY, GOING_AWAY, reason, strlen(reason));
    closing_ask(p, &p->client, GOING_AWAY, reason);
    closing_within(p, p->client.inject_code ? frame_ms : PAIR_CLOSE_MS);
}

void closing_fault(struct pair *p, struct side *bad, uint16_t code, const char *why, const char *detail,
                   const char *told)
{
    struct side *good = pair_other(p, bad);

    closing_note(p, PAIR_GATEWAY, code, why, strlen(why));
    p->detail = detail;
    bad->in_drop = true;
    side_unhold(bad);
    closing_ask(p, good, closing_innocent(p, good), told);
    side_fin(good);
    closing_ask(p, bad, code, why);
    if (bad->close_out || bad->out_dead)
        side_fin(bad);
    closing_within(p, PAIR_CLOSE_MS);
}

void closing_offend(struct pair *p, struct side *bad, uint16_t code, const char *why)
{
    if (pair_is_client(p, bad))
        closing_fault(p, bad, code, why, "the client broke the protocol or a limit",
                      "the client broke the protocol");
    else
        closing_fault(p, bad, code, why, "the backend broke the protocol or a limit",
                      "the backend broke the protocol");
}

static const char *fault_of(const struct pair *p, const struct side *s)
{
    bool client = pair_is_client(p, s);

    if (s->sock.rekeys > SOCK_MAX_REKEYS)
        return client ? "the client sent too many TLS KeyUpdates"
                      : "the backend sent too many TLS KeyUpdates";
    if (s->sock.tls_dead && !s->sock.last_errno)
        return client ? "the client broke TLS" : "the backend broke TLS";
    if (s->sock.last_errno == ETIMEDOUT)
        return client ? "the client's connection timed out" : "the backend's connection timed out";
    return client ? "the client's connection was reset" : "the backend's connection was reset";
}

static enum pair_who who_ended(const struct pair *p, const struct side *from)
{
    if (from->sock.rekeys > SOCK_MAX_REKEYS)
        return PAIR_GATEWAY;
    return pair_is_client(p, from) ? PAIR_CLIENT : PAIR_BACKEND;
}

void closing_side_ended(struct pair *p, struct side *from, bool reset)
{
    struct side *to = pair_other(p, from);
    bool said = from->close_in || to->close_out;

    from->in_eof = true;
    side_unhold(from);
    if (reset)
        side_kill(from);
    if (!p->detail && (reset || from->sock.last_errno == ETIMEDOUT)) /* a write may have met it first */
        p->detail = fault_of(p, from);
    else if (!p->detail && from->sock.truncated)
        p->detail = pair_is_client(p, from) ? "the client ended TLS without close_notify"
                                            : "the backend ended TLS without close_notify";
    closing_note(p, who_ended(p, from), 1006, NULL, 0);
    if (!said && !to->out_dead && frame_at_boundary(&from->in))
        put_last(p, to, closing_innocent(p, to),
                 pair_is_client(p, to) ? "the backend went away" : "the client went away");
    to->inject_code = 0;
    side_fin(to);
    if (reset)
        to->in_drop = true;
    if (!p->end_ms || reset)
        closing_within(p, reset ? PAIR_CLOSE_MS : PAIR_FIN_MS);
}

void closing_passed(struct pair *p, struct side *from, const struct frame_scan *scan)
{
    struct side *to = pair_other(p, from);

    from->close_in = true;
    to->close_out = true;
    to->inject_code = 0;
    closing_note(p, pair_is_client(p, from) ? PAIR_CLIENT : PAIR_BACKEND, scan->close_code,
                 scan->close_reason, scan->close_reason_len);
    closing_within(p, PAIR_CLOSE_MS);
}

/* Nothing more will pass to `to`, which has ended its own direction too. */
static void fin_if_over(struct pair *p, struct side *to)
{
    const struct side *from = pair_other(p, to);

    if (to->in_eof && !to->out_dead && !to->fin_wanted && (from->close_in || from->in_drop))
        side_fin(to);
}

void closing_settle(struct pair *p)
{
    fin_if_over(p, &p->client);
    fin_if_over(p, &p->backend);
    if (side_finished(&p->client) && side_finished(&p->backend)) {
        pair_end(p, false);
        return;
    }
    /* Nothing can go anywhere any more: only let both read what was sent. */
    if (p->client.out_dead && p->backend.out_dead && !p->fins_sent) {
        p->fins_sent = true;
        closing_within(p, PAIR_LINGER_MS);
    }
}

/* What is still owed to a side goes now or never. */
static void last_words(struct pair *p, struct side *s, uint16_t code, const char *reason)
{
    if (p->ended)
        return;
    if (!s->close_out && !s->out_dead && frame_at_boundary(&pair_other(p, s)->in))
        closing_put(p, s, code, reason);
    s->inject_code = 0;
    if (!p->ended)
        side_fin(s);
}

void closing_give_up(struct pair *p)
{
    static const char reason[] = "the other side did not finish its close";

    if (p->fins_sent) {
        pair_end(p, side_waits(&p->client) || side_waits(&p->backend));
        return;
    }
    if (p->drain_asked && side_waits(&p->client)) {
        closing_within(
            p, PAIR_CLOSE_MS); /* our Close has not been sent yet: the drain's deadline is its limit */
        return;
    }
    p->fins_sent = true;
    last_words(p, &p->client, closing_innocent(p, &p->client), reason);
    last_words(p, &p->backend, closing_innocent(p, &p->backend), reason);
    if (!p->ended)
        closing_within(p, PAIR_CLOSE_MS);
}

void closing_cut(struct pair *p, const char *reason)
{
    closing_note(p, PAIR_GATEWAY, GOING_AWAY, reason, strlen(reason));
    last_words(p, &p->client, GOING_AWAY, reason);
    last_words(p, &p->backend, GOING_AWAY, reason);
    if (!p->ended)
        pair_end(p, side_waits(&p->client) || side_waits(&p->backend));
}
