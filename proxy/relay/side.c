#include "relay/side.h"

#include <stdlib.h>
#include <string.h>

static void drop_out(struct side *s)
{
    free(s->out);
    s->out = NULL;
    s->out_off = s->out_len = 0;
}

static void out_died(struct side *s)
{
    s->out_dead = true;
    drop_out(s);
    /* Look what is left to read, and meet the end, without a further event. */
    s->sock.readable = true;
}

static int queue(struct side *s, const uint8_t *bytes, size_t len)
{
    uint8_t *p;
    size_t waits = s->out_len - s->out_off;

    if (!s->out) {
        p = malloc(len);
    } else {
        memmove(s->out, s->out + s->out_off, waits);
        s->out_off = 0;
        s->out_len = (uint32_t)waits;
        p = realloc(s->out, waits + len);
    }
    if (!p)
        return -1;
    memcpy(p + waits, bytes, len);
    s->out = p;
    s->out_len = (uint32_t)(waits + len);
    return 0;
}

int side_send(struct side *s, const uint8_t *bytes, size_t len)
{
    ssize_t n = 0;

    if (s->out_dead || !len)
        return 0;
    if (!side_waits(s)) {
        n = sock_write(&s->sock, bytes, len);
        if (n == SOCK_ERROR) {
            out_died(s);
            return 0;
        }
        if (n < 0)
            n = 0;
    }
    if ((size_t)n == len)
        return 0;
    return queue(s, bytes + n, len - (size_t)n);
}

void side_unhold(struct side *s)
{
    free(s->held);
    s->held = NULL;
    s->held_len = 0;
    s->held_since_ms = 0;
}

int side_hold(struct side *s, const uint8_t *bytes, size_t len, uint64_t now_ms)
{
    if (!s->held) {
        s->held = malloc(FRAME_MAX_HELD);
        if (!s->held)
            return -1;
    }
    if (!s->held_since_ms)
        s->held_since_ms = now_ms;
    memcpy(s->held, bytes, len);
    s->held_len = (uint8_t)len;
    return 0;
}

void side_flush(struct side *s)
{
    while (side_waits(s) && !s->out_dead) {
        ssize_t n = sock_write(&s->sock, s->out + s->out_off, s->out_len - s->out_off);

        if (n == SOCK_AGAIN)
            return;
        if (n < 0) {
            out_died(s);
            return;
        }
        s->out_off += (uint32_t)n;
    }
    drop_out(s);
    if (s->fin_wanted && !s->out_dead) {
        sock_fin(&s->sock);
        s->out_dead = true;
    }
}

void side_fin(struct side *s)
{
    s->fin_wanted = true;
    side_flush(s);
}

void side_kill(struct side *s)
{
    s->in_eof = true;
    s->in_reset = true;
    s->out_dead = true;
    drop_out(s);
}

void side_done(struct side *s, bool abort)
{
    drop_out(s);
    side_unhold(s);
    sock_close(&s->sock, abort);
}

bool side_finished(const struct side *s)
{
    return s->in_eof && s->out_dead;
}
