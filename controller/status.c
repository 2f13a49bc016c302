#include "status.h"

#include "base/buf.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/need.h"
#include "kube/kube_path.h"
#include "kube/kube_text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define WRITES_AT_ONCE 8
#define BUCKETS        256
#define BODY_BYTES     (256u << 10)
#define RETRY_FIRST_MS 5
#define RETRY_CAP_MS   1000000
#define SILENT_CAP_MS  30000                  /* without an answer: that says nothing about the object */
#define NO_TIME        "1970-01-01T00:00:00Z" /* the schema's default: before any controller */

enum state {
    WRITTEN = 0, /* until the object says so itself */
    QUEUED,
    FLYING,
    RESTING, /* between two tries */
    REFUSED, /* the server will not have it: left until it changes */
};

/* What is to be said of one object and does not stand in it yet, as far as is known. */
struct item {
    LIST_ENTRY(item) bucket;
    TAILQ_ENTRY(item) link; /* while QUEUED */
    struct status_writer *writer;
    char *ns, *name, *uid, *version; /* version: of the object that was looked at last */
    int64_t generation;
    struct status_wanted wanted;
    char *since[WSS_CONDITIONS]; /* NULL: from now on */
    enum state state;
    bool again; /* what is wanted changed while FLYING */
    unsigned failures;
    struct loop_timer timer; /* while RESTING */
    struct kube_call *call;
};
LIST_HEAD(items, item);
TAILQ_HEAD(queue, item);

struct status_writer {
    struct kube_http *http;
    struct loop *loop;
    bool (*leads)(void *arg);
    void *arg;
    struct items buckets[BUCKETS];
    struct queue queue;
    unsigned flying;
    struct status_counts counts;
};

static struct items *bucket_of(struct status_writer *s, const char *ns, const char *name)
{
    uint32_t hash = 2166136261;

    for (const char *p = ns; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619;
    for (const char *p = name; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619;
    return &s->buckets[(hash ^ hash >> 16) % BUCKETS];
}

static struct item *find(struct status_writer *s, const char *ns, const char *name)
{
    struct item *i;

    LIST_FOREACH(i, bucket_of(s, ns, name), bucket)
    if (!strcmp(i->ns, ns) && !strcmp(i->name, name))
        return i;
    return NULL;
}

static bool is_waiting(enum state state)
{
    return state == QUEUED || state == FLYING || state == RESTING;
}

/* The one door to another state. */
static void turn(struct item *i, enum state state)
{
    struct status_writer *s = i->writer;

    if (i->state == QUEUED)
        TAILQ_REMOVE(&s->queue, i, link);
    s->flying -= i->state == FLYING;
    s->counts.waiting -= is_waiting(i->state);
    loop_timer_clear(&i->timer);
    i->state = state;
    s->counts.waiting += is_waiting(state);
    s->flying += state == FLYING;
    if (state == QUEUED)
        TAILQ_INSERT_TAIL(&s->queue, i, link);
}

static void item_free(struct item *i)
{
    if (i->call)
        kube_http_cancel(i->call);
    turn(i, WRITTEN);
    LIST_REMOVE(i, bucket);
    status_wanted_free(&i->wanted);
    for (int c = 0; c < WSS_CONDITIONS; c++)
        free(i->since[c]);
    free(i->ns);
    free(i->name);
    free(i->uid);
    free(i->version);
    free(i);
}

static void put_conditions(struct json *j, const struct item *i)
{
    char now[KUBE_TIME_BYTES];

    kube_time(now);
    json_open(j, "conditions", '[');
    for (int c = 0; c < WSS_CONDITIONS; c++) {
        const struct render_condition *say = &i->wanted.conditions[c];

        json_open(j, NULL, '{');
        json_str(j, "type", wss_condition_label((enum wss_condition_type)c));
        json_str(j, "status", wss_status_label(say->status));
        json_str(j, "reason", say->reason);
        json_str(j, "message", say->message ? say->message : "");
        json_num(j, "observedGeneration", (uint64_t)i->generation);
        json_str(j, "lastTransitionTime", i->since[c] ? i->since[c] : now);
        json_close(j, '}');
    }
    json_close(j, ']');
}

/* All fields that we own, each time: what an apply leaves out is taken from the object. */
static void put_body(struct buf *out, const struct item *i)
{
    struct json j;

    json_init(&j, out);
    json_open(&j, NULL, '{');
    json_str(&j, "apiVersion", WSS_GROUP "/" WSS_VERSION);
    json_str(&j, "kind", WSS_KIND);
    json_open(&j, "metadata", '{');
    json_str(&j, "name", i->name);
    json_str(&j, "namespace", i->ns);
    json_close(&j, '}');
    json_open(&j, "status", '{');
    json_num(&j, "observedGeneration", (uint64_t)i->generation);
    put_conditions(&j, i);
    json_close(&j, '}');
    json_close(&j, '}');
}

static void pump(struct status_writer *s);

static void on_rested(struct loop_timer *t)
{
    struct item *i = (struct item *)(void *)((char *)t - offsetof(struct item, timer));

    turn(i, QUEUED);
    pump(i->writer);
}

static void rest(struct item *i, const struct kube_reply *r)
{
    uint64_t cap_ms = r->end == KUBE_ANSWERED ? RETRY_CAP_MS : SILENT_CAP_MS, wait_ms = cap_ms;

    if (i->failures < 18)
        wait_ms = (uint64_t)RETRY_FIRST_MS << i->failures;
    if (wait_ms > cap_ms)
        wait_ms = cap_ms;
    if (wait_ms < (uint64_t)r->retry_after_s * 1000)
        wait_ms = (uint64_t)r->retry_after_s * 1000;
    if (!i->failures)
        log_msg(LOG_WARN, "status_write", "%s/%s: status %d: %s", i->ns, i->name, r->status, r->why);
    i->failures++;
    turn(i, RESTING);
    loop_timer_set(i->writer->loop, &i->timer, loop_clock_ms() + wait_ms);
}

static void on_written(void *arg, const struct kube_reply *r)
{
    struct item *i = arg;
    struct status_writer *s = i->writer;
    bool done = r->end == KUBE_ANSWERED && ((r->status >= 200 && r->status < 300) || r->status == 404);
    bool refused = r->end == KUBE_ANSWERED && (r->status == 400 || r->status == 422);

    i->call = NULL;
    s->counts.writes += done;
    s->counts.failures += !done;
    if (refused)
        log_msg(LOG_ERROR, "status_write", "%s/%s: refused, left until it changes: %s", i->ns, i->name,
                r->why);
    if (done || refused)
        i->failures = 0;
    if (!done && !refused)
        rest(i, r);
    else if (i->again)
        turn(i, QUEUED);
    else
        turn(i, refused ? REFUSED : WRITTEN);
    i->again = false;
    pump(s);
}

static void write_one(struct item *i)
{
    struct buf body;
    char *path = kube_path(WSS_GROUP, WSS_VERSION, i->ns, WSS_PLURAL, i->name, "status");

    buf_init(&body, BODY_BYTES);
    put_body(&body, i);
    kube_path_query(&path, "fieldManager", STATUS_MANAGER);
    kube_path_query(&path, "force", "true");
    turn(i, FLYING);
    i->call = kube_http_start(i->writer->http, &(struct kube_request){
                                                   .method = "PATCH",
                                                   .path = path,
                                                   .content_type = "application/apply-patch+yaml",
                                                   .body = body.data,
                                                   .body_len = body.len,
                                                   .done = on_written,
                                                   .arg = i,
                                               });
    buf_free(&body);
    free(path);
}

static void pump(struct status_writer *s)
{
    while (s->flying < WRITES_AT_ONCE && !TAILQ_EMPTY(&s->queue) && s->leads(s->arg))
        write_one(TAILQ_FIRST(&s->queue));
}

struct status_writer *status_new(struct kube_http *h, struct loop *l, bool (*leads)(void *arg), void *arg)
{
    struct status_writer *s = need(calloc(1, sizeof *s));

    s->http = h;
    s->loop = l;
    s->leads = leads;
    s->arg = arg;
    for (int b = 0; b < BUCKETS; b++)
        LIST_INIT(&s->buckets[b]);
    TAILQ_INIT(&s->queue);
    return s;
}

void status_free(struct status_writer *s)
{
    struct item *i;

    if (!s)
        return;
    for (int b = 0; b < BUCKETS; b++)
        while ((i = LIST_FIRST(&s->buckets[b])))
            item_free(i);
    free(s);
}

/* P5: the time stands as long as the status does. */
static void take_since(struct item *i, const struct wss *w)
{
    for (int c = 0; c < WSS_CONDITIONS; c++) {
        const struct wss_condition *has = &w->conditions[c];
        bool stands = has->present && has->since && has->status == i->wanted.conditions[c].status &&
                      strcmp(has->since, NO_TIME) != 0;

        free(i->since[c]);
        i->since[c] = stands ? need(strdup(has->since)) : NULL;
    }
}

static bool same_wanted(const struct item *i, const struct wss *w, const struct status_wanted *wanted)
{
    if (i->generation != w->generation)
        return false;
    for (int c = 0; c < WSS_CONDITIONS; c++) {
        const struct render_condition *a = &i->wanted.conditions[c], *b = &wanted->conditions[c];

        if (a->status != b->status || strcmp(a->reason, b->reason) != 0 ||
            strcmp(a->message ? a->message : "", b->message ? b->message : "") != 0)
            return false;
    }
    return true;
}

static const char *text(const char *t)
{
    return t ? t : "";
}

static void set_text(char **to, const char *from)
{
    free(*to);
    *to = need(strdup(text(from)));
}

static struct item *item_new(struct status_writer *s, const struct wss *w)
{
    struct item *i = need(calloc(1, sizeof *i));

    i->writer = s;
    i->timer.fire = on_rested;
    i->ns = need(strdup(w->ns));
    i->name = need(strdup(w->name));
    set_text(&i->uid, w->uid);
    LIST_INSERT_HEAD(bucket_of(s, w->ns, w->name), i, bucket);
    return i;
}

/* Nothing new to say: it is written and the object that shows it has not come yet, or it is on its way, or the
 * server has refused it. */
static bool is_said(struct item *i, const struct wss *w, const struct status_wanted *wanted)
{
    if (!same_wanted(i, w, wanted))
        return false;
    return i->state != WRITTEN || !strcmp(i->version, text(w->resource_version));
}

void status_want(struct status_writer *s, const struct wss *w, const struct status_wanted *wanted)
{
    struct item *i = find(s, w->ns, w->name);

    if (i && strcmp(i->uid, text(w->uid)) != 0) {
        item_free(i); /* another object of that name */
        i = NULL;
    }
    if (status_equal(w, wanted) && (!i || i->state != FLYING)) {
        if (i)
            item_free(i);
        return;
    }
    if (i && is_said(i, w, wanted)) {
        if (i->state == QUEUED || i->state == RESTING)
            take_since(i, w);
        return;
    }
    if (!kube_path_name_ok(w->name) || !kube_path_label_ok(w->ns))
        return;
    if (!i)
        i = item_new(s, w);
    status_wanted_free(&i->wanted);
    for (int c = 0; c < WSS_CONDITIONS; c++) {
        i->wanted.conditions[c] = wanted->conditions[c];
        i->wanted.conditions[c].message = kube_text(wanted->conditions[c].message, STATUS_MESSAGE_BYTES);
    }
    i->generation = w->generation;
    set_text(&i->version, w->resource_version);
    take_since(i, w);
    if (i->state == FLYING)
        i->again = true;
    else if (i->state != QUEUED)
        turn(i, QUEUED);
    pump(s);
}

void status_forget(struct status_writer *s, const char *ns, const char *name)
{
    struct item *i = find(s, ns, name);

    if (i)
        item_free(i);
    pump(s);
}

void status_flush(struct status_writer *s)
{
    struct item *i;

    for (int b = 0; b < BUCKETS; b++)
        LIST_FOREACH(i, &s->buckets[b], bucket)
    if (i->state == RESTING)
        turn(i, QUEUED);
    pump(s);
}

struct status_counts status_counts(const struct status_writer *s)
{
    struct status_counts counts = s->counts;

    counts.flying = s->flying;
    return counts;
}
