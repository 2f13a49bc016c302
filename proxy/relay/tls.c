#include "relay/tls.h"

#include "relay/tls_ticket.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

/* What the TLS 1.2 clients of the last ten years can do; TLS 1.3's suites are OpenSSL's own. */
#define TLS12_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"

static const unsigned char alpn_http11[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

static int ssl_err(struct err *err, const char *what)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());

    err_set(err, ERR_INVALID, "%s: %s", what, why ? why : "OpenSSL gave no reason");
    ERR_clear_error();
    return -1;
}

/* A locked key must fail, never ask on the terminal. */
static int no_password(char *buf, int size, int rw, void *arg)
{
    (void)buf;
    (void)size;
    (void)rw;
    (void)arg;
    return 0;
}

/* Was the last failed read the end of the PEM text? A chain that is cut short by a lack of memory must not pass. */
static bool pem_ended(void)
{
    unsigned long last = ERR_peek_last_error();

    if (ERR_GET_LIB(last) != ERR_LIB_PEM || ERR_GET_REASON(last) != PEM_R_NO_START_LINE)
        return false;
    ERR_clear_error();
    return true;
}

static BIO *pem_bio(const struct spec_pem *pem)
{
    return BIO_new_mem_buf(pem->data, (int)pem->len);
}

static int use_chain(SSL_CTX *ctx, const struct spec_pem *pem)
{
    BIO *b = pem_bio(pem);
    X509 *x = b ? PEM_read_bio_X509(b, NULL, no_password, NULL) : NULL;
    int ok = x && SSL_CTX_use_certificate(ctx, x) == 1;

    X509_free(x);
    while (ok && (x = PEM_read_bio_X509(b, NULL, no_password, NULL)))
        if (SSL_CTX_add0_chain_cert(ctx, x) != 1) {
            X509_free(x);
            ok = 0;
        }
    BIO_free(b);
    return ok && pem_ended() ? 0 : -1;
}

static int use_pair(SSL_CTX *ctx, const struct spec_pem *cert, const struct spec_pem *key, const char *what,
                    struct err *err)
{
    BIO *b = pem_bio(key);
    EVP_PKEY *pkey = b ? PEM_read_bio_PrivateKey(b, NULL, no_password, NULL) : NULL;
    int r = 0;

    BIO_free(b);
    if (use_chain(ctx, cert))
        r = ssl_err(err, what);
    else if (!pkey || SSL_CTX_use_PrivateKey(ctx, pkey) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        r = ssl_err(err, what);
    EVP_PKEY_free(pkey);
    return r;
}

/* The bundle becomes the only roots; towards clients its names are also the ones that we ask for. */
static int use_ca(SSL_CTX *ctx, const struct spec_pem *pem, bool announce)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *b = pem_bio(pem);
    X509 *x;
    int count = 0, ok = b != NULL;

    while (ok && (x = PEM_read_bio_X509(b, NULL, no_password, NULL))) {
        ok = X509_STORE_add_cert(store, x) == 1 && (!announce || SSL_CTX_add_client_CA(ctx, x) == 1);
        X509_free(x);
        count++;
    }
    BIO_free(b);
    return ok && count && pem_ended() ? 0 : -1;
}

static bool set_common(SSL_CTX *ctx, enum spec_tls_version least)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* One recv a record instead of two; sock.c knows when the socket is empty. */
    SSL_CTX_set_read_ahead(ctx, 1);
    return SSL_CTX_set_min_proto_version(ctx, least == SPEC_TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION) &&
           SSL_CTX_set_cipher_list(ctx, TLS12_CIPHERS);
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                   unsigned in_len, void *arg)
{
    unsigned char *chosen;

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, alpn_http11, sizeof alpn_http11, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* The host name of a ClientHello's server_name extension (RFC 6066 3) into name; false when there is none. */
static bool hello_name(SSL *ssl, char *name, size_t cap)
{
    const unsigned char *p;
    size_t left, len;

    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &left))
        return false;
    /* list length, type 0 (host_name), name length, name */
    if (left < 5 || (size_t)(p[0] << 8 | p[1]) != left - 2 || p[2] != TLSEXT_NAMETYPE_host_name)
        return false;
    len = (size_t)(p[3] << 8 | p[4]);
    if (len == 0 || len > left - 5 || len >= cap || memchr(p + 5, 0, len))
        return false;
    memcpy(name, p + 5, len);
    name[len] = '\0';
    return true;
}

/* Moves the SSL to the SSL_CTX of the server that the name belongs to. SSL_set_SSL_CTX moves the certificate, the
 * session id context, and what is asked for later (client CA, ALPN); versions and verify mode are copied by hand, and
 * the ticket callbacks stay those of the first SSL_CTX, which are the same. */
static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
    const struct tls_picker *picker = SSL_get_app_data(ssl);
    char name[256];
    SSL_CTX *ctx;

    (void)arg;
    ctx = picker->pick(picker->arg, hello_name(ssl, name, sizeof name) ? name : NULL);
    if (!ctx) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (ctx == SSL_get_SSL_CTX(ssl))
        return SSL_CLIENT_HELLO_SUCCESS;
    if (!SSL_set_SSL_CTX(ssl, ctx) ||
        !SSL_set_min_proto_version(ssl, (int)SSL_CTX_get_min_proto_version(ctx))) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx), SSL_CTX_get_verify_callback(ctx));
    SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(ctx));
    return SSL_CLIENT_HELLO_SUCCESS;
}

SSL_CTX *tls_accept_ctx(const struct spec_server *spec, const struct shared *shared, struct err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    if (!ctx || !set_common(ctx, spec->tls.min_version)) {
        ssl_err(err, "TLS");
        goto fail;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets carry the sessions */
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_max_early_data(ctx, 0);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    SSL_CTX_set_client_hello_cb(ctx, on_client_hello, NULL);
    if (tls_ticket_use(ctx, spec, shared, err) || use_pair(ctx, &spec->cert, &spec->key, "certificate", err))
        goto fail;
    if (spec->tls.client_ca.data) {
        if (use_ca(ctx, &spec->tls.client_ca, true)) {
            ssl_err(err, "tls.clientCA");
            goto fail;
        }
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return ctx;
fail:
    SSL_CTX_free(ctx);
    return NULL;
}

void tls_ctx_free(SSL_CTX *ctx)
{
    SSL_CTX_free(ctx);
}

SSL *tls_accept_new(SSL_CTX *ctx, struct tls_picker *picker)
{
    SSL *ssl = SSL_new(ctx);

    if (ssl && !SSL_set_app_data(ssl, picker)) {
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

/* TLS 1.3 sends tickets after the handshake: the latest one serves the next connection. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_dial *d = SSL_get_app_data(ssl);

    SSL_SESSION_free(d->session);
    d->session = session;
    return 1; /* ours now */
}

static SSL_CTX *new_dial_ctx(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx || !set_common(ctx, SPEC_TLS_1_2) ||
        SSL_CTX_set_alpn_protos(ctx, alpn_http11, sizeof alpn_http11)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    return ctx;
}

/* The system's roots are most of a megabyte: read once a process, for all servers that trust them. */
static SSL_CTX *system_dial_ctx(void)
{
    static SSL_CTX *system;

    if (!system && (system = new_dial_ctx()) && !SSL_CTX_set_default_verify_paths(system)) {
        SSL_CTX_free(system);
        system = NULL;
    }
    return system;
}

/* One of its own for a server that has a CA or a certificate of its own. */
static SSL_CTX *own_dial_ctx(const struct spec_server *spec, struct err *err)
{
    const struct spec_pem *ca = &spec->backend_tls.ca;
    SSL_CTX *ctx = new_dial_ctx(), *system = ca->data ? NULL : system_dial_ctx();

    if (!ctx || (!ca->data && !system)) {
        ssl_err(err, "TLS");
        goto fail;
    }
    if (spec->wss_cert.data &&
        use_pair(ctx, &spec->wss_cert, &spec->wss_key, "wssCertBase64 and wssKeyBase64", err))
        goto fail;
    if (!ca->data) {
        SSL_CTX_set1_cert_store(ctx, SSL_CTX_get_cert_store(system));
    } else if (use_ca(ctx, ca, false)) {
        ssl_err(err, "backendTLS: CA");
        goto fail;
    }
    return ctx;
fail:
    SSL_CTX_free(ctx);
    return NULL;
}

int tls_dial_init(struct tls_dial *d, const struct spec_server *spec, const char *host,
                  const struct tls_dial *like, struct err *err)
{
    *d = (struct tls_dial){.verify = !spec->backend_tls.insecure_skip_verify};
    d->server_name = spec->backend_tls.server_name ? spec->backend_tls.server_name : host;
    if (!like && (spec->wss_cert.data || spec->backend_tls.ca.data)) {
        d->ctx = own_dial_ctx(spec, err);
        return d->ctx ? 0 : -1;
    }
    d->ctx = like ? like->ctx : system_dial_ctx();
    if (!d->ctx || !SSL_CTX_up_ref(d->ctx)) {
        d->ctx = NULL;
        return ssl_err(err, "TLS");
    }
    return 0;
}

void tls_dial_done(struct tls_dial *d)
{
    SSL_SESSION_free(d->session);
    SSL_CTX_free(d->ctx);
    d->session = NULL;
    d->ctx = NULL;
}

static bool is_address(const char *name)
{
    struct in6_addr any;

    return inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1;
}

SSL *tls_dial_new(struct tls_dial *d)
{
    SSL *ssl = SSL_new(d->ctx);
    int ok = ssl && SSL_set_app_data(ssl, d);

    if (ok)
        SSL_set_verify(ssl, d->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (ok && is_address(d->server_name))
        ok = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), d->server_name);
    else if (ok)
        ok = SSL_set_tlsext_host_name(ssl, d->server_name) && SSL_set1_host(ssl, d->server_name);
    if (ok && d->session)
        SSL_set_session(ssl, d->session); /* a session that cannot be used only costs a full handshake */
    if (!ok) {
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

const char *tls_version(const SSL *ssl)
{
    return SSL_get_version(ssl);
}

const char *tls_verify_error(const SSL *ssl)
{
    long r = SSL_get_verify_result(ssl);

    return r == X509_V_OK ? NULL : X509_verify_cert_error_string(r);
}
