#include "render_refs.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/need.h"
#include "options.h"
#include "render_share.h"
#include "spec/spec_values.h"
#include "store_object.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct resolve {
    const struct render_rules *rules;
    const struct store *s;
    const struct wss *w;
    bool names_only;
    struct render_resolved *out;
    struct render_shares *shares;
};

__attribute__((format(printf, 2, 0))) static void append_v(char **text, const char *fmt, va_list ap)
{
    char *before = *text, *more = NULL;

    if (vasprintf(&more, fmt, ap) < 0)
        more = need(strdup("..."));
    *text = before ? need_printf("%s; %s", before, more) : STEAL(more);
    free(before);
    free(more);
}

void render_append(char **text, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    append_v(text, fmt, ap);
    va_end(ap);
}

static int rank(const char *reason)
{
    static const char *const ranks[] = {RENDER_FORBIDDEN, RENDER_BACKEND_NOT_FOUND, RENDER_INVALID_CERT_REF,
                                        RENDER_REF_NOT_PERMITTED};

    for (int i = 0; reason && i < 4; i++)
        if (!strcmp(reason, ranks[i]))
            return i;
    return -1;
}

__attribute__((format(printf, 3, 4))) static void refuse(const struct resolve *r, const char *reason,
                                                         const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    append_v(&r->out->message, fmt, ap);
    va_end(ap);
    if (rank(reason) > rank(r->out->reason))
        r->out->reason = reason;
}

/* Whether the grant is there; it is noted for as long as what it lets in is served. */
static bool permitted(const struct resolve *r, const char *field, const char *kind, const char *ns,
                      const char *name)
{
    struct render_resolved *out = r->out;

    if (!strcmp(ns, r->w->ns))
        return true;
    if (r->rules->sidecar || r->names_only) {
        refuse(
            r, RENDER_REF_NOT_PERMITTED,
            "%s: %s %s/%s is in another namespace, which a sidecar does not reach; use one of namespace %s",
            field, kind, ns, name, r->w->ns);
        return false;
    }
    if (!options_includes(r->rules->watched, ns)) { /* a grant there would not be seen either */
        refuse(r, RENDER_REF_NOT_PERMITTED,
               "%s: %s %s/%s is in a namespace that the controller does not watch; add %s to its --namespace "
               "(watchNamespaces of the chart), or use one of namespace %s",
               field, kind, ns, name, ns, r->w->ns);
        return false;
    }
    if (!store_granted(r->s, r->w->ns, kind, ns, name)) {
        enum store_sync sync = store_sync(r->s, STORE_GRANTS);
        const char *why =
            sync == STORE_ABSENT ? "; this cluster has no ReferenceGrants yet (gateway.networking.k8s.io)"
            : sync == STORE_FORBIDDEN
                ? "; the controller's ServiceAccount may not get, list and watch referencegrants"
                : "";

        refuse(r, RENDER_REF_NOT_PERMITTED,
               "%s: %s %s/%s is in another namespace; create a ReferenceGrant in namespace %s, from group %s "
               "kind %s "
               "namespace %s to kind %s name %s%s",
               field, kind, ns, name, ns, WSS_GROUP, WSS_KIND, r->w->ns, kind, name, why);
        return false;
    }
    out->grants = need(reallocarray(out->grants, out->grant_count + 1, sizeof *out->grants));
    out->grants[out->grant_count++] = (struct render_grant){kind, need(strdup(ns)), need(strdup(name))};
    return true;
}

/* The right that is missing, or that it is not there. */
static void missing(const struct resolve *r, const char *field, enum store_kind kind, const char *what,
                    const char *ns, const char *name, const char *reason)
{
    static const char *const kinds[] = {"websocketservers", "secrets", "services", "endpointslices",
                                        "referencegrants"};
    enum store_sync sync = store_sync(r->s, kind);
    const char *why = store_sync_why(r->s, kind);

    if (sync == STORE_SYNCED)
        refuse(r, reason, "%s: there is no %s %s/%s; create it, or name another", field, what, ns, name);
    else if (sync == STORE_WAITING)
        refuse(r, RENDER_FORBIDDEN, "%s: %s %s/%s is not known yet: %s are still being listed%s%s", field,
               what, ns, name, kinds[kind], *why ? ": " : "", why);
    else
        refuse(r, RENDER_FORBIDDEN,
               "%s: %s %s/%s cannot be read; give the controller's ServiceAccount the right to get, list and "
               "watch "
               "%s%s%s",
               field, what, ns, name, kinds[kind], *why ? ": " : "", why);
}

/* One file of a Secret's folder. */
static void read_mounted(struct store_secret *secret, const char *dir, const char *key, size_t max,
                         struct store_pem *out)
{
    cleanup_free char *path = need_printf("%s/%s", dir, key);
    struct err err;
    struct buf b;

    buf_init(&b, max);
    if (!file_read(path, &b, &err))
        out->data = buf_take(&b, &out->len);
    else if (err.code != ERR_NOT_FOUND)
        render_append(&secret->problem, "%s: %s", key, err.msg);
    buf_free(&b);
    if (out->data && !out->len) {
        free(out->data);
        out->data = NULL;
    }
}

/* NULL: not mounted. */
static const struct store_secret *mounted(const struct resolve *r, const struct wss_ref *ref,
                                          enum render_pem at)
{
    cleanup_free char *dir =
        need_printf("%s/%s", r->rules->secrets_dir ? r->rules->secrets_dir : "", ref->name);
    struct store_secret *secret;

    if (!r->rules->secrets_dir || access(dir, F_OK) != 0)
        return NULL;
    secret = need(calloc(1, sizeof *secret));
    secret->ns = need(strdup(ref->ns));
    secret->name = need(strdup(ref->name));
    read_mounted(secret, dir, "tls.crt", SPEC_MAX_PEM_BYTES, &secret->cert);
    read_mounted(secret, dir, "tls.key", SPEC_MAX_PEM_BYTES, &secret->key);
    read_mounted(secret, dir, "ca.crt", SPEC_MAX_CA_BYTES, &secret->ca);
    return r->out->mounted[at] = secret;
}

static const struct store_secret *secret_of(const struct resolve *r, const char *field,
                                            const struct wss_ref *ref, enum render_pem at)
{
    const struct store_secret *secret;

    if (!ref->name || !permitted(r, field, "Secret", ref->ns, ref->name))
        return NULL;
    if (r->rules->sidecar) {
        secret = mounted(r, ref, at);
        if (!secret)
            refuse(r, RENDER_INVALID_CERT_REF,
                   "%s: Secret %s is not mounted into this pod; name it in the pod's annotation "
                   "tidegate.dev/tls-secrets",
                   field, ref->name);
        return secret;
    }
    if (!options_includes(r->rules->secrets, ref->ns)) {
        if (!r->names_only)
            refuse(
                r, RENDER_INVALID_CERT_REF,
                "%s: Secret %s/%s is in a namespace of which the controller reads no Secrets; add %s to its "
                "--secret-namespace (rbac.secretNamespaces of the chart)",
                field, ref->ns, ref->name, ref->ns);
        return NULL;
    }
    secret = store_secret(r->s, ref->ns, ref->name);
    if (!secret && !(r->names_only && store_sync(r->s, STORE_SECRETS) != STORE_SYNCED))
        missing(r, field, STORE_SECRETS, "Secret", ref->ns, ref->name, RENDER_INVALID_CERT_REF);
    return r->names_only ? NULL : secret;
}

static void give(const struct resolve *r, const char *field, const struct store_secret *secret,
                 const char *key, const struct store_pem *from, struct spec_pem *to)
{
    if (from->data) {
        *to = (struct spec_pem){.data = from->data, .len = from->len};
        return;
    }
    refuse(r, RENDER_INVALID_CERT_REF, "%s: Secret %s/%s has no %s%s%s", field, secret->ns, secret->name, key,
           secret->problem ? " that can be used: " : "; give it one", secret->problem ? secret->problem : "");
}

static void resolve_secrets(const struct resolve *r)
{
    const struct wss *w = r->w;
    struct spec_server *t = &r->out->spec;
    const struct store_secret *secret;

    if ((secret = secret_of(r, "spec.tls.secretRef", &w->tls_secret, RENDER_TLS))) {
        give(r, "spec.tls.secretRef", secret, "tls.crt", &secret->cert, &t->cert);
        give(r, "spec.tls.secretRef", secret, "tls.key", &secret->key, &t->key);
    }
    if ((secret = secret_of(r, "spec.tls.clientCARef", &w->client_ca, RENDER_CLIENT_CA)))
        give(r, "spec.tls.clientCARef", secret, "ca.crt", &secret->ca, &t->tls.client_ca);
    if ((secret = secret_of(r, "spec.backendTLS.secretRef", &w->backend_secret, RENDER_BACKEND_PAIR))) {
        give(r, "spec.backendTLS.secretRef", secret, "tls.crt", &secret->cert, &t->wss_cert);
        give(r, "spec.backendTLS.secretRef", secret, "tls.key", &secret->key, &t->wss_key);
    }
    if ((secret = secret_of(r, "spec.backendTLS.caRef", &w->backend_ca, RENDER_BACKEND_CA)))
        give(r, "spec.backendTLS.caRef", secret, "ca.crt", &secret->ca, &t->backend_tls.ca);
}

/* --- Services ------------------------------------------------------------------------------------------------------ */

/* What is collected of one Service's endpoints. */
struct pool {
    const struct resolve *r;
    const char *port_name;
    uint16_t service_port;
    bool fallback; /* serving and terminating ones instead of ready ones */
    size_t local;  /* left out: bar S47 */
    struct endpoint {
        char host[INET6_ADDRSTRLEN];
        bool v6;
        uint16_t port;
    } * items;
    size_t count;
};

static bool usable(struct pool *p, const char *text, struct endpoint *e)
{
    uint8_t addr[16];

    if (inet_pton(AF_INET, text, addr) == 1)
        e->v6 = false;
    else if (inet_pton(AF_INET6, text, addr) == 1)
        e->v6 = true;
    else
        return false;
    inet_ntop(e->v6 ? AF_INET6 : AF_INET, addr, e->host, sizeof e->host);
    if (p->r->rules->allow_local || !spec_host_is_local(e->host))
        return true;
    p->local++;
    return false;
}

static void take_slice(void *arg, const struct store_slice *slice)
{
    struct pool *p = arg;
    const struct store_port *port = NULL;

    for (size_t i = 0; !port && i < slice->port_count; i++)
        if (slice->ports[i].tcp && !strcmp(slice->ports[i].name, p->port_name))
            port = &slice->ports[i];
    if (!port || slice->fqdn)
        return;
    for (size_t i = 0; i < slice->endpoint_count; i++) {
        const struct store_endpoint *e = &slice->endpoints[i];

        if (p->fallback ? !(e->serving && e->terminating) : !e->ready)
            continue;
        for (size_t j = 0; j < e->address_count; j++) {
            struct endpoint one = {.port = port->port_given ? port->port : p->service_port};

            if (!usable(p, e->addresses[j], &one))
                continue;
            p->items = need(reallocarray(p->items, p->count + 1, sizeof *p->items));
            p->items[p->count++] = one;
        }
    }
}

static int by_address(const void *a, const void *b)
{
    const struct endpoint *x = a, *y = b;
    int o = (int)x->v6 - (int)y->v6;

    o = o ? o : strcmp(x->host, y->host);
    return o ? o : (int)x->port - (int)y->port;
}

/* Adds it unless the same address stands there, and notes which of the item's it is; the strings are copied. */
static void add_backend(const struct resolve *r, const struct spec_backend *b, bool in[SPEC_MAX_LIST])
{
    struct render_resolved *out = r->out;
    struct spec_backend *to;

    for (size_t i = 0; i < out->backend_count; i++) {
        const struct spec_url *u = &out->backends[i].url;

        if (u->port == b->url.port && u->tls == b->url.tls && !strcmp(u->host, b->url.host)) {
            in[i] = true;
            return;
        }
    }
    if (out->backend_count == SPEC_MAX_LIST) {
        if (!out->note || !strstr(out->note, "only the first"))
            render_append(&out->note, "only the first %d endpoints are used", SPEC_MAX_LIST);
        return;
    }
    out->backends = need(reallocarray(out->backends, out->backend_count + 1, sizeof *out->backends));
    in[out->backend_count] = true;
    to = &out->backends[out->backend_count++];
    *to = *b;
    to->url.host = need(strdup(b->url.host));
    to->url.text = need(strdup(b->url.text));
    to->host = b->host ? need(strdup(b->host)) : NULL;
}

struct target {
    const char *field, *ns, *name;
    uint16_t port;
    bool tls;
    uint32_t weight;
    const char *host; /* sent where keepHost is false */
};

static const struct store_port *service_port(const struct resolve *r, const struct target *t,
                                             const struct store_service *service)
{
    cleanup_free char *others = NULL;

    for (size_t i = 0; i < service->port_count; i++) {
        if (service->ports[i].tcp && service->ports[i].port == t->port)
            return &service->ports[i];
        if (service->ports[i].tcp && i < 20)
            render_append(&others, "%u", service->ports[i].port);
    }
    refuse(r, RENDER_BACKEND_NOT_FOUND, "%s: Service %s/%s has no TCP port %u%s%s", t->field, t->ns, t->name,
           t->port, others ? "; it has " : "", others ? others : "");
    return NULL;
}

static void add_endpoints(const struct resolve *r, const struct target *t, const struct pool *p)
{
    bool in[SPEC_MAX_LIST] = {false};

    for (size_t i = 0; i < p->count; i++) {
        struct endpoint *e = &p->items[i];
        cleanup_free char *text =
            need_printf(e->v6 ? "%s://[%s]:%u" : "%s://%s:%u", t->tls ? "wss" : "ws", e->host, e->port);
        struct spec_backend b = {.url = {.tls = t->tls, .host = e->host, .port = e->port, .text = text},
                                 .host = (char *)(uintptr_t)t->host};

        add_backend(r, &b, in);
    }
    render_share_add(r->shares, in, t->weight);
}

static void add_service(const struct resolve *r, const struct target *t)
{
    struct pool p = {.r = r, .service_port = t->port};
    const struct store_service *service;
    const struct store_port *port;

    if (!permitted(r, t->field, "Service", t->ns, t->name))
        return;
    service = store_service(r->s, t->ns, t->name);
    if (!service) {
        missing(r, t->field, STORE_SERVICES, "Service", t->ns, t->name, RENDER_BACKEND_NOT_FOUND);
        return;
    }
    if (service->external_name) {
        refuse(
            r, RENDER_BACKEND_NOT_FOUND,
            "%s: Service %s/%s is of type ExternalName, which is not followed; write its host into backend",
            t->field, t->ns, t->name);
        return;
    }
    if (!(port = service_port(r, t, service)))
        return;
    p.port_name = port->name;
    if (!store_slices(r->s, t->ns, t->name, take_slice, &p) &&
        store_sync(r->s, STORE_SLICES) != STORE_SYNCED) {
        missing(r, t->field, STORE_SLICES, "EndpointSlice of Service", t->ns, t->name,
                RENDER_BACKEND_NOT_FOUND);
        return;
    }
    if (!p.count) {
        p.fallback = true;
        store_slices(r->s, t->ns, t->name, take_slice, &p);
        render_append(&r->out->note, "%s: Service %s/%s has no ready endpoints%s", t->field, t->ns, t->name,
                      p.count ? "; its terminating ones are used" : "; connections are answered 503");
    }
    if (p.local)
        render_append(&r->out->note,
                      "%s: endpoints of Service %s/%s at loopback or link-local addresses are left out",
                      t->field, t->ns, t->name);
    if (p.count)
        qsort(p.items, p.count, sizeof *p.items, by_address);
    add_endpoints(r, t, &p);
    free(p.items);
}

/* One name for TLS on all of them: endpoints are dialled by address, so the name they are asked for must be said. */
static void name_server(const struct resolve *r, const char *host)
{
    struct render_resolved *out = r->out;

    if (r->w->spec.backend_tls.server_name || out->unsupported)
        return;
    if (out->server_name && strcmp(out->server_name, host) != 0) {
        out->unsupported =
            need(strdup("spec.backends: wss backends of different names, one of them a Service, need "
                        "one name to verify; give backendTLS.serverName"));
        return;
    }
    free(out->server_name);
    out->server_name = need(strdup(host));
}

/* One URL: the endpoints of its Service, or itself. */
static void add_url(const struct resolve *r, const char *field, const struct spec_backend *b)
{
    bool in[SPEC_MAX_LIST] = {false};
    struct wss_service v;

    if (wss_host_service(r->w, b->url.host, &v)) {
        add_service(r, &(struct target){field, v.ns, v.name, b->url.port, b->url.tls, b->weight,
                                        b->host ? b->host : b->url.host});
        return;
    }
    add_backend(r, b, in);
    render_share_add(r->shares, in, b->weight);
}

static bool names_service(const struct resolve *r)
{
    const struct spec_server *t = &r->w->spec;
    struct wss_service v;

    for (size_t i = 0; i < t->backend_count; i++)
        if (wss_host_service(r->w, t->backends[i].url.host, &v))
            return true;
    return t->backend.host && wss_host_service(r->w, t->backend.host, &v);
}

static void resolve_backends(const struct resolve *r)
{
    struct render_resolved *out = r->out;
    struct spec_server *t = &out->spec;
    const struct wss *w = r->w;
    char field[48];

    if (w->backend_ref.name) {
        cleanup_free char *host = need_printf("%s.%s.svc", w->backend_ref.name, w->ns);

        if (w->backend_ref.tls)
            name_server(r, host);
        add_service(r, &(struct target){"spec.backendRef", w->ns, w->backend_ref.name, w->backend_ref.port,
                                        w->backend_ref.tls, 1, host});
    } else if (r->rules->sidecar || !names_service(r)) {
        return;
    } else if (t->backend.host) {
        if (t->backend.tls)
            name_server(r, t->backend.host);
        add_url(r, "spec.backend", &(struct spec_backend){.url = t->backend, .weight = 1});
    }
    for (size_t i = 0; i < w->spec.backend_count && !w->backend_ref.name; i++) {
        const struct spec_backend *b = &w->spec.backends[i];

        snprintf(field, sizeof field, "spec.backends[%zu].url", i);
        if (b->url.tls)
            name_server(r, b->url.host);
        add_url(r, field, b);
    }
    render_share_weights(r->shares, out->backends, out->backend_count);
    t->backend = (struct spec_url){0};
    t->backends_given = true;
    t->backends = out->backends;
    t->backend_count = out->backend_count;
    if (out->server_name) {
        t->backend_tls_given = true;
        t->backend_tls.server_name = out->server_name;
    }
}

void render_resolve(const struct render_rules *rules, const struct store *s, const struct wss *w,
                    bool names_only, struct render_resolved *out)
{
    struct render_shares shares = {0};
    struct resolve r = {rules, s, w, names_only, out, &shares};

    *out = (struct render_resolved){.spec = w->spec};
    out->spec.name = w->full_name;
    resolve_secrets(&r);
    if (!names_only)
        resolve_backends(&r);
}

void render_grants_free(struct render_grant *grants, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(grants[i].ns);
        free(grants[i].name);
    }
    free(grants);
}

void render_resolved_free(struct render_resolved *r)
{
    free(r->message);
    free(r->note);
    free(r->unsupported);
    free(r->server_name);
    render_grants_free(r->grants, r->grant_count);
    for (size_t i = 0; i < r->backend_count; i++) {
        free(r->backends[i].url.host);
        free(r->backends[i].url.text);
        free(r->backends[i].host);
    }
    free(r->backends);
    for (int i = 0; i < RENDER_PEMS; i++)
        if (r->mounted[i])
            store_secret_free(r->mounted[i]);
    *r = (struct render_resolved){0};
}
