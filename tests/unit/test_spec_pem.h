/* test_spec_pem.h - certificates and keys made on the spot for the tests of the spec
 * Shape:   make_key -> EVP_PKEY; make_certificate -> X509; *_pem and base64 -> text; join -> two texts in one
 * Owner:   the caller frees what it gets (EVP_PKEY_free, X509_free, free)
 * Errors:  cmocka's asserts
 * Threads: one */
#ifndef TESTS_UNIT_TEST_SPEC_PEM_H
#define TESTS_UNIT_TEST_SPEC_PEM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

static inline char *bio_text(BIO *b)
{
    char *data, *text;
    long n = BIO_get_mem_data(b, &data);

    text = malloc((size_t)n + 1);
    assert_non_null(text);
    memcpy(text, data, (size_t)n);
    text[n] = '\0';
    BIO_free(b);
    return text;
}

/* explicit_curve: the curve written out instead of named. */
static inline EVP_PKEY *make_ec_key(const char *curve, int explicit_curve)
{
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *key = NULL;

    assert_int_equal(EVP_PKEY_keygen_init(c), 1);
    assert_int_equal(EVP_PKEY_CTX_set_group_name(c, curve), 1);
    if (explicit_curve)
        assert_int_equal(EVP_PKEY_CTX_set_ec_param_enc(c, OPENSSL_EC_EXPLICIT_CURVE), 1);
    assert_int_equal(EVP_PKEY_generate(c, &key), 1);
    EVP_PKEY_CTX_free(c);
    return key;
}

/* Signed by `signer` in the name of `issuer`; by itself when they are NULL. */
static inline X509 *make_certificate(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *signer,
                                     long days_left, const EVP_MD *digest)
{
    X509 *x = X509_new();
    X509_NAME *subject = X509_get_subject_name(x);

    assert_int_equal(X509_set_version(x, 2), 1);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -10L * 86400);
    X509_gmtime_adj(X509_getm_notAfter(x), days_left * 86400);
    assert_int_equal(
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0), 1);
    X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : subject);
    assert_int_equal(X509_set_pubkey(x, key), 1);
    assert_true(X509_sign(x, signer ? signer : key, digest) > 0);
    return x;
}

static inline char *certificate_pem(X509 *x)
{
    BIO *b = BIO_new(BIO_s_mem());

    assert_int_equal(PEM_write_bio_X509(b, x), 1);
    return bio_text(b);
}

static inline char *key_pem(EVP_PKEY *key)
{
    BIO *b = BIO_new(BIO_s_mem());

    assert_int_equal(PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL), 1);
    return bio_text(b);
}

static inline char *join(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    char *both = malloc(n + m + 1);

    assert_non_null(both);
    memcpy(both, a, n);
    memcpy(both + n, b, m + 1);
    return both;
}

static inline char *base64(const char *text)
{
    size_t n = strlen(text);
    char *out = malloc(n / 3 * 4 + 5);

    assert_non_null(out);
    EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)text, (int)n);
    return out;
}

/* A certificate and its key, as PEM and as base64 of it. */
struct made_pair {
    char *cert, *key, *cert64, *key64;
};

static inline struct made_pair make_pair(const char *name)
{
    EVP_PKEY *key = make_ec_key("P-256", 0);
    X509 *x = make_certificate(key, name, NULL, NULL, 30, EVP_sha256());
    struct made_pair p = {.cert = certificate_pem(x), .key = key_pem(key)};

    p.cert64 = base64(p.cert);
    p.key64 = base64(p.key);
    X509_free(x);
    EVP_PKEY_free(key);
    return p;
}

static inline void made_pair_free(struct made_pair *p)
{
    free(p->cert);
    free(p->key);
    free(p->cert64);
    free(p->key64);
}

#endif
