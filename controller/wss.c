#include "wss.h"

#include "base/cleanup.h"
#include "base/need.h"
#include "kube/kube_path.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct parse {
    struct wss *w;
    char problem[WSS_MAX_PROBLEM];
};

__attribute__((format(printf, 2, 3))) static void problem(struct parse *p, const char *fmt, ...)
{
    static const char more[] = "; ...";
    size_t len = strlen(p->problem), room = sizeof p->problem - sizeof more - len;
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (len >= sizeof more - 1 && !strcmp(p->problem + len - (sizeof more - 1), more))
        return;
    if (strlen(text) + 2 >= room)
        memcpy(p->problem + len, more, sizeof more);
    else
        snprintf(p->problem + len, room, "%s%s", len ? "; " : "", text);
}

static bool lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* NULL where there is no text, or one with a NUL inside. */
static const char *text_of(const json_t *object, const char *key)
{
    json_t *v = json_object_get(object, key);

    if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
        return NULL;
    return json_string_value(v);
}

static char *copy_of(const char *text)
{
    return text ? need(strdup(text)) : NULL;
}

static const char *kind_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "a mapping";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a text";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    default: return "nothing";
    }
}

/* Quoted in a message only when it can be nothing but a name. */
static const char *shown(const char *key)
{
    for (size_t i = 0; key[i]; i++)
        if (i >= 40 ||
            !(lower_or_digit(key[i]) || (key[i] >= 'A' && key[i] <= 'Z') || key[i] == '_' || key[i] == '-'))
            return "(a key that is no name)";
    return *key ? key : "(an empty key)";
}

/* Takes `key` out of `from`; NULL when it is absent or null. The caller has a reference. */
static json_t *take(json_t *from, const char *key)
{
    json_t *v = json_incref(json_object_get(from, key));

    json_object_del(from, key);
    if (!json_is_null(v))
        return v;
    json_decref(v);
    return NULL;
}

static void only_keys(struct parse *p, const char *field, json_t *map, const char *const keys[],
                      const char *right)
{
    const char *key;
    json_t *v;

    json_object_foreach(map, key, v)
    {
        bool known = json_is_null(v);

        for (size_t i = 0; keys[i] && !known; i++)
            known = !strcmp(keys[i], key);
        if (!known)
            problem(p, "spec.%s.%s: unknown key; give %s", field, shown(key), right);
    }
}

/* A name of `map`, checked; `what` in the message. NULL when it is not there or wrong, which is said. */
static const char *name_in(struct parse *p, const char *field, json_t *map, const char *key, bool required,
                           bool (*right)(const char *))
{
    json_t *v = json_object_get(map, key);
    const char *text = text_of(map, key);

    if (!v || json_is_null(v) || (text && !*text)) {
        if (required)
            problem(p, "spec.%s%s: missing; give the name", field, key);
        return NULL;
    }
    if (!text)
        problem(p, "spec.%s%s: is %s; give a name", field, key,
                json_is_string(v) ? "a text with a NUL" : kind_of(v));
    else if (!right(text))
        problem(p, "spec.%s%s: is not a name as Kubernetes has them; give small letters, digits and '-'%s",
                field, key, right == kube_path_name_ok ? " and '.'" : "");
    else
        return text;
    return NULL;
}

static void take_ref(struct parse *p, json_t *from, const char *field, const char *key, struct wss_ref *out)
{
    static const char *const keys[] = {"name", "namespace", NULL};
    json_t *v = take(from, key);
    size_t before = strlen(p->problem);
    const char *name, *ns;
    char whole[64], dotted[66];

    if (!v)
        return;
    snprintf(whole, sizeof whole, "%s.%s", field, key);
    snprintf(dotted, sizeof dotted, "%s.", whole);
    if (!json_is_object(v)) {
        problem(p, "spec.%s: is %s; give a mapping with name", whole, kind_of(v));
    } else {
        only_keys(p, whole, v, keys, "name and, if need be, namespace");
        name = name_in(p, dotted, v, "name", true, kube_path_name_ok);
        ns = name_in(p, dotted, v, "namespace", false, kube_path_label_ok);
        if (name && strlen(p->problem) == before) {
            out->name = copy_of(name);
            out->ns = copy_of(ns ? ns : p->w->ns);
        }
    }
    json_decref(v);
}

static void take_backend_ref(struct parse *p, json_t *spec)
{
    static const char *const keys[] = {"name", "port", "scheme", NULL};
    json_t *v = take(spec, "backendRef"), *port, *scheme;
    const char *name;

    if (!v)
        return;
    if (!json_is_object(v)) {
        problem(p, "spec.backendRef: is %s; give a mapping with name and port", kind_of(v));
        json_decref(v);
        return;
    }
    only_keys(p, "backendRef", v, keys, "name, port and scheme");
    name = name_in(p, "backendRef.", v, "name", true, kube_path_label_ok);
    port = json_object_get(v, "port");
    if (!port || json_is_null(port))
        problem(p, "spec.backendRef.port: missing; give the number of a port of the Service");
    else if (!json_is_integer(port) || json_integer_value(port) < 1 || json_integer_value(port) > 65535)
        problem(p, "spec.backendRef.port: is no port; give a number from 1 to 65535");
    else
        p->w->backend_ref.port = (uint16_t)json_integer_value(port);
    scheme = json_object_get(v, "scheme");
    p->w->backend_ref.tls = json_is_string(scheme) && !strcmp(json_string_value(scheme), "wss");
    if (scheme && !json_is_null(scheme) && !p->w->backend_ref.tls &&
        !(json_is_string(scheme) &&
          (!*json_string_value(scheme) || !strcmp(json_string_value(scheme), "ws"))))
        problem(p, "spec.backendRef.scheme: is neither; give ws or wss");
    p->w->backend_ref.name = copy_of(name);
    json_decref(v);
}

static void take_labels(struct parse *p, json_t *labels)
{
    const char *key;
    json_t *v;

    if (json_object_size(labels) > WSS_MAX_LABELS) {
        problem(p, "spec.workloadSelector.matchLabels: more than %d labels; shorten it", WSS_MAX_LABELS);
        return;
    }
    p->w->labels = need(calloc(json_object_size(labels) + 1, sizeof *p->w->labels));
    json_object_foreach(labels, key, v)
    {
        const char *text = text_of(labels, key);

        if (!text)
            problem(p, "spec.workloadSelector.matchLabels: a value is %s; give texts",
                    json_is_string(v) ? "a text with a NUL" : kind_of(v));
        else
            p->w->labels[p->w->label_count++] = (struct wss_label){copy_of(key), copy_of(text)};
    }
}

static void take_selector(struct parse *p, json_t *spec)
{
    static const char *const keys[] = {"matchLabels", NULL};
    json_t *v = take(spec, "workloadSelector"), *labels;

    if (!v)
        return;
    p->w->has_selector = true;
    labels = json_object_get(v, "matchLabels");
    if (!json_is_object(v))
        problem(p, "spec.workloadSelector: is %s; give a mapping with matchLabels", kind_of(v));
    else
        only_keys(p, "workloadSelector", v, keys, "matchLabels");
    if (json_is_object(labels))
        take_labels(p, labels);
    else if (labels && !json_is_null(labels))
        problem(p, "spec.workloadSelector.matchLabels: is %s; give a mapping", kind_of(labels));
    json_decref(v);
}

static void take_gateway(struct parse *p, json_t *spec)
{
    const char *name = name_in(p, "", spec, "gatewayName", false, kube_path_label_ok);

    p->w->gateway = copy_of(name ? name : WSS_GATEWAY);
    json_object_del(spec, "gatewayName");
}

/* What a document has and an object has not. */
static void refuse(struct parse *p, json_t *from, const char *field, const char *key, const char *instead)
{
    json_t *v = take(from, key);

    if (v && !(json_is_string(v) && !json_string_length(v)))
        problem(p, "spec.%s%s: is not for objects; %s", field, key, instead);
    json_decref(v);
}

/* A mapping of `spec` as a copy of its own, to take keys from; NULL when it is none. */
static json_t *own_map(json_t *spec, const char *key)
{
    json_t *map = json_object_get(spec, key);

    if (!json_is_object(map))
        return NULL;
    map = need(json_copy(map));
    (void)need(json_object_set(spec, key, map) ? NULL : spec);
    json_decref(map);
    return map;
}

static void take_object_keys(struct parse *p, json_t *spec)
{
    json_t *tls = own_map(spec, "tls"), *backend = own_map(spec, "backendTLS");

    take_gateway(p, spec);
    take_selector(p, spec);
    take_backend_ref(p, spec);
    refuse(p, spec, "", "kind", "leave it out here");
    refuse(p, spec, "", "name", "the name is metadata.name");
    if (tls) {
        refuse(p, tls, "tls.", "certFile", "put the certificate into a Secret and name it in tls.secretRef");
        refuse(p, tls, "tls.", "keyFile", "put the key into a Secret and name it in tls.secretRef");
        refuse(p, tls, "tls.", "clientCAFile",
               "put the CA into a Secret (ca.crt) and name it in tls.clientCARef");
        take_ref(p, tls, "tls", "secretRef", &p->w->tls_secret);
        take_ref(p, tls, "tls", "clientCARef", &p->w->client_ca);
    }
    if (backend) {
        refuse(p, backend, "backendTLS.", "caFile",
               "put the CA into a Secret (ca.crt) and name it in backendTLS.caRef");
        take_ref(p, backend, "backendTLS", "secretRef", &p->w->backend_secret);
        take_ref(p, backend, "backendTLS", "caRef", &p->w->backend_ca);
    }
}

/* The unit of UTF-16 that "\\uXXXX" at `text` stands for; 0: something else is there. */
static uint32_t escaped_unit(const char *text)
{
    char digits[5] = "";

    if (text[0] != '\\' || text[1] != 'u')
        return 0;
    for (size_t i = 0; i < 4 && text[2 + i]; i++)
        digits[i] = text[2 + i];
    return (uint32_t)strtoul(digits, NULL, 16);
}

/* JSON in ASCII -> the same for YAML, which knows no pairs of surrogates, and no DEL outside an escape. */
static char *yaml_of(const char *json, size_t *len)
{
    size_t in = strlen(json), n = 0;
    char *out = need(malloc(in * 6 + 12));

    for (size_t i = 0; i < in; i++) {
        uint32_t high = escaped_unit(json + i), low = high ? escaped_unit(json + i + 6) : 0;

        if (json[i] == 0x7f) {
            n += (size_t)snprintf(out + n, 7, "\\u007F");
        } else if (high >= 0xd800 && high < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
            n += (size_t)snprintf(out + n, 11, "\\U%08X", 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            i += 11;
        } else if (json[i] == '\\') {
            out[n++] = json[i++];
            out[n++] = json[i];
        } else {
            out[n++] = json[i];
        }
    }
    out[n] = '\0';
    *len = n;
    return out;
}

static char *replaced(char *text, const char *what, const char *with)
{
    char *at = strstr(text, what), *out;

    if (!at)
        return text;
    out = need_printf("%.*s%s%s", (int)(at - text), text, with, at + strlen(what));
    free(text);
    return out;
}

char *wss_problem_text(const char *text)
{
    static const char word[] = " at line ";
    size_t field = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.[]-");
    char *out = need_printf(field && text[field] == ':' ? "spec.%s" : "spec: %s", text), *at;

    while ((at = strstr(out, word)) && strspn(at + sizeof word - 1, "0123456789")) {
        char *end = at + sizeof word - 1;

        end += strspn(end, "0123456789");
        if (at - out >= 7 && !memcmp(at - 7, ", first", 7))
            at -= 7;
        else if (at > out && at[-1] == ',')
            at--;
        memmove(at, end, strlen(end) + 1);
    }
    return replaced(out, "tls.certFile and tls.keyFile", "tls.secretRef");
}

/* Whatever the proxy's parser knows. */
static void parse_rest(struct parse *p, json_t *spec)
{
    struct spec_problems problems = {0};
    struct spec parsed;
    char *json, *yaml;
    size_t len;

    (void)need(json_object_set_new(spec, "kind", json_string(WSS_KIND)) ? NULL : spec);
    (void)need(json_object_set_new(spec, "name", json_string(p->w->full_name)) ? NULL : spec);
    json = need(json_dumps(spec, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_SORT_KEYS));
    yaml = yaml_of(json, &len);
    if (!spec_parse((const uint8_t *)yaml, len, &parsed, &problems)) {
        p->w->spec = parsed.servers[0];
        free(parsed.servers);
    }
    explicit_bzero(yaml, len);
    explicit_bzero(json, strlen(json));
    free(yaml);
    free(json);
    for (size_t i = 0; i < problems.count; i++) {
        cleanup_free char *text = wss_problem_text(problems.items[i].text);

        problem(p, "%s", text);
    }
    spec_problems_free(&problems);
}

static bool has_text(json_t *spec, const char *key)
{
    return json_string_length(json_object_get(spec, key)) > 0;
}

static void parse_spec(struct parse *p, json_t *object)
{
    json_t *spec = json_object_get(object, "spec");

    if (!json_is_object(spec)) {
        problem(p,
                spec && !json_is_null(spec) ? "spec: is %s; give a mapping" : "spec: missing; give a mapping",
                spec ? kind_of(spec) : "");
        p->w->gateway = copy_of(WSS_GATEWAY);
        return;
    }
    spec = need(json_copy(spec));
    p->w->inline_keys = has_text(spec, "keyBase64") || has_text(spec, "wssKeyBase64");
    take_object_keys(p, spec);
    parse_rest(p, spec);
    json_decref(spec);
}

static const char *const condition_labels[] = {"Accepted", "ResolvedRefs", "Programmed", "Ready"};
static const char *const status_labels[] = {"Unknown", "True", "False"};

const char *wss_condition_label(enum wss_condition_type type)
{
    return condition_labels[type];
}

const char *wss_status_label(enum wss_condition_status status)
{
    return status_labels[status];
}

static void condition_free(struct wss_condition *c)
{
    free(c->reason);
    free(c->message);
    free(c->since);
    *c = (struct wss_condition){0};
}

static void parse_condition(struct wss *w, json_t *v)
{
    const char *type = text_of(v, "type"), *status = text_of(v, "status");

    for (int i = 0; type && i < WSS_CONDITIONS; i++) {
        struct wss_condition *c = &w->conditions[i];

        if (strcmp(type, condition_labels[i]) != 0)
            continue;
        condition_free(c);
        c->present = true;
        c->status = status && !strcmp(status, "True")    ? WSS_TRUE
                    : status && !strcmp(status, "False") ? WSS_FALSE
                                                         : WSS_UNKNOWN;
        c->observed_generation = json_integer_value(json_object_get(v, "observedGeneration"));
        c->reason = copy_of(text_of(v, "reason"));
        c->message = copy_of(text_of(v, "message"));
        c->since = copy_of(text_of(v, "lastTransitionTime"));
    }
}

static void parse_status(struct wss *w, json_t *object)
{
    json_t *status = json_object_get(object, "status"), *v;
    size_t i;

    w->observed_generation = json_integer_value(json_object_get(status, "observedGeneration"));
    json_array_foreach(json_object_get(status, "conditions"), i, v) parse_condition(w, v);
}

int wss_parse(json_t *object, struct wss *out, struct err *err)
{
    json_t *meta = json_object_get(object, "metadata");
    const char *ns = text_of(meta, "namespace"), *name = text_of(meta, "name");
    struct wss w = {0};
    struct parse p = {.w = &w};

    if (!ns || !kube_path_label_ok(ns) || !name || !kube_path_name_ok(name))
        return err_set(err, ERR_INVALID, "an object without a usable metadata.namespace and metadata.name");
    w.ns = copy_of(ns);
    w.name = copy_of(name);
    w.full_name = need_printf("%s/%s", ns, name);
    w.uid = copy_of(text_of(meta, "uid"));
    w.resource_version = copy_of(text_of(meta, "resourceVersion"));
    w.created = copy_of(text_of(meta, "creationTimestamp"));
    w.generation = json_integer_value(json_object_get(meta, "generation"));
    parse_spec(&p, object);
    parse_status(&w, object);
    if (*p.problem)
        w.problem = copy_of(p.problem);
    *out = w;
    return 0;
}

static void ref_free(struct wss_ref *r)
{
    free(r->ns);
    free(r->name);
}

void wss_free(struct wss *w)
{
    free(w->ns);
    free(w->name);
    free(w->full_name);
    free(w->uid);
    free(w->resource_version);
    free(w->created);
    free(w->gateway);
    for (size_t i = 0; i < w->label_count; i++) {
        free(w->labels[i].key);
        free(w->labels[i].value);
    }
    free(w->labels);
    ref_free(&w->tls_secret);
    ref_free(&w->client_ca);
    ref_free(&w->backend_secret);
    ref_free(&w->backend_ca);
    free(w->backend_ref.name);
    spec_server_free(&w->spec);
    free(w->problem);
    for (int i = 0; i < WSS_CONDITIONS; i++)
        condition_free(&w->conditions[i]);
    *w = (struct wss){0};
}

bool wss_selects(const struct wss *w, const struct wss_label *labels, size_t count)
{
    for (size_t i = 0; i < w->label_count; i++) {
        bool met = false;

        for (size_t j = 0; j < count && !met; j++)
            met = !strcmp(w->labels[i].key, labels[j].key) && !strcmp(w->labels[i].value, labels[j].value);
        if (!met)
            return false;
    }
    return w->has_selector;
}

bool wss_host_service(const struct wss *w, const char *host, struct wss_service *out)
{
    const char *dot = strchr(host, '.'), *ns = w->ns;
    size_t name_len = dot ? (size_t)(dot - host) : strlen(host), ns_len = strlen(ns);
    uint8_t addr[16];

    if (inet_pton(AF_INET, host, addr) == 1 || strchr(host, ':') || !strcmp(host, "localhost"))
        return false;
    if (dot) {
        const char *end = strchr(ns = dot + 1, '.');

        if (!end || (strcmp(end, ".svc") != 0 && strcmp(end, ".svc.cluster.local") != 0))
            return false;
        ns_len = (size_t)(end - ns);
    }
    if (name_len >= WSS_LABEL_BYTES || ns_len >= WSS_LABEL_BYTES)
        return false;
    snprintf(out->name, sizeof out->name, "%.*s", (int)name_len, host);
    snprintf(out->ns, sizeof out->ns, "%.*s", (int)ns_len, ns);
    return true;
}
