#include "spec/spec.h"

#include "base/cleanup.h"
#include "spec/spec_cert.h"
#include "spec/spec_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct check {
    const struct spec_server *s;
    unsigned bad; /* enum spec_mark: fields that were given and are already reported */
    struct spec_problems *problems;
    struct spec_cert *certs;
};

__attribute__((format(printf, 3, 4))) static void problem(const struct check *c, struct spec_pos pos,
                                                          const char *fmt, ...)
{
    char text[ERR_MSG_BYTES + 64];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    spec_problem_add(c->problems, pos, c->s->name, "%s", text);
}

static bool given(const struct spec_pem *p)
{
    return p->data || p->file;
}

/* Where a problem of two fields is shown: at the one that is there. */
static struct spec_pos pos_or(struct spec_pos pos, struct spec_pos otherwise)
{
    return pos.line ? pos : otherwise;
}

static void check_required(const struct check *c)
{
    if (!c->s->name && !(c->bad & SPEC_MARK_NAME))
        problem(c, c->s->pos, "name: missing; give each server a name of its own");
    if (!c->s->port && !(c->bad & SPEC_MARK_PORT))
        problem(c, c->s->pos, "port: missing; give a port from 1 to 65535");
    if (c->s->backend.host && c->s->backends_given)
        problem(c, c->s->backends_pos, "backends: backend is given as well, at line %u; give one of the two",
                c->s->backend.pos.line);
    else if (!c->s->backend.host && !c->s->backends_given && !(c->bad & SPEC_MARK_BACKEND))
        problem(c, c->s->pos, "backend: missing; give ws://HOST[:PORT] or wss://HOST[:PORT], or backends");
}

static const char *cert_field(const struct spec_pem *cert)
{
    return cert->file ? "tls.certFile" : "certBase64";
}

static const char *key_field(const struct spec_pem *key)
{
    return key->file ? "tls.keyFile" : "keyBase64";
}

/* Certificate and key of a server with https: both, from one source. */
static void check_pair(const struct check *c)
{
    const struct spec_pem *cert = &c->s->cert, *key = &c->s->key;

    if (c->bad & (SPEC_MARK_CERT | SPEC_MARK_KEY))
        return;
    if (!given(cert) && !given(key))
        problem(c, pos_or(c->s->https_pos, c->s->pos),
                "https: true needs a certificate; give certBase64 and keyBase64, or tls.certFile and "
                "tls.keyFile");
    else if (!given(key))
        problem(c, cert->pos, "%s: given without its key; give %s as well", cert_field(cert),
                cert->file ? "tls.keyFile" : "keyBase64");
    else if (!given(cert))
        problem(c, key->pos, "%s: given without its certificate; give %s as well", key_field(key),
                key->file ? "tls.certFile" : "certBase64");
    else if (!cert->file != !key->file)
        problem(c, key->pos, "%s: goes together with %s only; give both as files or both as base64",
                key_field(key), key->file ? "tls.certFile" : "certBase64");
}

static void check_https(const struct check *c)
{
    const struct spec_server *s = c->s;
    const struct spec_pem *lone = given(&s->cert) ? &s->cert : &s->key;

    if (c->bad & SPEC_MARK_HTTPS)
        return;
    if (s->https)
        check_pair(c);
    else if (s->tls_given)
        problem(c, s->tls.pos, "tls: needs https: true; set that, or remove tls");
    else if (given(lone))
        /* The original ignores it and serves in the clear, which nobody who gives a certificate wants. */
        problem(c, lone->pos, "%s: is not used while https is false; set https: true, or leave it empty",
                lone == &s->cert ? "certBase64" : "keyBase64");
}

/* One wss backend is enough for what concerns TLS: it holds for that one, and the ws ones beside it go without. Of an
 * empty list, or of one with a wrong item, nobody knows. */
static bool only_ws(const struct check *c)
{
    const struct spec_server *s = c->s;
    bool only = s->backend.host ? !s->backend.tls : s->backend_count && !(c->bad & SPEC_MARK_BACKEND);

    for (size_t i = 0; i < s->backend_count; i++)
        only = only && !s->backends[i].url.tls;
    return only;
}

static void check_wss(const struct check *c)
{
    const struct spec_server *s = c->s;
    bool has_cert = given(&s->wss_cert), has_key = given(&s->wss_key);

    if (only_ws(c)) {
        const char *where = s->backends_given ? "a URL of backends" : "backend";

        if (has_cert || has_key)
            problem(c, has_cert ? s->wss_cert.pos : s->wss_key.pos,
                    "%s: is shown to wss backends only; write wss:// in %s, or leave it empty",
                    has_cert ? "wssCertBase64" : "wssKeyBase64", where);
        if (s->backend_tls_given)
            problem(c, s->backend_tls.pos,
                    "backendTLS: is for wss backends only; write wss:// in %s, or remove it", where);
        return;
    }
    if (has_cert && !has_key && !(c->bad & SPEC_MARK_WSS_KEY))
        problem(c, s->wss_cert.pos, "wssCertBase64: given without its key; give wssKeyBase64 as well");
    if (has_key && !has_cert && !(c->bad & SPEC_MARK_WSS_CERT))
        problem(c, s->wss_key.pos, "wssKeyBase64: given without its certificate; give wssCertBase64 as well");
}

static void check_headers(const struct check *c)
{
    const struct spec_strings *remove = &c->s->headers.remove;

    for (size_t i = 0; i < remove->count; i++)
        for (size_t j = 0; j < c->s->headers.set_count; j++)
            if (!strcasecmp(remove->items[i], c->s->headers.set[j].name))
                problem(c, remove->pos[i], "headers.remove: %s is set as well, at line %u; keep one",
                        remove->items[i], c->s->headers.set[j].pos.line);
}

static void check_ca(const struct check *c, const struct spec_pem *ca, const char *file, const char *base64)
{
    struct err err;

    spec_cert_ca(ca, &err);
    if (err.code != ERR_NONE)
        problem(c, ca->pos, "%s: %s", ca->file ? file : base64, err.msg);
}

static void check_certificates(const struct check *c)
{
    const struct spec_server *s = c->s;
    struct err cert, key;

    spec_cert_pair(c->certs, &s->cert, &s->key, &cert, &key);
    if (cert.code != ERR_NONE)
        problem(c, s->cert.pos, "%s: %s", cert_field(&s->cert), cert.msg);
    if (key.code != ERR_NONE)
        problem(c, s->key.pos, "%s: %s", key_field(&s->key), key.msg);
    spec_cert_pair(c->certs, &s->wss_cert, &s->wss_key, &cert, &key);
    if (cert.code != ERR_NONE)
        problem(c, s->wss_cert.pos, "wssCertBase64: %s", cert.msg);
    if (key.code != ERR_NONE)
        problem(c, s->wss_key.pos, "wssKeyBase64: %s", key.msg);
    check_ca(c, &s->tls.client_ca, "tls.clientCAFile", "tls.clientCABase64");
    check_ca(c, &s->backend_tls.ca, "backendTLS.caFile", "backendTLS.caBase64");
}

static int by_name(const void *a, const void *b)
{
    const struct spec_server *x = *(const struct spec_server *const *)a;
    const struct spec_server *y = *(const struct spec_server *const *)b;
    int order = strcmp(x->name, y->name);

    return order ? order : x < y ? -1 : x > y;
}

/* Not whole, or of another kind: no rule can be judged. */
static bool is_void(const unsigned *marks, size_t i)
{
    return marks && marks[i] == SPEC_MARK_ALL;
}

static void check_names(const struct spec *s, const unsigned *marks, struct spec_problems *problems)
{
    cleanup_free const struct spec_server **sorted = NULL;
    const struct spec_server *first = NULL;
    size_t count = 0;

    sorted = need(calloc(s->count + 1, sizeof(struct spec_server *)));
    for (size_t i = 0; i < s->count; i++)
        if (s->servers[i].name && !is_void(marks, i))
            sorted[count++] = &s->servers[i];
    qsort(sorted, count, sizeof(struct spec_server *), by_name);
    for (size_t i = 0; i < count; i++) {
        if (!first || strcmp(first->name, sorted[i]->name) != 0)
            first = sorted[i];
        else
            spec_problem_add(problems, sorted[i]->name_pos, sorted[i]->name,
                             "name: %s is the name of the server at line %u too; give each a name of its own",
                             sorted[i]->name, first->name_pos.line);
    }
}

static void check_ports(const struct spec *s, const unsigned *marks, struct spec_problems *problems)
{
    cleanup_free const struct spec_server **owner = need(calloc(65536, sizeof(struct spec_server *)));

    for (size_t i = 0; i < s->count; i++) {
        const struct spec_server *me = &s->servers[i], *first = owner[me->port];

        if (!me->port || is_void(marks, i))
            continue;
        if (first)
            spec_problem_add(
                problems, me->port_pos, me->name,
                "port: %u is taken by server \"%s\" at line %u; give each server a port of its own", me->port,
                first->name ? first->name : "", first->port_pos.line);
        else
            owner[me->port] = me;
    }
}

void spec_check_marked(const struct spec *s, const unsigned *marks, struct spec_cert *certs,
                       struct spec_problems *problems)
{
    spec_cert_begin(certs);
    for (size_t i = 0; i < s->count; i++) {
        struct check c = {&s->servers[i], marks ? marks[i] : 0, problems, certs};

        if (is_void(marks, i))
            continue;
        check_required(&c);
        check_https(&c);
        check_wss(&c);
        check_headers(&c);
        check_certificates(&c);
    }
    check_names(s, marks, problems);
    check_ports(s, marks, problems);
}

int spec_check(const struct spec *s, struct spec_problems *problems)
{
    struct spec_cert *certs = spec_cert_new();
    size_t before = problems->count;

    spec_check_marked(s, NULL, certs, problems);
    spec_cert_free(certs);
    return problems->count > before || problems->cut ? -1 : 0;
}
