#include "kube/kube_event.h"

#include "base/json.h"
#include "base/log.h"
#include "base/need.h"
#include "kube/kube_path.h"
#include "kube/kube_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define CALLS_AT_ONCE 4
#define TRIES         12
#define RETRY_MS      10000 /* +- a quarter */
#define FLUSH_MS      1800000
#define QUIET_MS      360000
#define BURST         25
#define REFILL_MS     300000
#define WORD_BYTES    128 /* reason, action, reportingInstance */
#define NAME_BYTES    253
#define BODY_BYTES    65536
#define BUCKETS       1024 /* of what is remembered */
#define GUARDS        4096

enum state {
    RESTING = 0, /* nothing to send */
    QUEUED,
    FLYING,
    RETRYING,
};

/* One Event of the API server, and how often it has happened. */
struct record {
    LIST_ENTRY(record) bucket;
    TAILQ_ENTRY(record) known; /* by last use */
    TAILQ_ENTRY(record) link;  /* while QUEUED */
    struct kube_events *events;
    uint64_t hash;
    char *api_version, *kind, *ns, *name, *uid, *version;
    char *reason, *action, *note, *event;
    bool warning;
    char since[KUBE_TIME_BYTES], last[KUBE_TIME_BYTES];
    uint64_t count, told; /* told: how often, as the server knows; 0: it has no such Event */
    uint64_t last_ms, flushed_ms;
    enum state state;
    bool ends; /* nothing came for QUIET_MS: this is its last PATCH */
    unsigned tries;
    uint64_t sending; /* the count in the call */
    struct loop_timer timer;
    struct kube_call *call;
};
LIST_HEAD(records, record);
TAILQ_HEAD(record_queue, record);

/* How many Events an object has left. Two objects that meet in a slot push each other out, which costs nothing but a burst. */
struct guard {
    uint64_t hash;
    uint64_t full_at_ms; /* when all of BURST are there again */
};

struct kube_events {
    struct kube_http *http;
    struct loop *loop;
    char *component, *instance;
    struct records buckets[BUCKETS];
    struct record_queue known, queue;
    size_t known_count, waiting;
    unsigned flying;
    uint64_t dropped, last_nanos;
    struct guard guards[GUARDS];
};

static void pump(struct kube_events *e);

static uint64_t hash_add(uint64_t hash, const char *text)
{
    do
        hash = (hash ^ (uint8_t)*text) * UINT64_C(1099511628211);
    while (*text++);
    return hash;
}

static uint64_t hash_object(const struct kube_ref *r)
{
    uint64_t hash = hash_add(UINT64_C(14695981039346656037), r->kind);

    hash = hash_add(hash, r->ns ? r->ns : "");
    return hash_add(hash_add(hash, r->name), r->uid ? r->uid : "");
}

/* The one door to another state. */
static void turn(struct record *r, enum state state)
{
    struct kube_events *e = r->events;

    if (r->state == QUEUED)
        TAILQ_REMOVE(&e->queue, r, link);
    if (r->state == FLYING)
        e->flying--;
    if (r->state != RESTING)
        e->waiting--;
    loop_timer_clear(&r->timer);
    r->state = state;
    if (state != RESTING)
        e->waiting++;
    if (state == FLYING)
        e->flying++;
    if (state == QUEUED)
        TAILQ_INSERT_TAIL(&e->queue, r, link);
}

static void record_free(struct record *r)
{
    struct kube_events *e = r->events;

    if (r->call)
        kube_http_cancel(r->call);
    turn(r, RESTING);
    LIST_REMOVE(r, bucket);
    TAILQ_REMOVE(&e->known, r, known);
    e->known_count--;
    free(r->api_version);
    free(r->kind);
    free(r->ns);
    free(r->name);
    free(r->uid);
    free(r->version);
    free(r->reason);
    free(r->action);
    free(r->note);
    free(r->event);
    free(r);
}

static void put_series(struct json *j, const struct record *r)
{
    json_open(j, "series", '{');
    json_num(j, "count", r->count);
    json_str(j, "lastObservedTime", r->last);
    json_close(j, '}');
}

static void put_regarding(struct json *j, const struct record *r)
{
    json_open(j, "regarding", '{');
    json_str(j, "apiVersion", r->api_version);
    json_str(j, "kind", r->kind);
    if (*r->ns)
        json_str(j, "namespace", r->ns);
    json_str(j, "name", r->name);
    json_str(j, "uid", r->uid);
    json_str(j, "resourceVersion", r->version);
    json_close(j, '}');
}

static const char *home_of(const struct record *r)
{
    return *r->ns ? r->ns : "default";
}

static void put_event(struct json *j, const struct record *r)
{
    json_str(j, "apiVersion", "events.k8s.io/v1");
    json_str(j, "kind", "Event");
    json_open(j, "metadata", '{');
    json_str(j, "name", r->event);
    json_str(j, "namespace", home_of(r));
    json_close(j, '}');
    json_str(j, "eventTime", r->since);
    json_str(j, "reportingController", r->events->component);
    json_str(j, "reportingInstance", r->events->instance);
    json_str(j, "type", r->warning ? "Warning" : "Normal");
    json_str(j, "reason", r->reason);
    json_str(j, "action", r->action);
    json_str(j, "note", r->note);
    put_regarding(j, r);
}

/* Sets what happens to a record that has nothing to send: once it has been quiet it goes, before that its count is sent. */
static void rest(struct record *r)
{
    uint64_t quiet_ms = r->last_ms + QUIET_MS, flush_ms = r->flushed_ms + FLUSH_MS;

    turn(r, RESTING);
    if (r->count > r->told && flush_ms < quiet_ms)
        quiet_ms = flush_ms;
    loop_timer_set(r->events->loop, &r->timer, quiet_ms);
}

static void on_timer(struct loop_timer *t)
{
    struct record *r = (struct record *)(void *)((char *)t - offsetof(struct record, timer));
    struct kube_events *e = r->events;
    uint64_t now_ms = loop_clock_ms();

    if (r->state == RETRYING) {
        turn(r, QUEUED);
    } else if (r->count > r->told &&
               (now_ms >= r->last_ms + QUIET_MS || now_ms >= r->flushed_ms + FLUSH_MS)) {
        r->ends = now_ms >= r->last_ms + QUIET_MS;
        r->tries = 0;
        turn(r, QUEUED);
    } else if (now_ms >= r->last_ms + QUIET_MS) {
        record_free(r);
    } else {
        rest(r);
    }
    pump(e);
}

static void retry(struct record *r)
{
    struct kube_events *e = r->events;
    /* The name's nanoseconds are as good as chance here. */
    uint64_t jitter_ms = (hash_add(r->hash, r->event) + r->tries * UINT64_C(977)) % (RETRY_MS / 2);

    turn(r, RETRYING);
    loop_timer_set(e->loop, &r->timer, loop_clock_ms() + RETRY_MS * 3 / 4 + jitter_ms);
}

static void drop(struct record *r, const struct kube_reply *reply)
{
    struct kube_events *e = r->events;

    e->dropped++;
    if (e->dropped == 1 || e->dropped % 1000 == 0)
        log_msg(LOG_WARN, "event_dropped", "%" PRIu64 " so far, the last one %s of %s/%s: status %d: %s",
                e->dropped, r->reason, home_of(r), r->name, reply->status, reply->why);
    record_free(r);
}

static void taken(struct record *r)
{
    r->told = r->sending;
    r->tries = 0;
    r->flushed_ms = loop_clock_ms();
    if (r->ends && r->count == r->told) {
        record_free(r);
        return;
    }
    r->ends = false;
    /* The second one is told at once, those after it by and by. */
    if (r->told == 1 && r->count > 1)
        turn(r, QUEUED);
    else
        rest(r);
}

static void on_sent(void *arg, const struct kube_reply *reply)
{
    struct record *r = arg;
    struct kube_events *e = r->events;
    int status = reply->end == KUBE_ANSWERED ? reply->status : 0;

    r->call = NULL;
    if (status / 100 == 2 || (status == 409 && !r->told)) { /* 409: an earlier try did arrive */
        taken(r);
    } else if (status == 404 && r->told) { /* the server keeps Events for an hour: from the start */
        r->told = 0;
        turn(r, QUEUED);
    } else if (++r->tries >= TRIES || (status / 100 == 4 && status != 429)) {
        drop(r, reply);
    } else {
        retry(r);
    }
    pump(e);
}

static void send_one(struct record *r)
{
    struct kube_events *e = r->events;
    struct buf body;
    struct json j;
    char *path = kube_path("events.k8s.io", "v1", home_of(r), "events", r->told ? r->event : NULL, NULL);

    buf_init(&body, BODY_BYTES);
    json_init(&j, &body);
    json_open(&j, NULL, '{');
    if (!r->told)
        put_event(&j, r);
    if (r->count > 1)
        put_series(&j, r);
    json_close(&j, '}');
    r->sending = r->count;
    turn(r, FLYING);
    r->call = kube_http_start(
        e->http, &(struct kube_request){
                     .method = r->told ? "PATCH" : "POST",
                     .path = path,
                     .content_type = r->told ? "application/merge-patch+json" : "application/json",
                     .body = body.data,
                     .body_len = body.len,
                     .done = on_sent,
                     .arg = r,
                 });
    buf_free(&body);
    free(path);
}

static void pump(struct kube_events *e)
{
    while (e->flying < CALLS_AT_ONCE && !TAILQ_EMPTY(&e->queue))
        send_one(TAILQ_FIRST(&e->queue));
}

/* May this object have one more call? */
static bool guard_pass(struct kube_events *e, const struct kube_ref *ref)
{
    uint64_t hash = hash_object(ref), now_ms = loop_clock_ms();
    struct guard *g = &e->guards[hash % GUARDS];

    if (g->hash != hash)
        *g = (struct guard){.hash = hash};
    if (g->full_at_ms < now_ms)
        g->full_at_ms = now_ms;
    if (g->full_at_ms - now_ms > (BURST - 1) * (uint64_t)REFILL_MS)
        return false;
    g->full_at_ms += REFILL_MS;
    return true;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* "<object>.<hex nanoseconds>", cut where a DNS-1123 subdomain would be too long. */
static char *event_name(struct kube_events *e, const char *object)
{
    uint64_t nanos = kube_time_nanos();
    char hex[24];
    size_t len = strlen(object), most;

    if (nanos <= e->last_nanos) /* two in one tick of the clock */
        nanos = e->last_nanos + 1;
    e->last_nanos = nanos;
    most = NAME_BYTES - (size_t)snprintf(hex, sizeof hex, ".%" PRIx64, nanos);
    if (len > most)
        len = most;
    while (len && !is_alnum(object[len - 1]))
        len--;
    return need_printf("%.*s%s", (int)len, object, hex);
}

static char *copy(const char *text)
{
    return need(strdup(text ? text : ""));
}

static void record_new(struct kube_events *e, const struct kube_ref *ref, uint64_t hash,
                       const struct record *said)
{
    struct record *r = need(calloc(1, sizeof *r)), *oldest;

    r->events = e;
    r->hash = hash;
    r->timer.fire = on_timer;
    r->api_version = copy(ref->api_version);
    r->kind = copy(ref->kind);
    r->ns = copy(ref->ns);
    r->name = copy(ref->name);
    r->uid = copy(ref->uid);
    r->version = copy(ref->resource_version);
    r->reason = copy(said->reason);
    r->action = copy(said->action);
    r->note = copy(said->note);
    r->event = event_name(e, ref->name);
    r->warning = said->warning;
    kube_time_micro(r->since);
    memcpy(r->last, r->since, sizeof r->last);
    r->count = 1;
    r->last_ms = r->flushed_ms = loop_clock_ms();
    LIST_INSERT_HEAD(&e->buckets[hash % BUCKETS], r, bucket);
    TAILQ_INSERT_TAIL(&e->known, r, known);
    if (++e->known_count > KUBE_EVENT_KNOWN) {
        TAILQ_FOREACH(oldest, &e->known, known)
        if (oldest->state == RESTING && oldest != r)
            break;
        if (oldest)
            record_free(oldest);
    }
    turn(r, QUEUED);
}

/* The same once more. */
static void record_again(struct record *r, const struct kube_ref *ref)
{
    struct kube_events *e = r->events;

    r->count++;
    r->last_ms = loop_clock_ms();
    kube_time_micro(r->last);
    TAILQ_REMOVE(&e->known, r, known);
    TAILQ_INSERT_TAIL(&e->known, r, known);
    if (r->state != RESTING)
        return;
    if (r->count == 2 && e->waiting < KUBE_EVENT_QUEUE && guard_pass(e, ref))
        turn(r, QUEUED);
    else
        rest(r);
}

static struct record *find(struct kube_events *e, const struct kube_ref *ref, uint64_t hash,
                           const struct record *said)
{
    struct record *r;

    LIST_FOREACH(r, &e->buckets[hash % BUCKETS], bucket)
    if (r->hash == hash && r->warning == said->warning && !strcmp(r->kind, ref->kind) &&
        !strcmp(r->ns, ref->ns ? ref->ns : "") && !strcmp(r->name, ref->name) &&
        !strcmp(r->uid, ref->uid ? ref->uid : "") && !strcmp(r->reason, said->reason) &&
        !strcmp(r->action, said->action) && !strcmp(r->note, said->note))
        return r;
    return NULL;
}

void kube_event(struct kube_events *e, const struct kube_ref *regarding, bool warning, const char *reason,
                const char *action, const char *note)
{
    struct record said = {.warning = warning,
                          .reason = kube_text(reason, WORD_BYTES),
                          .action = kube_text(action, WORD_BYTES),
                          .note = kube_text(note, KUBE_EVENT_NOTE)};
    uint64_t hash = hash_add(hash_add(hash_add(hash_object(regarding), said.reason), said.action), said.note);
    struct record *r = find(e, regarding, hash, &said);

    if (r)
        record_again(r, regarding);
    else if (kube_path_name_ok(regarding->name) && (!regarding->ns || kube_path_label_ok(regarding->ns)) &&
             e->waiting < KUBE_EVENT_QUEUE && guard_pass(e, regarding))
        record_new(e, regarding, hash, &said);
    else
        e->dropped++;
    free(said.reason);
    free(said.action);
    free(said.note);
    pump(e);
}

struct kube_events *kube_events_new(struct kube_http *h, struct loop *l, const char *component,
                                    const char *instance)
{
    struct kube_events *e = need(calloc(1, sizeof *e));

    e->http = h;
    e->loop = l;
    e->component = kube_text(component, WORD_BYTES);
    e->instance = kube_text(instance, WORD_BYTES);
    TAILQ_INIT(&e->known);
    TAILQ_INIT(&e->queue);
    return e;
}

void kube_events_free(struct kube_events *e)
{
    struct record *r, *next;

    if (!e)
        return;
    for (r = TAILQ_FIRST(&e->known); r; r = next) {
        next = TAILQ_NEXT(r, known);
        record_free(r);
    }
    free(e->component);
    free(e->instance);
    free(e);
}

uint64_t kube_events_dropped(const struct kube_events *e)
{
    return e->dropped;
}
