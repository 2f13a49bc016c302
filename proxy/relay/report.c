#include "relay/report.h"

#include "base/log.h"

#include <string.h>

static void connection(const struct pair *p, const struct report_request *r, struct log_line *l)
{
    const struct head_slice host = r->request->host, path = r->request->path;
    char text[ADDR_TEXT_BYTES];

    log_num(l, "conn", p->conn);
    log_str(l, "server", p->server->spec->name);
    log_str(l, "client", addr_text(&p->client_addr, text));
    if (sock_is_open(&p->backend.sock))
        log_str(l, "backend", addr_text(r->backend, text));
    if (host.len) {
        /* Without the query, which is where tokens travel; an absolute target may leave out its '/'. */
        const uint8_t *query = path.len ? memchr(r->head + path.off, '?', path.len) : NULL;
        size_t len = query ? (size_t)(query - r->head) - path.off : path.len;

        log_bytes(l, "host", r->head + host.off, host.len);
        log_bytes(l, "path", len ? (const void *)(r->head + path.off) : "/", len ? len : 1);
    }
}

void report_open(const struct pair *p, const struct report_request *r, const uint8_t *protocol,
                 size_t protocol_len)
{
    struct log_line l;

    if (!log_wants(LOG_INFO))
        return;
    log_begin(&l, LOG_INFO, "open");
    connection(p, r, &l);
    if (protocol_len)
        log_bytes(&l, "protocol", protocol, protocol_len);
    if (p->client.sock.ssl)
        log_str(&l, "tls", tls_version(p->client.sock.ssl));
    log_num(&l, "handshake_ms", p->relay->loop.now_ms - p->start_ms);
    log_end(&l);
}

void report_refuse(const struct pair *p, const struct report_request *r, int status, const char *by,
                   const char *why)
{
    struct log_line l;
    enum log_level level = p->client.sock.heard ? LOG_INFO : LOG_DEBUG;

    if (!log_wants(level))
        return;
    log_begin(&l, level, "refuse");
    connection(p, r, &l);
    log_num(&l, "status", (uint64_t)status);
    log_str(&l, "by", by);
    log_str(&l, "why", why);
    log_num(&l, "duration_ms", p->relay->loop.now_ms - p->start_ms);
    log_end(&l);
}

void report_next(const struct pair *p, const char *why)
{
    struct log_line l;

    if (!log_wants(LOG_INFO))
        return;
    log_begin(&l, LOG_INFO, "next");
    log_num(&l, "conn", p->conn);
    log_str(&l, "server", p->server->spec->name);
    log_str(&l, "why", why);
    log_end(&l);
}

void report_close(const struct pair *p)
{
    struct log_line l;
    uint64_t messages[2] = {0, 0};

    if (!log_wants(LOG_INFO))
        return;
    for (int i = 0; i < FRAME_KINDS; i++) {
        messages[0] += p->client.in.messages[i];
        messages[1] += p->backend.in.messages[i];
    }
    log_begin(&l, LOG_INFO, "close");
    log_num(&l, "conn", p->conn);
    log_str(&l, "server", p->server->spec->name);
    log_num(&l, "code", p->end_code);
    log_str(&l, "initiator", stats_who_label(p->end_who));
    log_bytes(&l, "reason", p->end_reason, p->end_reason_len);
    if (p->detail)
        log_str(&l, "detail", p->detail);
    log_num(&l, "client_bytes", p->client.in_bytes);
    log_num(&l, "backend_bytes", p->backend.in_bytes);
    log_num(&l, "client_messages", messages[0]);
    log_num(&l, "backend_messages", messages[1]);
    log_num(&l, "duration_ms", p->relay->loop.now_ms - p->start_ms);
    log_end(&l);
}
