/* tls_ticket.h - session tickets that every worker opens, over reloads, and that admit to their own server only
 * Shape:   the ticket keys of struct shared seal and open; the session id context (SHA-256 of the server's name and of
 *          what it demands of clients' certificates) decides whether an opened ticket counts: a certificate may be
 *          renewed under it, another server or another client CA is a full handshake
 * Owner:   the SSL_CTX borrows `shared`, which outlives it; keys are copied for the length of one call and wiped
 * Errors:  INVALID; at run time that connection's alone, and a ticket that does not open is a full handshake
 * Limits:  SHARED_TICKET_KEYS keys: a ticket lives through one rotation and is renewed then
 * Threads: the loop's own
 * Source:  SSL_CTX_set_tlsext_ticket_key_evp_cb(3); RFC 5077 4, RFC 8446 4.6.1; security.md 2.8; bar S41 */
#ifndef PROXY_RELAY_TLS_TICKET_H
#define PROXY_RELAY_TLS_TICKET_H

#include "base/err.h"
#include "relay/shared.h"
#include "spec/spec.h"

#include <openssl/types.h>

/* OpenSSL takes the callbacks from the SSL_CTX that an SSL began with and the session id context from the one that
 * the client_hello callback moved it to: every SSL_CTX that such an SSL may meet must have been through this. */
__attribute__((warn_unused_result)) int tls_ticket_use(SSL_CTX *ctx, const struct spec_server *spec,
                                                       const struct shared *shared, struct err *err);

#endif
