/* test_tls_peer.h - TLS clients and servers of ours that talk over memory, without a socket
 * Shape:   struct spec_server and certificates made on the spot -> SSL_CTX -> meet(), one handshake and one byte
 * Owner:   the caller frees SSL_CTXs and sessions; a spec made here borrows its texts from their struct made_pair
 * Errors:  cmocka's asserts; a handshake that fails is a result
 * Threads: one */
#ifndef TESTS_UNIT_TEST_TLS_PEER_H
#define TESTS_UNIT_TEST_TLS_PEER_H

#include "relay/shared.h"
#include "relay/tls.h"
#include "test_spec_pem.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <unistd.h>

static inline struct spec_pem pem_of(char *text)
{
    return (struct spec_pem){.data = (uint8_t *)text, .len = strlen(text)};
}

/* client_ca: NULL = clients need no certificate. */
static inline struct spec_server server_spec(char *name, const struct made_pair *pair, char *client_ca)
{
    struct spec_server s = {
        .name = name, .https = true, .cert = pem_of(pair->cert), .key = pem_of(pair->key)};

    if (client_ca)
        s.tls.client_ca = pem_of(client_ca);
    return s;
}

static inline SSL_CTX *server_ctx(const struct spec_server *spec, const struct shared *shared)
{
    struct err err = {.msg = ""};
    SSL_CTX *ctx = tls_accept_ctx(spec, shared, &err);

    if (!ctx)
        fail_msg("%s", err.msg);
    return ctx;
}

/* pair: the certificate to show, or NULL. */
static inline SSL_CTX *client_ctx(int version, const struct made_pair *pair)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    if (pair) {
        BIO *cert = BIO_new_mem_buf(pair->cert, -1), *key = BIO_new_mem_buf(pair->key, -1);
        X509 *x = PEM_read_bio_X509(cert, NULL, NULL, NULL);
        EVP_PKEY *pkey = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);

        assert_int_equal(SSL_CTX_use_certificate(ctx, x), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(ctx, pkey), 1);
        X509_free(x);
        EVP_PKEY_free(pkey);
        BIO_free(cert);
        BIO_free(key);
    }
    return ctx;
}

/* What came of one meeting. */
struct met {
    bool ok;              /* both ends are through, and a byte of the server has arrived */
    bool reused;          /* by a ticket */
    bool knows_client;    /* the server has the client's certificate */
    SSL_SESSION *session; /* a new ticket, NULL: none came */
};

static inline bool failed_for_good(SSL *ssl, int r)
{
    int error = SSL_get_error(ssl, r);

    return r != 1 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
}

/* A client with `session` (NULL: none) at a server that accepts with `first` and whose picker is `picker`. Works with
 * what it gets: any of the SSLs may be NULL. */
static inline struct met meet(SSL *client, SSL *server, SSL_SESSION *session)
{
    struct met met = {0};
    BIO *a = NULL, *b = NULL;
    char byte;

    if (!client || !server || !BIO_new_bio_pair(&a, 0, &b, 0)) {
        SSL_free(client);
        SSL_free(server);
        return met;
    }
    SSL_set_bio(client, a, a);
    SSL_set_bio(server, b, b);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    if (session)
        SSL_set_session(client, session);
    for (int turn = 0; turn < 20 && !met.ok; turn++) {
        int c, s;

        ERR_clear_error();
        c = SSL_do_handshake(client);
        if (failed_for_good(client, c))
            break;
        ERR_clear_error();
        s = SSL_do_handshake(server);
        if (failed_for_good(server, s))
            break;
        met.ok = c == 1 && s == 1 && SSL_write(server, "x", 1) == 1 && SSL_read(client, &byte, 1) == 1;
    }
    ERR_clear_error();
    met.reused = met.ok && SSL_session_reused(server);
    met.knows_client = met.ok && SSL_get0_peer_certificate(server) != NULL;
    if (met.ok && SSL_get_session(client) != session)
        met.session = SSL_get1_session(client);
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* or else its session is spoilt */
    SSL_free(client);
    SSL_free(server);
    return met;
}

#endif
