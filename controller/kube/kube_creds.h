/* kube_creds.h - are these credentials what they say they are, and base64
 * Shape:   PEM text or a token -> yes or no; base64 text <-> bytes
 * Owner:   what comes back is the caller's
 * Errors:  false and NULL; nothing is quoted, nothing asks for a passphrase
 * Limits:  the caller's, by the lengths that it gives
 * Threads: any; pure
 * Source:  RFC 7468, RFC 4648 4, RFC 6750 2.1; k8s.md A2, A4, A5 */
#ifndef CONTROLLER_KUBE_KUBE_CREDS_H
#define CONTROLLER_KUBE_KUBE_CREDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At least one certificate, and no broken one among them: libcurl would refuse the whole text. */
bool kube_creds_certs_ok(const void *pem, size_t len);
/* A certificate, or a chain that begins with it, and its key without a passphrase. */
bool kube_creds_pair_ok(const void *cert, size_t cert_len, const void *key, size_t key_len);

/* May stand in a header: not empty, printable ASCII without blanks. */
bool kube_creds_token_ok(const char *token);
/* Overwritten before it is freed; NULL is fine. */
void kube_creds_free(void *bytes, size_t len);

/* Line ends are skipped. NULL: not base64. There is a NUL behind the bytes, which *len does not count. */
uint8_t *kube_creds_base64_decode(const char *text, size_t *len);
char *kube_creds_base64_encode(const void *bytes, size_t len);

#endif
