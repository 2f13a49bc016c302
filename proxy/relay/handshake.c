#include "relay/handshake.h"

#include "relay/dial.h"
#include "relay/drain.h"
#include "relay/limit.h"
#include "relay/report.h"
#include "wire/request.h"
#include "wire/response.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum state {
    CLIENT_TLS = 0,
    CLIENT_HEAD,
    DIAL,
    BACKEND_HEAD,
    BODY,   /* the backend's other answer streams through */
    LINGER, /* all is said: read and drop until the client ends it */
};

struct handshake {
    struct pair *pair;
    struct loop_dead dead;
    enum state state;
    int interim;
    bool counted; /* in handshakes_total */
    uint64_t start_us;
    uint64_t limit_ms;
    size_t lingered_bytes;
    struct buf client_in, backend_in;
    struct head request_head, response_head;
    struct request request;
    struct dial dial;
    struct body body;
};

static void release(struct loop_dead *d)
{
    struct handshake *h = (struct handshake *)((char *)d - offsetof(struct handshake, dead));

    buf_free(&h->client_in);
    buf_free(&h->backend_in);
    free(h);
}

/* The handshake goes, the pair stays. */
static void leave(struct handshake *h)
{
    dial_cancel(&h->dial);
    h->pair->handshake = NULL;
    loop_free_later(&h->pair->relay->loop, &h->dead);
}

/* Once each: by the status that the client got. */
static void count(struct handshake *h, int status)
{
    if (!h->counted)
        stats_add(&h->pair->server->cell->handshakes_total[stats_status_index(status)], 1);
    h->counted = true;
}

static void end(struct handshake *h, bool abort)
{
    count(h, 0);
    pair_end(h->pair, abort);
    leave(h);
}

void handshake_abort(struct handshake *h)
{
    end(h, true);
}

static uint64_t clock_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* No later than that, whatever comes; a drain may have said something earlier. */
static void limit(struct handshake *h, uint64_t at_ms)
{
    uint64_t drain_ms = h->pair->deadline_ms;

    h->limit_ms = drain_ms && drain_ms < at_ms ? drain_ms : at_ms;
}

static void deadline(struct handshake *h, uint64_t ms)
{
    struct loop *l = &h->pair->relay->loop;
    uint64_t at = l->now_ms + ms;

    loop_timer_set(l, &h->pair->timer, at < h->limit_ms ? at : h->limit_ms);
}

static struct report_request known(const struct handshake *h)
{
    return (struct report_request){
        .head = h->client_in.data, .request = &h->request, .backend = &h->dial.addr};
}

static void say_refused(struct handshake *h, int status, const char *by, const char *why)
{
    struct report_request r = known(h);

    count(h, status);
    report_refuse(h->pair, &r, status, by, why);
}

/* It will be no tunnel, and its backend is free. Before the answer's last byte is sent: a client that has it may come
 * again at once, and at another worker. */
static void give_back(struct handshake *h)
{
    dial_cancel(&h->dial);
    side_done(&h->pair->backend, true);
    limit_release(h->pair);
}

/* Everything has been said to the client: FIN, then wait for its end so that no RST overtakes the answer. */
static void linger(struct handshake *h)
{
    struct pair *p = h->pair;

    h->state = LINGER;
    limit(h, p->relay->loop.now_ms + HANDSHAKE_LINGER_MS);
    deadline(h, HANDSHAKE_LINGER_MS);
    side_fin(&p->client);
}

static void drop_input(struct handshake *h)
{
    struct pair *p = h->pair;

    while (sock_has_input(&p->client.sock)) {
        ssize_t n = sock_read(&p->client.sock, p->relay->scratch, SIDE_READ_BYTES);

        if (n == SOCK_AGAIN && sock_has_input(&p->client.sock))
            continue;
        if (n == SOCK_AGAIN)
            return;
        if (n <= 0) {
            end(h, n < 0);
            return;
        }
        h->lingered_bytes += (size_t)n;
        if (h->lingered_bytes > HANDSHAKE_LINGER_BYTES) {
            end(h, true);
            return;
        }
    }
}

/* Our own answer. `said` goes to the client; `why` to the log, with what only the operator should see. */
static void answer(struct handshake *h, int status, unsigned retry_after_s, const char *said, const char *why)
{
    struct buf out;

    say_refused(h, status, "gateway", why);
    give_back(h);
    buf_init(&out, HEAD_MAX_BYTES);
    if (answer_emit(status, retry_after_s, said, &out) || side_send(&h->pair->client, out.data, out.len)) {
        end(h, true);
    } else {
        linger(h);
        drop_input(h);
    }
    buf_free(&out);
}

/* A 503 without a reason of limit.h is a lack of descriptors or memory. */
static void refuse(struct handshake *h, int status, const char *said, const char *why)
{
    answer(h, status, status == 503 ? HANDSHAKE_RETRY_S : 0, said, why);
}

static void refuse_draining(struct handshake *h)
{
    const char *why =
        h->pair->relay->draining ? "the gateway is shutting down" : "this server has been removed";

    stats_add(&h->pair->server->cell->limited[STATS_DRAINING], 1);
    answer(h, 503, HANDSHAKE_DRAIN_RETRY_S, why, why);
}

/* The client is gone before it could be answered. */
static void client_gone(struct handshake *h, const char *why)
{
    say_refused(h, 0, "client", why);
    end(h, false);
}

/* Our patience is gone before there was anything to answer. */
static void cut(struct handshake *h, const char *why)
{
    say_refused(h, 0, "gateway", why);
    end(h, false);
}

/* What the backend sent of its body; -1 when it cannot go on. */
static int send_body(struct handshake *h, const uint8_t *bytes, size_t len)
{
    size_t n = body_feed(&h->body, bytes, len);

    if (h->body.done)
        give_back(h);
    return side_send(&h->pair->client, bytes, n) || h->body.failed ? -1 : 0;
}

static void pull_body(struct handshake *h)
{
    struct pair *p = h->pair;
    uint8_t *bytes = p->relay->scratch;

    while (!h->body.done && !side_waits(&p->client) && sock_has_input(&p->backend.sock)) {
        ssize_t n = sock_read(&p->backend.sock, bytes, SIDE_READ_BYTES);

        if (n == SOCK_AGAIN)
            continue;
        if (n == SOCK_EOF && h->body.kind == BODY_UNTIL_EOF) {
            h->body.done = true;
        } else if (n <= 0) {
            end(h, true); /* cut short: the client must see that it was */
            return;
        } else if (send_body(h, bytes, (size_t)n)) {
            end(h, true);
            return;
        }
    }
    if (h->body.done) {
        give_back(h); /* a body that its end ends */
        linger(h);
    }
}

/* The backend's own answer, as it is. */
static void relay_answer(struct handshake *h)
{
    struct pair *p = h->pair;
    const uint8_t *rest = h->backend_in.data + h->response_head.len;
    size_t rest_len = h->backend_in.len - h->response_head.len;
    struct buf out;

    buf_init(&out, 2 * HEAD_MAX_BYTES);
    if (response_forward_final(&h->response_head, h->backend_in.data, &out, &h->body)) {
        buf_free(&out);
        refuse(h, 502, "the backend's answer is not valid HTTP",
               "the backend's answer has no usable length: Content-Length or Transfer-Encoding");
        return;
    }
    say_refused(h, h->response_head.status, "backend", "the backend did not switch protocols");
    h->state = BODY;
    limit(h, p->relay->loop.now_ms + HANDSHAKE_TOTAL_MS);
    deadline(h, HANDSHAKE_TOTAL_MS);
    if (h->body.done)
        give_back(h);
    if (side_send(&p->client, out.data, out.len) || send_body(h, rest, rest_len))
        end(h, true);
    else
        pull_body(h);
    buf_free(&out);
}

static void open_tunnel(struct handshake *h, const struct response *r)
{
    struct pair *p = h->pair;
    size_t client_at = h->request_head.len, backend_at = h->response_head.len;
    struct report_request known_now = known(h);
    struct buf out;

    buf_init(&out, 2 * HEAD_MAX_BYTES);
    if (response_forward_upgrade(&h->response_head, h->backend_in.data, &out) ||
        side_send(&p->client, out.data, out.len)) {
        buf_free(&out);
        end(h, true);
        return;
    }
    buf_free(&out);
    count(h, 101);
    stats_handshake_took(p->server->cell, clock_us() - h->start_us);
    report_open(p, &known_now, h->backend_in.data + r->protocol.off, r->protocol.len);
    leave(h);
    pair_start(p, r->rsv_mask, h->client_in.data + client_at, h->client_in.len - client_at,
               h->backend_in.data + backend_at, h->backend_in.len - backend_at);
}

/* Parses what has come; true when the answer needs more bytes. */
static bool take_answer(struct handshake *h)
{
    for (;;) {
        enum head_result result = head_parse(&h->response_head, h->backend_in.data, h->backend_in.len);
        struct response r;

        if (result == HEAD_MORE)
            return true;
        if (result != HEAD_DONE) {
            refuse(h, 502, "the backend's answer is not valid HTTP", h->response_head.why);
            return false;
        }
        r = response_check(&h->response_head, h->backend_in.data, &h->request_head, h->client_in.data,
                           &h->request);
        switch (r.kind) {
        case RESPONSE_UPGRADE: open_tunnel(h, &r); return false;
        case RESPONSE_FINAL: relay_answer(h); return false;
        case RESPONSE_BAD:
            refuse(h, 502, "the backend's answer to the WebSocket handshake is not valid", r.why);
            return false;
        case RESPONSE_INTERIM: break;
        }
        if (++h->interim > RESPONSE_MAX_INTERIM) {
            refuse(h, 502, "the backend's answer is not valid HTTP", "the backend sent too many 1xx answers");
            return false;
        }
        buf_consume(&h->backend_in, h->response_head.len);
        head_init(&h->response_head, HEAD_RESPONSE);
    }
}

static void read_answer(struct handshake *h)
{
    struct pair *p = h->pair;
    char text[128];

    while (sock_has_input(&p->backend.sock)) {
        ssize_t n = sock_read(&p->backend.sock, p->relay->scratch, HEAD_MAX_BYTES);

        if (n == SOCK_AGAIN)
            continue;
        if (n <= 0) {
            refuse(h, 502, "the backend closed the connection without an answer",
                   n == SOCK_EOF ? "the backend closed the connection without a complete answer"
                                 : sock_why(&p->backend.sock, text, sizeof text));
            return;
        }
        if (buf_add(&h->backend_in, p->relay->scratch, (size_t)n)) {
            refuse(h, 502, "the backend's answer is not valid HTTP",
                   "the head of the backend's answer is too large");
            return;
        }
        if (!take_answer(h))
            return;
    }
}

static void on_dialled(struct dial *d, bool ok)
{
    struct handshake *h = d->pair->handshake;
    struct pair *p = h->pair;
    const struct server *s = p->server;
    char text[ADDR_TEXT_BYTES];
    struct request_via via = {
        .client_addr = addr_ip_text(&p->client_addr.ip, text),
        .client_tls = p->client.sock.ssl != NULL,
        .client_trusted = request_trusts(s->spec, &p->client_addr.ip),
        .backend_host = h->dial.to ? h->dial.to->host_header : NULL,
    };
    struct buf out;

    if (!ok) {
        refuse(h, d->status,
               d->status == 504 ? "the backend did not answer in time" : "the backend cannot be reached",
               d->why);
        return;
    }
    buf_init(&out, 2 * HEAD_MAX_BYTES);
    if (request_forward(&h->request_head, h->client_in.data, &h->request, s->spec, &via, &out) ||
        side_send(&p->backend, out.data, out.len)) {
        refuse(h, 502, "the request cannot be forwarded",
               "the request with the headers that are set is too large");
    } else {
        h->state = BACKEND_HEAD;
        deadline(h, s->spec->timeouts.handshake_ms);
        read_answer(h); /* nothing yet, unless the backend cut us off */
    }
    buf_free(&out);
}

/* Is there room for it? */
static bool admit(struct handshake *h)
{
    struct pair *p = h->pair;
    struct limit_refusal refusal;
    struct in6_addr client =
        request_client(&h->request_head, h->client_in.data, p->server->spec, &p->client_addr.ip);

    if (limit_admit(p, &client, &refusal))
        return true;
    answer(h, 503, refusal.retry_after_s, refusal.said, refusal.why);
    return false;
}

static void take_request(struct handshake *h)
{
    struct verdict v = request_check(&h->request_head, h->client_in.data, h->pair->server->spec, &h->request);

    if (v.status) {
        refuse(h, v.status, v.why, v.why);
        return;
    }
    if (h->pair->client.sock.hup) {
        client_gone(h, "the client closed the connection before it was answered");
        return;
    }
    if (h->pair->deadline_ms) {
        refuse_draining(h);
        return;
    }
    if (!admit(h))
        return;
    h->state = DIAL;
    deadline(h, HANDSHAKE_TOTAL_MS);
    dial_start(&h->dial, h->pair, on_dialled);
}

static void read_request(struct handshake *h)
{
    struct pair *p = h->pair;
    char text[128];

    while (sock_has_input(&p->client.sock)) {
        ssize_t n = sock_read(&p->client.sock, p->relay->scratch, HEAD_MAX_BYTES - h->client_in.len);

        if (n == SOCK_AGAIN)
            continue;
        if (n <= 0) {
            client_gone(h, n == SOCK_EOF ? "the client closed the connection before its request was complete"
                                         : sock_why(&p->client.sock, text, sizeof text));
            return;
        }
        if (buf_add(&h->client_in, p->relay->scratch, (size_t)n)) {
            end(h, true);
            return;
        }
        switch (head_parse(&h->request_head, h->client_in.data, h->client_in.len)) {
        case HEAD_MORE: break;
        case HEAD_DONE: take_request(h); return;
        case HEAD_BAD: refuse(h, 400, h->request_head.why, h->request_head.why); return;
        case HEAD_TARGET_TOO_LONG: refuse(h, 414, h->request_head.why, h->request_head.why); return;
        case HEAD_TOO_LARGE: refuse(h, 431, h->request_head.why, h->request_head.why); return;
        case HEAD_VERSION: refuse(h, 505, h->request_head.why, h->request_head.why); return;
        }
    }
}

static void step_tls(struct handshake *h)
{
    struct sock *s = &h->pair->client.sock;
    char text[128];
    int r = sock_handshake(s);

    if (r == SOCK_AGAIN)
        return;
    if (r == 1) {
        h->state = CLIENT_HEAD;
        read_request(h);
        return;
    }
    if (sock_saw_http(s)) {
        sock_drop_tls(s);
        refuse(h, 400, "this port speaks TLS: use wss:// or https://", "plain HTTP on a TLS port");
        return;
    }
    cut(h, sock_why(s, text, sizeof text));
}

static void on_client_ready(struct loop_fd *f, uint32_t events)
{
    struct pair *p = (struct pair *)((char *)f - offsetof(struct pair, client.sock.lf));
    struct handshake *h = p->handshake;

    sock_event(&p->client.sock, events);
    switch (h->state) {
    case CLIENT_TLS: step_tls(h); break;
    case CLIENT_HEAD: read_request(h); break;
    case DIAL:
    case BACKEND_HEAD:
        if (p->client.sock.hup)
            client_gone(h, "the client closed the connection before it was answered");
        break;
    case BODY:
        side_flush(&p->client);
        if (p->client.out_dead)
            end(h, true);
        else
            pull_body(h);
        break;
    case LINGER:
        side_flush(&p->client);
        drop_input(h);
        break;
    }
}

static void on_backend_ready(struct loop_fd *f, uint32_t events)
{
    struct pair *p = (struct pair *)((char *)f - offsetof(struct pair, backend.sock.lf));
    struct handshake *h = p->handshake;

    switch (h->state) {
    case DIAL: dial_ready(&h->dial, events); break;
    case BACKEND_HEAD:
        sock_event(&p->backend.sock, events);
        side_flush(&p->backend);
        read_answer(h);
        break;
    case BODY:
        sock_event(&p->backend.sock, events);
        pull_body(h);
        break;
    default: break;
    }
}

static void on_timer(struct loop_timer *t)
{
    struct pair *p = (struct pair *)((char *)t - offsetof(struct pair, timer));
    struct handshake *h = p->handshake;

    switch (h->state) {
    case CLIENT_TLS: cut(h, "no TLS handshake in time"); break;
    case CLIENT_HEAD:
        if (h->client_in.len && p->deadline_ms)
            refuse_draining(h);
        else if (h->client_in.len)
            refuse(h, 408, "the request was not complete in time", "the request was not complete in time");
        else
            cut(h, "no request in time");
        break;
    case DIAL:
        refuse(h, 504, "the backend did not answer in time", "dialling the backend took too long");
        break;
    case BACKEND_HEAD:
        refuse(h, 504, "the backend did not answer in time",
               "the backend did not answer the handshake in time");
        break;
    case BODY: end(h, true); break;
    case LINGER: end(h, !p->deadline_ms || side_waits(&p->client)); break;
    }
}

void handshake_drain(struct handshake *h)
{
    struct pair *p = h->pair;
    uint64_t now = p->relay->loop.now_ms;

    if (h->state == DIAL || h->state == BACKEND_HEAD) {
        refuse_draining(h);
        return;
    }
    if ((h->state == CLIENT_TLS || h->state == CLIENT_HEAD) && h->limit_ms > now + HANDSHAKE_DRAIN_MS)
        h->limit_ms = now + HANDSHAKE_DRAIN_MS;
    limit(h, h->limit_ms);
    pair_due(p, h->limit_ms);
}

void handshake_follow(struct handshake *h, struct server *now)
{
    if (h->state == DIAL)
        dial_follow(&h->dial, now);
}

void handshake_start(struct pair *p)
{
    struct handshake *h = calloc(1, sizeof *h);
    SSL_CTX *ctx = p->server->accept_ctx;
    SSL *ssl;

    if (!h) {
        stats_add(&p->server->cell->handshakes_total[stats_status_index(0)], 1);
        pair_end(p, true);
        return;
    }
    h->pair = p;
    h->dead.release = release;
    h->start_us = clock_us();
    h->limit_ms = p->start_ms + HANDSHAKE_TOTAL_MS;
    buf_init(&h->client_in, HEAD_MAX_BYTES);
    buf_init(&h->backend_in, 2 * HEAD_MAX_BYTES);
    head_init(&h->request_head, HEAD_REQUEST);
    head_init(&h->response_head, HEAD_RESPONSE);
    p->handshake = h;
    p->client.sock.lf.ready = on_client_ready;
    p->backend.sock.lf.ready = on_backend_ready;
    p->timer.fire = on_timer;
    h->state = ctx ? CLIENT_TLS : CLIENT_HEAD;
    deadline(h, p->server->spec->timeouts.handshake_ms);
    if (p->relay->draining) {
        p->deadline_ms = drain_deadline(p->relay, p->server);
        handshake_drain(h);
    }
    if (!ctx)
        return;
    ssl = tls_accept_new(ctx, &p->server->picker);
    if (!ssl || sock_start_tls(&p->client.sock, ssl, true))
        end(h, true);
}
