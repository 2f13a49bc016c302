#include "kube/kube_http.h"

#include "base/need.h"
#include "kube/kube_bucket.h"
#include "kube/kube_wire.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define TRIES       10   /* of answers that say when to come again (R1) */
#define CUT_REST_MS 1000 /* before a GET that was cut is sent once more */
#define GRACE_MS    1000 /* curl's own deadline stands behind ours, so that ours tells why */

TAILQ_HEAD(kube_calls, kube_call);

/* waiting -> running -> (resting -> waiting)... -> gone */
struct kube_call {
    struct loop_dead dead;
    TAILQ_ENTRY(kube_call) link;
    struct kube_calls *in;
    struct kube_http *h;
    struct kube_request r; /* its texts and body are ours */
    struct kube_exchange *exchange;
    struct loop_timer deadline, rest, idle;
    uint64_t ends_at_ms;
    uint64_t epoch;     /* of the credentials it was sent with */
    unsigned tries;     /* that were answered with a time to come again */
    bool was_cut;       /* and is sent once more */
    bool was_refreshed; /* sent once more with other credentials */
    bool at_once;       /* past the bucket and the queue */
    bool has_slot, streamed, outdated, gone;
};

struct kube_count {
    char method[8];
    int code;
    uint64_t n;
};

struct kube_http {
    struct loop_dead dead;
    struct loop *l;
    struct kube_config *config;
    struct kube_wire *wire;
    uint64_t generation; /* of the CA and client certificate that `wire` was made with */
    char *cert;          /* that certificate; NULL before the first request */
    size_t cert_len;
    bool suspect;   /* a call got no answer: the kept connections may lead nowhere, too */
    uint64_t epoch; /* rises when a refusal led to other credentials */
    struct kube_bucket bucket;
    struct kube_calls urgent, waiting, under_way; /* under way: running or resting */
    unsigned slots;                               /* taken, of KUBE_HTTP_CALLS */
    struct loop_task pump;
    struct loop_timer pump_later;
    struct kube_count *counts; /* sorted by method and code */
    size_t count_count;
};

#define CONTAINER(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

static void *copy_of(const void *bytes, size_t len)
{
    char *copy = need(malloc(len + 1));

    if (len)
        memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}

static void call_release(struct loop_dead *d)
{
    struct kube_call *c = CONTAINER(d, struct kube_call, dead);

    free((void *)(uintptr_t)c->r.method);
    free((void *)(uintptr_t)c->r.path);
    free((void *)(uintptr_t)c->r.content_type);
    free((void *)(uintptr_t)c->r.body);
    free(c);
}

static void move_to(struct kube_call *c, struct kube_calls *list)
{
    if (c->in)
        TAILQ_REMOVE(c->in, c, link);
    c->in = list;
    if (list)
        TAILQ_INSERT_TAIL(list, c, link);
}

static void give_slot_back(struct kube_call *c)
{
    if (!c->has_slot)
        return;
    c->has_slot = false;
    c->h->slots--;
    loop_task_add(c->h->l, &c->h->pump);
}

static void call_end(struct kube_call *c)
{
    c->gone = true;
    if (c->exchange)
        kube_wire_cancel(c->exchange);
    c->exchange = NULL;
    loop_timer_clear(&c->deadline);
    loop_timer_clear(&c->rest);
    loop_timer_clear(&c->idle);
    give_slot_back(c);
    move_to(c, NULL);
    loop_free_later(c->h->l, &c->dead);
}

/* Nothing of the call is touched after `done`, which may free all of it. */
static void call_done(struct kube_call *c, const struct kube_reply *reply)
{
    call_end(c);
    c->r.done(c->r.arg, reply);
}

__attribute__((format(printf, 3, 4))) static void call_fail(struct kube_call *c, enum kube_end end,
                                                            const char *fmt, ...)
{
    struct kube_reply reply = {.end = end, .streamed = c->streamed};
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(reply.why, sizeof reply.why, fmt, ap);
    va_end(ap);
    call_done(c, &reply);
}

static void count(struct kube_http *h, const char *method, int code)
{
    size_t at = 0;
    int order = 1;

    for (; at < h->count_count; at++) {
        order = strcmp(h->counts[at].method, method);
        order = order ? order : h->counts[at].code - code;
        if (order >= 0)
            break;
    }
    if (at == h->count_count || order) {
        h->counts = need(realloc(h->counts, (h->count_count + 1) * sizeof *h->counts));
        memmove(h->counts + at + 1, h->counts + at, (h->count_count - at) * sizeof *h->counts);
        h->counts[at] = (struct kube_count){.code = code};
        snprintf(h->counts[at].method, sizeof h->counts[at].method, "%s", method);
        h->count_count++;
    }
    h->counts[at].n++;
}

/* A cut does not go through a character: what is told here ends up in JSON. */
static void copy_text(char *to, size_t size, const char *text)
{
    size_t len = strlen(text);

    if (len >= size)
        for (len = size - 1; len && ((unsigned char)text[len] & 0xc0) == 0x80;)
            len--;
    memcpy(to, text, len);
    to[len] = '\0';
}

/* What a Status says; an answer that is none is told by its code. */
static void read_status(struct kube_reply *reply)
{
    json_t *root = json_loadb((const char *)reply->body, reply->body_len, 0, NULL);
    const char *kind = json_string_value(json_object_get(root, "kind"));
    const char *reason = json_string_value(json_object_get(root, "reason"));
    const char *message = json_string_value(json_object_get(root, "message"));
    json_int_t after =
        json_integer_value(json_object_get(json_object_get(root, "details"), "retryAfterSeconds"));
    bool is_status = kind && !strcmp(kind, "Status");

    if (is_status && reason)
        copy_text(reply->reason, sizeof reply->reason, reason);
    if (is_status && message && *message)
        copy_text(reply->why, sizeof reply->why, message);
    else
        snprintf(reply->why, sizeof reply->why, "the server said %d", reply->status);
    if (is_status && after > reply->retry_after_s && after < INT32_MAX)
        reply->retry_after_s = (uint32_t)after;
    json_decref(root);
}

static struct kube_reply reply_of(const struct kube_call *c, const struct kube_trip_end *end)
{
    struct kube_reply reply = {.status = end->status,
                               .body = end->body,
                               .body_len = end->body_len,
                               .retry_after_s = end->retry_after_s,
                               .streamed = c->streamed};

    switch (end->trip) {
    case KUBE_TRIP_ANSWERED:
        reply.end = KUBE_ANSWERED;
        if (reply.status < 200 || reply.status > 299)
            read_status(&reply);
        return reply;
    case KUBE_TRIP_TOO_LARGE: reply.end = KUBE_TOO_LARGE; break;
    default: reply.end = KUBE_CUT;
    }
    copy_text(reply.why, sizeof reply.why, end->why);
    return reply;
}

static void wait_again(struct kube_call *c, bool at_once)
{
    c->at_once = at_once;
    move_to(c, at_once ? &c->h->urgent : &c->h->waiting);
    loop_task_add(c->h->l, &c->h->pump);
}

/* Another try with other credentials, if there are any by now. Of calls that were refused together the first one asks. */
static bool can_refresh(struct kube_call *c)
{
    struct kube_http *h = c->h;

    if (c->was_refreshed)
        return false;
    if (c->epoch == h->epoch && !kube_config_reject(h->config))
        return false;
    if (c->epoch == h->epoch)
        h->epoch++;
    c->was_refreshed = true;
    return true;
}

/* How long until it may be tried again (R1), 0: not at all. */
static uint64_t rest_ms(struct kube_call *c, const struct kube_trip_end *end, const struct kube_reply *reply)
{
    if (c->r.chunk)
        return 0;
    if (end->trip == KUBE_TRIP_LOST && !strcmp(c->r.method, "GET") && !c->was_cut) {
        c->was_cut = true;
        return CUT_REST_MS;
    }
    if (reply->end == KUBE_ANSWERED && (reply->status == 429 || reply->status >= 500) &&
        reply->retry_after_s && ++c->tries < TRIES)
        return (uint64_t)reply->retry_after_s * 1000;
    return 0;
}

static void on_exchange_done(void *arg, const struct kube_trip_end *end)
{
    struct kube_call *c = arg;
    struct kube_reply reply = reply_of(c, end);
    uint64_t rest, now_ms = c->h->l->now_ms;

    c->exchange = NULL;
    loop_timer_clear(&c->idle);
    give_slot_back(c);
    count(c->h, c->r.method, end->trip == KUBE_TRIP_ANSWERED ? end->status : 0);
    if ((reply.end == KUBE_ANSWERED && reply.status == 401) || end->trip == KUBE_TRIP_UNTRUSTED) {
        if (can_refresh(c)) {
            wait_again(c, true);
            return;
        }
    }
    rest = rest_ms(c, end, &reply);
    if (rest && now_ms + rest < c->ends_at_ms) {
        loop_timer_set(c->h->l, &c->rest, now_ms + rest);
        return;
    }
    call_done(c, &reply);
}

static void on_exchange_opened(void *arg)
{
    struct kube_call *c = arg;

    c->r.opened(c->r.arg);
}

static bool on_exchange_bytes(void *arg, const uint8_t *bytes, size_t len)
{
    struct kube_call *c = arg;

    c->streamed = true;
    return c->r.chunk(c->r.arg, bytes, len);
}

static void on_deadline(struct loop_timer *t)
{
    struct kube_call *c = CONTAINER(t, struct kube_call, deadline);

    if (c->exchange) {
        count(c->h, c->r.method, 0);
        c->h->suspect = true;
    }
    call_fail(c, KUBE_TIMED_OUT, "%s within %u ms", c->exchange ? "not answered" : "not sent",
              c->r.timeout_ms);
}

static void on_rested(struct loop_timer *t)
{
    struct kube_call *c = CONTAINER(t, struct kube_call, rest);

    wait_again(c, c->r.urgent);
}

static void on_idle(struct loop_timer *t)
{
    struct kube_call *c = CONTAINER(t, struct kube_call, idle);
    uint64_t due = kube_wire_heard_ms(c->exchange) + c->r.idle_ms;

    if (c->outdated) {
        call_fail(c, KUBE_CUT, "the client certificate has changed");
        return;
    }
    if (c->h->l->now_ms < due) {
        loop_timer_set(c->h->l, &c->idle, due);
        return;
    }
    count(c->h, c->r.method, 0);
    c->h->suspect = true;
    call_fail(c, KUBE_TIMED_OUT, "not a byte for %u ms", c->r.idle_ms);
}

static void send_call(struct kube_call *c, const struct kube_auth *auth)
{
    struct kube_http *h = c->h;
    uint64_t now_ms = h->l->now_ms;
    struct kube_ask ask = {.method = c->r.method,
                           .path = c->r.path,
                           .content_type = c->r.content_type,
                           .body = c->r.body,
                           .body_len = c->r.body_len,
                           .max_bytes = c->r.max_bytes,
                           .auth = auth,
                           .opened = c->r.opened ? on_exchange_opened : NULL,
                           .bytes = c->r.chunk ? on_exchange_bytes : NULL,
                           .done = on_exchange_done,
                           .arg = c};

    ask.timeout_ms = (uint32_t)(c->ends_at_ms > now_ms ? c->ends_at_ms - now_ms : 0) + GRACE_MS;
    move_to(c, &h->under_way);
    if (!c->at_once) {
        c->has_slot = true;
        h->slots++;
    }
    c->epoch = h->epoch;
    c->exchange = kube_wire_start(h->wire, &ask);
    c->outdated = false;
    if (c->r.idle_ms)
        loop_timer_set(h->l, &c->idle, now_ms + c->r.idle_ms);
}

static void end_as_outdated(struct kube_http *h)
{
    struct kube_call *c;

    TAILQ_FOREACH(c, &h->under_way, link)
    {
        if (!c->exchange || !c->r.chunk)
            continue;
        c->outdated = true;
        loop_timer_set(h->l, &c->idle, h->l->now_ms);
    }
}

/* A CA or client certificate changed: what was connected with another one is used for nothing new (A4), and watches do not
 * go on as somebody whom we are no longer (A5). Nor is a connection trusted that was kept while another got no answer. */
static void renew_wire(struct kube_http *h, const struct kube_auth *auth)
{
    size_t len = auth->cert_pem ? auth->cert_len : 0;
    struct kube_wire *wire = NULL;
    struct err err;

    if (h->cert &&
        ((auth->generation == h->generation && !h->suspect) || !(wire = kube_wire_new(h->l, &err))))
        return;
    h->suspect = false;
    if (wire) {
        kube_wire_retire(h->wire);
        h->wire = wire;
        if (len != h->cert_len || (len && memcmp(auth->cert_pem, h->cert, len) != 0))
            end_as_outdated(h);
    }
    free(h->cert);
    h->cert = copy_of(auth->cert_pem, len);
    h->cert_len = len;
    h->generation = auth->generation;
}

static void pump(struct kube_http *h)
{
    struct kube_auth auth;
    struct kube_call *c;

    if (TAILQ_EMPTY(&h->urgent) && TAILQ_EMPTY(&h->waiting))
        return;
    if (!kube_config_auth(h->config, &auth))
        return; /* on_config_ready */
    renew_wire(h, &auth);
    while ((c = TAILQ_FIRST(&h->urgent)))
        send_call(c, &auth);
    while (h->slots < KUBE_HTTP_CALLS && (c = TAILQ_FIRST(&h->waiting))) {
        uint32_t wait = kube_bucket_take(&h->bucket, h->l->now_ms);

        if (wait) {
            loop_timer_set(h->l, &h->pump_later, h->l->now_ms + wait);
            break;
        }
        send_call(c, &auth);
    }
}

static void on_pump(struct loop_task *t)
{
    pump(CONTAINER(t, struct kube_http, pump));
}

static void on_pump_later(struct loop_timer *t)
{
    pump(CONTAINER(t, struct kube_http, pump_later));
}

static void on_config_ready(void *arg)
{
    struct kube_http *h = arg;

    loop_task_add(h->l, &h->pump);
}

struct kube_call *kube_http_start(struct kube_http *h, const struct kube_request *r)
{
    struct kube_call *c = need(calloc(1, sizeof *c));

    *c = (struct kube_call){.dead = {.release = call_release},
                            .h = h,
                            .r = *r,
                            .deadline = {.fire = on_deadline},
                            .rest = {.fire = on_rested},
                            .idle = {.fire = on_idle}};
    c->r.method = copy_of(r->method, strlen(r->method));
    c->r.path = copy_of(r->path, strlen(r->path));
    if (r->body) {
        c->r.content_type = copy_of(r->content_type, strlen(r->content_type));
        c->r.body = copy_of(r->body, r->body_len);
    } else {
        c->r.content_type = NULL;
    }
    if (!r->timeout_ms)
        c->r.timeout_ms = KUBE_HTTP_CALL_MS;
    if (!r->max_bytes)
        c->r.max_bytes = KUBE_HTTP_REPLY_BYTES;
    c->ends_at_ms = h->l->now_ms + c->r.timeout_ms;
    loop_timer_set(h->l, &c->deadline, c->ends_at_ms);
    wait_again(c, r->urgent);
    return c;
}

void kube_http_cancel(struct kube_call *c)
{
    if (!c->gone)
        call_end(c);
}

void kube_http_counts(const struct kube_http *h,
                      void (*each)(void *arg, const char *method, int code, uint64_t n), void *arg)
{
    for (size_t i = 0; i < h->count_count; i++)
        each(arg, h->counts[i].method, h->counts[i].code, h->counts[i].n);
}

struct kube_http *kube_http_new(struct loop *l, struct kube_config *config, double qps, unsigned burst,
                                struct err *err)
{
    struct kube_wire *wire = kube_wire_new(l, err);
    struct kube_http *h;

    if (!wire)
        return NULL;
    h = need(calloc(1, sizeof *h));
    h->l = l;
    h->config = config;
    h->wire = wire;
    h->pump.run = on_pump;
    h->pump_later.fire = on_pump_later;
    kube_bucket_init(&h->bucket, qps, burst, l->now_ms);
    TAILQ_INIT(&h->urgent);
    TAILQ_INIT(&h->waiting);
    TAILQ_INIT(&h->under_way);
    kube_config_on_ready(config, on_config_ready, h);
    return h;
}

static void http_release(struct loop_dead *d)
{
    struct kube_http *h = CONTAINER(d, struct kube_http, dead);

    free(h->cert);
    free(h->counts);
    free(h);
}

static void end_all(struct kube_calls *calls)
{
    while (!TAILQ_EMPTY(calls))
        call_end(TAILQ_FIRST(calls));
}

void kube_http_free(struct kube_http *h)
{
    if (!h)
        return;
    kube_config_on_ready(h->config, NULL, NULL);
    end_all(&h->urgent);
    end_all(&h->waiting);
    end_all(&h->under_way);
    kube_wire_retire(h->wire);
    loop_task_clear(h->l, &h->pump);
    loop_timer_clear(&h->pump_later);
    h->dead.release = http_release;
    loop_free_later(h->l, &h->dead);
}
