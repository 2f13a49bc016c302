#include "kube/kube_creds.h"

#include "base/need.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

static BIO *bio_of(const void *bytes, size_t len)
{
    return len <= INT_MAX ? need(BIO_new_mem_buf(bytes, (int)len)) : NULL;
}

/* OpenSSL's own would ask at the terminal. */
static int no_passphrase(char *text, int size, int for_writing, void *arg)
{
    (void)text, (void)size, (void)for_writing, (void)arg;
    return -1;
}

bool kube_creds_certs_ok(const void *pem, size_t len)
{
    BIO *bio = bio_of(pem, len);
    STACK_OF(X509_INFO) *all = bio ? PEM_X509_INFO_read_bio(bio, NULL, no_passphrase, NULL) : NULL;
    int certs = 0;

    for (int i = 0; i < sk_X509_INFO_num(all); i++)
        certs += sk_X509_INFO_value(all, i)->x509 != NULL;
    sk_X509_INFO_pop_free(all, X509_INFO_free);
    BIO_free(bio);
    ERR_clear_error();
    return certs > 0;
}

bool kube_creds_pair_ok(const void *cert, size_t cert_len, const void *key, size_t key_len)
{
    BIO *cert_bio = bio_of(cert, cert_len), *key_bio = bio_of(key, key_len);
    X509 *x509 = cert_bio ? PEM_read_bio_X509(cert_bio, NULL, no_passphrase, NULL) : NULL;
    EVP_PKEY *pkey = key_bio ? PEM_read_bio_PrivateKey(key_bio, NULL, no_passphrase, NULL) : NULL;
    bool fits = x509 && pkey && X509_check_private_key(x509, pkey) == 1;

    X509_free(x509);
    EVP_PKEY_free(pkey);
    BIO_free(cert_bio);
    BIO_free(key_bio);
    ERR_clear_error();
    return fits;
}

bool kube_creds_token_ok(const char *token)
{
    const char *p = token;

    while (*p > ' ' && *p < 0x7f)
        p++;
    return !*p && p > token;
}

void kube_creds_free(void *bytes, size_t len)
{
    if (bytes)
        explicit_bzero(bytes, len);
    free(bytes);
}

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

uint8_t *kube_creds_base64_decode(const char *text, size_t *len)
{
    uint8_t *out = need(malloc(strlen(text) / 4 * 3 + 4));
    uint32_t bits = 0;
    size_t n = 0, digits = 0, pads = 0;

    for (; *text; text++) {
        int d = digit(*text);

        if (*text == '\r' || *text == '\n')
            continue;
        if (*text == '=')
            pads++;
        else if (d < 0 || pads)
            break;
        else {
            bits = bits << 6 | (uint32_t)d;
            if (digits++ % 4)
                out[n++] = (uint8_t)(bits >> (6 - 2 * ((digits - 1) % 4)));
        }
    }
    if (*text || (digits + pads) % 4 || pads > 2) {
        kube_creds_free(out, n);
        return NULL;
    }
    out[n] = '\0';
    *len = n;
    return out;
}

char *kube_creds_base64_encode(const void *bytes, size_t len)
{
    char *text = need(malloc(len / 3 * 4 + 5));

    EVP_EncodeBlock((unsigned char *)text, bytes, (int)len);
    return text;
}
