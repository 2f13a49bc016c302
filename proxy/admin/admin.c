#include "admin/admin.h"

#include "admin/feed.h"
#include "admin/metrics.h"
#include "admin/page.h"
#include "base/log.h"

#include <stdlib.h>

#define PAGE_COUNT   9
#define HEALTH_COUNT 2 /* the first of them */

struct admin {
    const struct status *status;
    struct http *http;
    struct loop *loop;
    struct loop_timer tick;
    struct http_page pages[PAGE_COUNT];
};

static int get_healthz(void *arg, struct buf *out, const char **type)
{
    (void)arg;
    (void)type;
    return buf_add_str(out, "ok\n") ? 500 : 200;
}

static int get_readyz(void *arg, struct buf *out, const char **type)
{
    const struct status *s = arg;
    const char *text = s->ready         ? "ready\n"
                       : s->stopping    ? "not ready: stopping\n"
                       : s->revision[0] ? "not ready: the workers die again and again\n"
                                        : "not ready: no spec is applied yet\n";

    (void)type;
    return buf_add_str(out, text) ? 500 : s->ready ? 200 : 503;
}

/* What did not fit is not sent in part. */
static int too_large(struct buf *out, const struct err *err)
{
    out->len = 0;
    log_msg(LOG_ERROR, "admin", "%s", err->msg);
    return 500;
}

static int get_metrics(void *arg, struct buf *out, const char **type)
{
    struct err err;

    if (metrics_text(arg, out, &err))
        return too_large(out, &err);
    *type = METRICS_CONTENT_TYPE;
    return 200;
}

static int get_status(void *arg, struct buf *out, const char **type)
{
    struct err err;

    if (status_json(arg, out, &err))
        return too_large(out, &err);
    *type = "application/json";
    return 200;
}

static int get_html(void *arg, struct buf *out, const char **type)
{
    (void)arg;
    *type = "text/html; charset=utf-8";
    return buf_add(out, page_html, page_html_len) ? 500 : 200;
}

static int get_css(void *arg, struct buf *out, const char **type)
{
    (void)arg;
    *type = "text/css; charset=utf-8";
    return buf_add(out, page_css, page_css_len) ? 500 : 200;
}

static int get_js(void *arg, struct buf *out, const char **type)
{
    (void)arg;
    *type = "text/javascript; charset=utf-8";
    return buf_add(out, page_js, page_js_len) ? 500 : 200;
}

static int get_svg(void *arg, struct buf *out, const char **type)
{
    (void)arg;
    *type = "image/svg+xml";
    return buf_add(out, page_svg, page_svg_len) ? 500 : 200;
}

static void on_tick(struct loop_timer *t)
{
    struct admin *a = (struct admin *)((char *)t - offsetof(struct admin, tick));
    struct err err;
    struct buf text;

    loop_timer_set(a->loop, t, a->loop->now_ms + ADMIN_FEED_MS);
    if (!http_feed_watched(a->http))
        return;
    buf_init(&text, HTTP_MAX_ANSWER);
    if (feed_text(a->status, &text, &err))
        log_msg(LOG_ERROR, "admin", "%s", err.msg);
    else
        http_feed(a->http, text.data, text.len);
    buf_free(&text);
}

struct admin *admin_new(const struct status *status, const char *admin_address, const char *health_address,
                        struct err *err)
{
    struct admin *a = calloc(1, sizeof *a);
    struct http_listen listens[2];
    size_t count = 0;

    if (!a) {
        err_set(err, ERR_IO, "out of memory");
        return NULL;
    }
    *a = (struct admin){.status = status, .tick.fire = on_tick};
    for (size_t i = 0; i < PAGE_COUNT; i++) {
        static const struct http_page pages[PAGE_COUNT] = {
            {.path = "/healthz", .get = get_healthz},
            {.path = "/readyz", .get = get_readyz},
            {.path = "/metrics", .get = get_metrics},
            {.path = "/status", .get = get_status},
            {.path = "/", .get = get_html},
            {.path = "/page.css", .get = get_css},
            {.path = "/page.js", .get = get_js},
            {.path = "/page.svg", .get = get_svg},
            {.path = "/feed"},
        };

        a->pages[i] = pages[i];
        a->pages[i].arg = (void *)status;
    }
    if (admin_address)
        listens[count++] = (struct http_listen){admin_address, a->pages, PAGE_COUNT};
    if (health_address)
        listens[count++] = (struct http_listen){health_address, a->pages, HEALTH_COUNT};
    a->http = http_new(listens, count, err);
    if (a->http)
        return a;
    free(a);
    return NULL;
}

void admin_free(struct admin *a)
{
    if (!a)
        return;
    loop_timer_clear(&a->tick);
    http_free(a->http);
    free(a);
}

void admin_run(struct admin *a, struct loop *loop)
{
    a->loop = loop;
    loop_timer_set(loop, &a->tick, loop->now_ms + ADMIN_FEED_MS);
    http_run(a->http, loop);
}
