#include "kube/kube_wire.h"

#include "base/buf.h"
#include "base/need.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

/* Dead peers are noticed after KEEP_IDLE_S + KEEP_TRIES x KEEP_EACH_S at the latest (D1). */
#define KEEP_IDLE_S 30
#define KEEP_EACH_S 15
#define KEEP_TRIES  3

#if defined __x86_64__
#define ARCH "amd64"
#elif defined __aarch64__
#define ARCH "arm64"
#else
#define ARCH "other"
#endif
#define USER_AGENT "tidegate-controller/" TIDEGATE_VERSION " (linux/" ARCH ")"

struct wire_sock {
    struct loop_fd io;
    struct loop_dead dead;
    LIST_ENTRY(wire_sock) link;
    struct kube_wire *w;
    uint32_t watched;
};

struct kube_exchange {
    struct loop_dead dead;
    TAILQ_ENTRY(kube_exchange) link;
    struct kube_wire *w;
    CURL *easy;
    struct curl_slist *headers, *connect_to;
    struct buf body;
    uint64_t heard_ms;
    unsigned sent; /* how often curl was about to send the request */
    bool is_get, head_ended, opened_told, too_large, finished, gone;
    CURLcode code;
    char error[CURL_ERROR_SIZE];
    void (*opened)(void *arg);
    bool (*bytes)(void *arg, const uint8_t *bytes, size_t len);
    void (*done)(void *arg, const struct kube_trip_end *end);
    void *arg;
};

struct kube_wire {
    struct loop_dead dead;
    struct loop *l;
    CURLM *multi;
    struct loop_timer timer;
    struct loop_task now; /* curl wants a turn at once, or an exchange has ended without one */
    TAILQ_HEAD(, kube_exchange) exchanges;
    LIST_HEAD(, wire_sock) socks;
    bool retired, gone;
};

#define CONTAINER(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

static void sock_release(struct loop_dead *d)
{
    free(CONTAINER(d, struct wire_sock, dead));
}

/* curl may have closed the descriptor already: then epoll has forgotten it, and saying so is no error. */
static void sock_drop(struct wire_sock *s)
{
    struct err err;

    if (loop_watch(s->w->l, &s->io, &s->watched, 0, &err))
        s->watched = 0;
    s->io.fd = -1;
    LIST_REMOVE(s, link);
    loop_free_later(s->w->l, &s->dead);
}

static void exchange_release(struct loop_dead *d)
{
    struct kube_exchange *x = CONTAINER(d, struct kube_exchange, dead);

    buf_free(&x->body);
    free(x);
}

static void wire_release(struct loop_dead *d)
{
    free(CONTAINER(d, struct kube_wire, dead));
}

/* Closes its connections too. Never within a callback of curl's. */
static void wire_close(struct kube_wire *w)
{
    if (w->gone)
        return;
    w->gone = true;
    curl_multi_cleanup(w->multi);
    while (!LIST_EMPTY(&w->socks))
        sock_drop(LIST_FIRST(&w->socks));
    loop_timer_clear(&w->timer);
    loop_task_clear(w->l, &w->now);
    curl_global_cleanup();
    loop_free_later(w->l, &w->dead);
}

/* From here on nothing is called back; a body that `done` is to read stays until the turn's end. Never within a callback of curl's. */
static void exchange_end(struct kube_exchange *x)
{
    struct kube_wire *w = x->w;

    x->gone = true;
    curl_multi_remove_handle(w->multi, x->easy);
    curl_easy_cleanup(x->easy);
    curl_slist_free_all(x->headers);
    curl_slist_free_all(x->connect_to);
    TAILQ_REMOVE(&w->exchanges, x, link);
    loop_free_later(w->l, &x->dead);
    if (w->retired && TAILQ_EMPTY(&w->exchanges))
        wire_close(w);
}

static enum kube_trip trip_of(const struct kube_exchange *x)
{
    if (x->too_large)
        return KUBE_TRIP_TOO_LARGE;
    switch (x->code) {
    case CURLE_OK: return KUBE_TRIP_ANSWERED;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR: return KUBE_TRIP_UNTRUSTED;
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_ABORTED_BY_CALLBACK: /* of a write, see before_request */ return KUBE_TRIP_LOST;
    default: return KUBE_TRIP_FAILED;
    }
}

static int status_of(const struct kube_exchange *x)
{
    long status = 0;

    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

/* Of a proxy that it cannot use libcurl quotes the whole URL, in which a password may stand. */
static const char *failure(const struct kube_exchange *x)
{
    if (strstr(x->error, "nsupported proxy"))
        return "the URL of the proxy cannot be used";
    return *x->error ? x->error : curl_easy_strerror(x->code);
}

static void tell_end(struct kube_exchange *x)
{
    curl_off_t after = 0;
    struct kube_trip_end end = {.trip = trip_of(x), .status = status_of(x), .why = ""};

    curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &after);
    if (after > 0)
        end.retry_after_s = after < UINT32_MAX ? (uint32_t)after : UINT32_MAX;
    if (end.trip == KUBE_TRIP_ANSWERED) {
        end.body = x->body.data;
        end.body_len = x->body.len;
    } else if (end.trip == KUBE_TRIP_TOO_LARGE) {
        end.why = "the answer is too large";
    } else if (x->code == CURLE_ABORTED_BY_CALLBACK) {
        end.why = "the connection was lost after the request was sent";
    } else {
        end.why = failure(x);
    }
    exchange_end(x);
    x->done(x->arg, &end);
}

static bool has_opened(const struct kube_exchange *x)
{
    return x->opened && x->head_ended && !x->opened_told && status_of(x) == 200;
}

static bool has_bytes(const struct kube_exchange *x)
{
    return x->bytes && x->body.len && status_of(x) == 200;
}

/* The beginning of a stream, what has come of it, then its end. */
static void deliver_one(struct kube_exchange *x)
{
    if (has_opened(x)) {
        x->opened_told = true;
        x->opened(x->arg);
        if (x->gone)
            return;
    }
    if (has_bytes(x)) {
        struct buf chunk = x->body;
        bool more;

        buf_init(&x->body, chunk.max);
        more = x->bytes(x->arg, chunk.data, chunk.len);
        buf_free(&chunk);
        if (x->gone)
            return;
        if (!more)
            x->too_large = x->finished = true;
    }
    if (x->finished)
        tell_end(x);
}

static struct kube_exchange *first_to_deliver(struct kube_wire *w)
{
    struct kube_exchange *x;

    TAILQ_FOREACH(x, &w->exchanges, link)
    if (x->finished || has_opened(x) || has_bytes(x))
        return x;
    return NULL;
}

/* After each call into curl. The callbacks may end exchanges and the wire itself, which is freed after this turn only. */
static void deliver(struct kube_wire *w)
{
    struct kube_exchange *x;
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(w->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        x->code = m->data.result;
        x->finished = true;
    }
    while (!w->gone && (x = first_to_deliver(w)))
        deliver_one(x);
}

static void drive(struct kube_wire *w, curl_socket_t fd, int events)
{
    int running;

    curl_multi_socket_action(w->multi, fd, events, &running);
    deliver(w);
}

static void on_ready(struct loop_fd *f, uint32_t events)
{
    struct wire_sock *s = CONTAINER(f, struct wire_sock, io);
    int what = 0;

    if (events & EPOLLIN)
        what |= CURL_CSELECT_IN;
    if (events & EPOLLOUT)
        what |= CURL_CSELECT_OUT;
    if (events & (EPOLLERR | EPOLLHUP))
        what |= CURL_CSELECT_ERR;
    drive(s->w, f->fd, what);
}

static void on_timer(struct loop_timer *t)
{
    drive(CONTAINER(t, struct kube_wire, timer), CURL_SOCKET_TIMEOUT, 0);
}

static void on_now(struct loop_task *t)
{
    drive(CONTAINER(t, struct kube_wire, now), CURL_SOCKET_TIMEOUT, 0);
}

static int curl_wants_time(CURLM *multi, long ms, void *arg)
{
    struct kube_wire *w = arg;

    (void)multi;
    loop_timer_clear(&w->timer);
    if (ms == 0)
        loop_task_add(w->l, &w->now); /* a timer would be a tick late */
    else if (ms > 0)
        loop_timer_set(w->l, &w->timer, loop_clock_ms() + (uint64_t)ms);
    return 0;
}

static int curl_wants_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct kube_wire *w = arg;
    struct wire_sock *s = known;
    uint32_t events =
        (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);
    struct err err;

    (void)easy;
    if (what == CURL_POLL_REMOVE || !events) {
        if (s) {
            curl_multi_assign(w->multi, fd, NULL);
            sock_drop(s);
        }
        return 0;
    }
    if (!s) {
        s = need(calloc(1, sizeof *s));
        *s = (struct wire_sock){
            .io = {.fd = fd, .ready = on_ready}, .dead = {.release = sock_release}, .w = w};
        LIST_INSERT_HEAD(&w->socks, s, link);
        curl_multi_assign(w->multi, fd, s);
    }
    if (!loop_watch(w->l, &s->io, &s->watched, events, &err))
        return 0;
    /* The number is another socket's now: epoll has forgotten the first. */
    s->watched = 0;
    return loop_watch(w->l, &s->io, &s->watched, events, &err);
}

/* libcurl sets the rest of the keepalive; TCP_KEEPCNT it knows since 8.9 only. */
static int curl_has_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    int tries = KEEP_TRIES, limit_ms = (KEEP_IDLE_S + KEEP_TRIES * KEEP_EACH_S) * 1000;

    (void)arg;
    (void)purpose;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof tries);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof limit_ms);
    return CURL_SOCKOPT_OK;
}

/* A request on a kept connection that turns out dead is sent again by curl itself: fine for a GET, while a write may have been
 * carried out (R1). */
static int before_request(void *arg, char *ip, char *local_ip, int port, int local_port)
{
    struct kube_exchange *x = arg;

    (void)ip;
    (void)local_ip;
    (void)port;
    (void)local_port;
    return x->sent++ && !x->is_get ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct kube_exchange *x = arg;

    x->heard_ms = x->w->l->now_ms;
    if (!buf_add(&x->body, bytes, size * count))
        return size * count;
    x->too_large = true;
    return 0;
}

static size_t on_head(char *bytes, size_t size, size_t count, void *arg)
{
    struct kube_exchange *x = arg;

    x->head_ended |= size * count <= 2 && *bytes < ' '; /* the empty line */
    x->heard_ms = x->w->l->now_ms;
    return size * count;
}

static void add_header(struct kube_exchange *x, const char *name, const char *value)
{
    char *line = need_printf("%s: %s", name, value);

    x->headers = need(curl_slist_append(x->headers, line));
    explicit_bzero(line, strlen(line));
    free(line);
}

static struct curl_blob blob_of(const char *pem, size_t len)
{
    return (struct curl_blob){.data = (void *)(uintptr_t)pem, .len = len, .flags = CURL_BLOB_COPY};
}

#define SET(x, option, value)                                                                                \
    ((x)->code = (x)->code ? (x)->code : curl_easy_setopt((x)->easy, CURLOPT_##option, value))

/* The server is spoken to, and checked, under another name than the one it is dialled by: curl is given a URL of that name and
 * told where to connect. Host stays as the URL was (as client-go does). NO_PROXY is compared with the name, too. */
static char *renamed(struct kube_exchange *x, const struct kube_auth *a)
{
    CURLU *u = need(curl_url());
    char *host = NULL, *port = NULL, *out = NULL, *text, *copy = NULL;
    const char *name = a->tls_server_name;

    text = need_printf(strchr(name, ':') && *name != '[' ? "[%s]" : "%s", name);
    if (!curl_url_set(u, CURLUPART_URL, a->server, 0) && !curl_url_get(u, CURLUPART_HOST, &host, 0) &&
        !curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) &&
        !curl_url_set(u, CURLUPART_HOST, text, 0) && !curl_url_get(u, CURLUPART_URL, &out, 0)) {
        char *to = need_printf("%s:%s:%s:%s", text, port, host, port), *at = need_printf("%s:%s", host, port);
        size_t len = strlen(out);

        x->connect_to = need(curl_slist_append(NULL, to));
        add_header(x, "Host", at);
        free(to);
        free(at);
        while (len && out[len - 1] == '/')
            out[--len] = '\0';
        copy = need(strdup(out));
    }
    curl_free(host);
    curl_free(port);
    curl_free(out);
    free(text);
    curl_url_cleanup(u);
    return copy;
}

static void set_place(struct kube_exchange *x, const struct kube_ask *ask)
{
    const struct kube_auth *a = ask->auth;
    char *base = a->tls_server_name ? renamed(x, a) : need(strdup(a->server)), *url;

    if (!base) {
        x->code = CURLE_URL_MALFORMAT;
        return;
    }
    url = need_printf("%s%s", base, ask->path);
    SET(x, URL, url);
    free(url);
    free(base);
    if (x->connect_to)
        SET(x, CONNECT_TO, x->connect_to);
    if (a->proxy_url)
        SET(x, PROXY, a->proxy_url);
}

static void set_trust(struct kube_exchange *x, const struct kube_auth *a)
{
    SET(x, SSL_VERIFYPEER, a->insecure_skip_verify ? 0L : 1L);
    SET(x, SSL_VERIFYHOST, a->insecure_skip_verify ? 0L : 2L);
    SET(x, SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (a->ca_pem) {
        struct curl_blob blob = blob_of(a->ca_pem, a->ca_len);

        /* Beside the blob Debian's libcurl would go on believing the system's folder. */
        SET(x, CAINFO, NULL);
        SET(x, CAPATH, NULL);
        SET(x, CAINFO_BLOB, &blob);
    }
    if (a->cert_pem) {
        struct curl_blob cert = blob_of(a->cert_pem, a->cert_len), key = blob_of(a->key_pem, a->key_len);

        SET(x, SSLCERT_BLOB, &cert);
        SET(x, SSLKEY_BLOB, &key);
    }
}

static void set_limits(struct kube_exchange *x, const struct kube_ask *ask)
{
    SET(x, NOSIGNAL, 1L);
    SET(x, QUICK_EXIT, 1L); /* an exchange that ends does not wait for the thread that resolves its name */
    SET(x, PROTOCOLS_STR, "https");
    SET(x, FOLLOWLOCATION, 0L);
    SET(x, FAILONERROR, 0L);
    SET(x, SUPPRESS_CONNECT_HEADERS, 1L); /* a proxy's 200 is not the server's */
    SET(x, HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(x, CONNECTTIMEOUT_MS, (long)KUBE_WIRE_CONNECT_MS);
    SET(x, TIMEOUT_MS, (long)ask->timeout_ms);
    SET(x, TCP_KEEPALIVE, 1L);
    SET(x, TCP_KEEPIDLE, (long)KEEP_IDLE_S);
    SET(x, TCP_KEEPINTVL, (long)KEEP_EACH_S);
    SET(x, SOCKOPTFUNCTION, curl_has_socket);
}

static void set_request(struct kube_exchange *x, const struct kube_ask *ask)
{
    const char *token = ask->auth->token;

    add_header(x, "Accept", "application/json");
    if (token && !strpbrk(token, "\r\n")) { /* such a one would be two headers */
        char *value = need_printf("Bearer %s", token);

        add_header(x, "Authorization", value);
        explicit_bzero(value, strlen(value));
        free(value);
    }
    SET(x, USERAGENT, USER_AGENT);
    if (ask->body) {
        add_header(x, "Content-Type", ask->content_type);
        x->headers = need(curl_slist_append(x->headers, "Expect:"));
        SET(x, POSTFIELDS, ask->body);
        SET(x, POSTFIELDSIZE_LARGE, (curl_off_t)ask->body_len);
    }
    SET(x, CUSTOMREQUEST, ask->method);
    SET(x, HTTPHEADER, x->headers);
    SET(x, PREREQFUNCTION, before_request);
    SET(x, PREREQDATA, x);
    SET(x, WRITEFUNCTION, on_body);
    SET(x, WRITEDATA, x);
    SET(x, HEADERFUNCTION, on_head);
    SET(x, HEADERDATA, x);
    SET(x, ERRORBUFFER, x->error);
    SET(x, PRIVATE, x);
}

struct kube_exchange *kube_wire_start(struct kube_wire *w, const struct kube_ask *ask)
{
    struct kube_exchange *x = need(calloc(1, sizeof *x));

    *x = (struct kube_exchange){.dead = {.release = exchange_release},
                                .w = w,
                                .easy = need(curl_easy_init()),
                                .heard_ms = w->l->now_ms,
                                .is_get = !strcmp(ask->method, "GET"),
                                .opened = ask->opened,
                                .bytes = ask->bytes,
                                .done = ask->done,
                                .arg = ask->arg};
    buf_init(&x->body, ask->bytes ? KUBE_WIRE_CHUNK_BYTES : ask->max_bytes);
    TAILQ_INSERT_TAIL(&w->exchanges, x, link);
    set_place(x, ask);
    set_trust(x, ask->auth);
    set_limits(x, ask);
    set_request(x, ask);
    if (!x->code && curl_multi_add_handle(w->multi, x->easy))
        x->code = CURLE_FAILED_INIT;
    if (x->code) {
        x->finished = true;
        loop_task_add(w->l, &w->now);
    }
    return x;
}

void kube_wire_cancel(struct kube_exchange *x)
{
    exchange_end(x);
}

uint64_t kube_wire_heard_ms(const struct kube_exchange *x)
{
    return x->heard_ms;
}

struct kube_wire *kube_wire_new(struct loop *l, struct err *err)
{
    struct kube_wire *w;
    CURLM *multi = NULL;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) || !(multi = curl_multi_init())) {
        err_set(err, ERR_IO, "libcurl does not start");
        return NULL;
    }
    w = need(calloc(1, sizeof *w));
    *w = (struct kube_wire){.dead = {.release = wire_release},
                            .l = l,
                            .multi = multi,
                            .timer = {.fire = on_timer},
                            .now = {.run = on_now}};
    TAILQ_INIT(&w->exchanges);
    LIST_INIT(&w->socks);
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, curl_wants_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, w);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, curl_wants_time);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, w);
    return w;
}

void kube_wire_retire(struct kube_wire *w)
{
    w->retired = true;
    if (TAILQ_EMPTY(&w->exchanges))
        wire_close(w);
}
