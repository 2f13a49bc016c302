/* request.h - the client's opening handshake: is it one, and what the backend is sent
 * Shape:   struct head (HTTP) -> verdict + struct request; struct request + policy -> bytes to the backend
 * Owner:   slices borrow from the bytes of the head; `out` bufs are the caller's
 * Errors:  a verdict: status 0 is good, else the HTTP status of our answer and a static sentence that says why
 * Limits:  those of head.h; the outgoing head at most HEAD_MAX_BYTES more than the incoming one
 * Threads: any; pure
 * Source:  RFC 6455 4.2.1 and 11.3, RFC 9110 7.6.1 (hop-by-hop); bars S1-S5, S8-S11; design: "Headers to the backend" */
#ifndef PROXY_WIRE_REQUEST_H
#define PROXY_WIRE_REQUEST_H

#include "base/buf.h"
#include "spec/spec.h"
#include "wire/head.h"

#include <netinet/in.h>

struct verdict {
    int status;      /* 0: good */
    const char *why; /* "Sec-WebSocket-Key must be 24 base64 characters" */
};

struct request {
    struct head_slice host; /* of the target when that is absolute, else of Host */
    /* What follows the authority: path and query, byte for byte. An absolute target may leave out its '/'
     * (http://host?query); request_forward puts one there. */
    struct head_slice path;
    struct head_slice key;    /* Sec-WebSocket-Key */
    struct head_slice origin; /* len 0: none */
    bool has_origin;
};

/* What the elements of Sec-WebSocket-Protocol or -Extensions are called, of one head. */
struct offer {
    struct head_slice names[HEAD_MAX_ITEMS];
    size_t count;
};

/* Which way the request came, for the headers that we own. */
struct request_via {
    const char *client_addr; /* the peer's address as text, mapped IPv4 as IPv4, no brackets, no port */
    bool client_tls;
    bool client_trusted; /* the peer is in trustedProxies: its X-Forwarded-* are kept, its address appended */
    /* The Host to send when headers.keepHost is false: host[:port], the port left out when it is the default. */
    const char *backend_host;
};

/* Checks in the order in which an answer is most useful: method, form of the target, version, Host, Upgrade,
 * Connection, Sec-WebSocket-Version, Key, Protocol and Extensions grammar, no body, Origin against allowedOrigins.
 * After a refusal `out` holds what was known by then, for the log: `path` is at least the target as it came. */
struct verdict request_check(const struct head *h, const uint8_t *bytes, const struct spec_server *server,
                             struct request *out);
/* The head for the backend. -1 only when `out` cannot hold it. */
__attribute__((warn_unused_result)) int request_forward(const struct head *h, const uint8_t *bytes,
                                                        const struct request *r,
                                                        const struct spec_server *server,
                                                        const struct request_via *via, struct buf *out);
/* Is this address (IPv4 as ::ffff:a.b.c.d) in trustedProxies? */
bool request_trusts(const struct spec_server *server, const struct in6_addr *addr);
/* Whose request it is: `peer`, or, when trustedProxies hold that, the last address of X-Forwarded-For that they do not
 * hold (the first one when they hold them all). An element that is no address ends the search: who stands behind it
 * is the client then. Ports behind addresses are skipped. */
struct in6_addr request_client(const struct head *h, const uint8_t *bytes, const struct spec_server *server,
                               const struct in6_addr *peer);
/* Tokens; extensions with their parameters checked by the grammar of RFC 6455 9.1. False: not a list of 1 to
 * HEAD_MAX_ITEMS of them. No such field: true, none. */
bool offer_protocols(const struct head *h, const uint8_t *bytes, struct offer *out);
bool offer_extensions(const struct head *h, const uint8_t *bytes, struct offer *out);
bool offer_holds(const struct offer *o, const uint8_t *bytes, struct head_slice name,
                 const uint8_t *name_bytes);
bool offer_unique(const struct offer *o, const uint8_t *bytes);

#endif
