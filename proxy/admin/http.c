#include "admin/http.h"

#include "admin/http_ws.h"
#include "base/log.h"
#include "relay/addr.h"
#include "spec/spec_values.h"
#include "wire/request.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define ACCEPT_TURN                16  /* connections accepted a turn and port */
#define PAUSE_MS                   100 /* after an accept that failed for want of something */
#define MAX_DISCARD                (64u << 10)
#define KEY_LEN                    24
#define MAX_ADDRESS                64
#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

enum conn_state {
    CONN_READING = 0, /* the head */
    CONN_WRITING,     /* the answer */
    CONN_LINGERING, /* FIN sent; a close now would turn unread bytes into a reset that overtakes the answer */
    CONN_DEAD,
};

struct port {
    struct http *http;
    struct loop_fd lf;
    uint32_t watched;
    struct loop_timer pause;
    const struct http_page *pages;
    size_t page_count;
    char address[MAX_ADDRESS];
};

struct conn {
    TAILQ_ENTRY(conn) link;
    struct loop_fd lf;
    struct loop_timer deadline;
    struct loop_dead dead;
    const struct port *port;
    enum conn_state state;
    struct head head;
    size_t len;       /* of `in` */
    size_t discarded; /* what came behind the request */
    struct buf out;
    size_t sent;
    uint8_t in[HTTP_MAX_HEAD];
};
TAILQ_HEAD(conns, conn);

struct http {
    struct loop *loop;
    struct http_ws *ws;
    struct conns conns; /* the oldest first */
    size_t conn_count;
    struct port *ports;
    size_t port_count;
};

/* *any: no address was given. */
static int parse_address(const char *text, struct addr *out, bool *any, struct err *err)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    char ip[MAX_ADDRESS] = "";
    uint64_t port;
    bool v6 = len >= 2 && text[0] == '[' && text[len - 1] == ']';

    *out = (struct addr){0};
    *any = !len;
    if (len < sizeof ip)
        memcpy(ip, text + v6, len - 2 * v6);
    if (!colon || len >= sizeof ip || spec_value_uint(colon + 1, strlen(colon + 1), 1, 65535, &port, err) ||
        (len && ((strchr(ip, ':') != NULL) != v6 || !addr_parse_ip(ip, &out->ip))))
        return err_set(
            err, ERR_INVALID,
            "\"%.64s\" is not ADDRESS:PORT; 127.0.0.1:9901, [::1]:9901 or :9901 (every address) would be",
            text);
    out->port = (uint16_t)port;
    return 0;
}

int http_check_address(const char *text, struct err *err)
{
    struct addr addr;
    bool any;

    return parse_address(text, &addr, &any, err);
}

static int open_port(const char *address, struct err *err)
{
    struct sockaddr_storage ss;
    struct addr addr;
    socklen_t len;
    int fd, on = 1, off = 0;
    bool any;

    if (parse_address(address, &addr, &any, err))
        return -1;
    len = addr_to_sockaddr(&addr, &ss);
    fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && errno == EAFNOSUPPORT && any) {
        addr_parse_ip("0.0.0.0", &addr.ip);
        len = addr_to_sockaddr(&addr, &ss);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0)
        return err_set(err, ERR_IO, "%s: socket: %s", address, strerror(errno));
    if (ss.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&ss, len) || listen(fd, HTTP_MAX_CONNECTIONS)) {
        err_set(err, ERR_IO, "%s: %s", address, strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

static void release(struct loop_dead *d)
{
    free(CONTAINER(d, struct conn, dead));
}

/* Ends what c holds; closes its socket unless someone else has it (lf.fd -1). */
static void drop(struct conn *c)
{
    struct http *h = c->port->http;

    if (c->state == CONN_DEAD)
        return;
    c->state = CONN_DEAD;
    loop_timer_clear(&c->deadline);
    if (c->lf.fd >= 0)
        close(c->lf.fd);
    c->lf.fd = -1;
    buf_free(&c->out);
    TAILQ_REMOVE(&h->conns, c, link);
    h->conn_count--;
    loop_free_later(h->loop, &c->dead);
}

static void set_deadline(struct conn *c, uint64_t ms)
{
    struct loop *l = c->port->http->loop;

    loop_timer_set(l, &c->deadline, l->now_ms + ms);
}

/* Reads what nobody wants. -1: the peer is gone, or floods. */
static int discard(struct conn *c)
{
    char bytes[4096];
    ssize_t n;

    while ((n = recv(c->lf.fd, bytes, sizeof bytes, 0)) > 0) {
        c->discarded += (size_t)n;
        if (c->discarded > MAX_DISCARD)
            return -1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    /* A FIN of a client that still reads is no reason to go before the answer is out. */
    return n == 0 && c->state == CONN_WRITING ? 0 : -1;
}

static void flush(struct conn *c)
{
    while (c->sent < c->out.len) {
        ssize_t n = send(c->lf.fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            drop(c);
            return;
        }
        c->sent += (size_t)n;
    }
    buf_free(&c->out);
    shutdown(c->lf.fd, SHUT_WR);
    c->state = CONN_LINGERING;
    set_deadline(c, HTTP_LINGER_MS);
    if (discard(c))
        drop(c);
}

static const char *reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 414: return "URI Too Long";
    case 426: return "Upgrade Required";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
    }
}

/* Many answers that nobody reads would be much memory: the oldest of the big ones goes. */
static void bound_big(struct http *h)
{
    struct conn *c, *oldest = NULL;
    size_t count = 0;

    TAILQ_FOREACH(c, &h->conns, link)
    if (c->out.len > HTTP_BIG) {
        oldest = oldest ? oldest : c;
        count++;
    }
    if (count > HTTP_MAX_BIG)
        drop(oldest);
}

static void answer(struct conn *c, int status, const char *type, const struct buf *body)
{
    bool head = c->head.method.len && head_slice_is(c->head.method, c->in, "HEAD");
    const char *more = status == 405   ? "Allow: GET, HEAD\r\nConnection: close\r\n"
                       : status == 426 ? "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                         "Connection: close, Upgrade\r\n"
                       : status == 503 ? "Retry-After: 1\r\nConnection: close\r\n"
                                       : "Connection: close\r\n";

    c->state = CONN_WRITING;
    if (buf_addf(&c->out,
                 "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                 "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                 "Content-Security-Policy: default-src 'self'; base-uri 'none'; form-action 'none'; "
                 "frame-ancestors 'none'\r\n%s\r\n",
                 status, reason(status), type, body->len, more) ||
        (!head && buf_add(&c->out, body->data, body->len))) {
        drop(c);
        return;
    }
    set_deadline(c, HTTP_ANSWER_MS);
    bound_big(c->port->http);
    if (c->state == CONN_WRITING)
        flush(c);
}

static void refuse(struct conn *c, int status, const char *why)
{
    char text[256];
    int len = snprintf(text, sizeof text, "%s\n", why);
    struct buf body = {.data = (uint8_t *)text, .len = (size_t)len};

    answer(c, status, "text/plain; charset=utf-8", &body);
}

/* A page of another site must not read along: a browser says where its script came from, and no script can say
 * otherwise. */
static bool same_origin(const struct conn *c, const struct request *r)
{
    static const char separator[] = "://";
    const uint8_t *origin = c->in + r->origin.off;
    const uint8_t *at = r->has_origin ? memmem(origin, r->origin.len, separator, 3) : NULL;
    size_t before = at ? (size_t)(at + 3 - origin) : 0;

    return !r->has_origin ||
           (at && r->origin.len - before == r->host.len &&
            !strncasecmp((const char *)at + 3, (const char *)c->in + r->host.off, r->host.len));
}

static void open_feed(struct conn *c)
{
    static const struct spec_server anyone = {0};
    struct http *h = c->port->http;
    struct request r = {0};
    struct verdict v = request_check(&c->head, c->in, &anyone, &r);
    uint32_t watched = EPOLLIN;
    char key[KEY_LEN + 1] = "";
    struct err err;
    int fd = c->lf.fd;

    if (v.status) {
        refuse(c, v.status, v.why);
        return;
    }
    if (c->len > c->head.len) {
        refuse(c, 400, "bytes behind the handshake, before its answer");
        return;
    }
    if (!same_origin(c, &r)) {
        refuse(c, 403, "the feed is for the page of this address only");
        return;
    }
    if (http_ws_count(h->ws) >= HTTP_MAX_FEEDS) {
        refuse(c, 503, "too many watch the feed already");
        return;
    }
    memcpy(key, c->in + r.key.off, r.key.len < KEY_LEN ? r.key.len : KEY_LEN);
    if (loop_watch(h->loop, &c->lf, &watched, 0, &err)) {
        drop(c);
        return;
    }
    c->lf.fd = -1;
    drop(c);
    http_ws_take(h->ws, fd, key);
}

static void serve(struct conn *c, const struct http_page *page)
{
    const char *type = "text/plain; charset=utf-8";
    struct buf body;
    int status;

    buf_init(&body, HTTP_MAX_ANSWER);
    status = page->get(page->arg, &body, &type);
    answer(c, status, type, &body);
    buf_free(&body);
}

static const struct http_page *find_page(const struct conn *c)
{
    struct head_slice path = c->head.target;
    const uint8_t *query = memchr(c->in + path.off, '?', path.len);

    if (query)
        path.len = (uint16_t)(query - (c->in + path.off));
    for (size_t i = 0; i < c->port->page_count; i++)
        if (head_slice_is(path, c->in, c->port->pages[i].path))
            return &c->port->pages[i];
    return NULL;
}

static bool has_body(const struct conn *c)
{
    size_t at = 0;
    const struct head_field *f = head_find(&c->head, c->in, "Content-Length", &at);

    return head_count(&c->head, c->in, "Transfer-Encoding") || (f && !head_slice_is(f->value, c->in, "0"));
}

static void route(struct conn *c)
{
    const struct http_page *page = find_page(c);
    size_t hosts = head_count(&c->head, c->in, "Host");

    if (!head_slice_is(c->head.method, c->in, "GET") && !head_slice_is(c->head.method, c->in, "HEAD"))
        refuse(c, 405, "only GET and HEAD");
    else if (hosts > 1 || (!hosts && c->head.minor))
        refuse(c, 400, "the request needs one Host");
    else if (has_body(c))
        refuse(c, 400, "a GET without a body, please");
    else if (!page)
        refuse(c, 404, "no such page");
    else if (!page->get)
        open_feed(c);
    else if (head_count(&c->head, c->in, "Upgrade"))
        refuse(c, 400, "this page speaks HTTP/1.1 and nothing else");
    else
        serve(c, page);
}

/* -1: there is nothing more to read. */
static int read_head(struct conn *c)
{
    ssize_t n = recv(c->lf.fd, c->in + c->len, sizeof c->in - c->len, 0);

    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            drop(c);
        return -1;
    }
    c->len += (size_t)n;
    switch (head_parse(&c->head, c->in, c->len)) {
    case HEAD_MORE:
        if (c->len < sizeof c->in)
            return 0;
        refuse(c, 431, "the head is longer than 8192 bytes");
        return -1;
    case HEAD_DONE: route(c); return -1;
    case HEAD_TARGET_TOO_LONG: refuse(c, 414, c->head.why); return -1;
    case HEAD_TOO_LARGE: refuse(c, 431, c->head.why); return -1;
    case HEAD_VERSION: refuse(c, 505, c->head.why); return -1;
    default: refuse(c, 400, c->head.why); return -1;
    }
}

static void on_conn(struct loop_fd *f, uint32_t events)
{
    struct conn *c = CONTAINER(f, struct conn, lf);

    (void)events;
    if (c->state == CONN_READING) {
        while (!read_head(c))
            ;
        return;
    }
    if (discard(c))
        drop(c);
    else if (c->state == CONN_WRITING)
        flush(c);
}

static void on_deadline(struct loop_timer *t)
{
    struct conn *c = CONTAINER(t, struct conn, deadline);

    if (c->state == CONN_READING && c->len)
        refuse(c, 408, "the head was not complete within 10 s");
    else
        drop(c);
}

static void conn_new(struct port *p, int fd)
{
    struct conn *c = malloc(sizeof *c);
    struct http *h = p->http;
    struct err err;
    int on = 1;

    if (!c) {
        close(fd);
        return;
    }
    if (h->conn_count >= HTTP_MAX_CONNECTIONS)
        drop(TAILQ_FIRST(&h->conns));
    memset(c, 0, offsetof(struct conn, in));
    c->lf = (struct loop_fd){.fd = fd, .ready = on_conn};
    c->deadline.fire = on_deadline;
    c->dead.release = release;
    c->port = p;
    head_init(&c->head, HEAD_REQUEST);
    buf_init(&c->out, HTTP_MAX_ANSWER + 1024);
    TAILQ_INSERT_TAIL(&h->conns, c, link);
    h->conn_count++;
    set_deadline(c, HTTP_HEAD_MS);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (loop_add(h->loop, &c->lf, EPOLLIN | EPOLLOUT | EPOLLRDHUP, &err))
        drop(c);
}

static void watch(struct port *p, uint32_t events)
{
    struct err err;

    if (loop_watch(p->http->loop, &p->lf, &p->watched, events, &err))
        log_msg(LOG_ERROR, "admin", "%s: %s", p->address, err.msg);
}

static void on_pause_over(struct loop_timer *t)
{
    watch(CONTAINER(t, struct port, pause), EPOLLIN);
}

static void on_port(struct loop_fd *f, uint32_t events)
{
    struct port *p = CONTAINER(f, struct port, lf);

    (void)events;
    for (int i = 0; i < ACCEPT_TURN; i++) {
        int fd = accept4(f->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            conn_new(p, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            watch(p, 0);
            loop_timer_set(p->http->loop, &p->pause, p->http->loop->now_ms + PAUSE_MS);
        }
        return;
    }
}

static bool has_feed(const struct http_listen *listens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < listens[i].page_count; k++)
            if (!listens[i].pages[k].get)
                return true;
    return false;
}

struct http *http_new(const struct http_listen *listens, size_t count, struct err *err)
{
    struct http *h = calloc(1, sizeof *h);

    if (h)
        h->ports = calloc(count + 1, sizeof *h->ports);
    if (!h || !h->ports) {
        free(h);
        err_set(err, ERR_IO, "out of memory");
        return NULL;
    }
    TAILQ_INIT(&h->conns);
    for (size_t i = 0; i < count; i++) {
        struct port *p = &h->ports[i];

        *p = (struct port){.http = h, .pages = listens[i].pages, .page_count = listens[i].page_count};
        p->lf = (struct loop_fd){.fd = open_port(listens[i].address, err), .ready = on_port};
        p->pause.fire = on_pause_over;
        if (p->lf.fd < 0) {
            http_free(h);
            return NULL;
        }
        snprintf(p->address, sizeof p->address, "%s", listens[i].address);
        h->port_count++;
    }
    if (!has_feed(listens, count) || (h->ws = http_ws_new(err)))
        return h;
    http_free(h);
    return NULL;
}

void http_free(struct http *h)
{
    struct conn *c;

    if (!h)
        return;
    while ((c = TAILQ_FIRST(&h->conns)))
        drop(c);
    for (size_t i = 0; i < h->port_count; i++) {
        loop_timer_clear(&h->ports[i].pause);
        close(h->ports[i].lf.fd);
    }
    if (h->ws)
        http_ws_free(h->ws);
    free(h->ports);
    free(h);
}

void http_run(struct http *h, struct loop *loop)
{
    h->loop = loop;
    for (size_t i = 0; i < h->port_count; i++)
        watch(&h->ports[i], EPOLLIN);
    if (h->ws)
        http_ws_run(h->ws, loop);
    else
        loop_run(loop);
}

bool http_feed_watched(const struct http *h)
{
    return h->ws && http_ws_count(h->ws) > 0;
}

void http_feed(struct http *h, const void *text, size_t len)
{
    http_ws_send(h->ws, text, len);
}
