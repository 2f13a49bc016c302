#include "render_judge.h"

#include "base/cleanup.h"
#include "base/need.h"
#include "spec/spec_values.h"

#include <stdlib.h>
#include <string.h>

struct judge {
    const struct render_rules *rules;
    const struct store *s;
    const struct wss *w;
    struct spec_cert *certs;
    struct render_judged *out;
};

static enum render_part part_of(const struct render_rules *rules, const struct wss *w)
{
    if (rules->sidecar)
        return wss_selects(w, rules->labels, rules->label_count) ? RENDER_OURS : RENDER_NOT_OURS;
    if (strcmp(w->gateway, rules->gateway) != 0)
        return RENDER_NOT_OURS;
    return w->has_selector ? RENDER_SIDECARS : RENDER_OURS;
}

static bool reject(const struct judge *j, const char *reason, char *message)
{
    struct render_condition *c = &j->out->accepted;

    free(c->message);
    *c = (struct render_condition){WSS_FALSE, reason, message};
    return false;
}

static bool invalid(const struct judge *j, const char *text)
{
    return reject(j, "Invalid", need(strdup(text)));
}

static bool given(const struct spec_pem *p)
{
    return p->data != NULL;
}

/* What the object says twice, or not at all. */
static bool check_sources(const struct judge *j)
{
    const struct wss *w = j->w;
    const struct spec_server *t = &w->spec;
    int backends = (t->backend.host != NULL) + t->backends_given + (w->backend_ref.name != NULL);

    if (!backends)
        return invalid(j, "spec: there is no backend; give backend, backends or backendRef");
    if (backends > 1)
        return invalid(j, "spec: backend, backends and backendRef exclude each other; keep one of them");
    if (w->tls_secret.name && (given(&t->cert) || given(&t->key)))
        return invalid(
            j, "spec.tls.secretRef: the certificate is given twice; give certBase64 and keyBase64, or "
               "tls.secretRef");
    if (w->client_ca.name && given(&t->tls.client_ca))
        return invalid(
            j, "spec.tls.clientCARef: the client CA is given twice; give clientCABase64 or clientCARef");
    if (w->backend_secret.name && (given(&t->wss_cert) || given(&t->wss_key)))
        return invalid(
            j, "spec.backendTLS.secretRef: the client certificate is given twice; give wssCertBase64 and "
               "wssKeyBase64, or backendTLS.secretRef");
    if (w->backend_ca.name && given(&t->backend_tls.ca))
        return invalid(j, "spec.backendTLS.caRef: the CA is given twice; give caBase64 or caRef");
    if (!t->https && t->tls_given)
        return invalid(j, "spec.tls: needs https: true; set that, or remove tls");
    return true;
}

static bool local_host(const struct judge *j, const char *host, const char *field)
{
    if (!host || !spec_host_is_local(host))
        return false;
    reject(j, "InvalidBackend",
           need_printf("%s: %s is a loopback, link-local or metadata address, which a gateway does not dial "
                       "(--allow-local-backends lets it); give a Service or another host",
                       field, host));
    return true;
}

/* Whom a gateway must not dial for a stranger: bar S47. */
static bool check_local(const struct judge *j)
{
    const struct spec_server *t = &j->w->spec;
    char field[48];

    if (j->rules->allow_local || j->rules->sidecar || j->out->part != RENDER_OURS)
        return true;
    for (size_t i = 0; i < t->backend_count; i++) {
        snprintf(field, sizeof field, "spec.backends[%zu].url", i);
        if (local_host(j, t->backends[i].url.host, field))
            return false;
    }
    return !local_host(j, t->backend.host, "spec.backend");
}

static bool check_rules(const struct judge *j)
{
    const struct wss *w = j->w;

    if (w->problem)
        return invalid(j, w->problem);
    if (w->backend_ref.name && w->has_selector)
        return reject(
            j, "UnsupportedValue",
            need(strdup("spec.backendRef: is not for sidecars (workloadSelector), which serve the app in "
                        "their pod; give backend: ws://localhost:PORT")));
    if (!j->rules->sidecar && j->out->part == RENDER_OURS && w->spec.port >= RENDER_RESERVED_FIRST &&
        w->spec.port <= RENDER_RESERVED_LAST)
        return reject(
            j, "UnsupportedValue",
            need_printf("spec.port: %u is the gateway's own, as are all from %d to %d; give another port",
                        w->spec.port, RENDER_RESERVED_FIRST, RENDER_RESERVED_LAST));
    return check_sources(j) && check_local(j);
}

/* --- documents ------------------------------------------------------------------------------------------------------ */

/* The references whose content a problem of the document may be about: by the field it begins with. */
static const struct wss_ref *ref_of(const struct wss *w, const char *text, const char **field,
                                    const char **key)
{
    static const struct {
        const char *begins, *field, *key;
        size_t at;
    } refs[] = {
        {"certBase64:", "spec.tls.secretRef", "tls.crt", offsetof(struct wss, tls_secret)},
        {"keyBase64:", "spec.tls.secretRef", "tls.key", offsetof(struct wss, tls_secret)},
        {"tls.clientCABase64:", "spec.tls.clientCARef", "ca.crt", offsetof(struct wss, client_ca)},
        {"wssCertBase64:", "spec.backendTLS.secretRef", "tls.crt", offsetof(struct wss, backend_secret)},
        {"wssKeyBase64:", "spec.backendTLS.secretRef", "tls.key", offsetof(struct wss, backend_secret)},
        {"backendTLS.caBase64:", "spec.backendTLS.caRef", "ca.crt", offsetof(struct wss, backend_ca)},
    };

    for (size_t i = 0; i < sizeof refs / sizeof *refs; i++) {
        const struct wss_ref *ref = (const struct wss_ref *)(const void *)((const char *)w + refs[i].at);

        if (!ref->name || strncmp(text, refs[i].begins, strlen(refs[i].begins)) != 0)
            continue;
        *field = refs[i].field;
        *key = refs[i].key;
        return ref;
    }
    return NULL;
}

static void unresolved(const struct judge *j, const char *reason, char *message)
{
    struct render_condition *c = &j->out->resolved;

    free(c->message);
    *c = (struct render_condition){WSS_FALSE, reason, message};
}

static void sort_problems(const struct judge *j, const struct spec_problems *problems)
{
    char *own = NULL, *of_refs = NULL;

    for (size_t i = 0; i < problems->count; i++) {
        const char *text = problems->items[i].text, *field, *key;
        const struct wss_ref *ref = ref_of(j->w, text, &field, &key);
        cleanup_free char *in_object = wss_problem_text(text);

        if (ref)
            render_append(&of_refs, "%s: Secret %s/%s, %s%s", field, ref->ns, ref->name, key,
                          strchr(text, ':'));
        else
            render_append(&own, "%s", in_object);
    }
    if (of_refs)
        unresolved(j, RENDER_INVALID_CERT_REF, of_refs);
    if (own)
        reject(j, "Invalid", own);
}

/* Writes it and reads it back; on true `text` is a good document of one server. */
static bool document(const struct judge *j, const struct spec_server *t, struct buf *text)
{
    struct spec_problems problems = {0};
    struct spec back = {0};
    struct err err;
    bool good;

    buf_init(text, SPEC_MAX_BYTES);
    if (spec_emit_server(t, text, &err))
        return reject(j, "Invalid", need_printf("spec: %s", err.msg));
    good = !spec_load_bytes(text->data, text->len, j->certs, &back, &problems) && !problems.count &&
           back.count == 1;
    if (!good && problems.count)
        sort_problems(j, &problems);
    else if (!good)
        invalid(j, "spec: cannot be written as one document");
    spec_problems_free(&problems);
    spec_free(&back);
    return good;
}

static void text_free(struct buf *b)
{
    if (b->data)
        explicit_bzero(b->data, b->len);
    buf_free(b);
}

/* The rules across fields, before anything is resolved: a Service stands as one host, a Secret's pair is not asked for. */
static bool check_fields(const struct judge *j)
{
    const struct wss *w = j->w;
    struct spec_server t = w->spec;
    cleanup_free char *host = NULL, *url = NULL;
    struct buf text;
    bool good;

    t.name = w->full_name;
    if (w->tls_secret.name)
        t.https = t.tls_given = false;
    if (w->backend_ref.name) {
        host = need_printf("%s.%s.svc", w->backend_ref.name, w->ns);
        url = need_printf("%s://%s:%u", w->backend_ref.tls ? "wss" : "ws", host, w->backend_ref.port);
        t.backend = (struct spec_url){
            .tls = w->backend_ref.tls, .host = host, .port = w->backend_ref.port, .text = url};
    }
    good = document(j, &t, &text);
    text_free(&text);
    return good;
}

/* --- the verdict ----------------------------------------------------------------------------------------------------- */

static void accept(const struct judge *j)
{
    struct render_condition *c = &j->out->accepted;

    *c = (struct render_condition){WSS_TRUE, "Accepted", need(strdup("Accepted"))};
    if (!j->w->spec.allowed_origins.count)
        render_append(&c->message,
                      "no allowedOrigins: every web page may connect; list the origins that shall");
    if (j->w->inline_keys)
        render_append(&c->message,
                      "a private key stands in the object, where whoever may get it can read it; put it "
                      "into a Secret");
}

static void render_ours(const struct judge *j, struct render_resolved *r)
{
    struct buf text;

    if (r->unsupported)
        reject(j, "UnsupportedValue", need(strdup(r->unsupported)));
    if (j->out->accepted.status != WSS_TRUE || j->out->resolved.status != WSS_TRUE)
        return;
    if (document(j, &r->spec, &text)) {
        j->out->text = need(realloc(text.data, text.len));
        j->out->len = text.len;
        j->out->port = r->spec.port;
        j->out->grants = STEAL(r->grants);
        j->out->grant_count = r->grant_count;
        r->grant_count = 0;
    } else {
        text_free(&text);
    }
}

void render_judge(const struct render_rules *rules, const struct store *s, const struct wss *w,
                  struct spec_cert *certs, struct render_judged *out)
{
    struct judge j = {rules, s, w, certs, out};
    struct render_resolved r;

    *out = (struct render_judged){.part = part_of(rules, w)};
    if (out->part == RENDER_NOT_OURS)
        return;
    accept(&j);
    out->resolved = (struct render_condition){WSS_TRUE, "ResolvedRefs", NULL};
    render_resolve(rules, s, w, out->part == RENDER_SIDECARS, &r);
    if (r.reason)
        unresolved(&j, r.reason, STEAL(r.message));
    else
        out->resolved.message = r.note ? STEAL(r.note) : need(strdup("all references are resolved"));
    if (check_rules(&j) && check_fields(&j) && out->part == RENDER_OURS)
        render_ours(&j, &r);
    render_resolved_free(&r);
}

void render_judged_free(struct render_judged *j)
{
    free(j->accepted.message);
    free(j->resolved.message);
    if (j->text)
        explicit_bzero(j->text, j->len);
    free(j->text);
    render_grants_free(j->grants, j->grant_count);
    *j = (struct render_judged){0};
}
