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

struct verdict {
    int status;      /* 0: good */
    const char *why; /* "Sec-WebSocket-Key must be 24 base64 characters" */
};

struct request {
    struct head_slice host;       /* of the target when that is absolute, else of Host */
    struct head_slice path;       /* what follows the authority: path and query, byte for byte */
    struct head_slice key;        /* Sec-WebSocket-Key */
    struct head_slice origin;     /* len 0: none */
    bool has_origin;
};

/* Which way the request came, for the headers that we own. */
struct request_via {
    const char *client_addr; /* the peer's address as text, mapped IPv4 as IPv4, no brackets, no port */
    bool client_tls;
    bool client_trusted;      /* the peer is in trustedProxies: incoming X-Forwarded-* are kept, its address appended */
    const char *backend_host; /* the Host to send when headers.keepHost is false: host[:port], port left out when default */
};

/* Checks in the order in which an answer is most useful: form, method, version, Host, Upgrade, Connection,
 * Sec-WebSocket-Version, Key, Protocol and Extensions grammar, no body, Origin against allowedOrigins. */
struct verdict request_check(const struct head *h, const uint8_t *bytes, const struct spec_server *server,
                             struct request *out);
/* The head for the backend. -1 only when `out` cannot hold it. */
__attribute__((warn_unused_result)) int request_forward(const struct head *h, const uint8_t *bytes,
                                                        const struct request *r, const struct spec_server *server,
                                                        const struct request_via *via, struct buf *out);

#endif
