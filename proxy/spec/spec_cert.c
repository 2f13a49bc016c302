#include "spec/spec_cert.h"

#include "base/cleanup.h"
#include "spec/spec_internal.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

/* What OpenSSL's security level 2, the default of Debian, asks for: RSA 2048, EC 224, SHA-224. */
#define LEAST_SECURITY_BITS 112

static void free_bio(BIO **b)
{
    BIO_free(*b);
}

static void free_x509(X509 **x)
{
    X509_free(*x);
}

static void free_key(EVP_PKEY **k)
{
    EVP_PKEY_free(*k);
}

#define CLEANUP(f) __attribute__((cleanup(f)))

/* Called only for an encrypted block. Without it OpenSSL would ask on the terminal. */
static int no_password(char *buf, int size, int writing, void *was_asked)
{
    (void)buf;
    (void)size;
    (void)writing;
    *(bool *)was_asked = true;
    return -1;
}

static const char *last_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    return reason ? reason : "unknown reason";
}

/* Explicit parameters make everyone who reads the key do arithmetic on a curve of the sender's choice. */
static bool certificate_has_explicit_curve(const X509 *x)
{
    ASN1_OBJECT *name = NULL;
    X509_ALGOR *algorithm = NULL;
    const ASN1_OBJECT *kind = NULL;
    int parameter_type = 0;

    X509_PUBKEY_get0_param(&name, NULL, NULL, &algorithm, X509_get_X509_PUBKEY(x));
    X509_ALGOR_get0(&kind, &parameter_type, NULL, algorithm);
    return OBJ_obj2nid(kind) == NID_X9_62_id_ecPublicKey && parameter_type != V_ASN1_OBJECT;
}

static int key_check(EVP_PKEY *key, struct err *err)
{
    int type = EVP_PKEY_get_base_id(key), explicit_curve = 0;
    bool rsa = type == EVP_PKEY_RSA || type == EVP_PKEY_RSA_PSS;

    if (!rsa && type != EVP_PKEY_EC && type != EVP_PKEY_ED25519 && type != EVP_PKEY_ED448)
        return err_set(err, ERR_INVALID,
                       "is of a type that TLS does not use; give an RSA, EC or Ed25519 key");
    if (rsa && EVP_PKEY_get_bits(key) > SPEC_CERT_RSA_BITS)
        return err_set(err, ERR_INVALID, "is an RSA key of %d bits; give one of at most %d",
                       EVP_PKEY_get_bits(key), SPEC_CERT_RSA_BITS);
    if (type == EVP_PKEY_EC &&
        EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, &explicit_curve) &&
        explicit_curve)
        return err_set(err, ERR_INVALID,
                       "has explicit EC parameters; give a key on a named curve, like prime256v1");
    if (EVP_PKEY_get_security_bits(key) < LEAST_SECURITY_BITS)
        return err_set(err, ERR_INVALID, "is a key of %d bits, too weak for TLS; give RSA 2048 or EC 256",
                       EVP_PKEY_get_bits(key));
    return 0;
}

/* One certificate of a chain that we show; `nth` from 1. */
static int certificate_check(X509 *x, unsigned nth, struct err *err)
{
    EVP_PKEY *key;
    int digest = 0, security_bits = 0;

    if (certificate_has_explicit_curve(x))
        return err_set(
            err, ERR_INVALID,
            "certificate %u has explicit EC parameters; give one with a named curve, like prime256v1", nth);
    key = X509_get0_pubkey(x);
    if (!key)
        return err_set(err, ERR_INVALID, "certificate %u has a key that OpenSSL does not read: %s", nth,
                       last_reason());
    if (key_check(key, err)) {
        err_prefix(err, "certificate %u", nth);
        return -1;
    }
    /* A root's own signature is never looked at. */
    if (X509_get_signature_info(x, &digest, NULL, &security_bits, NULL) &&
        security_bits < LEAST_SECURITY_BITS && !(X509_get_extension_flags(x) & EXFLAG_SS))
        return err_set(err, ERR_INVALID, "certificate %u is signed with %s, too weak for TLS; give SHA-256",
                       nth, digest == NID_undef ? "an unknown digest" : OBJ_nid2sn(digest));
    return 0;
}

/* The next certificate; NULL at the end (err untouched) or when it does not parse. */
static X509 *next_certificate(BIO *in, unsigned nth, struct err *err)
{
    bool was_asked = false;
    /* As the relay reads it (tls.c): a TRUSTED CERTIFICATE is none there, so it must be none here. */
    X509 *x = PEM_read_bio_X509(in, NULL, no_password, &was_asked);
    unsigned long code = ERR_peek_last_error();

    if (x)
        return x;
    if (was_asked)
        err_set(err, ERR_INVALID, "certificate %u is encrypted; give it without a pass phrase", nth);
    else if (ERR_GET_LIB(code) != ERR_LIB_PEM || ERR_GET_REASON(code) != PEM_R_NO_START_LINE)
        err_set(err, ERR_INVALID, "certificate %u does not parse: %s", nth, last_reason());
    else if (nth == 1)
        err_set(err, ERR_INVALID, "no certificate in it; give PEM text with -----BEGIN CERTIFICATE-----");
    ERR_clear_error();
    return NULL;
}

/* The leaf, for the caller to free; NULL with err otherwise. */
static X509 *chain_read(const struct spec_pem *pem, struct err *err)
{
    CLEANUP(free_bio) BIO *in = need(BIO_new_mem_buf(pem->data, (int)pem->len));
    CLEANUP(free_x509) X509 *leaf = NULL;

    for (unsigned nth = 1; err->code == ERR_NONE; nth++) {
        CLEANUP(free_x509) X509 *x = next_certificate(in, nth, err);

        if (!x)
            break;
        if (nth > SPEC_CERT_CHAIN)
            err_set(err, ERR_LIMIT, "more than %d certificates; give the leaf and its intermediates only",
                    SPEC_CERT_CHAIN);
        else if (!certificate_check(x, nth, err) && nth == 1) {
            leaf = STEAL(x);
        }
    }
    if (err->code != ERR_NONE)
        return NULL;
    return STEAL(leaf);
}

/* Digests, found by their own first bytes; an empty place is all 0. */
struct known {
    uint8_t (*items)[SHA256_DIGEST_LENGTH];
    size_t count, places; /* a power of two, at least twice the count */
};

static uint8_t *known_place(const struct known *k, const uint8_t digest[SHA256_DIGEST_LENGTH])
{
    static const uint8_t empty[SHA256_DIGEST_LENGTH];
    size_t at;

    memcpy(&at, digest, sizeof at);
    for (;; at++) {
        uint8_t *item = k->items[at & (k->places - 1)];

        if (!memcmp(item, digest, SHA256_DIGEST_LENGTH) || !memcmp(item, empty, SHA256_DIGEST_LENGTH))
            return item;
    }
}

static bool known_has(const struct known *k, const uint8_t digest[SHA256_DIGEST_LENGTH])
{
    return k->places && !memcmp(known_place(k, digest), digest, SHA256_DIGEST_LENGTH);
}

static void known_add(struct known *k, const uint8_t digest[SHA256_DIGEST_LENGTH])
{
    if (known_has(k, digest))
        return;
    if (k->places < 2 * (k->count + 1)) {
        struct known larger = {.places = k->places ? 2 * k->places : 64, .count = k->count};

        larger.items = need(calloc(larger.places, sizeof *larger.items));
        for (size_t i = 0; i < k->places; i++)
            memcpy(known_place(&larger, k->items[i]), k->items[i],
                   SHA256_DIGEST_LENGTH); /* an empty one: no harm */
        free(k->items);
        *k = larger;
    }
    memcpy(known_place(k, digest), digest, SHA256_DIGEST_LENGTH);
    k->count++;
}

struct spec_cert {
    OSSL_DECODER_CTX *keys;
    EVP_PKEY *key; /* where `keys` puts what it decodes */
    bool was_asked;
    struct known good, good_before; /* pairs: of this check and of the one before */
};

struct spec_cert *spec_cert_new(void)
{
    struct spec_cert *c = need(calloc(1, sizeof *c));

    c->keys = need(
        OSSL_DECODER_CTX_new_for_pkey(&c->key, "PEM", NULL, NULL, OSSL_KEYMGMT_SELECT_KEYPAIR, NULL, NULL));
    OSSL_DECODER_CTX_set_pem_password_cb(c->keys, no_password, &c->was_asked);
    return c;
}

void spec_cert_free(struct spec_cert *c)
{
    if (!c)
        return;
    OSSL_DECODER_CTX_free(c->keys);
    free(c->good.items);
    free(c->good_before.items);
    free(c);
}

void spec_cert_begin(struct spec_cert *c)
{
    free(c->good_before.items);
    c->good_before = c->good;
    c->good = (struct known){0};
}

/* The first private key, past blocks of other kinds (a certificate, EC PARAMETERS). */
static EVP_PKEY *key_read(struct spec_cert *c, const struct spec_pem *pem, struct err *err)
{
    CLEANUP(free_bio) BIO *in = need(BIO_new_mem_buf(pem->data, (int)pem->len));
    CLEANUP(free_key) EVP_PKEY *key = NULL;
    int at = -1;

    c->key = NULL;
    c->was_asked = false;
    while (!c->key && !c->was_asked && BIO_tell(in) > at && !BIO_eof(in)) {
        at = BIO_tell(in);
        (void)OSSL_DECODER_from_bio(c->keys, in);
    }
    key = c->key;
    if (c->was_asked)
        err_set(err, ERR_INVALID, "is encrypted; give the key without a pass phrase");
    else if (!key)
        err_set(err, ERR_INVALID,
                "no private key that OpenSSL reads in it; give PEM text like "
                "-----BEGIN PRIVATE KEY-----");
    else
        key_check(key, err);
    ERR_clear_error();
    if (err->code != ERR_NONE)
        return NULL;
    return STEAL(key);
}

static void check_pair(struct spec_cert *c, const struct spec_pem *cert, const struct spec_pem *key,
                       struct err *cert_err, struct err *key_err)
{
    CLEANUP(free_x509) X509 *leaf = NULL;
    CLEANUP(free_key) EVP_PKEY *private_key = NULL;

    if (cert->data)
        leaf = chain_read(cert, cert_err);
    if (key->data)
        private_key = key_read(c, key, key_err);
    if (leaf && private_key && X509_check_private_key(leaf, private_key) != 1)
        err_set(key_err, ERR_INVALID,
                "does not match the first certificate; give the key of the leaf, and the leaf first");
    ERR_clear_error();
}

/* Of the digests of both, so that no byte can move from one to the other. */
static void digest_pair(const struct spec_pem *cert, const struct spec_pem *key,
                        uint8_t out[SHA256_DIGEST_LENGTH])
{
    uint8_t both[2 * SHA256_DIGEST_LENGTH];

    SHA256(cert->data, cert->len, both);
    SHA256(key->data, key->len, both + SHA256_DIGEST_LENGTH);
    SHA256(both, sizeof both, out);
}

void spec_cert_pair(struct spec_cert *c, const struct spec_pem *cert, const struct spec_pem *key,
                    struct err *cert_err, struct err *key_err)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];

    cert_err->code = key_err->code = ERR_NONE;
    ERR_clear_error();
    if (!cert->data || !key->data) {
        check_pair(c, cert, key, cert_err, key_err);
        return;
    }
    digest_pair(cert, key, digest);
    if (!known_has(&c->good, digest) && !known_has(&c->good_before, digest))
        check_pair(c, cert, key, cert_err, key_err);
    if (cert_err->code == ERR_NONE && key_err->code == ERR_NONE)
        known_add(&c->good, digest);
}

void spec_cert_ca(const struct spec_pem *ca, struct err *err)
{
    CLEANUP(free_bio) BIO *in = NULL;

    err->code = ERR_NONE;
    if (!ca->data)
        return;
    ERR_clear_error();
    in = need(BIO_new_mem_buf(ca->data, (int)ca->len));
    for (unsigned nth = 1; err->code == ERR_NONE; nth++) {
        CLEANUP(free_x509) X509 *x = next_certificate(in, nth, err);

        if (!x)
            break;
        if (certificate_has_explicit_curve(x))
            err_set(err, ERR_INVALID, "certificate %u has explicit EC parameters; leave it out", nth);
    }
    ERR_clear_error();
}

void spec_cert_describe(const struct spec_pem *chain, char sha256_hex[SPEC_CERT_HEX_BYTES], time_t *not_after)
{
    CLEANUP(free_bio) BIO *in = NULL;
    CLEANUP(free_x509) X509 *leaf = NULL;
    unsigned char digest[32];
    struct tm end;
    struct err err;

    sha256_hex[0] = '\0';
    *not_after = 0;
    if (!chain->data)
        return;
    ERR_clear_error();
    in = need(BIO_new_mem_buf(chain->data, (int)chain->len));
    leaf = next_certificate(in, 1, &err);
    if (leaf && X509_digest(leaf, EVP_sha256(), digest, NULL) == 1)
        for (size_t i = 0; i < sizeof digest; i++)
            snprintf(sha256_hex + 2 * i, 3, "%02x", digest[i]);
    if (leaf && ASN1_TIME_to_tm(X509_get0_notAfter(leaf), &end) == 1)
        *not_after = timegm(&end);
    ERR_clear_error();
}
