#include "spec/spec_cert.h"

#include "test_spec_pem.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <time.h>
#include <unistd.h>

static struct spec_cert *certs;

static int open_certs(void **state)
{
    (void)state;
    certs = spec_cert_new();
    return 0;
}

static int close_certs(void **state)
{
    (void)state;
    spec_cert_free(certs);
    return 0;
}

static struct spec_pem pem_of(const char *text)
{
    return (struct spec_pem){.data = (uint8_t *)(uintptr_t)text, .len = strlen(text)};
}

/* NULL: good. */
static void assert_pair(const char *cert, const char *key, const char *cert_because, const char *key_because)
{
    struct spec_pem c = pem_of(cert), k = pem_of(key);
    struct err cert_err, key_err;

    ERR_raise(ERR_LIB_USER, 1); /* what others left in the queue must not be taken for ours */
    spec_cert_pair(certs, &c, &k, &cert_err, &key_err);
    assert_int_equal(ERR_peek_error(), 0);
    assert_int_equal(cert_err.code != ERR_NONE, cert_because != NULL);
    assert_int_equal(key_err.code != ERR_NONE, key_because != NULL);
    if (cert_because && !strstr(cert_err.msg, cert_because))
        fail_msg("\"%s\" is not in \"%s\"", cert_because, cert_err.msg);
    if (key_because && !strstr(key_err.msg, key_because))
        fail_msg("\"%s\" is not in \"%s\"", key_because, key_err.msg);
}

static void assert_key_kind(EVP_PKEY *key, const EVP_MD *digest, const char *cert_because,
                            const char *key_because)
{
    X509 *x = make_certificate(key, "a", NULL, NULL, 30, digest);
    char *cert = certificate_pem(x), *text = key_pem(key);

    assert_pair(cert, text, cert_because, key_because);
    free(cert);
    free(text);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void accepts_keys_that_tls_uses(void **state)
{
    (void)state;
    assert_key_kind(make_ec_key("P-256", 0), EVP_sha256(), NULL, NULL);
    assert_key_kind(make_ec_key("P-384", 0), EVP_sha384(), NULL, NULL);
    assert_key_kind(EVP_RSA_gen(2048), EVP_sha256(), NULL, NULL);
    assert_key_kind(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL, NULL, NULL);
}

static void refuses_keys_that_openssl_would_refuse_later(void **state)
{
    (void)state;
    assert_key_kind(EVP_RSA_gen(1024), EVP_sha256(), "certificate 1: is a key of 1024 bits",
                    "is a key of 1024 bits");
    assert_key_kind(EVP_PKEY_Q_keygen(NULL, NULL, "SM2"), EVP_sm3(), "of a type that TLS does not use",
                    "of a type that TLS does not use");
}

/* A modulus of 8200 bits without the minutes that making a real one takes: nothing multiplies with it. */
static void refuses_rsa_above_8192_bits(void **state)
{
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *big = NULL, *signer = make_ec_key("P-256", 0);
    X509 *x;
    char *cert, *key = key_pem(signer);
    unsigned char modulus[1025], e[3] = {1, 0, 1};
    OSSL_PARAM params[3];

    (void)state;
    memset(modulus, 0xa5, sizeof modulus);
    params[0] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, modulus, sizeof modulus);
    params[1] = OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_E, e, sizeof e);
    params[2] = OSSL_PARAM_construct_end();
    assert_int_equal(EVP_PKEY_fromdata_init(c), 1);
    assert_int_equal(EVP_PKEY_fromdata(c, &big, EVP_PKEY_PUBLIC_KEY, params), 1);
    x = make_certificate(big, "big", NULL, signer, 30, EVP_sha256());
    cert = certificate_pem(x);
    assert_pair(cert, key, "RSA key of 8200 bits; give one of at most 8192", NULL);
    free(cert);
    free(key);
    X509_free(x);
    EVP_PKEY_free(big);
    EVP_PKEY_free(signer);
    EVP_PKEY_CTX_free(c);
}

static void refuses_explicit_ec_parameters(void **state)
{
    EVP_PKEY *key = make_ec_key("P-256", 1);
    X509 *x = make_certificate(key, "a", NULL, NULL, 30, EVP_sha256());
    char *cert = certificate_pem(x);
    struct spec_pem ca = pem_of(cert);
    struct err err;

    (void)state;
    spec_cert_ca(&ca, &err);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "explicit EC parameters"));
    free(cert);
    X509_free(x);
    assert_key_kind(key, EVP_sha256(), "certificate 1 has explicit EC parameters",
                    "has explicit EC parameters");
}

static void refuses_a_key_of_another_certificate(void **state)
{
    struct made_pair a = make_pair("a"), b = make_pair("b");

    (void)state;
    assert_pair(a.cert, a.key, NULL, NULL);
    assert_pair(a.cert, b.key, NULL, "does not match the first certificate");
    made_pair_free(&a);
    made_pair_free(&b);
}

/* CPU time of checking `count` pairs that are one, but for a line of comment in front. */
static double check_many(const struct made_pair *pair, size_t count)
{
    clock_t begin = clock();

    spec_cert_begin(certs);
    for (size_t i = 0; i < count; i++) {
        char line[32], *cert;

        snprintf(line, sizeof line, "%zu\n", i);
        cert = join(line, pair->cert);
        assert_pair(cert, pair->key, NULL, NULL);
        free(cert);
    }
    return (double)(clock() - begin);
}

static void good_pairs_are_not_looked_at_again(void **state)
{
    struct made_pair a = make_pair("a"), b = make_pair("b");
    double first, second;

    (void)state;
    first = check_many(&a, 300);
    second = check_many(&a, 300);
    assert_true(second < first / 3);
    assert_pair(a.cert, a.key, NULL, NULL);
    assert_pair(a.cert, a.key, NULL, NULL);
    assert_pair(a.cert, b.key, NULL, "does not match the first certificate");
    assert_pair(a.cert, b.key, NULL, "does not match the first certificate");
    spec_cert_begin(certs);
    spec_cert_begin(certs);
    assert_true(check_many(&a, 300) > second * 2); /* what the last check did not meet is forgotten */
    made_pair_free(&a);
    made_pair_free(&b);
}

static void takes_ten_certificates_and_not_eleven(void **state)
{
    struct made_pair a = make_pair("a");
    char *chain = join(a.cert, "");

    (void)state;
    for (int n = 2; n <= 11; n++) {
        char *longer = join(chain, a.cert);

        free(chain);
        chain = longer;
        assert_pair(chain, a.key, n > 10 ? "more than 10 certificates" : NULL, NULL);
    }
    free(chain);
    made_pair_free(&a);
}

static void judges_every_certificate_of_a_chain(void **state)
{
    EVP_PKEY *ca_key = make_ec_key("P-256", 0), *weak = EVP_RSA_gen(1024),
             *leaf_key = make_ec_key("P-256", 0);
    X509 *ca = make_certificate(ca_key, "ca", NULL, NULL, 30, EVP_sha1()); /* a root may: nobody checks it */
    X509 *middle = make_certificate(weak, "middle", ca, ca_key, 30, EVP_sha256());
    X509 *leaf = make_certificate(leaf_key, "leaf", ca, ca_key, 30, EVP_sha256());
    X509 *sha1 = make_certificate(leaf_key, "leaf", ca, ca_key, 30, EVP_sha1());
    char *key = key_pem(leaf_key), *leaf_text = certificate_pem(leaf), *middle_text = certificate_pem(middle);
    char *ca_text = certificate_pem(ca), *sha1_text = certificate_pem(sha1);
    char *good = join(leaf_text, ca_text), *bad = join(leaf_text, middle_text),
         *cut = join(leaf_text, ca_text);

    (void)state;
    assert_pair(good, key, NULL, NULL);
    assert_pair(bad, key, "certificate 2: is a key of 1024 bits", NULL);
    assert_pair(sha1_text, key, "signed with SHA1", NULL);
    cut[strlen(leaf_text) + 60] = '!';
    assert_pair(cut, key, "certificate 2 does not parse", NULL);
    free(key);
    free(leaf_text);
    free(middle_text);
    free(ca_text);
    free(sha1_text);
    free(good);
    free(bad);
    free(cut);
    X509_free(ca);
    X509_free(middle);
    X509_free(leaf);
    X509_free(sha1);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(weak);
    EVP_PKEY_free(leaf_key);
}

static void accepts_an_expired_certificate(void **state)
{
    EVP_PKEY *key = make_ec_key("P-256", 0);
    X509 *x = make_certificate(key, "old", NULL, NULL, -1, EVP_sha256());
    char *cert = certificate_pem(x), *text = key_pem(key);

    (void)state;
    assert_pair(cert, text, NULL, NULL);
    free(cert);
    free(text);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void refuses_encrypted_keys_without_asking(void **state)
{
    struct made_pair a = make_pair("a");
    EVP_PKEY *key = make_ec_key("P-256", 0);
    int null = open("/dev/null", O_RDONLY), in = dup(0);

    (void)state;
    dup2(null, 0);
    for (int traditional = 0; traditional < 2; traditional++) {
        BIO *b = BIO_new(BIO_s_mem());
        char pass[] = "secret", *text;

        if (traditional)
            PEM_write_bio_PrivateKey_traditional(b, key, EVP_aes_128_cbc(), (unsigned char *)pass, 6, NULL,
                                                 NULL);
        else
            PEM_write_bio_PKCS8PrivateKey(b, key, EVP_aes_128_cbc(), pass, 6, NULL, NULL);
        text = bio_text(b);
        assert_pair(a.cert, text, NULL, "is encrypted; give the key without a pass phrase");
        free(text);
    }
    dup2(in, 0);
    close(in);
    close(null);
    EVP_PKEY_free(key);
    made_pair_free(&a);
}

static void finds_the_key_behind_other_blocks(void **state)
{
    static const char parameters[] =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    EVP_PKEY *key = make_ec_key("P-256", 0);
    X509 *x = make_certificate(key, "a", NULL, NULL, 30, EVP_sha256());
    char *cert = certificate_pem(x), *pkcs8 = key_pem(key), *old, *all, *with_parameters;
    BIO *b = BIO_new(BIO_s_mem());

    (void)state;
    assert_int_equal(PEM_write_bio_PrivateKey_traditional(b, key, NULL, NULL, 0, NULL, NULL), 1);
    old = bio_text(b);
    all = join(cert, pkcs8);
    with_parameters = join(parameters, old);
    assert_pair(cert, old, NULL, NULL);
    assert_pair(cert, with_parameters, NULL, NULL);
    assert_pair(all, all, NULL, NULL);
    free(cert);
    free(pkcs8);
    free(old);
    free(all);
    free(with_parameters);
    X509_free(x);
    EVP_PKEY_free(key);
}

static void says_when_there_is_no_pem_in_it(void **state)
{
    struct made_pair a = make_pair("a");
    char *half = join(a.key, "");

    (void)state;
    assert_pair("hello", a.key, "no certificate in it", NULL);
    assert_pair(a.key, a.cert, "no certificate in it", "no private key");
    assert_pair(a.cert, "", NULL, "no private key");
    half[strlen(half) / 2] = '\0';
    assert_pair(a.cert, half, NULL, "no private key");
    half[40] = '\0';
    assert_pair("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", a.key,
                "certificate 1 does not parse", NULL);
    free(half);
    made_pair_free(&a);
}

static void never_quotes_a_key(void **state)
{
    struct made_pair a = make_pair("a");
    struct spec_pem cert = pem_of(a.cert), key;
    struct err cert_err, key_err;
    size_t begin = strlen("-----BEGIN PRIVATE KEY-----\n");

    (void)state;
    for (size_t i = begin; i < strlen(a.key); i++) {
        char old = a.key[i];

        a.key[i] = '!';
        key = pem_of(a.key);
        spec_cert_pair(certs, &cert, &key, &cert_err, &key_err);
        if (key_err.code != ERR_NONE)
            for (size_t j = begin; j + 8 < strlen(a.key); j++) {
                char piece[9] = "";

                memcpy(piece, a.key + j, 8);
                if (!strstr("-----END PRIVATE KEY-----", piece))
                    assert_null(strstr(key_err.msg, piece));
            }
        a.key[i] = old;
    }
    made_pair_free(&a);
}

static void takes_a_bundle_of_many_roots(void **state)
{
    struct made_pair a = make_pair("a");
    char *bundle = join("# a comment\n", a.cert);
    struct spec_pem ca;
    struct err err;

    (void)state;
    for (int i = 0; i < 6; i++) {
        char *twice = join(bundle, bundle);

        free(bundle);
        bundle = twice;
    }
    ca = pem_of(bundle);
    spec_cert_ca(&ca, &err);
    assert_int_equal(err.code, ERR_NONE);
    ca = pem_of(a.key);
    spec_cert_ca(&ca, &err);
    assert_non_null(strstr(err.msg, "no certificate in it"));
    ca = (struct spec_pem){0};
    spec_cert_ca(&ca, &err);
    assert_int_equal(err.code, ERR_NONE);
    free(bundle);
    made_pair_free(&a);
}

/* Made once with `openssl req -x509`; the expected values are those of `openssl x509 -fingerprint -sha256 -enddate`. */
static const char known[] = "-----BEGIN CERTIFICATE-----\n"
                            "MIIBeDCCAR2gAwIBAgIUJ4mcRr1Zu6Qh7Hj3+8v989AITYcwCgYIKoZIzj0EAwIw\n"
                            "EDEOMAwGA1UEAwwFa25vd24wIBcNMjYxMTI0MDYxNTA5WhgPMjA1MTA3MTYwNjE1\n"
                            "MDlaMBAxDjAMBgNVBAMMBWtub3duMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n"
                            "1ap4oRhNZBVaAAuFcL5KT0YRgel3RZbQMUxbfjoET9M9rlDQojMA82KHPQngJ1G2\n"
                            "PZrqr8OpuvjbdjcVIFxmqKNTMFEwHQYDVR0OBBYEFHoH61wOY16qctP603Yv3rKc\n"
                            "Qub9MB8GA1UdIwQYMBaAFHoH61wOY16qctP603Yv3rKcQub9MA8GA1UdEwEB/wQF\n"
                            "MAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAPfwBpdgZQXOWjWovkejFaAwIAbIWSB2\n"
                            "IQs8LbsLHVOqAiEAsgdvnw0KnZJVqX3sD2MjwsBdB+1sr+oHcMFhQZav/KI=\n"
                            "-----END CERTIFICATE-----\n";

static void describes_the_first_certificate_of_a_chain(void **state)
{
    static const char digest[] = "26257d6f15ea0b82ff6e3095b0d99fab0ce32f56b3931d1402768d3469a1d553";
    struct made_pair a = make_pair("a");
    char *chain = join(known, a.cert), *behind_a_key = join(a.key, known);
    const char *const texts[] = {known, chain, behind_a_key};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct spec_pem pem = pem_of(texts[i]);
        char hex[SPEC_CERT_HEX_BYTES];
        time_t end;

        ERR_raise(ERR_LIB_USER, 1);
        spec_cert_describe(&pem, hex, &end);
        assert_string_equal(hex, digest);
        assert_int_equal(end, 2573100909); /* Jul 16 06:15:09 2051 GMT */
        assert_int_equal(ERR_peek_error(), 0);
    }
    free(chain);
    free(behind_a_key);
    made_pair_free(&a);
}

static void describes_nothing_where_there_is_no_certificate(void **state)
{
    struct made_pair a = make_pair("a");
    const struct spec_pem pems[] = {{0}, pem_of("x"), pem_of(a.key)};

    (void)state;
    for (size_t i = 0; i < sizeof pems / sizeof *pems; i++) {
        char hex[SPEC_CERT_HEX_BYTES] = "x";
        time_t end = 1;

        spec_cert_describe(&pems[i], hex, &end);
        assert_string_equal(hex, "");
        assert_int_equal(end, 0);
        assert_int_equal(ERR_peek_error(), 0);
    }
    made_pair_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_keys_that_tls_uses),
        cmocka_unit_test(refuses_keys_that_openssl_would_refuse_later),
        cmocka_unit_test(refuses_rsa_above_8192_bits),
        cmocka_unit_test(refuses_explicit_ec_parameters),
        cmocka_unit_test(refuses_a_key_of_another_certificate),
        cmocka_unit_test(good_pairs_are_not_looked_at_again),
        cmocka_unit_test(takes_ten_certificates_and_not_eleven),
        cmocka_unit_test(judges_every_certificate_of_a_chain),
        cmocka_unit_test(accepts_an_expired_certificate),
        cmocka_unit_test(refuses_encrypted_keys_without_asking),
        cmocka_unit_test(finds_the_key_behind_other_blocks),
        cmocka_unit_test(says_when_there_is_no_pem_in_it),
        cmocka_unit_test(never_quotes_a_key),
        cmocka_unit_test(takes_a_bundle_of_many_roots),
        cmocka_unit_test(describes_the_first_certificate_of_a_chain),
        cmocka_unit_test(describes_nothing_where_there_is_no_certificate),
    };

    return cmocka_run_group_tests_name("spec_cert", tests, open_certs, close_certs);
}
