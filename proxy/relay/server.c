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

struct server *server_new(const struct spec_server *spec, struct err *err)
{
    struct server *s = calloc(1, sizeof *s);

    if (s)
        s->backend_host_header = host_header(&spec->backend);
    if (!s || !s->backend_host_header) {
        free(s);
        err_set(err, ERR_LIMIT, "server \"%s\": out of memory", spec->name);
        return NULL;
    }
    s->refs = 1;
    s->spec = spec;
    if (spec->https && !(s->accept_ctx = tls_accept_ctx(spec, err)))
        goto fail;
    if (spec->backend.tls && tls_dial_init(&s->dial, spec, err))
        goto fail;
    return s;
fail:
    err_prefix(err, "server \"%s\"", spec->name);
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
    free(s);
}

bool server_trusts(const struct server *s, const struct in6_addr *peer)
{
    for (size_t i = 0; i < s->spec->trusted_proxy_count; i++) {
        const struct spec_cidr *c = &s->spec->trusted_proxies[i];
        size_t bytes = c->bits / 8, rest = c->bits % 8;

        if (memcmp(c->addr, peer->s6_addr, bytes))
            continue;
        if (!rest || (c->addr[bytes] ^ peer->s6_addr[bytes]) >> (8 - rest) == 0)
            return true;
    }
    return false;
}
