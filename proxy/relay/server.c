#include "relay/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *host_header(const struct spec_url *u)
{
    bool v6 = strchr(u->host, ':') != NULL;
    char *text = NULL;
    int n;

    if (u->port == (u->tls ? 443 : 80))
        n = asprintf(&text, v6 ? "[%s]" : "%s", u->host);
    else
        n = asprintf(&text, v6 ? "[%s]:%u" : "%s:%u", u->host, u->port);
    return n < 0 ? NULL : text;
}

static int add_backend(struct server *s, const struct spec_url *url, uint32_t weight, const char *host,
                       struct err *err)
{
    struct backend *b = &s->backends[s->backend_count++];
    const struct tls_dial *like = NULL;

    b->url = url;
    b->weight = weight;
    b->host_header = host ? strdup(host) : host_header(url);
    if (!b->host_header)
        return err_set(err, ERR_LIMIT, "out of memory");
    for (size_t i = 0; !like && i + 1 < s->backend_count; i++)
        like = s->backends[i].dial.ctx ? &s->backends[i].dial : NULL;
    return url->tls ? tls_dial_init(&b->dial, s->spec, url->host, like, err) : 0;
}

static int add_backends(struct server *s, struct err *err)
{
    const struct spec_server *spec = s->spec;

    s->backends = calloc(spec->backend_count + 1, sizeof *s->backends);
    if (!s->backends)
        return err_set(err, ERR_LIMIT, "out of memory");
    if (!spec->backends_given)
        return add_backend(s, &spec->backend, 1, NULL, err);
    for (size_t i = 0; i < spec->backend_count; i++) {
        const struct spec_backend *b = &spec->backends[i];

        if (add_backend(s, &b->url, b->weight, b->host, err))
            return -1;
    }
    return 0;
}

/* One server a port for now: it serves every name. */
static SSL_CTX *pick(void *arg, const char *name)
{
    const struct server *s = arg;

    (void)name;
    return s->accept_ctx;
}

struct server *server_new(struct spec_server *spec, const struct shared *shared, unsigned worker,
                          unsigned slot, struct err *err)
{
    struct server *s = calloc(1, sizeof *s);
    struct spec_server *own = malloc(sizeof *own);

    if (!s || !own) {
        err_set(err, ERR_LIMIT, "server \"%s\": out of memory", spec->name);
        spec_server_free(spec);
        free(own);
        free(s);
        return NULL;
    }
    *own = *spec;
    *spec = (struct spec_server){0};
    s->refs = 1;
    s->picker = (struct tls_picker){.pick = pick, .arg = s};
    s->spec = own;
    s->slot = (uint16_t)slot;
    s->cell = shared_cell(shared, worker, slot);
    s->worker = shared_worker(shared, worker);
    atomic_fetch_add(&s->worker->server_objects, 1);
    if (own->https && !(s->accept_ctx = tls_accept_ctx(own, shared, err)))
        goto fail;
    if (add_backends(s, err))
        goto fail;
    return s;
fail:
    err_prefix(err, "server \"%s\"", own->name);
    server_unref(s);
    return NULL;
}

struct server *server_ref(struct server *s)
{
    s->refs++;
    return s;
}

void server_unref(struct server *s)
{
    if (!s || --s->refs)
        return;
    tls_ctx_free(s->accept_ctx);
    for (size_t i = 0; i < s->backend_count; i++) {
        tls_dial_done(&s->backends[i].dial);
        free(s->backends[i].host_header);
    }
    free(s->backends);
    spec_server_free(s->spec);
    free(s->spec);
    atomic_fetch_sub(&s->worker->server_objects, 1);
    free(s);
}

/* Those of a weight, or when none of them is left, those without: they take turns of equal length. */
static struct backend *pick_among(struct server *s, const struct server_tried *tried, bool weighted)
{
    struct backend *best = NULL;
    int64_t sum = 0;

    for (size_t i = 0; i < s->backend_count; i++) {
        struct backend *b = &s->backends[i];
        uint32_t weight = weighted ? b->weight : 1;

        if ((b->weight > 0) != weighted || tried->bits[i / 8] & 1u << i % 8)
            continue;
        b->turn += weight;
        sum += weight;
        if (!best || b->turn > best->turn)
            best = b;
    }
    if (best)
        best->turn -= sum;
    return best;
}

struct backend *server_pick(struct server *s, struct server_tried *tried)
{
    struct backend *b = pick_among(s, tried, true);

    if (!b)
        b = pick_among(s, tried, false);
    if (b)
        tried->bits[(b - s->backends) / 8] |= (uint8_t)(1u << (b - s->backends) % 8);
    return b;
}
