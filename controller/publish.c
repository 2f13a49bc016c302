#include "publish.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/need.h"
#include "base/rundir.h"
#include "base/watch.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>

#define SERVERS_MODE     0600 /* keys are in it */
#define STATUS_MAX_BYTES (64u << 20)
#define WHY_BYTES        (ERR_MSG_BYTES + 64)

struct publish {
    struct loop *loop;
    char *run_dir, *servers_path, *status_path;
    struct watch *watch;
    void (*echoed)(void *arg);
    void *arg;
    char revision[PUBLISH_REVISION_BYTES];
    uint64_t since_ms; /* when it was published; 0: by an earlier process, or not at all */
    struct loop_timer resend;
    bool late;
    char unwritten[ERR_MSG_BYTES]; /* why the newest text is not in the file; "" when it is */
    char no_signal[ERR_MSG_BYTES]; /* why the last one was not sent; "" when it was */
    char why[WHY_BYTES];
    struct echo echo;
};

static void revision_of(const void *bytes, size_t len, char out[PUBLISH_REVISION_BYTES])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;

    if (!EVP_Digest(bytes, len, digest, &digest_len, EVP_sha256(), NULL))
        digest_len = 0;
    for (unsigned i = 0; i < digest_len; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* The echo */

static void echo_free(struct echo *e)
{
    for (size_t i = 0; i < e->count; i++) {
        free(e->servers[i].name);
        free(e->servers[i].message);
    }
    free(e->servers);
    free(e->seen_error);
    *e = (struct echo){0};
}

static void take_text(char *out, size_t size, const json_t *from)
{
    snprintf(out, size, "%s", json_is_string(from) ? json_string_value(from) : "");
}

static enum echo_state state_of(const char *text)
{
    static const char *const labels[] = {[ECHO_ACTIVE] = "active",
                                         [ECHO_STALE] = "stale",
                                         [ECHO_FAILED] = "failed",
                                         [ECHO_DRAINING] = "draining"};

    for (size_t i = 1; i < sizeof labels / sizeof *labels; i++)
        if (!strcmp(text, labels[i]))
            return (enum echo_state)i;
    return ECHO_ABSENT;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct echo_server *)a)->name, ((const struct echo_server *)b)->name);
}

static void take_servers(struct echo *e, const json_t *servers)
{
    size_t i;
    const json_t *s;

    e->servers = need(calloc(json_array_size(servers) + 1, sizeof *e->servers));
    json_array_foreach(servers, i, s)
    {
        const char *name = json_string_value(json_object_get(s, "name"));
        const char *state = json_string_value(json_object_get(s, "state"));
        const char *message = json_string_value(json_object_get(s, "message"));

        if (!name || !state)
            continue;
        e->servers[e->count++] = (struct echo_server){.name = need(strdup(name)),
                                                      .state = state_of(state),
                                                      .message = message ? need(strdup(message)) : NULL};
    }
    qsort(e->servers, e->count, sizeof *e->servers, by_name);
}

static void take_echo(struct publish *p, const json_t *status)
{
    const json_t *seen = json_object_get(status, "seen");
    const json_t *error = json_array_get(json_object_get(seen, "errors"), 0);
    const char *result = json_string_value(json_object_get(seen, "result"));

    echo_free(&p->echo);
    take_text(p->echo.revision, sizeof p->echo.revision, json_object_get(status, "revision"));
    take_text(p->echo.seen_revision, sizeof p->echo.seen_revision, json_object_get(seen, "revision"));
    p->echo.seen_refused = result && !strcmp(result, "refused");
    if (json_is_string(error))
        p->echo.seen_error = need(strdup(json_string_value(error)));
    take_servers(&p->echo, json_object_get(status, "servers"));
}

/* A proxy that was started again has confirmed nothing yet, and gets the same time as the first. */
static void settle(struct publish *p)
{
    if (publish_confirmed(p)) {
        loop_timer_clear(&p->resend);
        p->late = false;
    } else if (p->since_ms && !p->resend.at_ms) {
        p->since_ms = p->loop->now_ms;
        loop_timer_set(p->loop, &p->resend, p->since_ms + PUBLISH_RESEND_MS);
    }
}

static void on_status(void *arg)
{
    struct publish *p = arg;
    struct buf bytes;
    struct err err;
    json_t *status;

    buf_init(&bytes, STATUS_MAX_BYTES);
    if (file_read(p->status_path, &bytes, &err)) {
        if (err.code != ERR_NOT_FOUND)
            log_msg(LOG_WARN, "echo", "%s", err.msg);
    } else if (!(status = json_loadb((const char *)bytes.data, bytes.len, 0, NULL))) {
        log_msg(LOG_WARN, "echo", "%s: no JSON", p->status_path);
    } else {
        take_echo(p, status);
        json_decref(status);
        settle(p);
        p->echoed(p->arg);
    }
    buf_free(&bytes);
}

/* The signal */

static void signal_proxy(struct publish *p)
{
    cleanup_close int fd = -1;
    pid_t pid = 0;
    struct err err = {0};

    if (rundir_open_holder(p->run_dir, &fd, &pid, &err)) {
        /* its own watch of the file does the same */
    } else if (fd < 0) {
        err_set(&err, ERR_NOT_FOUND, "no proxy runs on %s", p->run_dir);
    } else if (pidfd_send_signal(fd, SIGHUP, NULL, 0)) {
        err_set(&err, ERR_IO, "SIGHUP to process %ld: %s; both containers must run as one user", (long)pid,
                strerror(errno));
    }
    if (err.code && strcmp(err.msg, p->no_signal) != 0)
        log_msg(LOG_INFO, "signal", "not sent: %s", err.msg);
    snprintf(p->no_signal, sizeof p->no_signal, "%s", err.code ? err.msg : "");
}

static void on_resend(struct loop_timer *t)
{
    struct publish *p = (struct publish *)((char *)t - offsetof(struct publish, resend));

    signal_proxy(p);
    loop_timer_set(p->loop, t, p->loop->now_ms + PUBLISH_RESEND_MS);
    if (!p->late && p->loop->now_ms - p->since_ms >= PUBLISH_LATE_MS) {
        p->late = true;
        p->echoed(p->arg);
    }
}

/* Publishing */

struct publish *publish_new(struct loop *l, const char *run_dir, void (*echoed)(void *arg), void *arg,
                            struct err *err)
{
    struct publish *p = need(calloc(1, sizeof *p));
    const char *path;

    p->loop = l;
    p->echoed = echoed;
    p->arg = arg;
    p->resend.fire = on_resend;
    p->run_dir = need(strdup(run_dir));
    p->servers_path = need_printf("%s/servers.yaml", run_dir);
    p->status_path = need_printf("%s/status.json", run_dir);
    path = p->status_path;
    p->watch = watch_new(l, on_status, p, err);
    if (!p->watch || watch_set(p->watch, &path, 1, err)) {
        publish_free(p);
        return NULL;
    }
    watch_now(p->watch);
    return p;
}

void publish_free(struct publish *p)
{
    if (!p)
        return;
    loop_timer_clear(&p->resend);
    watch_free(p->watch);
    echo_free(&p->echo);
    free(p->run_dir);
    free(p->servers_path);
    free(p->status_path);
    free(p);
}

int publish_recall(struct publish *p, struct buf *out, struct err *err)
{
    if (file_read(p->servers_path, out, err))
        return -1;
    revision_of(out->data, out->len, p->revision);
    return 0;
}

int publish_text(struct publish *p, const struct buf *text, struct err *err)
{
    char revision[PUBLISH_REVISION_BYTES] = "";

    revision_of(text->data, text->len, revision);
    p->unwritten[0] = '\0';
    if (strcmp(revision, p->revision) != 0) {
        if (file_replace(p->servers_path, text->data, text->len, SERVERS_MODE, err)) {
            snprintf(p->unwritten, sizeof p->unwritten, "%s", err->msg);
            return -1;
        }
        memcpy(p->revision, revision, sizeof revision);
        p->since_ms = 0;
    }
    if (!p->since_ms) {
        p->since_ms = loop_clock_ms();
        p->late = false;
        signal_proxy(p);
        loop_timer_clear(&p->resend);
        settle(p);
    }
    return 0;
}

const char *publish_revision(const struct publish *p)
{
    return p->revision;
}

bool publish_confirmed(const struct publish *p)
{
    return p->revision[0] && !p->unwritten[0] && !strcmp(p->echo.revision, p->revision);
}

bool publish_late(struct publish *p, const char **why)
{
    if (p->unwritten[0]) {
        *why = p->unwritten;
        return true;
    }
    if (!p->revision[0] || publish_confirmed(p))
        return false;
    if (p->echo.seen_refused && !strcmp(p->echo.seen_revision, p->revision)) {
        snprintf(p->why, sizeof p->why, "the proxy refused the configuration: %s",
                 p->echo.seen_error ? p->echo.seen_error : "it did not say why");
    } else if (!p->late) {
        return false;
    } else {
        snprintf(p->why, sizeof p->why, "the proxy has not confirmed the configuration within %d s%s%s",
                 PUBLISH_LATE_MS / 1000, p->no_signal[0] ? ": " : "", p->no_signal);
    }
    *why = p->why;
    return true;
}

const struct echo *publish_echo(const struct publish *p)
{
    return &p->echo;
}

const struct echo_server *publish_server(const struct publish *p, const char *name)
{
    struct echo_server key = {.name = (char *)(uintptr_t)name};

    return p->echo.count ? bsearch(&key, p->echo.servers, p->echo.count, sizeof key, by_name) : NULL;
}
