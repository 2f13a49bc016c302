#include "spec/spec.h"

#include "spec/spec_fields.h"
#include "spec/spec_internal.h"
#include "spec/spec_values.h"
#include "spec/spec_yaml.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void read_kind(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    (void)f;
    p->has_kind = v->len == strlen("WebSocketServer") && !memcmp(v->text, "WebSocketServer", v->len);
    p->wrong_kind = !p->has_kind;
    if (p->wrong_kind)
        spec_reader_problem(p, v->pos, "%s is not served here; give WebSocketServer",
                            SPEC_QUOTE(v->text, v->len));
}

static void read_bool(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct err err;

    if (spec_reader_plain(p, v) && spec_value_bool(v->text, v->len, spec_reader_target(p, f), &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
}

static void read_port(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    uint64_t n;
    struct err err;

    if (!spec_reader_plain(p, v))
        return;
    if (spec_value_uint(v->text, v->len, 1, 65535, &n, &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
    else
        *(uint16_t *)spec_reader_target(p, f) = (uint16_t)n;
}

static void read_bytes(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct err err;

    if (spec_reader_plain(p, v) &&
        spec_value_uint(v->text, v->len, 0, INT64_MAX, spec_reader_target(p, f), &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
}

static void read_count(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    uint64_t n;
    struct err err;

    if (!spec_reader_plain(p, v))
        return;
    if (spec_value_uint(v->text, v->len, 0, UINT32_MAX, &n, &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
    else
        *(uint32_t *)spec_reader_target(p, f) = (uint32_t)n;
}

static void read_duration(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct err err;

    if (spec_value_duration(v->text, v->len, false, spec_reader_target(p, f), &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
}

static void read_duration_or_0(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct err err;

    if (spec_value_duration(v->text, v->len, true, spec_reader_target(p, f), &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
}

static void read_min_version(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    (void)f;
    if (!strcmp(v->text, "TLSv1.2") && v->len == 7)
        p->s->tls.min_version = SPEC_TLS_1_2;
    else if (!strcmp(v->text, "TLSv1.3") && v->len == 7)
        p->s->tls.min_version = SPEC_TLS_1_3;
    else
        spec_reader_problem(p, v->pos, "%s is not offered; give TLSv1.2 or TLSv1.3",
                            SPEC_QUOTE(v->text, v->len));
}

static void read_name(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct err err;

    if (spec_value_name(v->text, v->len, spec_reader_target(p, f), &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
}

static void read_host(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct err err;

    if (spec_value_host(v->text, v->len, spec_reader_target(p, f), &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
}

/* Two fields may fill one spec_pem; only one of them may be given. */
static bool pem_is_free(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    const struct spec_pem *pem = spec_reader_target(p, f);

    if (!pem->data && !pem->file)
        return true;
    spec_reader_problem(p, v->pos, "%s is given as well, at line %u; give one of the two", f->other,
                        pem->pos.line);
    return false;
}

static void read_pem(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v,
                     size_t max_bytes)
{
    struct spec_pem *pem = spec_reader_target(p, f);
    struct err err;

    if (!pem_is_free(p, f, v))
        return;
    if (spec_value_base64(v->text, v->len, max_bytes, &pem->data, &pem->len, &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
    else
        pem->pos = v->pos;
}

static void read_base64(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    read_pem(p, f, v, SPEC_MAX_PEM_BYTES);
}

static void read_ca_base64(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    read_pem(p, f, v, SPEC_MAX_CA_BYTES);
}

static void read_file(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct spec_pem *pem = spec_reader_target(p, f);
    struct err err;

    if (!pem_is_free(p, f, v))
        return;
    if (spec_value_path(v->text, v->len, &pem->file, &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
    else
        pem->pos = v->pos;
}

/* The next item that is a text; false at the list's end. Other items are reported and passed over. */
static bool next_item(struct spec_reader *p, size_t *count, struct spec_node *v)
{
    while (spec_yaml_next(p->y, v) && v->kind != SPEC_NODE_END) {
        if (++*count > SPEC_MAX_LIST) {
            spec_yaml_stop(p->y, v->pos, "%s: more than %d items; shorten the list", p->field, SPEC_MAX_LIST);
            return false;
        }
        if (v->refused)
            spec_reader_problem(p, v->pos, "%s", v->refused);
        else if (v->kind != SPEC_NODE_SCALAR)
            spec_reader_problem(p, v->pos, "an item is a %s; give a text",
                                v->kind == SPEC_NODE_MAP ? "mapping" : "list");
        else if (spec_reader_absent(v))
            spec_reader_problem(
                p, v->pos,
                "an item is empty; give a text (\"null\" in quotes if that is meant) or leave it out");
        else
            return true;
        spec_yaml_skip(p->y, v);
    }
    return false;
}

static void add_string(struct spec_strings *s, char *text, struct spec_pos pos)
{
    s->items = spec_grow(s->items, s->count, sizeof *s->items);
    s->pos = spec_grow(s->pos, s->count, sizeof *s->pos);
    s->items[s->count] = text;
    s->pos[s->count++] = pos;
}

static void read_origins(struct spec_reader *p, const struct spec_field *f, const struct spec_node *list)
{
    struct spec_node v;
    struct err err;
    size_t count = 0;
    char *text;

    (void)list;
    while (next_item(p, &count, &v))
        if (spec_value_origin(v.text, v.len, &text, &err))
            spec_reader_problem(p, v.pos, "%s", err.msg);
        else
            add_string(spec_reader_target(p, f), text, v.pos);
}

static void read_cidrs(struct spec_reader *p, const struct spec_field *f, const struct spec_node *list)
{
    struct spec_node v;
    struct spec_cidr c;
    struct err err;
    size_t count = 0;

    (void)f;
    (void)list;
    while (next_item(p, &count, &v)) {
        if (spec_value_cidr(v.text, v.len, &c, &err)) {
            spec_reader_problem(p, v.pos, "%s", err.msg);
            continue;
        }
        c.pos = v.pos;
        p->s->trusted_proxies =
            spec_grow(p->s->trusted_proxies, p->s->trusted_proxy_count, sizeof *p->s->trusted_proxies);
        p->s->trusted_proxies[p->s->trusted_proxy_count++] = c;
    }
}

static void read_remove(struct spec_reader *p, const struct spec_field *f, const struct spec_node *list)
{
    struct spec_strings *names = spec_reader_target(p, f);
    struct spec_node v;
    struct err err;
    size_t count = 0, i;
    char *name;

    (void)list;
    while (next_item(p, &count, &v)) {
        if (spec_value_header_name(v.text, v.len, &name, &err)) {
            spec_reader_problem(p, v.pos, "%s", err.msg);
            continue;
        }
        for (i = 0; i < names->count && strcasecmp(names->items[i], name) != 0; i++)
            ;
        if (i < names->count) {
            spec_reader_problem(p, v.pos, "%s stands here twice, first at line %u; keep one", name,
                                names->pos[i].line);
            free(name);
        } else {
            add_string(names, name, v.pos);
        }
    }
}

/* The name of one headers.set entry, or NULL after saying why it cannot be. */
static char *set_name(struct spec_reader *p, const struct spec_node *key)
{
    struct err err;
    char *name;

    if (key->refused || key->kind != SPEC_NODE_SCALAR) {
        spec_reader_problem(p, key->pos, "%s",
                            key->refused ? key->refused : "the name of a header must be a text");
        return NULL;
    }
    if (spec_value_header_name(key->text, key->len, &name, &err)) {
        spec_reader_problem(p, key->pos, "%s", err.msg);
        return NULL;
    }
    for (size_t i = 0; i < p->s->headers.set_count; i++)
        if (!strcasecmp(p->s->headers.set[i].name, name)) {
            spec_reader_problem(
                p, key->pos,
                "%s is set twice, first at line %u; keep one (upper and lower case are the same)", name,
                p->s->headers.set[i].pos.line);
            free(name);
            return NULL;
        }
    return name;
}

static char *set_value(struct spec_reader *p, const char *name, const struct spec_node *v)
{
    struct err err;
    char *value;

    if (v->refused)
        spec_reader_problem(p, v->pos, "%s: %s", name, v->refused);
    else if (v->kind != SPEC_NODE_SCALAR)
        spec_reader_problem(p, v->pos, "%s is a %s; give a text", name,
                            v->kind == SPEC_NODE_MAP ? "mapping" : "list");
    else if (v->plain && spec_reader_absent(v))
        spec_reader_problem(p, v->pos, "%s has no value; write \"\" for an empty one", name);
    else if (spec_value_header_value(v->text, v->len, &value, &err))
        spec_reader_problem(p, v->pos, "%s %s", name, err.msg);
    else
        return value;
    return NULL;
}

static void read_set(struct spec_reader *p, const struct spec_field *f, const struct spec_node *map)
{
    struct spec_node key, v;
    size_t count = 0, bytes = 0;

    (void)f;
    while (spec_yaml_next(p->y, &key) && key.kind != SPEC_NODE_END) {
        struct spec_pos pos = key.pos;
        char *name, *value;

        if (++count > SPEC_MAX_LIST) {
            spec_yaml_stop(p->y, pos, "%s: more than %d headers; shorten it", p->field, SPEC_MAX_LIST);
            return;
        }
        name = set_name(p, &key);
        spec_yaml_skip(p->y, &key);
        if (!spec_yaml_next(p->y, &v)) {
            free(name);
            return;
        }
        value = name ? set_value(p, name, &v) : NULL;
        spec_yaml_skip(p->y, &v);
        if (!value) {
            free(name);
            continue;
        }
        bytes += strlen(name) + strlen(value);
        p->s->headers.set = spec_grow(p->s->headers.set, p->s->headers.set_count, sizeof *p->s->headers.set);
        p->s->headers.set[p->s->headers.set_count++] = (struct spec_header){name, value, pos};
    }
    if (bytes > SPEC_MAX_HEADERS_BYTES)
        spec_reader_problem(p, map->pos,
                            "%zu bytes of names and values are too many for a request; give at most %u",
                            bytes, SPEC_MAX_HEADERS_BYTES);
}

#define AT(member) offsetof(struct spec_server, member)

static void read_tls(struct spec_reader *p, const struct spec_field *f, const struct spec_node *map)
{
    static const struct spec_field fields[] = {
        {"certFile", SPEC_NODE_SCALAR, read_file, AT(cert), 0, SPEC_MARK_CERT, "certBase64"},
        {"keyFile", SPEC_NODE_SCALAR, read_file, AT(key), 0, SPEC_MARK_KEY, "keyBase64"},
        {"minVersion", SPEC_NODE_SCALAR, read_min_version, 0, 0, 0, NULL},
        {"clientCAFile", SPEC_NODE_SCALAR, read_file, AT(tls.client_ca), 0, 0, "tls.clientCABase64"},
        {"clientCABase64", SPEC_NODE_SCALAR, read_ca_base64, AT(tls.client_ca), 0, 0, "tls.clientCAFile"},
    };

    (void)f;
    p->s->tls_given = true;
    p->s->tls.pos = map->pos;
    spec_reader_fields(p, fields, SPEC_COUNT(fields));
}

static void read_backend_tls(struct spec_reader *p, const struct spec_field *f, const struct spec_node *map)
{
    static const struct spec_field fields[] = {
        {"caFile", SPEC_NODE_SCALAR, read_file, AT(backend_tls.ca), 0, 0, "backendTLS.caBase64"},
        {"caBase64", SPEC_NODE_SCALAR, read_ca_base64, AT(backend_tls.ca), 0, 0, "backendTLS.caFile"},
        {"serverName", SPEC_NODE_SCALAR, read_host, AT(backend_tls.server_name), 0, 0, NULL},
        {"insecureSkipVerify", SPEC_NODE_SCALAR, read_bool, AT(backend_tls.insecure_skip_verify), 0, 0, NULL},
    };

    (void)f;
    p->s->backend_tls_given = true;
    p->s->backend_tls.pos = map->pos;
    spec_reader_fields(p, fields, SPEC_COUNT(fields));
}

static void read_headers(struct spec_reader *p, const struct spec_field *f, const struct spec_node *map)
{
    static const struct spec_field fields[] = {
        {"set", SPEC_NODE_MAP, read_set, 0, 0, 0, NULL},
        {"remove", SPEC_NODE_LIST, read_remove, AT(headers.remove), 0, 0, NULL},
        {"keepHost", SPEC_NODE_SCALAR, read_bool, AT(headers.keep_host), 0, 0, NULL},
    };

    (void)f;
    (void)map;
    spec_reader_fields(p, fields, SPEC_COUNT(fields));
}

static void read_timeouts(struct spec_reader *p, const struct spec_field *f, const struct spec_node *map)
{
    static const struct spec_field fields[] = {
        {"connect", SPEC_NODE_SCALAR, read_duration, AT(timeouts.connect_ms), 0, 0, NULL},
        {"handshake", SPEC_NODE_SCALAR, read_duration, AT(timeouts.handshake_ms), 0, 0, NULL},
        {"idle", SPEC_NODE_SCALAR, read_duration_or_0, AT(timeouts.idle_ms), 0, 0, NULL},
        {"maxAge", SPEC_NODE_SCALAR, read_duration_or_0, AT(timeouts.max_age_ms), 0, 0, NULL},
        {"drain", SPEC_NODE_SCALAR, read_duration_or_0, AT(timeouts.drain_ms), 0, 0, NULL},
    };

    (void)f;
    (void)map;
    spec_reader_fields(p, fields, SPEC_COUNT(fields));
}

static void read_ping(struct spec_reader *p, const struct spec_field *f, const struct spec_node *map)
{
    static const struct spec_field fields[] = {
        {"interval", SPEC_NODE_SCALAR, read_duration_or_0, AT(ping.interval_ms), 0, 0, NULL},
        {"timeout", SPEC_NODE_SCALAR, read_duration, AT(ping.timeout_ms), 0, 0, NULL},
    };

    (void)f;
    (void)map;
    spec_reader_fields(p, fields, SPEC_COUNT(fields));
}

static void read_limits(struct spec_reader *p, const struct spec_field *f, const struct spec_node *map)
{
    static const struct spec_field fields[] = {
        {"clientMaxMessageBytes", SPEC_NODE_SCALAR, read_bytes, AT(limits.client_max_message_bytes), 0, 0,
         NULL},
        {"backendMaxMessageBytes", SPEC_NODE_SCALAR, read_bytes, AT(limits.backend_max_message_bytes), 0, 0,
         NULL},
        {"maxConnections", SPEC_NODE_SCALAR, read_count, AT(limits.max_connections), 0, 0, NULL},
        {"maxConnectionsPerIP", SPEC_NODE_SCALAR, read_count, AT(limits.max_connections_per_ip), 0, 0, NULL},
        {"handshakesPerSecond", SPEC_NODE_SCALAR, read_count, AT(limits.handshakes_per_second), 0, 0, NULL},
    };

    (void)f;
    (void)map;
    spec_reader_fields(p, fields, SPEC_COUNT(fields));
}

static const struct spec_field server_fields[] = {
    {"kind", SPEC_NODE_SCALAR, read_kind, 0, 0, SPEC_MARK_KIND, NULL},
    {"name", SPEC_NODE_SCALAR, read_name, AT(name), AT(name_pos), SPEC_MARK_NAME, NULL},
    {"https", SPEC_NODE_SCALAR, read_bool, AT(https), AT(https_pos), SPEC_MARK_HTTPS, NULL},
    {"port", SPEC_NODE_SCALAR, read_port, AT(port), AT(port_pos), SPEC_MARK_PORT, NULL},
    {"backend", SPEC_NODE_SCALAR, spec_read_url, AT(backend), 0, SPEC_MARK_BACKEND, NULL},
    {"backends", SPEC_NODE_LIST, spec_read_backends, 0, AT(backends_pos), SPEC_MARK_BACKEND, NULL},
    {"certBase64", SPEC_NODE_SCALAR, read_base64, AT(cert), 0, SPEC_MARK_CERT, "tls.certFile"},
    {"keyBase64", SPEC_NODE_SCALAR, read_base64, AT(key), 0, SPEC_MARK_KEY, "tls.keyFile"},
    {"wssCertBase64", SPEC_NODE_SCALAR, read_base64, AT(wss_cert), 0, SPEC_MARK_WSS_CERT, NULL},
    {"wssKeyBase64", SPEC_NODE_SCALAR, read_base64, AT(wss_key), 0, SPEC_MARK_WSS_KEY, NULL},
    {"tls", SPEC_NODE_MAP, read_tls, 0, 0, SPEC_MARK_CERT | SPEC_MARK_KEY, NULL},
    {"backendTLS", SPEC_NODE_MAP, read_backend_tls, 0, 0, 0, NULL},
    {"allowedOrigins", SPEC_NODE_LIST, read_origins, AT(allowed_origins), 0, 0, NULL},
    {"headers", SPEC_NODE_MAP, read_headers, 0, 0, 0, NULL},
    {"trustedProxies", SPEC_NODE_LIST, read_cidrs, 0, 0, 0, NULL},
    {"timeouts", SPEC_NODE_MAP, read_timeouts, 0, 0, 0, NULL},
    {"ping", SPEC_NODE_MAP, read_ping, 0, 0, 0, NULL},
    {"limits", SPEC_NODE_MAP, read_limits, 0, 0, 0, NULL},
};

static void server_init(struct spec_server *s, struct spec_pos pos)
{
    *s = (struct spec_server){.pos = pos};
    s->headers.keep_host = true;
    s->timeouts.connect_ms = 5000;
    s->timeouts.handshake_ms = 10000;
    s->timeouts.drain_ms = 30000;
    s->ping.timeout_ms = 10000;
}

/* Problems from `first` on belong to this document: they get its name, now that it is known. */
static void problems_claim(struct spec_reader *p, size_t first)
{
    for (size_t i = first; p->s->name && i < p->problems->count; i++)
        if (!p->problems->items[i].server)
            p->problems->items[i].server = spec_copy(p->s->name, strlen(p->s->name));
}

/* A document of another kind has other fields: one problem says so, not one a field. */
static void problems_keep_kind(struct spec_reader *p, size_t first)
{
    size_t kept = first;

    for (size_t i = first; i < p->problems->count; i++) {
        struct spec_problem item = p->problems->items[i];

        if (strncmp(item.text, "kind: ", 6) != 0) {
            free(item.server);
            free(item.text);
        } else {
            p->problems->items[kept++] = item;
        }
    }
    p->problems->count = kept;
}

static void read_mapping(struct spec_reader *p, const struct spec_node *root)
{
    size_t first = p->problems->count;

    p->has_kind = p->wrong_kind = false;
    p->base = p->s;
    p->field[0] = '\0';
    spec_reader_fields(p, server_fields, SPEC_COUNT(server_fields));
    if (p->wrong_kind && !spec_yaml_broken(p->y))
        problems_keep_kind(p, first);
    if (p->wrong_kind || spec_yaml_broken(p->y))
        p->bad = SPEC_MARK_ALL;
    if (!p->has_kind && !(p->bad & SPEC_MARK_KIND))
        spec_problem_add(p->problems, root->pos, NULL, "kind: missing; give kind: WebSocketServer");
    problems_claim(p, first);
}

static void read_document(struct spec_reader *p, struct spec *out, unsigned **marks,
                          const struct spec_node *root)
{
    out->servers = spec_grow(out->servers, out->count, sizeof *out->servers);
    *marks = spec_grow(*marks, out->count, sizeof **marks);
    p->s = &out->servers[out->count];
    server_init(p->s, root->pos);
    p->bad = 0;
    if (!root->refused && root->kind == SPEC_NODE_MAP) {
        read_mapping(p, root);
    } else {
        spec_problem_add(p->problems, root->pos, NULL, "%s",
                         root->refused
                             ? root->refused
                             : "a document must be a mapping, beginning with kind: WebSocketServer");
        spec_yaml_skip(p->y, root);
        p->bad = SPEC_MARK_ALL;
    }
    (*marks)[out->count++] = p->bad;
}

int spec_parse_marked(const uint8_t *bytes, size_t len, struct spec *out, unsigned **marks,
                      struct spec_problems *problems)
{
    struct spec_reader p = {.y = spec_yaml_new(bytes, len, problems), .problems = problems};
    struct spec_node n;
    bool broken;

    *out = (struct spec){0};
    *marks = NULL;
    while (spec_yaml_next(p.y, &n))
        if (n.kind == SPEC_NODE_DOC && spec_yaml_next(p.y, &n) && !spec_reader_absent(&n))
            read_document(&p, out, marks, &n);
    broken = spec_yaml_broken(p.y);
    spec_yaml_free(p.y);
    return broken ? -1 : 0;
}

int spec_parse(const uint8_t *bytes, size_t len, struct spec *out, struct spec_problems *problems)
{
    size_t before = problems->count;
    struct spec s;
    unsigned *marks;

    (void)spec_parse_marked(bytes, len, &s, &marks, problems);
    free(marks);
    if (problems->count > before || problems->cut) {
        spec_free(&s);
        return -1;
    }
    *out = s;
    return 0;
}
