/* tls.h - the two kinds of SSL_CTX of a server: towards clients and towards its backend
 * Shape:   struct spec_server (PEM in memory) -> SSL_CTX; SSL_new on it is all that a connection does
 * Owner:   the caller of tls_accept_ctx frees it with tls_ctx_free; struct tls_dial owns the remembered session
 * Errors:  INVALID with OpenSSL's own reason in the message
 * Limits:  TLS 1.2 at least, AEAD with forward secrecy; no renegotiation, no compression, no early data; one ticket;
 *          ALPN http/1.1 only, a client that offers others alone is refused
 * Threads: the loop's own
 * Source:  security.md 2.8; bars S39, S42; RFC 7301; RFC 8446 */
#ifndef PROXY_RELAY_TLS_H
#define PROXY_RELAY_TLS_H

#include "base/err.h"
#include "spec/spec.h"

#include <openssl/types.h>

struct shared;

/* NULL on failure. The ticket keys are those of `shared`, which outlives the SSL_CTX. */
SSL_CTX *tls_accept_ctx(const struct spec_server *spec, const struct shared *shared, struct err *err);
void tls_ctx_free(SSL_CTX *ctx);

/* Which SSL_CTX serves this name; `name` is NULL when the client sent none, else as the client wrote it: any case, not
 * checked for being a host name. NULL as answer refuses the handshake. The answer may be another server's SSL_CTX (made
 * by tls_accept_ctx, lives during the call): certificate, versions, client CA and session tickets are then that
 * server's. It is asked once in a handshake, from inside SSL_do_handshake, and may not free an SSL or *arg. */
struct tls_picker {
    SSL_CTX *(*pick)(void *arg, const char *name);
    void *arg;
};
/* An SSL for a new client. The picker, which outlives its handshake, is asked when the ClientHello is in: before
 * versions, certificate and verify mode are settled, for which the servername callback is too late. */
SSL *tls_accept_new(SSL_CTX *ctx, struct tls_picker *picker);

/* Towards one backend: the SSL_CTX, which those of one server have in common, and the last session, for resumption
 * under the same name and checks: a resumed handshake does not repeat them. All servers that show no certificate and
 * trust the system's roots have one SSL_CTX in common; the roots are read when the first of them comes, and not again.
 * An SSL of it may be read from and written to while *d stands where it is. */
struct tls_dial {
    SSL_CTX *ctx;
    struct ssl_session_st *session;
    const char *
        server_name; /* SNI and the name that is verified; an address is verified as one and sent as no SNI */
    bool verify;
};
/* Towards `host`, by that name unless backendTLS has another. `like`: of another backend of this server, NULL: none yet. */
__attribute__((warn_unused_result)) int tls_dial_init(struct tls_dial *d, const struct spec_server *spec,
                                                      const char *host, const struct tls_dial *like,
                                                      struct err *err);
void tls_dial_done(struct tls_dial *d);
SSL *tls_dial_new(struct tls_dial *d);

/* "TLSv1.3" */
const char *tls_version(const SSL *ssl);
/* Why a certificate was refused, NULL when it was not. */
const char *tls_verify_error(const SSL *ssl);

#endif
