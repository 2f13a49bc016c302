#include "kube/kube_lease.h"

#include "base/log.h"
#include "base/need.h"
#include "kube/kube_path.h"
#include "kube/kube_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define GROUP       "coordination.k8s.io"
#define CALL_MS     (KUBE_LEASE_RENEW_MS / 2)
#define RELEASE_TRY 1000 /* ms, of a call while the process ends */
#define SOON_MS     100

struct kube_lease {
    struct kube_http *http;
    struct loop *loop;
    char *ns, *name, *identity;
    void (*changed)(void *arg, bool leads);
    void *arg;
    struct lease_seen seen;
    bool held; /* the record was ours when it was seen last */
    bool told; /* what `changed` was told */
    bool troubled;
    uint64_t renewed_ms;  /* when the write that was taken last was begun */
    uint64_t asked_ms;    /* when the write under way was */
    uint64_t round_at_ms; /* when this round began */
    json_t *lease;        /* as read in this round; NULL: there is none */
    struct kube_call *call;
    bool writing;
    struct loop_timer next;    /* round */
    struct loop_timer expires; /* what was renewed last */
    struct loop_timer release_end;
    struct loop_task release_now;
    bool releasing;
    void (*released)(void *arg);
    void *released_arg;
};

#define OWNER(member, field)                                                                                 \
    ((struct kube_lease *)(void *)((char *)(member)-offsetof(struct kube_lease, field)))

/* Pure */

enum lease_act lease_decide(struct lease_seen *seen, json_t *lease, const char *identity, uint64_t now_ms)
{
    json_t *spec = json_object_get(lease, "spec");
    const char *holder = json_string_value(json_object_get(spec, "holderIdentity"));
    json_t *seconds = json_object_get(spec, "leaseDurationSeconds");
    uint64_t duration_ms = KUBE_LEASE_DURATION_MS;

    if (!lease)
        return LEASE_CREATE;
    if (!seen->spec || !spec || !json_equal(seen->spec, spec)) {
        json_decref(seen->spec);
        seen->spec = spec ? need(json_deep_copy(spec)) : NULL;
        seen->changed_ms = now_ms;
    }
    if (!holder || !*holder)
        return LEASE_TAKE;
    if (!strcmp(holder, identity))
        return LEASE_RENEW;
    if (json_is_integer(seconds) && json_integer_value(seconds) > 0 &&
        json_integer_value(seconds) <= INT32_MAX)
        duration_ms = (uint64_t)json_integer_value(seconds) * 1000;
    return now_ms - seen->changed_ms >= duration_ms ? LEASE_TAKE : LEASE_WAIT;
}

/* Whether we lead */

bool kube_lease_leads(const struct kube_lease *l)
{
    return l->held && !l->releasing && loop_clock_ms() - l->renewed_ms < KUBE_LEASE_RENEW_MS;
}

bool kube_lease_stuck(const struct kube_lease *l)
{
    return l->told && loop_clock_ms() - l->renewed_ms > KUBE_LEASE_DURATION_MS + KUBE_LEASE_STUCK_MS;
}

/* Called whenever kube_lease_leads may say something else than before. */
static void tell(struct kube_lease *l)
{
    bool leads = kube_lease_leads(l);

    if (leads)
        loop_timer_set(l->loop, &l->expires, l->renewed_ms + KUBE_LEASE_RENEW_MS);
    if (leads == l->told)
        return;
    l->told = leads;
    l->changed(l->arg, leads);
}

static void on_expired(struct loop_timer *t)
{
    tell(OWNER(t, expires));
}

static void lose(struct kube_lease *l)
{
    l->held = false;
    tell(l);
}

/* Rounds: read, decide, write */

static void begin_round(struct kube_lease *l);

static void sleep_until_next(struct kube_lease *l)
{
    uint64_t wait_ms = KUBE_LEASE_RETRY_MS;
    uint32_t random = 0;

    /* Those who wait for the lead do so out of step. */
    if (!l->held && getrandom(&random, sizeof random, GRND_NONBLOCK) == sizeof random)
        wait_ms += random % (KUBE_LEASE_RETRY_MS * 12 / 10);
    loop_timer_set(l->loop, &l->next, loop_clock_ms() + wait_ms);
}

static void trouble(struct kube_lease *l, const char *what, const struct kube_reply *r)
{
    if (!l->troubled)
        log_msg(LOG_WARN, "lease_trouble", "%s of lease %s/%s: status %d: %s", what, l->ns, l->name,
                r->status, r->why);
    l->troubled = true;
    tell(l);
    sleep_until_next(l);
}

static void set_new(json_t *spec, const char *key, json_t *value)
{
    if (json_object_set_new(spec, key, need(value)))
        need_wait(NEED_TRIES); /* no memory: ends the process */
}

/* The record as we want it, in the lease that was read (with its resourceVersion), or in a new one. */
static json_t *record(const struct kube_lease *l, const char *holder)
{
    json_t *lease = l->lease ? need(json_deep_copy(l->lease))
                             : need(json_pack("{s:s, s:s, s:{s:s, s:s}}", "apiVersion", GROUP "/v1", "kind",
                                              "Lease", "metadata", "name", l->name, "namespace", l->ns));
    json_t *spec = json_object_get(lease, "spec");
    const char *was;
    char now[KUBE_TIME_BYTES];

    if (!json_is_object(spec)) {
        spec = need(json_object());
        set_new(lease, "spec", spec);
    }
    kube_time_micro(now);
    was = json_string_value(json_object_get(spec, "holderIdentity"));
    if (strcmp(was ? was : "", l->identity) != 0) {
        json_int_t transitions = json_integer_value(json_object_get(spec, "leaseTransitions"));

        set_new(spec, "leaseTransitions", json_integer(l->lease ? transitions + 1 : 0));
        set_new(spec, "acquireTime", json_string(now));
    } else if (!*holder || !json_is_string(json_object_get(spec, "acquireTime"))) {
        set_new(spec, "acquireTime", json_string(now));
    }
    set_new(spec, "holderIdentity", json_string(holder));
    set_new(spec, "leaseDurationSeconds", json_integer(*holder ? KUBE_LEASE_DURATION_MS / 1000 : 1));
    set_new(spec, "renewTime", json_string(now));
    return lease;
}

static void start(struct kube_lease *l, const char *method, json_t *body,
                  void (*done)(void *arg, const struct kube_reply *reply))
{
    bool create = !strcmp(method, "POST");
    char *path = kube_path(GROUP, "v1", l->ns, "leases", create ? NULL : l->name, NULL);
    char *text = body ? need(json_dumps(body, JSON_COMPACT)) : NULL;
    uint64_t used_ms = loop_clock_ms() - l->round_at_ms;
    uint32_t left_ms = used_ms < KUBE_LEASE_RENEW_MS ? (uint32_t)(KUBE_LEASE_RENEW_MS - used_ms) : 1;

    if (left_ms > CALL_MS)
        left_ms = CALL_MS;
    l->writing = body != NULL;
    l->asked_ms = loop_clock_ms();
    l->call = kube_http_start(l->http, &(struct kube_request){
                                           .method = method,
                                           .path = path,
                                           .content_type = body ? "application/json" : NULL,
                                           .body = text,
                                           .body_len = text ? strlen(text) : 0,
                                           .timeout_ms = l->releasing ? RELEASE_TRY : left_ms,
                                           .urgent = true,
                                           .done = done,
                                           .arg = l,
                                       });
    free(text);
    free(path);
    json_decref(body);
}

static void on_put(void *arg, const struct kube_reply *r)
{
    struct kube_lease *l = arg;

    l->call = NULL;
    l->writing = false;
    if (r->end == KUBE_ANSWERED && r->status / 100 == 2) {
        tell(l); /* a lead that ended while nobody looked is an end all the same */
        l->troubled = false;
        l->held = true;
        l->renewed_ms = l->asked_ms;
        tell(l);
        sleep_until_next(l);
    } else if (r->end == KUBE_ANSWERED && r->status == 409) {
        /* Somebody wrote since we read. Whoever it was shows when we read again; what we hold is held by the clock. */
        tell(l);
        sleep_until_next(l);
        if (l->held)
            loop_timer_set(l->loop, &l->next, loop_clock_ms() + SOON_MS);
    } else {
        trouble(l, "the write", r);
    }
}

/* An answer to a GET: false when it is none. */
static bool read_lease(struct kube_lease *l, const struct kube_reply *r)
{
    json_decref(l->lease);
    l->lease = NULL;
    if (r->end != KUBE_ANSWERED)
        return false;
    if (r->status == 404)
        return true;
    if (r->status != 200 || !r->body)
        return false;
    l->lease = json_loadb((const char *)r->body, r->body_len, 0, NULL);
    if (json_is_object(l->lease) && json_is_object(json_object_get(l->lease, "metadata")))
        return true;
    json_decref(l->lease);
    l->lease = NULL;
    return false;
}

static void on_read(void *arg, const struct kube_reply *r)
{
    struct kube_lease *l = arg;
    enum lease_act act;

    l->call = NULL;
    if (!read_lease(l, r)) {
        trouble(l, "the reading", r);
        return;
    }
    act = lease_decide(&l->seen, l->lease, l->identity, loop_clock_ms());
    if (act != LEASE_RENEW)
        lose(l);
    else
        tell(l);
    if (act == LEASE_WAIT) {
        l->troubled = false;
        sleep_until_next(l);
    } else {
        start(l, act == LEASE_CREATE ? "POST" : "PUT", record(l, l->identity), on_put);
    }
}

static void begin_round(struct kube_lease *l)
{
    l->round_at_ms = loop_clock_ms();
    start(l, "GET", NULL, on_read);
}

static void on_next(struct loop_timer *t)
{
    begin_round(OWNER(t, next));
}

/* The end of the process */

static void end_release(struct kube_lease *l)
{
    void (*released)(void *arg) = l->released;

    if (l->call)
        kube_http_cancel(l->call);
    l->call = NULL;
    loop_timer_clear(&l->release_end);
    loop_task_clear(l->loop, &l->release_now);
    l->released = NULL;
    if (released)
        released(l->released_arg);
}

static void on_release_read(void *arg, const struct kube_reply *r);

static void on_release_put(void *arg, const struct kube_reply *r)
{
    struct kube_lease *l = arg;

    l->call = NULL;
    if (r->end == KUBE_ANSWERED && r->status == 409)
        start(l, "GET", NULL, on_release_read);
    else
        end_release(l);
}

static void on_release_read(void *arg, const struct kube_reply *r)
{
    struct kube_lease *l = arg;

    l->call = NULL;
    if (read_lease(l, r) && l->lease &&
        lease_decide(&l->seen, l->lease, l->identity, loop_clock_ms()) == LEASE_RENEW)
        start(l, "PUT", record(l, ""), on_release_put);
    else
        end_release(l);
}

static void on_release_end(struct loop_timer *t)
{
    end_release(OWNER(t, release_end));
}

static void on_release_now(struct loop_task *t)
{
    end_release(OWNER(t, release_now));
}

void kube_lease_release(struct kube_lease *l, void (*done)(void *arg), void *arg)
{
    bool may_be_ours = l->held || l->writing;

    if (l->call)
        kube_http_cancel(l->call);
    l->call = NULL;
    loop_timer_clear(&l->next);
    loop_timer_clear(&l->expires);
    l->releasing = true;
    l->released = done;
    l->released_arg = arg;
    tell(l);
    if (!may_be_ours) {
        loop_task_add(l->loop, &l->release_now);
        return;
    }
    loop_timer_set(l->loop, &l->release_end, loop_clock_ms() + KUBE_LEASE_RELEASE_MS);
    start(l, "GET", NULL, on_release_read);
}

struct kube_lease *kube_lease_new(struct kube_http *h, struct loop *l, const char *ns, const char *name,
                                  const char *identity, void (*changed)(void *arg, bool leads), void *arg)
{
    struct kube_lease *k = need(calloc(1, sizeof *k));

    assert(*identity);
    k->http = h;
    k->loop = l;
    k->ns = need(strdup(ns));
    k->name = need(strdup(name));
    k->identity = need(strdup(identity));
    k->changed = changed;
    k->arg = arg;
    k->next.fire = on_next;
    k->expires.fire = on_expired;
    k->release_end.fire = on_release_end;
    k->release_now.run = on_release_now;
    loop_timer_set(l, &k->next, loop_clock_ms());
    return k;
}

void kube_lease_free(struct kube_lease *l)
{
    if (!l)
        return;
    if (l->call)
        kube_http_cancel(l->call);
    loop_timer_clear(&l->next);
    loop_timer_clear(&l->expires);
    loop_timer_clear(&l->release_end);
    loop_task_clear(l->loop, &l->release_now);
    json_decref(l->lease);
    json_decref(l->seen.spec);
    free(l->ns);
    free(l->name);
    free(l->identity);
    free(l);
}
