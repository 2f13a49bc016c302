/* server.h - one WebSocketServer in use: its spec, the SSL_CTXs made from it, and whose turn it is among its backends
 * Shape:   struct spec_server -> struct server, never changed afterwards but for turns and remembered sessions; a new
 *          version is another struct server under the same slot
 * Owner:   refcounted: server_new gives one reference, a worker's table and every pair hold one each; the spec is its own
 * Errors:  INVALID, with the server's name in front
 * Limits:  those of the spec
 * Threads: the loop's own; each worker has turns of its own
 * Source:  smooth weighted round robin as nginx has it: over the sum of the weights' picks each backend has exactly
 *          its share, spread evenly */
#ifndef PROXY_RELAY_SERVER_H
#define PROXY_RELAY_SERVER_H

#include "base/err.h"
#include "relay/shared.h"
#include "relay/tls.h"
#include "spec/spec.h"

struct backend {
    const struct spec_url *url; /* of the server's spec */
    char *host_header;          /* host[:port], as headers.keepHost false sends it */
    uint32_t weight;
    int64_t turn;         /* the highest is next */
    struct tls_dial dial; /* ctx NULL: ws */
};

struct server {
    uint32_t refs;
    uint16_t slot;
    struct stats_cell *cell; /* this worker's counters of this slot */
    struct shared_worker *worker;
    struct spec_server *spec;
    SSL_CTX *accept_ctx; /* NULL: plain */
    struct tls_picker picker;
    struct backend *backends;
    size_t backend_count;
};

/* Takes over what *spec holds, also on failure (NULL), and leaves it empty. `worker` is whose counters it uses. */
struct server *server_new(struct spec_server *spec, const struct shared *shared, unsigned worker,
                          unsigned slot, struct err *err);
struct server *server_ref(struct server *s);
void server_unref(struct server *s);

/* Which backends a handshake has tried already, a bit each. */
struct server_tried {
    uint8_t bits[SPEC_MAX_LIST / 8];
};
/* The backend whose turn it is of those that are not in *tried, which it then is; one of weight 0 only after all others.
 * NULL: none is left. */
struct backend *server_pick(struct server *s, struct server_tried *tried);

#endif
