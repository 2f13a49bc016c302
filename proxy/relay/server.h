/* server.h - one WebSocketServer in use: its spec and the SSL_CTXs made from it
 * Shape:   struct spec_server -> struct server, never changed afterwards; a new version is another struct server under
 *          the same slot
 * Owner:   refcounted: server_new gives one reference, a worker's table and every pair hold one each; the spec is its own
 * Errors:  INVALID, with the server's name in front
 * Limits:  those of the spec
 * Threads: the loop's own */
#ifndef PROXY_RELAY_SERVER_H
#define PROXY_RELAY_SERVER_H

#include "base/err.h"
#include "relay/shared.h"
#include "relay/tls.h"
#include "spec/spec.h"

struct server {
    uint32_t refs;
    uint16_t slot;
    struct stats_cell *cell; /* this worker's counters of this slot */
    struct shared_worker *worker;
    struct spec_server *spec;
    SSL_CTX *accept_ctx; /* NULL: plain */
    struct tls_picker picker;
    struct tls_dial dial;      /* ctx NULL: ws backend */
    char *backend_host_header; /* host[:port], as headers.keepHost false sends it */
};

/* Takes over what *spec holds, also on failure (NULL), and leaves it empty. `worker` is whose counters it uses. */
struct server *server_new(struct spec_server *spec, const struct shared *shared, unsigned worker,
                          unsigned slot, struct err *err);
struct server *server_ref(struct server *s);
void server_unref(struct server *s);

#endif
