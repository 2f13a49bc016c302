#include "relay/dial.h"

#include "relay/report.h"
#include "spec/spec_values.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void go_on(struct dial *d);

static void finish(struct dial *d, bool ok)
{
    loop_timer_clear(&d->timer);
    d->done(d, ok);
}

/* This address is not it; go_on tries the next. */
static void note(struct dial *d, int status, const char *what, const char *why)
{
    char text[ADDR_TEXT_BYTES];

    d->status = status;
    snprintf(d->why, sizeof d->why, "backend %.60s: %.60s%s%.120s", addr_text(&d->addr, text), what,
             why ? ": " : "", why ? why : "");
    sock_close(&d->pair->backend.sock, true);
}

static void failed(struct dial *d, int status, const char *what, const char *why)
{
    note(d, status, what, why);
    go_on(d);
}

static void on_timer(struct loop_timer *t)
{
    struct dial *d = (struct dial *)((char *)t - offsetof(struct dial, timer));

    if (d->query.waiting) {
        resolve_cancel(&d->query);
        d->status = 504;
        snprintf(d->why, sizeof d->why, "%.100s: resolving the backend's name took too long",
                 d->to->url->host);
        go_on(d);
        return;
    }
    failed(d, 504, d->connected ? "no TLS handshake in time" : "no connection in time", NULL);
}

static void step_tls(struct dial *d)
{
    struct sock *s = &d->pair->backend.sock;
    const char *verify;
    char text[128];
    int r = sock_handshake(s);

    if (r == SOCK_AGAIN)
        return;
    if (r == 1) {
        finish(d, true);
        return;
    }
    verify = tls_verify_error(s->ssl);
    failed(d, 502, verify ? "its certificate is refused" : "TLS handshake",
           verify ? verify : sock_why(s, text, sizeof text));
}

static void on_connected(struct dial *d)
{
    SSL *ssl;

    d->connected = true;
    if (!d->to->dial.ctx) {
        finish(d, true);
        return;
    }
    ssl = tls_dial_new(&d->to->dial);
    if (!ssl || sock_start_tls(&d->pair->backend.sock, ssl, false)) {
        failed(d, 502, "out of memory for TLS", NULL);
        return;
    }
    step_tls(d);
}

void dial_ready(struct dial *d, uint32_t events)
{
    struct sock *s = &d->pair->backend.sock;
    int error = 0;
    socklen_t len = sizeof error;

    sock_event(s, events);
    if (d->connected) {
        step_tls(d);
        return;
    }
    if (events & (EPOLLERR | EPOLLHUP)) {
        getsockopt(s->lf.fd, SOL_SOCKET, SO_ERROR, &error, &len);
        failed(d, error == ETIMEDOUT ? 504 : 502, "connect", strerror(error ? error : ECONNREFUSED));
    } else if (events & EPOLLOUT) {
        on_connected(d);
    }
}

/* True: its connection is on the way. */
static bool try_address(struct dial *d)
{
    struct pair *p = d->pair;
    struct sockaddr_storage ss;
    void (*ready)(struct loop_fd *, uint32_t) = p->backend.sock.lf.ready;
    socklen_t len;
    struct err err;
    int fd;

    d->addr = (struct addr){.ip = d->ips[d->next++], .port = d->to->url->port};
    d->connected = false;
    if (p->relay->deny_local && spec_address_is_local(d->addr.ip.s6_addr)) {
        note(d, 502, "a local address, which --deny-local-backends forbids", NULL);
        return false;
    }
    len = addr_to_sockaddr(&d->addr, &ss);
    fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        note(d, 503, "socket", strerror(errno)); /* descriptors or memory: ours, not the backend's fault */
        return false;
    }
    sock_set_options(fd);
    if (connect(fd, (struct sockaddr *)&ss, len) && errno != EINPROGRESS) {
        int error = errno;

        close(fd);
        note(d, 502, "connect", strerror(error));
        return false;
    }
    if (sock_open(&p->backend.sock, &p->relay->loop, fd, ready, &err)) {
        close(fd);
        note(d, 502, err.msg, NULL);
        return false;
    }
    loop_timer_set(&p->relay->loop, &d->timer, p->relay->loop.now_ms + p->server->spec->timeouts.connect_ms);
    return true;
}

static void on_resolved(struct resolve_query *q, const struct in6_addr *ips, size_t count, const char *why)
{
    struct dial *d = (struct dial *)((char *)q - offsetof(struct dial, query));

    if (count) {
        memcpy(d->ips, ips, count * sizeof *ips);
    } else {
        d->status = 502;
        snprintf(d->why, sizeof d->why, "%.100s: %s", d->to->url->host, why);
    }
    d->count = count;
    if (!d->resolving)
        go_on(d);
}

/* True: the next backend's addresses, none perhaps, are there. False: they are being asked for. */
static bool take_addresses(struct dial *d)
{
    struct pair *p = d->pair;

    d->count = d->next = 0;
    if (addr_parse_ip(d->to->url->host, &d->ips[0])) {
        d->count = 1;
        return true;
    }
    loop_timer_set(&p->relay->loop, &d->timer, p->relay->loop.now_ms + p->server->spec->timeouts.connect_ms);
    d->resolving = true;
    resolve_start(p->relay->resolver, d->to->url->host, &d->query);
    d->resolving = false;
    return !d->query.waiting;
}

/* The next address, else the next backend, until one is on its way or none is left. */
static void go_on(struct dial *d)
{
    for (;;) {
        struct backend *next;

        while (d->next < d->count)
            if (try_address(d))
                return;
        next = server_pick(d->pair->server, &d->tried);
        if (!next) {
            finish(d, false);
            return;
        }
        if (d->to)
            report_next(d->pair, d->why);
        d->to = next;
        if (!take_addresses(d))
            return;
    }
}

void dial_start(struct dial *d, struct pair *p, void (*done)(struct dial *d, bool ok))
{
    *d = (struct dial){.pair = p, .done = done, .query.done = on_resolved, .timer.fire = on_timer};
    d->status = 503;
    snprintf(d->why, sizeof d->why, "no backend");
    go_on(d);
}

void dial_cancel(struct dial *d)
{
    resolve_cancel(&d->query);
    loop_timer_clear(&d->timer);
}

static bool has_backend(const struct server *s, const struct spec_url *url)
{
    for (size_t i = 0; i < s->backend_count; i++) {
        const struct spec_url *other = s->backends[i].url;

        if (other->port == url->port && other->tls == url->tls && !strcmp(other->host, url->host))
            return true;
    }
    return false;
}

void dial_follow(struct dial *d, struct server *now)
{
    struct pair *p = d->pair;

    if (has_backend(now, d->to->url))
        return;
    report_next(p, "the backend that was being dialled is no longer there");
    dial_cancel(d);
    sock_close(&p->backend.sock, true);
    server_unref(p->server);
    p->server = server_ref(now);
    dial_start(d, p, d->done);
}
