/* spec_cert.h - PEM text -> may it be served; nothing is kept
 * Shape:   struct spec_pem -> struct err; a pem without data (absent, or its file not read) is passed over
 * Units:   key sizes in bits
 * Owner:   new/free around a whole check: looking up OpenSSL's decoders costs ten times what a key does
 * Errors:  INVALID with what is wrong; never a byte of a key. OpenSSL's error queue is empty before and after
 * Limits:  SPEC_CERT_CHAIN certificates a chain, SPEC_CERT_RSA_BITS; what OpenSSL's level 2 would refuse is refused here
 * Threads: one a struct spec_cert
 * Source:  bar S49; CVE-2022-0778 for explicit EC parameters. An expired certificate is no error: clients judge it */
#ifndef PROXY_SPEC_SPEC_CERT_H
#define PROXY_SPEC_SPEC_CERT_H

#include "spec/spec.h"

#include <time.h>

#define SPEC_CERT_CHAIN    10
#define SPEC_CERT_RSA_BITS 8192

struct spec_cert;

struct spec_cert *spec_cert_new(void);
void spec_cert_free(struct spec_cert *c);
/* A check of a whole spec begins. Pairs that were good in the last one are not looked at again: whoever keeps a spec_cert
 * over many readings pays for what is new. What the last check did not meet is forgotten. */
void spec_cert_begin(struct spec_cert *c);
/* A chain, leaf first, and the leaf's key. Each err has ERR_NONE when its part is good; a mismatch is the key's. */
void spec_cert_pair(struct spec_cert *c, const struct spec_pem *cert, const struct spec_pem *key,
                    struct err *cert_err, struct err *key_err);
/* One or more certificates to verify a peer with. */
void spec_cert_ca(const struct spec_pem *ca, struct err *err);

#define SPEC_CERT_HEX_BYTES 65
/* For people: SHA-256 of the leaf's DER in lower-case hex, and its end in seconds since 1970; "" and 0 without a leaf. */
void spec_cert_describe(const struct spec_pem *chain, char sha256_hex[SPEC_CERT_HEX_BYTES],
                        time_t *not_after);

#endif
