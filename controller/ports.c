#include "ports.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/need.h"
#include "kube/kube_backoff.h"
#include "kube/kube_bucket.h"
#include "kube/kube_path.h"
#include "kube/kube_reflect.h"
#include "kube/kube_text.h"
#include "ports_service.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define LEAD_POLL_MS 1000
#define WRITES_QPS   1 /* where somebody undoes each write as it comes, this is how often */
#define WRITES_BURST 10
#define WHY_BYTES    512

struct entry {
    uint16_t port;
    enum ports_state state;
    bool edited; /* ours, changed by somebody: to be taken away before it can be put back */
    bool again;  /* the Service has changed since the clash: worth another try */
    char *why;   /* NULL: PRESENT */
    char *clash; /* what the server said when we asked for it; NULL: nothing */
};

struct ports {
    struct kube_http *http;
    struct loop *loop;
    char *ns, *name;
    bool (*leads)(void *arg);
    void (*changed)(void *arg);
    void *arg;
    struct kube_reflect *reflect;
    bool listed; /* a whole list is in: `service` is what there is */
    bool heard;  /* since the last begin */
    struct ports_service service;
    struct entry *entries; /* by port */
    size_t count;
    struct kube_call *call;
    char *asked_version; /* of the Service when the call was begun */
    char *failed;        /* why the last write failed; NULL: it did not */
    bool kept;           /* there would be no port left, and a Service without ports is invalid */
    bool news;           /* something changed since `changed` was called */
    struct kube_backoff backoff;
    struct kube_bucket bucket;
    struct loop_timer retry;
    struct loop_task plan;
};

/* What is wanted */

static struct entry *find(const struct ports *p, uint16_t port)
{
    size_t from = 0, to = p->count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (p->entries[middle].port == port)
            return &p->entries[middle];
        if (p->entries[middle].port < port)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

static void entries_free(struct entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(entries[i].why);
        free(entries[i].clash);
    }
    free(entries);
}

static bool is_wanted_already(const struct ports *p, const uint16_t *wanted, size_t count)
{
    if (count != p->count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (p->entries[i].port != wanted[i])
            return false;
    return true;
}

void ports_want(struct ports *p, const uint16_t *wanted, size_t count)
{
    struct entry *entries;

    if (count > PORTS_MAX)
        count = PORTS_MAX;
    if (is_wanted_already(p, wanted, count))
        return;
    entries = need(calloc(count + 1, sizeof *entries));
    for (size_t i = 0; i < count; i++) {
        struct entry *was = find(p, wanted[i]);

        entries[i].port = wanted[i];
        if (!was)
            continue;
        entries[i].state = was->state;
        entries[i].why = STEAL(was->why);
        entries[i].clash = STEAL(was->clash);
        entries[i].again = was->again;
    }
    entries_free(p->entries, p->count);
    p->entries = entries;
    p->count = count;
    loop_task_add(p->loop, &p->plan);
}

/* What is */

static enum ports_state judge(const struct ports *p, struct entry *e, char **why)
{
    enum ports_state state;

    e->edited = false;
    if (!p->service.version) {
        const char *trouble = kube_reflect_trouble(p->reflect);

        if (p->listed)
            *why = need_printf("there is no Service %s/%s", p->ns, p->name);
        else
            *why = need_printf("Service %s/%s is not known yet%s%s", p->ns, p->name, *trouble ? ": " : "",
                               trouble);
        return PORTS_PENDING;
    }
    state = ports_service_judge(&p->service, e->port, &e->edited, why);
    if (state != PORTS_PENDING || e->edited) {
        free(e->clash);
        e->clash = NULL;
        return state;
    }
    if (e->clash) {
        *why = need(strdup(e->clash));
        return PORTS_TAKEN;
    }
    *why = p->failed ? need_printf("Service %s/%s could not be written: %s", p->ns, p->name, p->failed)
                     : need_printf("Service %s/%s has it not yet", p->ns, p->name);
    return PORTS_PENDING;
}

/* True when something is to be told. */
static bool judge_all(struct ports *p)
{
    bool news = false;

    for (size_t i = 0; i < p->count; i++) {
        struct entry *e = &p->entries[i];
        char *why = NULL;
        enum ports_state state = judge(p, e, &why);

        news |= state != e->state || strcmp(why ? why : "", e->why ? e->why : "") != 0;
        e->state = state;
        free(e->why);
        e->why = why;
    }
    return news;
}

/* What is to be done */

static bool is_to_be_had(const struct entry *e)
{
    return e->state != PORTS_TAKEN || (e->clash && e->again);
}

static json_t *body_of(const struct ports *p)
{
    json_t *list = need(json_array());

    for (size_t i = 0; i < p->count; i++) {
        char name[PORTS_NAME_BYTES];
        json_t *port;

        if (!is_to_be_had(&p->entries[i]) || p->entries[i].edited)
            continue;
        ports_name(name, p->entries[i].port);
        port = need(json_pack("{s:s, s:i, s:s, s:i}", "name", name, "port", (int)p->entries[i].port,
                              "protocol", "TCP", "targetPort", (int)p->entries[i].port));
        if (json_array_append_new(list, port))
            need_wait(NEED_TRIES);
    }
    /* With the uid an apply makes no new Service where this one has just gone. */
    return need(json_pack("{s:s, s:s, s:{s:s, s:s, s:s}, s:{s:o}}", "apiVersion", "v1", "kind", "Service",
                          "metadata", "name", p->name, "namespace", p->ns, "uid", p->service.uid, "spec",
                          "ports", list));
}

static void on_applied(void *arg, const struct kube_reply *r);

static void apply(struct ports *p)
{
    json_t *body = body_of(p);
    char *text = need(json_dumps(body, JSON_COMPACT));
    char *path = kube_path("", "v1", p->ns, "services", p->name, NULL);

    kube_path_query(&path, "fieldManager", PORTS_MANAGER);
    free(p->asked_version);
    p->asked_version = need(strdup(p->service.version));
    p->call = kube_http_start(p->http, &(struct kube_request){
                                           .method = "PATCH",
                                           .path = path,
                                           .content_type = "application/apply-patch+yaml",
                                           .body = text,
                                           .body_len = strlen(text),
                                           .done = on_applied,
                                           .arg = p,
                                       });
    free(path);
    free(text);
    json_decref(body);
}

/* Does the Service have exactly our ports? Sets `kept`. */
static bool in_step(struct ports *p)
{
    size_t wanted = 0, edited = 0;
    bool missing = false;

    p->kept = false;
    if (!p->service.version)
        return true;
    for (size_t i = 0; i < p->count; i++) {
        bool to_be_had = is_to_be_had(&p->entries[i]);

        wanted += to_be_had;
        missing |= to_be_had && p->entries[i].state != PORTS_PRESENT;
        edited += p->entries[i].edited;
    }
    p->kept = wanted == edited && p->service.count && !p->service.foreign;
    if (p->kept)
        return true;
    return !missing && p->service.ours == wanted;
}

/* One look at everything: what the ports are, whether that is news, and whether to write. */
static void on_plan(struct loop_task *t)
{
    struct ports *p = (struct ports *)(void *)((char *)t - offsetof(struct ports, plan));
    bool was_kept = p->kept, news = judge_all(p) || p->news, step = in_step(p);
    uint32_t wait_ms;

    p->news = false;
    if (news || was_kept != p->kept)
        p->changed(p->arg);
    /* Called back for something new: one more look. */
    if (p->plan.queued || step || p->call || p->retry.at_ms)
        return;
    wait_ms = p->leads(p->arg) ? kube_bucket_take(&p->bucket, loop_clock_ms()) : LEAD_POLL_MS;
    if (wait_ms)
        loop_timer_set(p->loop, &p->retry, loop_clock_ms() + wait_ms);
    else
        apply(p);
}

static void on_retry(struct loop_timer *t)
{
    struct ports *p = (struct ports *)(void *)((char *)t - offsetof(struct ports, retry));

    loop_task_add(p->loop, &p->plan);
}

static void fail(struct ports *p, const struct kube_reply *r, const char *why)
{
    uint32_t random = 0;

    if (!p->failed || strcmp(p->failed, why) != 0)
        log_msg(LOG_WARN, "service_ports", "%s/%s: status %d: %s", p->ns, p->name, r->status, why);
    p->news = true;
    free(p->failed);
    p->failed = kube_text(*why ? why : "no answer", WHY_BYTES);
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = 0;
    loop_timer_set(p->loop, &p->retry,
                   loop_clock_ms() +
                       kube_backoff_next(&p->backoff, loop_clock_ms(), r->retry_after_s, random));
}

struct clashes {
    struct ports *ports;
    size_t count;
};

static void on_clash(void *arg, uint16_t port, const char *message)
{
    struct clashes *c = arg;
    struct entry *e = find(c->ports, port);

    if (!e || (e->clash && !e->again))
        return;
    free(e->clash);
    e->again = false;
    e->clash = kube_text(message, WHY_BYTES);
    c->count++;
}

static void take_service(struct ports *p, json_t *object);

static void on_applied(void *arg, const struct kube_reply *r)
{
    struct ports *p = arg;
    json_t *body = r->body ? json_loadb((const char *)r->body, r->body_len, 0, NULL) : NULL;
    struct clashes clashes = {.ports = p};

    p->call = NULL;
    if (r->end == KUBE_ANSWERED && r->status / 100 == 2) {
        p->news |= p->failed != NULL;
        free(p->failed);
        p->failed = NULL;
        /* Unless the watch has told of something newer. */
        if (p->service.version && !strcmp(p->service.version, p->asked_version))
            take_service(p, body);
        p->news |= judge_all(p);
        /* The server took it and it is not so: nothing is won by asking again at once. */
        if (!in_step(p) && !strcmp(p->service.version, p->asked_version))
            fail(p, r, "the server does not keep what was written");
        else
            p->backoff = (struct kube_backoff){0};
    } else {
        if (r->end == KUBE_ANSWERED && (r->status == 409 || r->status == 422))
            ports_service_clashes(body, on_clash, &clashes);
        if (!clashes.count)
            fail(p, r, r->why);
    }
    json_decref(body);
    loop_task_add(p->loop, &p->plan);
}

/* The Service itself */

static void take_service(struct ports *p, json_t *object)
{
    struct ports_service taken;

    if (!ports_service_parse(object, p->ns, p->name, &taken))
        return;
    if (!p->service.version || strcmp(p->service.version, taken.version) != 0)
        for (size_t i = 0; i < p->count; i++)
            p->entries[i].again = true;
    ports_service_done(&p->service);
    p->service = taken;
    loop_task_add(p->loop, &p->plan);
}

static void on_begin(void *arg)
{
    struct ports *p = arg;

    p->heard = false;
}

static void on_put(void *arg, json_t *object)
{
    struct ports *p = arg;

    p->heard = true;
    take_service(p, object);
}

static void on_drop(void *arg, json_t *object)
{
    struct ports *p = arg;
    const char *name = json_string_value(json_object_get(json_object_get(object, "metadata"), "name"));

    if (!name || strcmp(name, p->name) != 0)
        return;
    ports_service_done(&p->service);
    loop_task_add(p->loop, &p->plan);
}

static void on_end(void *arg)
{
    struct ports *p = arg;

    if (!p->heard)
        ports_service_done(&p->service);
    p->listed = true;
    loop_task_add(p->loop, &p->plan);
}

static void on_state(void *arg, enum kube_reflect_state state, const char *why)
{
    struct ports *p = arg;

    (void)state;
    (void)why;
    loop_task_add(p->loop, &p->plan);
}

/* The door */

struct ports *ports_new(struct kube_http *h, struct loop *l, const char *ns, const char *service,
                        bool (*leads)(void *arg), void (*changed)(void *arg), void *arg)
{
    struct ports *p = need(calloc(1, sizeof *p));
    char *selector = need_printf("metadata.name=%s", service);
    struct kube_kind kind = {.group = "", .version = "v1", .plural = "services", .field_selector = selector};

    p->http = h;
    p->loop = l;
    p->ns = need(strdup(ns));
    p->name = need(strdup(service));
    p->leads = leads;
    p->changed = changed;
    p->arg = arg;
    p->retry.fire = on_retry;
    kube_bucket_init(&p->bucket, WRITES_QPS, WRITES_BURST, loop_clock_ms());
    p->plan.run = on_plan;
    p->reflect = kube_reflect_new(
        h, l, &kind, ns,
        &(struct kube_sink){
            .begin = on_begin, .put = on_put, .drop = on_drop, .end = on_end, .state = on_state, .arg = p});
    free(selector);
    return p;
}

void ports_free(struct ports *p)
{
    if (!p)
        return;
    kube_reflect_free(p->reflect);
    if (p->call)
        kube_http_cancel(p->call);
    loop_timer_clear(&p->retry);
    loop_task_clear(p->loop, &p->plan);
    ports_service_done(&p->service);
    entries_free(p->entries, p->count);
    free(p->asked_version);
    free(p->failed);
    free(p->ns);
    free(p->name);
    free(p);
}

enum ports_state ports_state(const struct ports *p, uint16_t port, const char **why)
{
    const struct entry *e = find(p, port);

    *why = e && e->why ? e->why : NULL;
    return e ? e->state : PORTS_PENDING;
}

const char *ports_trouble(const struct ports *p)
{
    if (p->failed)
        return p->failed;
    if (p->kept)
        return "no port would be left in the Service, which is invalid: what is in it stays until there is "
               "another";
    if (p->listed && !p->service.version)
        return "the Service is not there";
    return kube_reflect_trouble(p->reflect);
}
