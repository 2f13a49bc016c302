#include "admin/status.h"

#include "base/json.h"

#include <string.h>

const char *status_state_label(enum status_state state)
{
    static const char *const labels[] = {"active", "stale", "failed", "draining"};

    return labels[state];
}

const char *status_result_label(enum status_result result)
{
    static const char *const labels[] = {NULL, "applied", "partial", "refused"};

    return labels[result];
}

void status_sum(const struct status *s, int slot, struct stats_cell *out)
{
    /* A cell is nothing but counts, and the padding behind them. */
    stats_count *to = (stats_count *)out;

    memset(out, 0, sizeof *out);
    for (unsigned w = 0; slot >= 0 && w < s->shared->head->workers; w++) {
        const stats_count *from = (const stats_count *)shared_cell(s->shared, w, (unsigned)slot);

        for (size_t i = 0; i < sizeof *out / sizeof *to; i++)
            stats_add(&to[i], stats_read(&from[i]));
    }
}

uint64_t status_connections(const struct status *s, int slot)
{
    uint64_t sum = 0;

    for (unsigned w = 0; slot >= 0 && w < s->shared->head->workers; w++)
        sum += stats_read(&shared_cell(s->shared, w, (unsigned)slot)->connections);
    return sum;
}

uint64_t status_in_use(const struct status *s, int slot)
{
    uint64_t sum = status_connections(s, slot);

    for (unsigned w = 0; slot >= 0 && w < s->shared->head->workers; w++)
        sum += stats_read(&shared_cell(s->shared, w, (unsigned)slot)->handshakes);
    return sum;
}

static const char *text_or_null(const char *text)
{
    return text && *text ? text : NULL;
}

static void put_seen(struct json *j, const struct status *s)
{
    json_open(j, "seen", '{');
    json_str(j, "revision", text_or_null(s->seen.revision));
    json_str(j, "result", status_result_label(s->seen.result));
    json_open(j, "errors", '[');
    for (size_t i = 0; i < s->seen.error_count && i < STATUS_MAX_ERRORS; i++)
        json_str(j, NULL, s->seen.errors[i]);
    json_close(j, ']');
    json_close(j, '}');
}

static void put_server(struct json *j, const struct status *s, const struct status_server *server)
{
    json_open(j, NULL, '{');
    json_str(j, "name", server->name);
    json_str(j, "state", status_state_label(server->state));
    json_str(j, "message", server->message);
    if (server->port)
        json_num(j, "port", server->port);
    else
        json_str(j, "port", NULL);
    json_num(j, "connections", status_connections(s, server->slot));
    json_str(j, "cert_sha256", text_or_null(server->cert_sha256));
    json_time(j, "not_after", server->not_after);
    json_close(j, '}');
}

static void put_worker(struct json *j, const struct status *s, size_t index)
{
    const struct status_worker *w = &s->workers[index];

    json_open(j, NULL, '{');
    if (w->pid)
        json_num(j, "pid", (uint64_t)w->pid);
    else
        json_str(j, "pid", NULL);
    json_num(j, "restarts", w->restarts);
    json_bool(j, "current", w->current);
    json_num(j, "connections", stats_read(&shared_worker(s->shared, (unsigned)index)->pairs));
    json_close(j, '}');
}

int status_json(const struct status *s, struct buf *out, struct err *err)
{
    struct json j;

    json_init(&j, out);
    json_open(&j, NULL, '{');
    json_num(&j, "pid", (uint64_t)s->pid);
    json_str(&j, "revision", text_or_null(s->revision));
    json_time(&j, "applied_at", s->applied_at);
    put_seen(&j, s);
    json_open(&j, "servers", '[');
    for (size_t i = 0; i < s->server_count; i++)
        put_server(&j, s, &s->servers[i]);
    json_close(&j, ']');
    json_open(&j, "workers", '[');
    for (size_t i = 0; i < s->worker_count; i++)
        put_worker(&j, s, i);
    json_close(&j, ']');
    json_close(&j, '}');
    if (j.failed || buf_add(out, "\n", 1))
        return err_set(err, ERR_LIMIT, "status: more than %zu bytes", out->max);
    return 0;
}
