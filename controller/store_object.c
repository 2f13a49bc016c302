#include "store_object.h"

#include "base/need.h"
#include "spec/spec_values.h"

#include <stdlib.h>
#include <string.h>

#define SERVICE_LABEL "kubernetes.io/service-name"

static char *copy(const json_t *text, const char *otherwise)
{
    const char *s = json_string_value(text);

    return s || otherwise ? need(strdup(s ? s : otherwise)) : NULL;
}

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static size_t at_most(size_t n, size_t most)
{
    return n < most ? n : most;
}

/* Secrets */

static void take_pem(struct store_secret *s, json_t *data, const char *key, struct store_pem *out)
{
    const json_t *value = json_object_get(data, key);
    const char *text = json_string_value(value);
    struct err err;

    if (!text || !*text)
        return;
    if (spec_value_base64(text, json_string_length(value), SPEC_MAX_CA_BYTES, &out->data, &out->len, &err) &&
        !s->problem)
        s->problem = need_printf("%s: %s", key, err.msg);
}

void store_secret_take(struct store_secret *s, json_t *object)
{
    json_t *data = json_object_get(object, "data");

    s->type = copy(json_object_get(object, "type"), "");
    take_pem(s, data, "tls.crt", &s->cert);
    take_pem(s, data, "tls.key", &s->key);
    take_pem(s, data, "ca.crt", &s->ca);
}

static void pem_free(struct store_pem *p)
{
    if (p->data)
        explicit_bzero(p->data, p->len);
    free(p->data);
}

void store_secret_free(struct store_secret *s)
{
    free(s->ns);
    free(s->name);
    free(s->type);
    free(s->problem);
    pem_free(&s->cert);
    pem_free(&s->key);
    pem_free(&s->ca);
    *s = (struct store_secret){0};
}

static bool pem_equal(const struct store_pem *a, const struct store_pem *b)
{
    return a->len == b->len && !a->data == !b->data && (!a->len || !memcmp(a->data, b->data, a->len));
}

bool store_secret_equal(const struct store_secret *a, const struct store_secret *b)
{
    return same(a->type, b->type) && same(a->problem, b->problem) && pem_equal(&a->cert, &b->cert) &&
           pem_equal(&a->key, &b->key) && pem_equal(&a->ca, &b->ca);
}

/* Ports */

static bool take_port(struct store_port *p, json_t *from)
{
    const json_t *port = json_object_get(from, "port");
    const char *protocol = json_string_value(json_object_get(from, "protocol"));
    json_int_t number = json_integer_value(port);

    if (json_is_integer(port) && (number < 1 || number > 65535))
        return false;
    *p = (struct store_port){.name = copy(json_object_get(from, "name"), ""),
                             .port = (uint16_t)number,
                             .port_given = json_is_integer(port),
                             .tcp = !protocol || !strcmp(protocol, "TCP")};
    return true;
}

static void take_ports(json_t *list, struct store_port **out, size_t *count)
{
    size_t i;
    json_t *item;

    *out = need(calloc(json_array_size(list) + 1, sizeof **out));
    json_array_foreach(list, i, item) *count += take_port(&(*out)[*count], item);
}

static void ports_done(struct store_port *ports, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(ports[i].name);
    free(ports);
}

static bool ports_equal(const struct store_port *a, size_t a_count, const struct store_port *b,
                        size_t b_count)
{
    if (a_count != b_count)
        return false;
    for (size_t i = 0; i < a_count; i++)
        if (!same(a[i].name, b[i].name) || a[i].port != b[i].port || a[i].tcp != b[i].tcp ||
            a[i].port_given != b[i].port_given)
            return false;
    return true;
}

/* Services */

void store_service_take(struct store_service *s, json_t *object)
{
    json_t *spec = json_object_get(object, "spec");
    const char *type = json_string_value(json_object_get(spec, "type"));

    s->external_name = type && !strcmp(type, "ExternalName");
    take_ports(json_object_get(spec, "ports"), &s->ports, &s->port_count);
}

void store_service_free(struct store_service *s)
{
    free(s->ns);
    free(s->name);
    ports_done(s->ports, s->port_count);
    *s = (struct store_service){0};
}

bool store_service_equal(const struct store_service *a, const struct store_service *b)
{
    return a->external_name == b->external_name &&
           ports_equal(a->ports, a->port_count, b->ports, b->port_count);
}

/* Slices */

/* A condition that is not there stands as `otherwise`, as the API says. */
static bool condition(const json_t *conditions, const char *name, bool otherwise)
{
    const json_t *value = json_object_get(conditions, name);

    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static void take_endpoint(struct store_endpoint *e, json_t *from)
{
    const json_t *addresses = json_object_get(from, "addresses"),
                 *conditions = json_object_get(from, "conditions");
    size_t i;
    json_t *address;

    e->ready = condition(conditions, "ready", true);
    e->serving = condition(conditions, "serving", e->ready);
    e->terminating = condition(conditions, "terminating", false);
    e->addresses = need(calloc(json_array_size(addresses) + 1, sizeof *e->addresses));
    json_array_foreach(addresses, i, address) if (json_is_string(address)) e->addresses[e->address_count++] =
        copy(address, NULL);
}

void store_slice_take(struct store_slice *s, json_t *object)
{
    const json_t *labels = json_object_get(json_object_get(object, "metadata"), "labels");
    json_t *endpoints = json_object_get(object, "endpoints");
    const char *type = json_string_value(json_object_get(object, "addressType"));
    size_t count = at_most(json_array_size(endpoints), STORE_MAX_ENDPOINTS);

    s->service = copy(json_object_get(labels, SERVICE_LABEL), NULL);
    s->fqdn = type && !strcmp(type, "FQDN");
    take_ports(json_object_get(object, "ports"), &s->ports, &s->port_count);
    s->endpoints = need(calloc(count + 1, sizeof *s->endpoints));
    for (; s->endpoint_count < count; s->endpoint_count++)
        take_endpoint(&s->endpoints[s->endpoint_count], json_array_get(endpoints, s->endpoint_count));
}

void store_slice_free(struct store_slice *s)
{
    for (size_t i = 0; i < s->endpoint_count; i++) {
        for (size_t k = 0; k < s->endpoints[i].address_count; k++)
            free(s->endpoints[i].addresses[k]);
        free(s->endpoints[i].addresses);
    }
    free(s->endpoints);
    ports_done(s->ports, s->port_count);
    free(s->ns);
    free(s->name);
    free(s->service);
    *s = (struct store_slice){0};
}

static bool endpoint_equal(const struct store_endpoint *a, const struct store_endpoint *b)
{
    if (a->ready != b->ready || a->serving != b->serving || a->terminating != b->terminating ||
        a->address_count != b->address_count)
        return false;
    for (size_t i = 0; i < a->address_count; i++)
        if (strcmp(a->addresses[i], b->addresses[i]) != 0)
            return false;
    return true;
}

bool store_slice_equal(const struct store_slice *a, const struct store_slice *b)
{
    if (!same(a->service, b->service) || a->fqdn != b->fqdn || a->endpoint_count != b->endpoint_count ||
        !ports_equal(a->ports, a->port_count, b->ports, b->port_count))
        return false;
    for (size_t i = 0; i < a->endpoint_count; i++)
        if (!endpoint_equal(&a->endpoints[i], &b->endpoints[i]))
            return false;
    return true;
}

/* Grants */

void store_grant_take(struct store_grant *g, json_t *object)
{
    json_t *spec = json_object_get(object, "spec"), *item;
    json_t *from = json_object_get(spec, "from"), *to = json_object_get(spec, "to");
    size_t i;

    g->from = need(calloc(STORE_MAX_RULES, sizeof *g->from));
    g->to = need(calloc(STORE_MAX_RULES, sizeof *g->to));
    json_array_foreach(from, i, item)
    {
        if (g->from_count == STORE_MAX_RULES)
            break;
        g->from[g->from_count].group = copy(json_object_get(item, "group"), "");
        g->from[g->from_count].kind = copy(json_object_get(item, "kind"), "");
        g->from[g->from_count++].ns = copy(json_object_get(item, "namespace"), "");
    }
    json_array_foreach(to, i, item)
    {
        if (g->to_count == STORE_MAX_RULES)
            break;
        g->to[g->to_count].group = copy(json_object_get(item, "group"), "");
        g->to[g->to_count].kind = copy(json_object_get(item, "kind"), "");
        g->to[g->to_count++].name = copy(json_object_get(item, "name"), NULL);
    }
}

void store_grant_free(struct store_grant *g)
{
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
    free(g->ns);
    free(g->name);
    *g = (struct store_grant){0};
}

bool store_grant_equal(const struct store_grant *a, const struct store_grant *b)
{
    if (a->from_count != b->from_count || a->to_count != b->to_count)
        return false;
    for (size_t i = 0; i < a->from_count; i++)
        if (!same(a->from[i].group, b->from[i].group) || !same(a->from[i].kind, b->from[i].kind) ||
            !same(a->from[i].ns, b->from[i].ns))
            return false;
    for (size_t i = 0; i < a->to_count; i++)
        if (!same(a->to[i].group, b->to[i].group) || !same(a->to[i].kind, b->to[i].kind) ||
            !same(a->to[i].name, b->to[i].name))
            return false;
    return true;
}
