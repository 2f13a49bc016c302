#include "admin/metrics.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LE_BYTES 24

static const char *const direction_labels[2] = {"from_client", "from_backend"};

struct writer {
    const struct status *s;
    const struct stats_cell *cells; /* of s->servers[i], over all workers */
    char le[STATS_BUCKETS][LE_BYTES];
    struct buf *out;
    bool failed;
    const char *family;
    bool labelled;
};

static void add(struct writer *w, const char *bytes, size_t len)
{
    if (!w->failed && buf_add(w->out, bytes, len))
        w->failed = true;
}

static void add_str(struct writer *w, const char *text)
{
    add(w, text, strlen(text));
}

static void begin(struct writer *w, const char *suffix)
{
    add_str(w, w->family);
    add_str(w, suffix);
    w->labelled = false;
}

static void label(struct writer *w, const char *key, const char *value)
{
    add_str(w, w->labelled ? "," : "{");
    w->labelled = true;
    add_str(w, key);
    add_str(w, "=\"");
    for (const char *p = value; *p;) {
        size_t plain = strcspn(p, "\\\"\n");

        add(w, p, plain);
        p += plain;
        if (*p) {
            add_str(w, *p == '\n' ? "\\n" : *p == '"' ? "\\\"" : "\\\\");
            p++;
        }
    }
    add_str(w, "\"");
}

static void value_text(struct writer *w, const char *text)
{
    add_str(w, w->labelled ? "} " : " ");
    add_str(w, text);
    add_str(w, "\n");
}

static void value(struct writer *w, uint64_t n)
{
    char text[24], *p = text + sizeof text;

    *--p = '\0';
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    value_text(w, p);
}

static void value_us(struct writer *w, uint64_t us)
{
    char text[32];

    snprintf(text, sizeof text, "%llu.%06llu", (unsigned long long)us / 1000000,
             (unsigned long long)us % 1000000);
    value_text(w, text);
}

static void plain(struct writer *w, uint64_t n)
{
    begin(w, "");
    value(w, n);
}

static void server(struct writer *w, size_t i, const char *suffix)
{
    begin(w, suffix);
    label(w, "server", w->s->servers[i].name);
}

/* A count of each server, whose place in the cell is given. */
static void each_server(struct writer *w, size_t offset, bool zeros)
{
    for (size_t i = 0; i < w->s->server_count; i++) {
        uint64_t n = stats_read((const stats_count *)((const char *)&w->cells[i] + offset));

        if ((!n && !zeros) || w->s->servers[i].slot < 0)
            continue;
        server(w, i, "");
        value(w, n);
    }
}

static void connections(struct writer *w)
{
    each_server(w, offsetof(struct stats_cell, connections), true);
}

static void connections_total(struct writer *w)
{
    each_server(w, offsetof(struct stats_cell, connections_total), true);
}

static void handshakes_in_progress(struct writer *w)
{
    each_server(w, offsetof(struct stats_cell, handshakes), true);
}

static void drained(struct writer *w)
{
    each_server(w, offsetof(struct stats_cell, drained), false);
}

static void cut(struct writer *w)
{
    each_server(w, offsetof(struct stats_cell, cut), false);
}

static void handshakes_total(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++)
        for (size_t k = 0; k < STATS_STATUSES; k++) {
            uint64_t n = stats_read(&w->cells[i].handshakes_total[k]);
            int status = stats_status_of(k);
            char code[16];

            if (!n)
                continue;
            snprintf(code, sizeof code, "%d", status);
            server(w, i, "");
            label(w, "code", status > 0 ? code : status ? "other" : "none");
            value(w, n);
        }
}

static void handshake_seconds(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++) {
        const struct stats_cell *c = &w->cells[i];
        uint64_t sum = 0;

        for (size_t k = 0; k < STATS_BUCKETS; k++)
            sum += stats_read(&c->handshake_buckets[k]);
        if (!sum)
            continue;
        sum = 0;
        for (size_t k = 0; k < STATS_BUCKETS; k++) {
            sum += stats_read(&c->handshake_buckets[k]);
            server(w, i, "_bucket");
            label(w, "le", w->le[k]);
            value(w, sum);
        }
        server(w, i, "_sum");
        value_us(w, stats_read(&c->handshake_us));
        server(w, i, "_count");
        value(w, sum);
    }
}

static void messages_total(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++)
        for (int from = 0; from < 2; from++)
            for (int kind = 0; kind < FRAME_KINDS; kind++) {
                uint64_t n = stats_read(&w->cells[i].messages[from][kind]);

                if (!n)
                    continue;
                server(w, i, "");
                label(w, "direction", direction_labels[from]);
                label(w, "type", stats_kind_label((enum frame_kind)kind));
                value(w, n);
            }
}

static void bytes_total(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++)
        for (int from = 0; from < 2 && w->s->servers[i].slot >= 0; from++) {
            server(w, i, "");
            label(w, "direction", direction_labels[from]);
            value(w, stats_read(&w->cells[i].bytes[from]));
        }
}

static void closes_total(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++)
        for (int who = 0; who < STATS_WHOS; who++)
            for (size_t code = 0; code < STATS_CLOSES; code++) {
                uint64_t n = stats_read(&w->cells[i].closes[who][code]);

                if (!n)
                    continue;
                server(w, i, "");
                label(w, "code", stats_close_label(code));
                label(w, "initiator", stats_who_label((enum stats_who)who));
                value(w, n);
            }
}

static void limited_total(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++)
        for (int limit = 0; limit < STATS_LIMITS; limit++) {
            uint64_t n = stats_read(&w->cells[i].limited[limit]);

            if (!n)
                continue;
            server(w, i, "");
            label(w, "limit", stats_limit_label((enum stats_limit)limit));
            value(w, n);
        }
}

static void server_state(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++) {
        server(w, i, "");
        label(w, "state", status_state_label(w->s->servers[i].state));
        value(w, 1);
    }
}

static void not_after(struct writer *w)
{
    for (size_t i = 0; i < w->s->server_count; i++)
        if (w->s->servers[i].not_after > 0) {
            server(w, i, "");
            value(w, (uint64_t)w->s->servers[i].not_after);
        }
}

static void servers(struct writer *w)
{
    for (int state = STATUS_ACTIVE; state <= STATUS_DRAINING; state++) {
        uint64_t n = 0;

        for (size_t i = 0; i < w->s->server_count; i++)
            n += w->s->servers[i].state == (enum status_state)state;
        begin(w, "");
        label(w, "state", status_state_label((enum status_state)state));
        value(w, n);
    }
}

static void reloads_total(struct writer *w)
{
    for (int result = STATUS_APPLIED; result <= STATUS_REFUSED; result++) {
        begin(w, "");
        label(w, "result", status_result_label((enum status_result)result));
        value(w, w->s->reloads[result]);
    }
}

static void revision_info(struct writer *w)
{
    if (!w->s->revision[0])
        return;
    begin(w, "");
    label(w, "revision", w->s->revision);
    value(w, 1);
}

static void applied_at(struct writer *w)
{
    if (w->s->applied_at)
        plain(w, (uint64_t)w->s->applied_at);
}

static void build_info(struct writer *w)
{
    begin(w, "");
    label(w, "version", TIDEGATE_VERSION);
    value(w, 1);
}

static void workers(struct writer *w)
{
    uint64_t n = 0;

    for (size_t i = 0; i < w->s->worker_count; i++)
        n += w->s->workers[i].pid > 0;
    plain(w, n);
}

static void worker_restarts(struct writer *w)
{
    uint64_t n = 0;

    for (size_t i = 0; i < w->s->worker_count; i++)
        n += w->s->workers[i].restarts;
    plain(w, n);
}

/* Of the workers' blocks, added up. */
static void worker_sum(struct writer *w, size_t offset)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < w->s->shared->head->workers; i++)
        n += stats_read((const stats_count *)((const char *)shared_worker(w->s->shared, i) + offset));
    plain(w, n);
}

static void log_dropped(struct writer *w)
{
    worker_sum(w, offsetof(struct shared_worker, log_dropped));
}

static void accepted(struct writer *w)
{
    worker_sum(w, offsetof(struct shared_worker, accepted));
}

static void ceiling(struct writer *w)
{
    worker_sum(w, offsetof(struct shared_worker, max_tunnels));
}

static void server_versions(struct writer *w)
{
    worker_sum(w, offsetof(struct shared_worker, server_objects));
}

static void pressure(struct writer *w)
{
    plain(w, atomic_load(&w->s->shared->head->pressure));
}

static void ready(struct writer *w)
{
    plain(w, w->s->ready);
}

static void started_at(struct writer *w)
{
    plain(w, (uint64_t)w->s->started_at);
}

static const struct family {
    const char *name, *type, *help;
    void (*write)(struct writer *w);
} families[] = {
    {"tidegate_connections", "gauge", "Open WebSocket connections.", connections},
    {"tidegate_connections_total", "counter", "WebSocket connections that were opened.", connections_total},
    {"tidegate_handshakes_in_progress", "gauge", "Connections that are not a WebSocket yet.",
     handshakes_in_progress},
    {"tidegate_handshakes_total", "counter",
     "Handshakes by the HTTP status that the client got; none: it got nothing.", handshakes_total},
    {"tidegate_handshake_seconds", "histogram",
     "From the accept to the 101, of handshakes that became a WebSocket.", handshake_seconds},
    {"tidegate_messages_total", "counter", "WebSocket messages and control frames received from that side.",
     messages_total},
    {"tidegate_bytes_total", "counter",
     "Bytes received from that side after the handshake, frame headers too.", bytes_total},
    {"tidegate_closes_total", "counter",
     "Ended connections by the code of the Close that began the end (none: there was no code) and its "
     "sender.",
     closes_total},
    {"tidegate_limited_total", "counter",
     "Handshakes refused and connections shed because of a limit or for want of something.", limited_total},
    {"tidegate_drained_total", "counter", "Closes sent because the server goes, or the gateway.", drained},
    {"tidegate_drain_cut_total", "counter", "Connections cut because the drain's deadline came first.", cut},
    {"tidegate_server_state", "gauge", "1 for the state that the server is in.", server_state},
    {"tidegate_certificate_not_after_timestamp_seconds", "gauge",
     "When the certificate shown to clients expires.", not_after},
    {"tidegate_servers", "gauge", "Servers by state.", servers},
    {"tidegate_reloads_total", "counter", "Reads of a changed spec by their result.", reloads_total},
    {"tidegate_config_revision_info", "gauge", "1 for the SHA-256 of the spec that is applied.",
     revision_info},
    {"tidegate_config_applied_timestamp_seconds", "gauge", "When that spec was applied.", applied_at},
    {"tidegate_ready", "gauge", "1 when /readyz says so.", ready},
    {"tidegate_workers", "gauge", "Workers that are alive.", workers},
    {"tidegate_worker_restarts_total", "counter", "Workers that were started in place of a dead one.",
     worker_restarts},
    {"tidegate_connections_ceiling", "gauge",
     "Open WebSocket connections that the descriptors of all workers allow.", ceiling},
    {"tidegate_accepted_total", "counter", "TCP connections accepted.", accepted},
    {"tidegate_server_versions", "gauge",
     "Versions of servers alive in all workers: current, or in use still.", server_versions},
    {"tidegate_log_lines_dropped_total", "counter", "Log lines of workers lost because stderr was full.",
     log_dropped},
    {"tidegate_memory_pressure", "gauge",
     "0 calm, 1 new handshakes are refused, 2 idle connections are shed.", pressure},
    {"tidegate_build_info", "gauge", "1 for the version of this build.", build_info},
    {"process_start_time_seconds", "gauge", "When the master started.", started_at},
};

int metrics_text(const struct status *s, struct buf *out, struct err *err)
{
    struct writer w = {.s = s, .out = out};
    cleanup_free struct stats_cell *cells =
        aligned_alloc(_Alignof(struct stats_cell), (s->server_count + 1) * sizeof *cells);

    if (!cells)
        return err_set(err, ERR_LIMIT, "metrics: out of memory");
    for (size_t i = 0; i < s->server_count; i++)
        status_sum(s, s->servers[i].slot, &cells[i]);
    w.cells = cells;
    for (size_t k = 0; k < STATS_BUCKETS - 1; k++)
        snprintf(w.le[k], LE_BYTES, "%g", (double)stats_bucket_us(k) / 1e6);
    snprintf(w.le[STATS_BUCKETS - 1], LE_BYTES, "+Inf");
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        w.family = families[i].name;
        add_str(&w, "# HELP ");
        add_str(&w, w.family);
        add_str(&w, " ");
        add_str(&w, families[i].help);
        add_str(&w, "\n# TYPE ");
        add_str(&w, w.family);
        add_str(&w, " ");
        add_str(&w, families[i].type);
        add_str(&w, "\n");
        families[i].write(&w);
    }
    return w.failed ? err_set(err, ERR_LIMIT, "metrics: more than %zu bytes", out->max) : 0;
}
