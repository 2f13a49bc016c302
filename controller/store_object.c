#include "store_object.h"

#include "base/need.h"
#include "spec/spec_values.h"

#include <stdlib.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static char *copy_of(const char *text)
{
    return text ? need(strdup(text)) : NULL;
}

static char *copy_or_empty(const char *text)
{
    return need(strdup(text ? text : ""));
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static void *array_of(json_t *list, size_t most, size_t each_bytes)
{
    size_t count = json_array_size(list);

    return need(calloc((count < most ? count : most) + 1, each_bytes));
}

bool store_object_key(json_t *object, const char **ns, const char **name)
{
    json_t *meta = json_object_get(object, "metadata");

    *ns = text_of(meta, "namespace");
    *name = text_of(meta, "name");
    return *ns && *name;
}

static void parse_key(json_t *object, char **ns, char **name)
{
    const char *a = NULL, *b = NULL;

    (void)store_object_key(object, &a, &b);
    *ns = copy_or_empty(a);
    *name = copy_or_empty(b);
}

static void pem_free(struct store_pem *p)
{
    if (p->data)
        explicit_bzero(p->data, p->len);
    free(p->data);
}

static bool pem_same(const struct store_pem *a, const struct store_pem *b)
{
    return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

static void parse_pem(struct store_secret *s, json_t *data, const char *key, struct store_pem *out)
{
    json_t *v = json_object_get(data, key);
    char *before = s->problem;
    struct err err;

    if (!v || json_is_null(v) || (json_is_string(v) && !json_string_length(v)))
        return;
    if (json_is_string(v) && !spec_value_base64(json_string_value(v), json_string_length(v),
                                                SPEC_MAX_CA_BYTES, &out->data, &out->len, &err))
        return;
    s->problem = need_printf("%s%s%s: %s", before ? before : "", before ? "; " : "", key,
                             json_is_string(v) ? err.msg : "is no text; give base64");
    free(before);
}

struct store_secret *store_secret_parse(json_t *object)
{
    struct store_secret *s = need(calloc(1, sizeof *s));
    json_t *data = json_object_get(object, "data");

    parse_key(object, &s->ns, &s->name);
    s->type = copy_or_empty(text_of(object, "type"));
    parse_pem(s, data, "tls.crt", &s->cert);
    parse_pem(s, data, "tls.key", &s->key);
    parse_pem(s, data, "ca.crt", &s->ca);
    return s;
}

void store_secret_free(struct store_secret *s)
{
    free(s->ns);
    free(s->name);
    free(s->type);
    pem_free(&s->cert);
    pem_free(&s->key);
    pem_free(&s->ca);
    free(s->problem);
    free(s);
}

bool store_secret_same(const struct store_secret *a, const struct store_secret *b)
{
    return same_text(a->type, b->type) && same_text(a->problem, b->problem) && pem_same(&a->cert, &b->cert) &&
           pem_same(&a->key, &b->key) && pem_same(&a->ca, &b->ca);
}

static struct store_port *parse_ports(json_t *list, size_t *count)
{
    struct store_port *ports = array_of(list, STORE_MAX_ENDPOINTS, sizeof *ports);
    json_t *v;
    size_t i;

    *count = 0;
    json_array_foreach(list, i, v)
    {
        json_t *port = json_object_get(v, "port");
        json_int_t number = json_integer_value(port);
        const char *protocol = text_of(v, "protocol");

        if (*count == STORE_MAX_ENDPOINTS)
            break;
        if (port && !json_is_null(port) && (number < 1 || number > 65535))
            continue;
        ports[(*count)++] = (struct store_port){.name = copy_or_empty(text_of(v, "name")),
                                                .port = (uint16_t)number,
                                                .tcp = !protocol || !strcmp(protocol, "TCP"),
                                                .port_given = number != 0};
    }
    return ports;
}

static void ports_free(struct store_port *ports, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(ports[i].name);
    free(ports);
}

static bool ports_same(const struct store_port *a, size_t a_count, const struct store_port *b, size_t b_count)
{
    for (size_t i = 0; a_count == b_count && i < a_count; i++)
        if (strcmp(a[i].name, b[i].name) != 0 || a[i].port != b[i].port || a[i].tcp != b[i].tcp ||
            a[i].port_given != b[i].port_given)
            return false;
    return a_count == b_count;
}

struct store_service *store_service_parse(json_t *object)
{
    struct store_service *s = need(calloc(1, sizeof *s));
    json_t *spec = json_object_get(object, "spec");
    const char *type = text_of(spec, "type");

    parse_key(object, &s->ns, &s->name);
    s->external_name = type && !strcmp(type, "ExternalName");
    s->ports = parse_ports(json_object_get(spec, "ports"), &s->port_count);
    return s;
}

void store_service_free(struct store_service *s)
{
    free(s->ns);
    free(s->name);
    ports_free(s->ports, s->port_count);
    free(s);
}

bool store_service_same(const struct store_service *a, const struct store_service *b)
{
    return a->external_name == b->external_name &&
           ports_same(a->ports, a->port_count, b->ports, b->port_count);
}

static struct store_endpoint parse_endpoint(json_t *v)
{
    json_t *conditions = json_object_get(v, "conditions"), *list = json_object_get(v, "addresses"), *address;
    struct store_endpoint e = {.ready = !json_is_false(json_object_get(conditions, "ready")),
                               .serving = json_is_true(json_object_get(conditions, "serving")),
                               .terminating = json_is_true(json_object_get(conditions, "terminating"))};
    size_t i;

    e.addresses = array_of(list, STORE_MAX_ENDPOINTS, sizeof *e.addresses);
    json_array_foreach(list, i, address) if (json_is_string(address) && e.address_count < STORE_MAX_ENDPOINTS)
        e.addresses[e.address_count++] = copy_of(json_string_value(address));
    return e;
}

struct store_slice *store_slice_parse(json_t *object)
{
    struct store_slice *s = need(calloc(1, sizeof *s));
    json_t *labels = json_object_get(json_object_get(object, "metadata"), "labels");
    json_t *list = json_object_get(object, "endpoints"), *v;
    const char *type = text_of(object, "addressType");
    size_t i;

    parse_key(object, &s->ns, &s->name);
    s->service = copy_of(text_of(labels, "kubernetes.io/service-name"));
    s->fqdn = type && !strcmp(type, "FQDN");
    s->ports = parse_ports(json_object_get(object, "ports"), &s->port_count);
    s->endpoints = array_of(list, STORE_MAX_ENDPOINTS, sizeof *s->endpoints);
    json_array_foreach(list, i, v) if (s->endpoint_count < STORE_MAX_ENDPOINTS)
        s->endpoints[s->endpoint_count++] = parse_endpoint(v);
    return s;
}

void store_slice_free(struct store_slice *s)
{
    free(s->ns);
    free(s->name);
    free(s->service);
    ports_free(s->ports, s->port_count);
    for (size_t i = 0; i < s->endpoint_count; i++) {
        for (size_t j = 0; j < s->endpoints[i].address_count; j++)
            free(s->endpoints[i].addresses[j]);
        free(s->endpoints[i].addresses);
    }
    free(s->endpoints);
    free(s);
}

static bool endpoint_same(const struct store_endpoint *a, const struct store_endpoint *b)
{
    if (a->ready != b->ready || a->serving != b->serving || a->terminating != b->terminating)
        return false;
    for (size_t i = 0; a->address_count == b->address_count && i < a->address_count; i++)
        if (strcmp(a->addresses[i], b->addresses[i]) != 0)
            return false;
    return a->address_count == b->address_count;
}

bool store_slice_same(const struct store_slice *a, const struct store_slice *b)
{
    if (!same_text(a->service, b->service) || a->fqdn != b->fqdn ||
        !ports_same(a->ports, a->port_count, b->ports, b->port_count))
        return false;
    for (size_t i = 0; a->endpoint_count == b->endpoint_count && i < a->endpoint_count; i++)
        if (!endpoint_same(&a->endpoints[i], &b->endpoints[i]))
            return false;
    return a->endpoint_count == b->endpoint_count;
}

struct store_grant *store_grant_parse(json_t *object)
{
    struct store_grant *g = need(calloc(1, sizeof *g));
    json_t *spec = json_object_get(object, "spec"), *from = json_object_get(spec, "from"),
           *to = json_object_get(spec, "to"), *v;
    size_t i;

    parse_key(object, &g->ns, &g->name);
    g->from = array_of(from, STORE_MAX_ENDPOINTS, sizeof *g->from);
    g->to = array_of(to, STORE_MAX_ENDPOINTS, sizeof *g->to);
    json_array_foreach(from, i, v)
    {
        if (g->from_count == STORE_MAX_ENDPOINTS)
            break;
        g->from[g->from_count].group = copy_or_empty(text_of(v, "group"));
        g->from[g->from_count].kind = copy_or_empty(text_of(v, "kind"));
        g->from[g->from_count++].ns = copy_or_empty(text_of(v, "namespace"));
    }
    json_array_foreach(to, i, v)
    {
        json_t *name = json_object_get(v, "name");

        /* A name that is no text must not come to mean every name. */
        if (g->to_count == STORE_MAX_ENDPOINTS || (name && !json_is_null(name) && !json_is_string(name)))
            continue;
        g->to[g->to_count].group = copy_or_empty(text_of(v, "group"));
        g->to[g->to_count].kind = copy_or_empty(text_of(v, "kind"));
        g->to[g->to_count++].name = copy_of(json_string_value(name));
    }
    return g;
}

void store_grant_free(struct store_grant *g)
{
    free(g->ns);
    free(g->name);
    for (size_t i = 0; i < g->from_count; i++) {
        free(g->from[i].group);
        free(g->from[i].kind);
        free(g->from[i].ns);
    }
    for (size_t i = 0; i < g->to_count; i++) {
        free(g->to[i].group);
        free(g->to[i].kind);
        free(g->to[i].name);
    }
    free(g->from);
    free(g->to);
    free(g);
}

bool store_grant_same(const struct store_grant *a, const struct store_grant *b)
{
    if (a->from_count != b->from_count || a->to_count != b->to_count)
        return false;
    for (size_t i = 0; i < a->from_count; i++)
        if (strcmp(a->from[i].group, b->from[i].group) != 0 ||
            strcmp(a->from[i].kind, b->from[i].kind) != 0 || strcmp(a->from[i].ns, b->from[i].ns) != 0)
            return false;
    for (size_t i = 0; i < a->to_count; i++)
        if (strcmp(a->to[i].group, b->to[i].group) != 0 || strcmp(a->to[i].kind, b->to[i].kind) != 0 ||
            !same_text(a->to[i].name, b->to[i].name))
            return false;
    return true;
}
