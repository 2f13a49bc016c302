#include "relay/tls_ticket.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string.h>

/* What OpenSSL's callback may answer. */
enum { TICKET_ERROR = -1, TICKET_UNKNOWN = 0, TICKET_GOOD = 1, TICKET_RENEW = 2 };

/* Fetched once: a fetch for each connection costs more than the sealing. */
static EVP_CIPHER *aes;

static bool use_key(const struct shared_ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher,
                    EVP_MAC_CTX *mac, int seal)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->hmac, sizeof key->hmac),
        OSSL_PARAM_construct_end(),
    };

    return EVP_CipherInit_ex(cipher, aes, NULL, key->aes, iv, seal) && EVP_MAC_CTX_set_params(mac, params);
}

static int seal_ticket(const struct shared_ticket_key *keys, unsigned char *name, unsigned char *iv,
                       EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(aes)) != 1 || !use_key(keys, iv, cipher, mac, 1))
        return TICKET_ERROR;
    memcpy(name, keys->name, sizeof keys->name);
    return TICKET_GOOD;
}

static int open_ticket(SSL *ssl, const struct shared_ticket_key *keys, const unsigned char *name,
                       const unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    int i = 0;

    while (i < SHARED_TICKET_KEYS && memcmp(name, keys[i].name, sizeof keys[i].name))
        i++;
    if (i == SHARED_TICKET_KEYS)
        return TICKET_UNKNOWN;
    if (!use_key(&keys[i], iv, cipher, mac, 0))
        return TICKET_ERROR;
    /* TLS 1.3: a ticket is best used once (RFC 8446 C.4), so its client gets the next one. */
    return i > 0 || SSL_version(ssl) == TLS1_3_VERSION ? TICKET_RENEW : TICKET_GOOD;
}

static int on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                         EVP_MAC_CTX *mac, int seal)
{
    struct shared_ticket_key keys[SHARED_TICKET_KEYS];
    int r;

    shared_ticket_keys(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)), keys);
    r = seal ? seal_ticket(keys, name, iv, cipher, mac) : open_ticket(ssl, keys, name, iv, cipher, mac);
    explicit_bzero(keys, sizeof keys);
    return r;
}

/* A client's certificate that has run out since is no admission any more; renewed tickets would hide it for ever. */
static SSL_TICKET_RETURN on_ticket_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                          size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    const X509 *peer = session ? SSL_SESSION_get0_peer(session) : NULL;

    (void)ssl;
    (void)name;
    (void)name_len;
    (void)arg;
    if (peer && X509_cmp_current_time(X509_get0_notAfter(peer)) <= 0)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (status == SSL_TICKET_SUCCESS)
        return SSL_TICKET_RETURN_USE;
    return status == SSL_TICKET_SUCCESS_RENEW ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_IGNORE_RENEW;
}

/* The name with its NUL, and the client CA: a server without one demands no certificate. */
static bool use_session_id_context(SSL_CTX *ctx, const struct spec_server *spec)
{
    const struct spec_pem *ca = &spec->tls.client_ca;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char id[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
              EVP_DigestUpdate(md, spec->name, strlen(spec->name) + 1) &&
              (!ca->data || EVP_DigestUpdate(md, ca->data, ca->len)) && EVP_DigestFinal_ex(md, id, &len) &&
              SSL_CTX_set_session_id_context(ctx, id, len);

    EVP_MD_CTX_free(md);
    return ok;
}

int tls_ticket_use(SSL_CTX *ctx, const struct spec_server *spec, const struct shared *shared, struct err *err)
{
    if (!aes)
        aes = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (!aes || !use_session_id_context(ctx, spec) || !SSL_CTX_set_app_data(ctx, (void *)shared) ||
        !SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket_key) ||
        !SSL_CTX_set_session_ticket_cb(ctx, NULL, on_ticket_opened, NULL))
        return err_set(err, ERR_INVALID, "TLS: session tickets cannot be set up");
    return 0;
}
