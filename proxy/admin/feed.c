#include "admin/feed.h"

#include "base/json.h"

#include <stdio.h>

static void put_handshakes(struct json *j, const struct stats_cell *c)
{
    json_open(j, "handshakes", '{');
    for (size_t i = 0; i < STATS_STATUSES; i++) {
        uint64_t n = stats_read(&c->handshakes_total[i]);
        int status = stats_status_of(i);
        char key[16];

        if (!n)
            continue;
        snprintf(key, sizeof key, "%d", status);
        json_num(j, status > 0 ? key : status ? "other" : "none", n);
    }
    json_close(j, '}');
}

static void put_closes(struct json *j, const struct stats_cell *c)
{
    json_open(j, "closes", '{');
    for (int who = 0; who < STATS_WHOS; who++) {
        json_open(j, stats_who_label((enum stats_who)who), '{');
        for (size_t i = 0; i < STATS_CLOSES; i++)
            if (stats_read(&c->closes[who][i]))
                json_num(j, stats_close_label(i), stats_read(&c->closes[who][i]));
        json_close(j, '}');
    }
    json_close(j, '}');
}

static void put_limited(struct json *j, const struct stats_cell *c)
{
    json_open(j, "limited", '{');
    for (int i = 0; i < STATS_LIMITS; i++)
        if (stats_read(&c->limited[i]))
            json_num(j, stats_limit_label((enum stats_limit)i), stats_read(&c->limited[i]));
    json_close(j, '}');
}

static void put_messages(struct json *j, const struct stats_cell *c)
{
    json_open(j, "messages", '[');
    for (int from = 0; from < 2; from++) {
        uint64_t sum = 0;

        for (int kind = 0; kind < FRAME_KINDS; kind++)
            sum += stats_read(&c->messages[from][kind]);
        json_num(j, NULL, sum);
    }
    json_close(j, ']');
}

static void put_buckets(struct json *j, const struct stats_cell *c)
{
    json_open(j, "took", '[');
    for (size_t i = 0; i < STATS_BUCKETS; i++)
        json_num(j, NULL, stats_read(&c->handshake_buckets[i]));
    json_close(j, ']');
}

static void put_server(struct json *j, const struct status *s, const struct status_server *server)
{
    struct stats_cell c;

    status_sum(s, server->slot, &c);
    json_open(j, NULL, '{');
    json_str(j, "name", server->name);
    json_str(j, "state", status_state_label(server->state));
    if (server->message)
        json_str(j, "message", server->message);
    json_num(j, "port", server->port);
    json_bool(j, "tls", server->tls);
    json_str(j, "backend", server->backend);
    if (server->not_after)
        json_time(j, "not_after", server->not_after);
    json_num(j, "connections", stats_read(&c.connections));
    json_num(j, "opening", stats_read(&c.handshakes));
    json_num(j, "opened", stats_read(&c.connections_total));
    put_messages(j, &c);
    json_open(j, "bytes", '[');
    json_num(j, NULL, stats_read(&c.bytes[STATS_CLIENT]));
    json_num(j, NULL, stats_read(&c.bytes[STATS_BACKEND]));
    json_close(j, ']');
    put_handshakes(j, &c);
    put_buckets(j, &c);
    put_closes(j, &c);
    put_limited(j, &c);
    json_num(j, "drained", stats_read(&c.drained));
    json_num(j, "cut", stats_read(&c.cut));
    json_close(j, '}');
}

static void put_workers(struct json *j, const struct status *s)
{
    json_open(j, "workers", '[');
    for (size_t i = 0; i < s->worker_count; i++) {
        json_open(j, NULL, '{');
        json_num(j, "pid", (uint64_t)s->workers[i].pid);
        json_num(j, "restarts", s->workers[i].restarts);
        json_bool(j, "current", s->workers[i].current);
        json_num(j, "connections", stats_read(&shared_worker(s->shared, (unsigned)i)->pairs));
        json_close(j, '}');
    }
    json_close(j, ']');
}

int feed_text(const struct status *s, struct buf *out, struct err *err)
{
    struct timespec now;
    struct json j;

    clock_gettime(CLOCK_MONOTONIC, &now);
    json_init(&j, out);
    json_open(&j, NULL, '{');
    json_num(&j, "at_ms", (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
    json_time(&j, "time", time(NULL));
    json_str(&j, "version", TIDEGATE_VERSION);
    json_num(&j, "pid", (uint64_t)s->pid);
    json_bool(&j, "ready", s->ready);
    json_bool(&j, "stopping", s->stopping);
    json_time(&j, "started_at", s->started_at);
    json_str(&j, "revision", s->revision[0] ? s->revision : NULL);
    json_time(&j, "applied_at", s->applied_at);
    json_num(&j, "pressure", atomic_load(&s->shared->head->pressure));
    json_open(&j, "seen", '{');
    json_str(&j, "result", status_result_label(s->seen.result));
    json_open(&j, "errors", '[');
    for (size_t i = 0; i < s->seen.error_count && i < STATUS_MAX_ERRORS; i++)
        json_str(&j, NULL, s->seen.errors[i]);
    json_close(&j, ']');
    json_close(&j, '}');
    put_workers(&j, s);
    json_open(&j, "bounds_us", '[');
    for (size_t i = 0; i + 1 < STATS_BUCKETS; i++)
        json_num(&j, NULL, stats_bucket_us(i));
    json_close(&j, ']');
    json_open(&j, "servers", '[');
    for (size_t i = 0; i < s->server_count; i++)
        put_server(&j, s, &s->servers[i]);
    json_close(&j, ']');
    json_close(&j, '}');
    return j.failed ? err_set(err, ERR_LIMIT, "feed: more than %zu bytes", out->max) : 0;
}
