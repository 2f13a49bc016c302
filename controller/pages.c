#include "pages.h"

#include "admin/http.h"
#include "base/log.h"
#include "base/need.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_COUNT   3
#define HEALTH_COUNT 2 /* the first of them */

struct pages {
    const struct pages_view *view;
    struct http *http;
    struct http_page pages[PAGE_COUNT];
};

static int get_healthz(void *arg, struct buf *out, const char **type)
{
    const struct pages_view *v = arg;
    bool stuck = v->lease && kube_lease_stuck(v->lease);

    (void)type;
    if (buf_add_str(out, stuck ? "stuck: the Lease is held and not renewed\n" : "ok\n"))
        return 500;
    return stuck ? 503 : 200;
}

static int get_readyz(void *arg, struct buf *out, const char **type)
{
    const struct pages_view *v = arg;
    const char *waits;

    (void)type;
    if (v->ready)
        return buf_add_str(out, "ready\n") ? 500 : 200;
    waits = v->waits(v->arg);
    return buf_addf(out, "not ready: %s\n", waits ? waits : "the proxy has not confirmed a configuration yet")
               ? 500
               : 503;
}

/* Metrics. A text that did not fit is remembered in `failed`. */

struct writer {
    struct buf *out;
    bool failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct writer *w, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (len < 0 || (size_t)len >= sizeof line || buf_add(w->out, line, (size_t)len))
        w->failed = true;
}

static void family(struct writer *w, const char *name, const char *type, const char *help)
{
    add(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(struct writer *w, const char *name, const char *type, const char *help, uint64_t n)
{
    family(w, name, type, help);
    add(w, "%s %llu\n", name, (unsigned long long)n);
}

static void add_call(void *arg, const char *method, int code, uint64_t n)
{
    add(arg, "tidegate_controller_api_requests_total{method=\"%s\",code=\"%d\"} %llu\n", method, code,
        (unsigned long long)n);
}

static void add_server(void *arg, const char *server, bool programmed)
{
    add(arg, "tidegate_server_programmed{server=\"%s\"} %d\n", server, programmed);
}

static void each_reflector(struct writer *w, const struct pages_view *v, const char *name,
                           uint64_t (*value)(const struct kube_reflect *r))
{
    for (size_t i = 0; i < v->reflector_count; i++)
        add(w, "%s{resource=\"%s\",namespace=\"%s\"} %llu\n", name, v->reflectors[i].plural,
            v->reflectors[i].ns ? v->reflectors[i].ns : "",
            (unsigned long long)value(v->reflectors[i].reflect));
}

static uint64_t lists_of(const struct kube_reflect *r)
{
    return kube_reflect_counts(r)->lists;
}

static uint64_t relists_of(const struct kube_reflect *r)
{
    return kube_reflect_counts(r)->relists;
}

static uint64_t synced_of(const struct kube_reflect *r)
{
    return kube_reflect_is_well(r);
}

static uint64_t silent_s_of(const struct kube_reflect *r)
{
    uint64_t last_ms = kube_reflect_counts(r)->last_ms;

    return last_ms ? (loop_clock_ms() - last_ms) / 1000 : 0;
}

static void add_reflectors(struct writer *w, const struct pages_view *v)
{
    family(w, "tidegate_controller_synced", "gauge",
           "1 while this list is complete and followed without trouble, or the cluster has no such kind and "
           "needs none.");
    each_reflector(w, v, "tidegate_controller_synced", synced_of);
    family(w, "tidegate_controller_last_heard_seconds", "gauge",
           "Time since the API server was heard last about this kind.");
    each_reflector(w, v, "tidegate_controller_last_heard_seconds", silent_s_of);
    family(w, "tidegate_controller_lists_total", "counter", "Lists that were begun.");
    each_reflector(w, v, "tidegate_controller_lists_total", lists_of);
    family(w, "tidegate_controller_relists_total", "counter", "Lists after the first complete one.");
    each_reflector(w, v, "tidegate_controller_relists_total", relists_of);
    family(w, "tidegate_controller_watch_restarts_total", "counter", "Watches that ended, by cause.");
    for (size_t i = 0; i < v->reflector_count; i++)
        for (int cause = 0; cause <= KUBE_CAUSE_ERROR; cause++)
            add(w,
                "tidegate_controller_watch_restarts_total{resource=\"%s\",namespace=\"%s\",cause=\"%s\"} "
                "%llu\n",
                v->reflectors[i].plural, v->reflectors[i].ns ? v->reflectors[i].ns : "",
                kube_reflect_cause_label((enum kube_reflect_cause)cause),
                (unsigned long long)kube_reflect_counts(v->reflectors[i].reflect)->restarts[cause]);
}

static void add_reconcile(struct writer *w, const struct pages_view *v)
{
    const char *why;

    number(w, "tidegate_controller_reconciles_total", "counter", "Passes over the objects.", v->reconciles);
    family(w, "tidegate_controller_reconcile_seconds_total", "counter", "Time that the passes took.");
    add(w, "tidegate_controller_reconcile_seconds_total %llu.%06llu\n",
        (unsigned long long)(v->reconcile_us / 1000000), (unsigned long long)(v->reconcile_us % 1000000));
    number(w, "tidegate_controller_reconcile_errors_total", "counter",
           "Passes whose file could not be written.", v->failures);
    number(w, "tidegate_controller_config_last_reload_successful", "gauge",
           "1 unless the proxy refused or did not confirm the last configuration.",
           !publish_late(v->publish, &why));
    number(w, "tidegate_controller_config_last_reload_success_timestamp_seconds", "gauge",
           "When the proxy confirmed a configuration last.", (uint64_t)v->published_at);
    family(w, "tidegate_controller_config_revision_info", "gauge",
           "SHA-256 of the configuration that was published last.");
    if (*publish_revision(v->publish))
        add(w, "tidegate_controller_config_revision_info{revision=\"%s\"} 1\n", publish_revision(v->publish));
    number(w, "tidegate_controller_objects", "gauge", "WebSocketServers that are known.", v->objects);
    family(w, "tidegate_server_programmed", "gauge",
           "1 while the proxy beside this controller runs the newest version of the server.");
    report_servers(v->report, add_server, w);
}

static void add_writes(struct writer *w, const struct pages_view *v)
{
    number(w, "tidegate_controller_leader", "gauge", "1 while this replica writes status and Events.",
           v->leads(v->arg));
    family(w, "tidegate_controller_api_requests_total", "counter",
           "Answers of the API server; code 0: none came.");
    kube_http_counts(v->http, add_call, w);
    if (v->status) {
        struct status_counts counts = status_counts(v->status);

        number(w, "tidegate_controller_status_writes_total", "counter", "Statuses written.", counts.writes);
        number(w, "tidegate_controller_status_failures_total", "counter", "Writes of a status that failed.",
               counts.failures);
        number(w, "tidegate_controller_status_waiting", "gauge", "Statuses that wait to be written.",
               counts.waiting);
    }
    if (v->ports)
        number(w, "tidegate_controller_service_in_step", "gauge",
               "1 unless something is wrong with the managed Service.", !*ports_trouble(v->ports));
    if (v->events)
        number(w, "tidegate_controller_events_dropped_total", "counter", "Events that were given up.",
               kube_events_dropped(v->events));
    number(w, "tidegate_controller_log_lines_dropped_total", "counter", "Log lines that stderr did not take.",
           log_dropped());
}

static int get_metrics(void *arg, struct buf *out, const char **type)
{
    struct writer w = {.out = out};

    add_reconcile(&w, arg);
    add_reflectors(&w, arg);
    add_writes(&w, arg);
    *type = "text/plain; version=0.0.4; charset=utf-8";
    if (!w.failed)
        return 200;
    out->len = 0;
    return 500;
}

struct pages *pages_new(const struct pages_view *view, const char *admin, const char *health, struct err *err)
{
    struct pages *p = need(calloc(1, sizeof *p));
    struct http_listen listens[2];
    size_t count = 0;
    void *arg = (void *)(uintptr_t)view; /* pages only read it */

    p->view = view;
    p->pages[0] = (struct http_page){"/healthz", get_healthz, arg};
    p->pages[1] = (struct http_page){"/readyz", get_readyz, arg};
    p->pages[2] = (struct http_page){"/metrics", get_metrics, arg};
    if (admin)
        listens[count++] = (struct http_listen){admin, p->pages, PAGE_COUNT};
    if (health)
        listens[count++] = (struct http_listen){health, p->pages, HEALTH_COUNT};
    p->http = http_new(listens, count, err);
    if (p->http)
        return p;
    free(p);
    return NULL;
}

void pages_free(struct pages *p)
{
    if (!p)
        return;
    http_free(p->http);
    free(p);
}

void pages_run(struct pages *p, struct loop *loop)
{
    http_run(p->http, loop);
}
