/* server.h - one WebSocketServer in use: its spec and the SSL_CTXs made from it
 * Shape:   struct spec_server -> struct server, never changed afterwards
 * Owner:   refcounted: server_new gives one reference, a listener and every pair hold one each
 * Errors:  INVALID, with the server's name in front
 * Limits:  those of the spec
 * Threads: the loop's own */
#ifndef PROXY_RELAY_SERVER_H
#define PROXY_RELAY_SERVER_H

#include "base/err.h"
#include "relay/tls.h"
#include "spec/spec.h"

#include <netinet/in.h>

struct server {
    uint32_t refs;
    const struct spec_server *spec; /* borrowed: the spec outlives its servers */
    SSL_CTX *accept_ctx;            /* NULL: plain */
    struct tls_dial dial;           /* ctx NULL: ws backend */
    char *backend_host_header;      /* host[:port], as headers.keepHost false sends it */
};

struct server *server_new(const struct spec_server *spec, struct err *err);
struct server *server_ref(struct server *s);
void server_unref(struct server *s);
/* Is this peer (IPv4 as ::ffff:a.b.c.d) in trustedProxies? */
bool server_trusts(const struct server *s, const struct in6_addr *peer);

#endif
