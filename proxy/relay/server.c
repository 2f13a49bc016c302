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
    s->backend_host_header = host_header(&own->backend);
    if (!s->backend_host_header) {
        err_set(err, ERR_LIMIT, "out of memory");
        goto fail;
    }
    if (own->https && !(s->accept_ctx = tls_accept_ctx(own, shared, err)))
        goto fail;
    if (own->backend.tls && tls_dial_init(&s->dial, own, err))
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
    tls_dial_done(&s->dial);
    free(s->backend_host_header);
    spec_server_free(s->spec);
    free(s->spec);
    atomic_fetch_sub(&s->worker->server_objects, 1);
    free(s);
}
