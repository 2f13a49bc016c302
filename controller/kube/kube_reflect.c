#include "kube/kube_reflect.h"

#include "kube/kube_path.h"
#include "kube/kube_reflect_in.h"

#include "base/log.h"
#include "base/need.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define WATCH_LEAST_S 300u
#define WATCH_MOST_S  600u
#define WATCH_GRACE_S 30u   /* the server is given so long to end the watch itself */
#define SHORT_MS      1000u /* a watch that ends sooner, without an event, is none */

static uint32_t random_bits(void)
{
    uint32_t bits = 0;

    while (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        ;
    return bits;
}

static void set_text(char **text, const char *value)
{
    char *copy = value ? need(strdup(value)) : NULL;

    free(*text);
    *text = copy;
}

void kube_reflect_say(struct kube_reflect *r, const char *doing, const char *why)
{
    kube_reflect_note(r, LOG_WARN, doing, why);
}

void kube_reflect_note(struct kube_reflect *r, enum log_level level, const char *doing, const char *why)
{
    char trouble[sizeof r->trouble] = "";

    if (*why)
        snprintf(trouble, sizeof trouble, "%s %s: %s", doing, r->plural, why);
    if (!strcmp(trouble, r->trouble))
        return;
    memcpy(r->trouble, trouble, sizeof trouble);
    if (*why)
        log_msg(level, "kube", "%s", trouble);
}

void kube_reflect_be(struct kube_reflect *r, enum kube_reflect_state state)
{
    if (r->state == KUBE_REFLECT_SYNCED || r->state == state)
        return;
    r->state = state;
    r->sink.state(r->sink.arg, state, r->trouble);
}

static void wait_and_go(struct kube_reflect *r, enum kube_step step, uint32_t wait_ms)
{
    r->step = step;
    loop_timer_set(r->loop, &r->again, r->loop->now_ms + wait_ms);
}

void kube_reflect_later(struct kube_reflect *r, enum kube_step step, uint32_t retry_after_s)
{
    wait_and_go(r, step, kube_backoff_next(&r->backoff, r->loop->now_ms, retry_after_s, random_bits()));
}

void kube_reflect_much_later(struct kube_reflect *r, enum kube_step step, uint32_t retry_after_s)
{
    struct kube_backoff longest = {.next_ms = KUBE_BACKOFF_CAP_MS, .last_at_ms = r->loop->now_ms};

    wait_and_go(r, step, kube_backoff_next(&longest, r->loop->now_ms, retry_after_s, random_bits()));
}

void kube_reflect_get(struct kube_reflect *r, char *path,
                      void (*done)(void *arg, const struct kube_reply *reply))
{
    struct kube_request request = {
        .method = "GET", .path = path, .max_bytes = KUBE_REFLECT_PAGE_BYTES, .done = done, .arg = r};

    r->call = kube_http_start(r->http, &request);
    free(path);
}

static char *path_of(const struct kube_reflect *r)
{
    return kube_path(r->group, r->version, r->ns, r->plural, NULL, NULL);
}

static void add_selector(const struct kube_reflect *r, char **path)
{
    if (r->field_selector)
        kube_path_query(path, "fieldSelector", r->field_selector);
}

static void query_number(char **path, const char *key, unsigned value)
{
    char text[16];

    snprintf(text, sizeof text, "%u", value);
    kube_path_query(path, key, text);
}

/* What the server says of a failure, where it says it. */
static enum kube_doc_verdict verdict_of(const struct kube_reply *reply, uint32_t *retry_after_s)
{
    json_auto_t *status = NULL;
    enum kube_doc_verdict verdict;
    struct err err;

    *retry_after_s = reply->retry_after_s;
    if (reply->end != KUBE_ANSWERED)
        return KUBE_DOC_FAILED;
    status = reply->body_len ? kube_doc_read(reply->body, reply->body_len, "Status", &err) : NULL;
    verdict = kube_doc_status(status, reply->status, retry_after_s);
    if (*retry_after_s < reply->retry_after_s)
        *retry_after_s = reply->retry_after_s;
    return verdict;
}

/* LIST */

static void forget_pages(struct kube_reflect *r)
{
    set_text(&r->token, NULL);
    set_text(&r->listed, NULL);
}

static void list_later(struct kube_reflect *r, const char *why, uint32_t retry_after_s)
{
    kube_reflect_say(r, "list", why);
    forget_pages(r);
    kube_reflect_later(r, KUBE_STEP_LIST, retry_after_s);
}

static void list_again(struct kube_reflect *r)
{
    forget_pages(r);
    kube_reflect_go(r, KUBE_STEP_LIST);
}

/* Not older than what was seen last; the server gives such a list whole, from memory. */
static bool at_version(const struct kube_reflect *r)
{
    return r->resume && !r->unset;
}

static void take_items(struct kube_reflect *r, const json_t *items)
{
    json_t *item;
    size_t i;

    json_array_foreach(items, i, item)
    {
        if (kube_doc_name(item))
            r->sink.put(r->sink.arg, item);
        else
            r->counts.unknown++;
    }
}

static void list_complete(struct kube_reflect *r)
{
    r->sink.end(r->sink.arg);
    r->holds = true;
    set_text(&r->resume, r->listed);
    forget_pages(r);
    r->limit = KUBE_REFLECT_PAGE;
    r->whole = r->unset = r->whole_too_large = false;
    kube_reflect_say(r, "list", "");
    kube_reflect_be(r, KUBE_REFLECT_SYNCED);
    kube_reflect_go(r, KUBE_STEP_WATCH);
}

static void take_page(struct kube_reflect *r, const struct kube_reply *reply)
{
    json_auto_t *doc = NULL;
    struct kube_page page;
    struct err err;

    doc = kube_doc_read(reply->body, reply->body_len, "List", &err);
    if (!doc || kube_doc_page(doc, &page, &err)) {
        list_later(r, err.msg, 0);
        return;
    }
    r->counts.last_ms = r->loop->now_ms;
    if (!r->token) {
        r->sink.begin(r->sink.arg);
        set_text(&r->listed, page.version);
    }
    take_items(r, page.items);
    set_text(&r->token, page.more);
    if (r->token)
        kube_reflect_go(r, KUBE_STEP_LIST);
    else
        list_complete(r);
}

static void page_too_large(struct kube_reflect *r)
{
    if (!r->token && (r->whole || at_version(r))) {
        r->whole = false;
        r->whole_too_large = r->unset = true;
    } else if (r->limit == 1) {
        list_later(r, "an object is too large", 0);
        return;
    }
    r->limit = r->limit > 10 ? r->limit / 10 : 1;
    kube_reflect_go(r, KUBE_STEP_LIST);
}

/* True: asked again at once, in another way. */
static bool list_expired(struct kube_reflect *r, enum kube_doc_verdict verdict)
{
    bool pages = r->token;

    if (verdict == KUBE_DOC_EXPIRED && pages && !r->whole && !r->whole_too_large)
        r->whole = true;
    else if (verdict != KUBE_DOC_FAILED && verdict != KUBE_DOC_BUSY && !pages && at_version(r))
        r->unset = true;
    else
        return false;
    list_again(r);
    return true;
}

static void list_failed(struct kube_reflect *r, const struct kube_reply *reply)
{
    uint32_t retry_after_s;
    enum kube_doc_verdict verdict = verdict_of(reply, &retry_after_s);

    if (list_expired(r, verdict))
        return;
    if (reply->status == 400 || reply->end == KUBE_TIMED_OUT)
        r->unset = true;
    if (reply->end == KUBE_ANSWERED && (reply->status == 401 || reply->status == 403)) {
        kube_reflect_say(r, "list", reply->why);
        kube_reflect_be(r, KUBE_REFLECT_FORBIDDEN);
        forget_pages(r);
        if (reply->status == 403 && !r->holds)
            kube_reflect_much_later(r, KUBE_STEP_LIST, retry_after_s);
        else
            kube_reflect_later(r, KUBE_STEP_LIST, retry_after_s);
    } else if (reply->end == KUBE_ANSWERED && reply->status == 404) {
        forget_pages(r);
        kube_find_again(r);
    } else {
        r->whole = false;
        list_later(r, reply->why, retry_after_s);
    }
}

static void on_page(void *arg, const struct kube_reply *reply)
{
    struct kube_reflect *r = arg;

    r->call = NULL;
    if (reply->end == KUBE_TOO_LARGE)
        page_too_large(r);
    else if (reply->end == KUBE_ANSWERED && reply->status == 200)
        take_page(r, reply);
    else
        list_failed(r, reply);
}

static void ask_page(struct kube_reflect *r)
{
    char *path = path_of(r);

    if (!r->token) {
        r->counts.lists++;
        r->counts.relists += r->state == KUBE_REFLECT_SYNCED;
    }
    if (r->token) {
        /* Nothing else belongs beside a token: a version is an error there. */
        query_number(&path, "limit", r->limit);
        kube_path_query(&path, "continue", r->token);
    } else if (at_version(r)) {
        kube_path_query(&path, "resourceVersion", r->resume);
    } else if (!r->whole) {
        query_number(&path, "limit", r->limit);
    }
    add_selector(r, &path);
    kube_reflect_get(r, path, on_page);
}

/* WATCH */

static void count_end(struct kube_reflect *r, enum kube_reflect_cause cause)
{
    r->counts.restarts[cause]++;
}

static void watch_later(struct kube_reflect *r, enum kube_step step, const char *why, uint32_t retry_after_s)
{
    count_end(r, KUBE_CAUSE_ERROR);
    kube_reflect_say(r, "watch", why);
    kube_reflect_later(r, step, retry_after_s);
}

/* The first time a new list answers it; a server that goes on so is given time. */
static void watch_expired(struct kube_reflect *r, const char *why)
{
    count_end(r, KUBE_CAUSE_EXPIRED);
    if (r->expired_in_row++ == 0) {
        log_msg(LOG_INFO, "kube", "watch %s: %s; listing again", r->plural, why);
        kube_reflect_go(r, KUBE_STEP_LIST);
        return;
    }
    kube_reflect_say(r, "watch", why);
    kube_reflect_later(r, KUBE_STEP_LIST, 0);
}

static void stop_watch(struct kube_reflect *r, const json_t *status)
{
    static const enum kube_stop stops[] = {[KUBE_DOC_FAILED] = KUBE_STOP_ERROR,
                                           [KUBE_DOC_EXPIRED] = KUBE_STOP_EXPIRED,
                                           [KUBE_DOC_TOO_NEW] = KUBE_STOP_EXPIRED,
                                           [KUBE_DOC_BUSY] = KUBE_STOP_BUSY};

    r->stop = stops[kube_doc_status(status, 0, &r->stop_retry_s)];
    snprintf(r->stop_why, sizeof r->stop_why, "the server ended it: %s", kube_doc_message(status));
}

static void take_event(struct kube_reflect *r, enum kube_event_type type, json_t *object)
{
    if (type == KUBE_BOOKMARK)
        return;
    if (type == KUBE_UNKNOWN || !kube_doc_name(object)) {
        r->counts.unknown++;
        log_msg(LOG_WARN, "kube", "watch %s: an event of an unknown type or without a name is skipped",
                r->plural);
    } else if (type == KUBE_DELETED) {
        r->sink.drop(r->sink.arg, object);
    } else {
        r->sink.put(r->sink.arg, object);
    }
}

static bool on_event(void *arg, enum kube_event_type type, json_t *object)
{
    struct kube_reflect *r = arg;

    r->counts.last_ms = r->loop->now_ms;
    if (type == KUBE_ERROR) {
        stop_watch(r, object);
        return false;
    }
    r->heard = r->proved = true;
    r->expired_in_row = 0;
    kube_reflect_say(r, "watch", "");
    take_event(r, type, object);
    if (kube_doc_version(object))
        set_text(&r->resume, kube_doc_version(object));
    return true;
}

static bool on_chunk(void *arg, const uint8_t *bytes, size_t len)
{
    struct kube_reflect *r = arg;
    struct err err;

    if (kube_watch_feed(&r->watch, bytes, len, on_event, r, &err)) {
        r->stop = KUBE_STOP_ERROR;
        snprintf(r->stop_why, sizeof r->stop_why, "%.200s", err.msg);
    }
    return r->stop == KUBE_STOP_NONE;
}

/* Nothing may happen for long after it; what could not be opened can be. */
static void on_opened(void *arg)
{
    struct kube_reflect *r = arg;

    r->open = true;
    kube_reflect_say(r, "watch", "");
}

static void watch_refused(struct kube_reflect *r, const struct kube_reply *reply)
{
    uint32_t retry_after_s;
    enum kube_doc_verdict verdict = verdict_of(reply, &retry_after_s);

    if (verdict == KUBE_DOC_EXPIRED || verdict == KUBE_DOC_TOO_NEW) {
        watch_expired(r, reply->why);
    } else if (reply->status == 404) {
        count_end(r, KUBE_CAUSE_ERROR);
        kube_find_again(r);
    } else if (reply->status == 401 || reply->status == 403 || reply->status == 429 || reply->status >= 500) {
        /* No list for it: a server that is short of breath has no use for one. One that has just started says 403 until it
         * has read its roles. */
        watch_later(r, KUBE_STEP_WATCH, reply->why, retry_after_s);
    } else {
        r->unset = true;
        watch_later(r, KUBE_STEP_LIST, reply->why, retry_after_s);
    }
}

/* It was cut: the next one goes on where it stood. Trouble is only what could not be opened. */
static void watch_cut(struct kube_reflect *r, const struct kube_reply *reply)
{
    count_end(r, KUBE_CAUSE_CUT);
    if (!r->open && reply->status != 200)
        kube_reflect_say(r, "watch", *reply->why ? reply->why : "no answer");
    kube_reflect_later(r, KUBE_STEP_WATCH, 0);
}

static void watch_stopped(struct kube_reflect *r)
{
    if (r->stop == KUBE_STOP_EXPIRED)
        watch_expired(r, r->stop_why);
    else
        watch_later(r, r->stop == KUBE_STOP_BUSY ? KUBE_STEP_WATCH : KUBE_STEP_LIST, r->stop_why,
                    r->stop_retry_s);
}

static void watch_ended(struct kube_reflect *r, uint64_t lasted_ms)
{
    if (lasted_ms < SHORT_MS && !r->heard) {
        watch_later(r, KUBE_STEP_LIST, "it ended at once, without an event", 0);
        return;
    }
    count_end(r, KUBE_CAUSE_CLEAN);
    r->proved = true;
    r->expired_in_row = 0;
    kube_reflect_say(r, "watch", "");
    kube_reflect_go(r, KUBE_STEP_WATCH);
}

static void on_watch_done(void *arg, const struct kube_reply *reply)
{
    struct kube_reflect *r = arg;
    uint64_t lasted_ms = r->loop->now_ms - r->opened_ms;
    bool half_a_line = r->watch.line.len;

    r->call = NULL;
    kube_watch_done(&r->watch);
    if (r->open && r->stop == KUBE_STOP_NONE && lasted_ms >= SHORT_MS)
        r->expired_in_row = 0; /* its version was good */
    if (r->stop != KUBE_STOP_NONE) {
        watch_stopped(r);
    } else if (reply->end == KUBE_TIMED_OUT && lasted_ms >= KUBE_REFLECT_IDLE_MS) {
        count_end(r, KUBE_CAUSE_STALLED);
        kube_reflect_go(r, KUBE_STEP_WATCH);
    } else if (reply->end != KUBE_ANSWERED || (reply->status == 200 && half_a_line)) {
        watch_cut(r, reply);
    } else if (reply->status == 200) {
        watch_ended(r, lasted_ms);
    } else {
        watch_refused(r, reply);
    }
}

static void ask_watch(struct kube_reflect *r)
{
    unsigned seconds = WATCH_LEAST_S + random_bits() % (WATCH_MOST_S - WATCH_LEAST_S + 1);
    char *path = path_of(r);
    struct kube_request request = {.method = "GET",
                                   .timeout_ms = (seconds + WATCH_GRACE_S) * 1000,
                                   .idle_ms = KUBE_REFLECT_IDLE_MS,
                                   .urgent = true,
                                   .opened = on_opened,
                                   .chunk = on_chunk,
                                   .done = on_watch_done,
                                   .arg = r};

    kube_path_query(&path, "watch", "1");
    kube_path_query(&path, "resourceVersion", r->resume);
    kube_path_query(&path, "allowWatchBookmarks", "true");
    query_number(&path, "timeoutSeconds", seconds);
    add_selector(r, &path);
    kube_watch_init(&r->watch);
    r->counts.watches++;
    r->opened_ms = r->loop->now_ms;
    r->open = r->heard = false;
    r->stop = KUBE_STOP_NONE;
    request.path = path;
    r->call = kube_http_start(r->http, &request);
    free(path);
}

/* Life */

void kube_reflect_go(struct kube_reflect *r, enum kube_step step)
{
    r->step = step;
    if (step == KUBE_STEP_LIST)
        ask_page(r);
    else if (step == KUBE_STEP_WATCH)
        ask_watch(r);
    else
        kube_find_ask(r);
}

static void on_start(struct loop_task *t)
{
    struct kube_reflect *r = (struct kube_reflect *)((char *)t - offsetof(struct kube_reflect, start));

    kube_reflect_go(r, r->step);
}

static void on_again(struct loop_timer *t)
{
    struct kube_reflect *r = (struct kube_reflect *)((char *)t - offsetof(struct kube_reflect, again));

    kube_reflect_go(r, r->step);
}

struct kube_reflect *kube_reflect_new(struct kube_http *h, struct loop *l, const struct kube_kind *kind,
                                      const char *ns, const struct kube_sink *sink)
{
    struct kube_reflect *r = need(calloc(1, sizeof *r));
    /* The core has one version. */
    const char *version = kind->version || *kind->group ? kind->version : "v1";

    r->http = h;
    r->loop = l;
    r->sink = *sink;
    set_text(&r->group, kind->group);
    set_text(&r->fixed_version, version);
    set_text(&r->version, version);
    set_text(&r->plural, kind->plural);
    set_text(&r->field_selector, kind->field_selector);
    set_text(&r->ns, ns);
    r->limit = KUBE_REFLECT_PAGE;
    r->step = version ? KUBE_STEP_LIST : KUBE_STEP_GROUP;
    r->start.run = on_start;
    r->again.fire = on_again;
    loop_task_add(l, &r->start);
    return r;
}

void kube_reflect_free(struct kube_reflect *r)
{
    if (!r)
        return;
    if (r->call)
        kube_http_cancel(r->call);
    loop_timer_clear(&r->again);
    loop_task_clear(r->loop, &r->start);
    kube_watch_done(&r->watch);
    kube_find_forget(r);
    forget_pages(r);
    free(r->resume);
    free(r->group);
    free(r->fixed_version);
    free(r->version);
    free(r->plural);
    free(r->field_selector);
    free(r->ns);
    free(r);
}

enum kube_reflect_state kube_reflect_state(const struct kube_reflect *r)
{
    return r->state;
}

const char *kube_reflect_trouble(const struct kube_reflect *r)
{
    return r->trouble;
}

bool kube_reflect_is_well(const struct kube_reflect *r)
{
    if (r->state == KUBE_REFLECT_ABSENT)
        return !r->fixed_version;
    return r->state == KUBE_REFLECT_SYNCED && !*r->trouble;
}

const struct kube_reflect_counts *kube_reflect_counts(const struct kube_reflect *r)
{
    return &r->counts;
}

const char *kube_reflect_cause_label(enum kube_reflect_cause cause)
{
    static const char *const labels[] = {"clean", "cut", "stalled", "expired", "error"};

    return labels[cause];
}
