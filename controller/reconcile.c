#include "reconcile.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/need.h"
#include "base/watch.h"
#include "labels.h"
#include "mounts.h"
#include "ports.h"
#include "render.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define GATEWAY_QPS   50
#define GATEWAY_BURST 100
#define SIDECAR_QPS   5
#define SIDECAR_BURST 10
#define RETRY_MS      1000 /* a file that could not be written */
#define COMPONENT     WSS_GROUP "/controller"

static const struct kube_kind kinds[STORE_KINDS] = {
    [STORE_WSS] = {WSS_GROUP, WSS_VERSION, WSS_PLURAL, NULL},
    [STORE_SECRETS] = {"", "v1", "secrets",
                       "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"},
    [STORE_SERVICES] = {"", "v1", "services", NULL},
    [STORE_SLICES] = {"discovery.k8s.io", "v1", "endpointslices", NULL},
    [STORE_GRANTS] = {"gateway.networking.k8s.io", NULL, "referencegrants", NULL},
};

/* One reflector: a kind in one namespace, or in all. */
struct source {
    struct reconcile *r;
    enum store_kind kind;
    const char *ns;
    enum kube_reflect_state state;
    struct kube_reflect *reflect;
};

struct reconcile {
    const struct options *o;
    struct loop *loop;
    struct kube_http *http;
    struct store *store;
    struct render_rules rules;
    struct wss_label *labels;
    struct render *render;
    struct publish *publish;
    struct kube_lease *lease;     /* NULL: without leader election, or a sidecar */
    struct kube_events *events;   /* NULL: a sidecar */
    struct status_writer *status; /* NULL likewise */
    struct ports *ports;          /* NULL: no managed Service */
    struct report *report;
    struct watch *files; /* sidecar: labels and Secrets */
    struct source *sources;
    size_t source_count;
    struct pages_reflector *shown; /* of the sources, for pages */
    struct loop_timer pace;
    struct loop_timer stop;
    uint64_t stop_by_ms;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct loop_task task;
    uint64_t last_pass_ms;
    bool stopping;
    bool unpublished; /* the text of the last pass is not in the file */
    bool said_nothing_ours;
    bool confirmed; /* as of the last look */
    char waits[320];
    struct pages_view view;
};

/* When to look */

static void schedule(struct reconcile *r)
{
    uint64_t at = r->last_pass_ms + RECONCILE_PACE_MS;

    if (r->pace.at_ms)
        return;
    if (at <= loop_clock_ms())
        loop_task_add(r->loop, &r->task);
    else
        loop_timer_set(r->loop, &r->pace, at);
}

static bool all_in(struct reconcile *r)
{
    for (size_t i = 0; i < r->source_count; i++) {
        const struct source *s = &r->sources[i];
        bool needed = s->kind == STORE_WSS;

        if (s->state == KUBE_REFLECT_SYNCED || (!needed && s->state != KUBE_REFLECT_WAITING))
            continue;
        snprintf(r->waits, sizeof r->waits, "%s%s%s are not listed yet%s%.200s", kinds[s->kind].plural,
                 s->ns ? " of " : "", s->ns ? s->ns : "", *kube_reflect_trouble(s->reflect) ? ": " : "",
                 kube_reflect_trouble(s->reflect));
        return false;
    }
    return true;
}

static const char *waits(void *arg)
{
    struct reconcile *r = arg;

    return all_in(r) ? NULL : r->waits;
}

/* A pass */

static void publish_now(struct reconcile *r)
{
    struct buf text;
    struct err err;

    buf_init(&text, SPEC_MAX_BYTES);
    r->unpublished = render_text(r->render, &text, &err) || publish_text(r->publish, &text, &err);
    if (r->unpublished) {
        r->view.failures++;
        log_msg(LOG_ERROR, "publish", "%s; the last configuration stays, trying again", err.msg);
        loop_timer_set(r->loop, &r->pace, loop_clock_ms() + RETRY_MS);
    }
    buf_free(&text);
}

/* The proxy may run the text already, and have no news for it: the look is not only for its echo. */
static void look_confirmed(struct reconcile *r)
{
    bool before = r->confirmed;

    r->confirmed = publish_confirmed(r->publish);
    if (!r->view.synced || !r->confirmed)
        return;
    if (!r->view.ready)
        log_msg(LOG_INFO, "ready", "servers: %zu, revision %.12s", r->view.objects,
                publish_revision(r->publish));
    if (!r->view.ready || !before)
        r->view.published_at = time(NULL);
    r->view.ready = true;
}

static void say_nothing_ours(struct reconcile *r)
{
    for (size_t i = 0; i < render_count(r->render); i++)
        if (render_at(r->render, i)->part == RENDER_OURS) {
            r->said_nothing_ours = false;
            return;
        }
    if (!r->said_nothing_ours && r->o->sidecar)
        log_msg(LOG_WARN, "no_server",
                "no WebSocketServer of this namespace has a workloadSelector that fits this pod's labels");
    r->said_nothing_ours = true;
}

static void took(struct reconcile *r, const struct timespec *from)
{
    struct timespec to;

    clock_gettime(CLOCK_MONOTONIC, &to);
    r->view.reconciles++;
    r->view.reconcile_us +=
        (uint64_t)((to.tv_sec - from->tv_sec) * 1000000 + (to.tv_nsec - from->tv_nsec) / 1000);
}

static void pass(struct reconcile *r)
{
    bool first = !r->view.synced;
    struct timespec from;

    if (r->stopping || !all_in(r))
        return;
    clock_gettime(CLOCK_MONOTONIC, &from);
    r->last_pass_ms = loop_clock_ms();
    r->view.synced = true;
    r->view.objects = store_count(r->store);
    if (render_run(r->render, r->store) || first || r->unpublished)
        publish_now(r);
    look_confirmed(r);
    report_pass(r->report, r->store, r->render);
    say_nothing_ours(r);
    if (first)
        malloc_trim(0); /* the lists were large, and are not kept */
    took(r, &from);
}

static void on_pace(struct loop_timer *t)
{
    pass((struct reconcile *)((char *)t - offsetof(struct reconcile, pace)));
}

static void on_task(struct loop_task *t)
{
    pass((struct reconcile *)((char *)t - offsetof(struct reconcile, task)));
}

/* What makes a pass necessary */

static void on_begin(void *arg)
{
    struct source *s = arg;

    store_begin(s->r->store, s->kind, s->ns);
}

/* A WebSocketServer whose status alone has changed, as each of our own writes does, needs no pass over all of them. */
static bool status_alone(struct reconcile *r, const json_t *object)
{
    const json_t *metadata = json_object_get(object, "metadata");
    const char *ns = json_string_value(json_object_get(metadata, "namespace"));
    const char *name = json_string_value(json_object_get(metadata, "name"));
    const struct store_object *o = r->view.synced && ns && name ? store_find(r->store, ns, name) : NULL;
    const struct render_verdict *v = o && !o->dirty ? render_find(r->render, ns, name) : NULL;

    if (v && !r->stopping)
        report_one(r->report, &o->wss, v);
    return v != NULL;
}

static void on_put(void *arg, json_t *object)
{
    struct source *s = arg;

    if (store_put(s->r->store, s->kind, object) && (s->kind != STORE_WSS || !status_alone(s->r, object)))
        schedule(s->r);
}

static void on_drop(void *arg, json_t *object)
{
    struct source *s = arg;

    if (store_drop(s->r->store, s->kind, object))
        schedule(s->r);
}

static void on_end(void *arg)
{
    struct source *s = arg;

    if (store_end(s->r->store, s->kind, s->ns))
        schedule(s->r);
}

/* A kind is as good as its worst namespace. */
static void on_state(void *arg, enum kube_reflect_state state, const char *why)
{
    static const enum store_sync as[] = {[KUBE_REFLECT_WAITING] = STORE_WAITING,
                                         [KUBE_REFLECT_SYNCED] = STORE_SYNCED,
                                         [KUBE_REFLECT_FORBIDDEN] = STORE_FORBIDDEN,
                                         [KUBE_REFLECT_ABSENT] = STORE_ABSENT};
    struct source *s = arg;
    struct reconcile *r = s->r;

    s->state = state;
    for (size_t i = 0; i < r->source_count; i++)
        if (r->sources[i].kind == s->kind && r->sources[i].state != KUBE_REFLECT_SYNCED &&
            &r->sources[i] != s) {
            state = r->sources[i].state;
            why = r->sources[i].reflect ? kube_reflect_trouble(r->sources[i].reflect) : "";
        }
    store_set_sync(r->store, s->kind, as[state], why);
    schedule(r);
}

static void on_echo(void *arg)
{
    struct reconcile *r = arg;

    look_confirmed(r);
    if (r->view.synced && !r->stopping)
        report_pass(r->report, r->store, r->render);
}

static bool leads(void *arg)
{
    const struct reconcile *r = arg;

    return !r->stopping && !r->o->sidecar && (!r->lease || kube_lease_leads(r->lease));
}

static void on_lead(void *arg, bool leading)
{
    struct reconcile *r = arg;

    log_msg(LOG_INFO, "lease", "%s",
            leading ? "this replica leads: it writes status and Events" : "this replica does not lead");
    if (!leading || !r->view.synced)
        return;
    report_pass(r->report, r->store, r->render);
    status_flush(r->status);
}

static void on_ports(void *arg)
{
    struct reconcile *r = arg;

    if (r->view.synced && !r->stopping)
        report_pass(r->report, r->store, r->render);
}

/* The pod's own files */

static int read_labels(struct reconcile *r, struct err *err)
{
    struct wss_label *labels = NULL;
    size_t count = 0;

    if (labels_read(r->o->pod_labels, &labels, &count, err))
        return -1;
    labels_free(r->labels, r->rules.label_count);
    r->labels = labels;
    r->rules.labels = labels;
    r->rules.label_count = count;
    return 0;
}

static int watch_files(struct reconcile *r, struct err *err)
{
    return mounts_watch(r->files, r->o->pod_labels, r->o->secrets_dir, err);
}

static void on_files(void *arg)
{
    struct reconcile *r = arg;
    struct err err;

    if (read_labels(r, &err))
        log_msg(LOG_ERROR, "labels", "%s; the last ones stay", err.msg);
    if (watch_files(r, &err))
        log_msg(LOG_ERROR, "files", "%s", err.msg);
    render_set_rules(r->render, &r->rules, r->store);
    schedule(r);
}

/* Life */

/* The next leader may write as soon as the Lease is free, so what is under way comes first (E6). */
static void on_stop(struct loop_timer *t)
{
    struct reconcile *r = (struct reconcile *)((char *)t - offsetof(struct reconcile, stop));

    if (status_counts(r->status).flying && r->loop->now_ms < r->stop_by_ms)
        loop_timer_set(r->loop, t, r->loop->now_ms + LOOP_TICK_MS);
    else
        kube_lease_release(r->lease, r->stopped, r->stopped_arg);
}

static int begin_files(struct reconcile *r, struct err *err)
{
    if (!r->o->sidecar)
        return 0;
    r->files = watch_new(r->loop, on_files, r, err);
    return !r->files || read_labels(r, err) || watch_files(r, err) ? -1 : 0;
}

/* What an earlier process published is served until there is something newer. */
static void recall(struct reconcile *r)
{
    struct buf text;
    struct err err;

    buf_init(&text, SPEC_MAX_BYTES);
    if (publish_recall(r->publish, &text, &err)) {
        if (err.code != ERR_NOT_FOUND)
            log_msg(LOG_WARN, "recall", "%s", err.msg);
    } else if (render_recall(r->render, text.data, text.len, &err)) {
        log_msg(LOG_WARN, "recall", "%s", err.msg);
    }
    buf_free(&text);
}

static void host(char *out, size_t size)
{
    if (gethostname(out, size))
        snprintf(out, size, "tidegate-controller");
    out[size - 1] = '\0';
}

static void begin_writing(struct reconcile *r)
{
    const struct options *o = r->o;
    cleanup_free char *identity = NULL, *name = NULL;
    char hostname[256];
    uint64_t unique = 0;

    host(hostname, sizeof hostname);
    r->events = kube_events_new(r->http, r->loop, COMPONENT, o->pod_name ? o->pod_name : hostname);
    r->status = status_new(r->http, r->loop, leads, r);
    if (o->service)
        r->ports = ports_new(r->http, r->loop, o->pod_namespace, o->service, leads, on_ports, r);
    if (!o->leader_elect)
        return;
    (void)!getrandom(&unique, sizeof unique, 0);
    identity = need_printf("%s_%016llx", o->pod_name ? o->pod_name : hostname, (unsigned long long)unique);
    name = need_printf("tidegate-controller-%s", o->gateway);
    r->lease =
        kube_lease_new(r->http, r->loop, o->pod_namespace, o->lease ? o->lease : name, identity, on_lead, r);
}

static void add_source(struct reconcile *r, enum store_kind kind, const char *ns)
{
    r->sources[r->source_count++] = (struct source){.r = r, .kind = kind, .ns = ns};
}

/* Where objects of a kind are read. */
static const struct options_namespaces *places(const struct options *o, enum store_kind kind)
{
    return kind == STORE_SECRETS ? options_secrets(o) : &o->namespaces;
}

/* All sources stand before the first of them begins: each looks at its siblings. */
static void begin_sources(struct reconcile *r, const char *own_ns)
{
    const struct options *o = r->o;
    size_t most = 0;

    for (size_t kind = 0; kind < STORE_KINDS; kind++)
        most += places(o, (enum store_kind)kind)->count + 1;
    r->sources = need(calloc(most, sizeof *r->sources));
    r->shown = need(calloc(most, sizeof *r->shown));
    if (o->sidecar)
        add_source(r, STORE_WSS,
                   o->namespaces.count ? o->namespaces.names[0]
                   : o->pod_namespace  ? o->pod_namespace
                                       : own_ns);
    for (size_t kind = 0; kind < STORE_KINDS && !o->sidecar; kind++) {
        const struct options_namespaces *in = places(o, (enum store_kind)kind);

        for (size_t i = 0; i < in->count; i++)
            add_source(r, (enum store_kind)kind, in->names[i]);
        if (!in->count)
            add_source(r, (enum store_kind)kind, NULL);
    }
    for (size_t i = 0; i < r->source_count; i++) {
        struct source *s = &r->sources[i];
        struct kube_sink sink = {on_begin, on_put, on_drop, on_end, on_state, s};

        s->reflect = kube_reflect_new(r->http, r->loop, &kinds[s->kind], s->ns, &sink);
        r->shown[i] = (struct pages_reflector){kinds[s->kind].plural, s->ns, s->reflect};
    }
}

static void show(struct reconcile *r)
{
    r->view = (struct pages_view){.reflectors = r->shown,
                                  .reflector_count = r->source_count,
                                  .http = r->http,
                                  .lease = r->lease,
                                  .events = r->events,
                                  .status = r->status,
                                  .ports = r->ports,
                                  .publish = r->publish,
                                  .report = r->report,
                                  .leads = leads,
                                  .waits = waits,
                                  .arg = r};
}

struct reconcile *reconcile_new(const struct options *o, struct loop *l, struct kube_config *config,
                                struct err *err)
{
    struct reconcile *r = need(calloc(1, sizeof *r));

    r->o = o;
    r->loop = l;
    r->pace.fire = on_pace;
    r->stop.fire = on_stop;
    r->task.run = on_task;
    r->rules = (struct render_rules){.sidecar = o->sidecar,
                                     .gateway = o->gateway,
                                     .allow_local = o->allow_local_backends || o->sidecar,
                                     .watched = &o->namespaces,
                                     .secrets = options_secrets(o),
                                     .secrets_dir = o->secrets_dir};
    r->store = store_new();
    if (begin_files(r, err) || !(r->publish = publish_new(l, o->run_dir, on_echo, r, err)) ||
        !(r->http = kube_http_new(l, config, o->sidecar ? SIDECAR_QPS : GATEWAY_QPS,
                                  o->sidecar ? SIDECAR_BURST : GATEWAY_BURST, err))) {
        reconcile_free(r);
        return NULL;
    }
    r->render = render_new(&r->rules);
    recall(r);
    if (!o->sidecar)
        begin_writing(r);
    r->report = report_new(&(struct report_parts){.publish = r->publish,
                                                  .status = r->status,
                                                  .events = r->events,
                                                  .ports = r->ports,
                                                  .leads = leads,
                                                  .arg = r});
    begin_sources(r, kube_config_namespace(config));
    show(r);
    return r;
}

void reconcile_free(struct reconcile *r)
{
    if (!r)
        return;
    loop_timer_clear(&r->pace);
    loop_timer_clear(&r->stop);
    loop_task_clear(r->loop, &r->task);
    for (size_t i = 0; i < r->source_count; i++)
        kube_reflect_free(r->sources[i].reflect);
    report_free(r->report);
    kube_lease_free(r->lease);
    ports_free(r->ports);
    status_free(r->status);
    kube_events_free(r->events);
    kube_http_free(r->http);
    publish_free(r->publish);
    render_free(r->render);
    store_free(r->store);
    watch_free(r->files);
    labels_free(r->labels, r->rules.label_count);
    free(r->sources);
    free(r->shown);
    free(r);
}

const struct pages_view *reconcile_view(const struct reconcile *r)
{
    return &r->view;
}

void reconcile_stop(struct reconcile *r, void (*done)(void *arg), void *arg)
{
    r->stopping = true;
    r->stopped = done;
    r->stopped_arg = arg;
    r->stop_by_ms = r->loop->now_ms + RECONCILE_STOP_MS;
    if (r->lease)
        on_stop(&r->stop);
    else
        done(arg);
}
