/* spec_internal.h - what the files of spec/ share and nobody else needs
 * Shape:   spec_marks says which fields of a server already have a problem, so that a rule does not report it again
 * Units:   none
 * Owner:   the caller of spec_parse_marked frees marks with free() and the spec with spec_free
 * Errors:  -1 from spec_parse_marked: the stream broke off; memory: the process ends with a line (style.md C5: outside the data path)
 * Limits:  SPEC_QUOTE_CHARS of a foreign text stand in a message
 * Threads: any; nothing is shared */
#ifndef PROXY_SPEC_SPEC_INTERNAL_H
#define PROXY_SPEC_SPEC_INTERNAL_H

#include "base/need.h"
#include "spec/spec.h"
#include "spec/spec_cert.h"

#define SPEC_QUOTE_CHARS  60
#define SPEC_SECRET_CHARS 40 /* of base64 in a row that looks random: an Ed25519 key alone has 43 */

enum spec_mark {
    SPEC_MARK_NAME = 1 << 0,
    SPEC_MARK_KIND = 1 << 1,
    SPEC_MARK_HTTPS = 1 << 2,
    SPEC_MARK_PORT = 1 << 3,
    SPEC_MARK_BACKEND = 1 << 4,
    SPEC_MARK_CERT = 1 << 5,
    SPEC_MARK_KEY = 1 << 6,
    SPEC_MARK_WSS_CERT = 1 << 7,
    SPEC_MARK_WSS_KEY = 1 << 8,
    SPEC_MARK_ALL = (1 << 9) - 1,
};

char *spec_copy(const char *text, size_t len);
/* items[count] becomes valid; the new element is zeroed. */
void *spec_grow(void *items, size_t count, size_t each_bytes);

void spec_backend_free(struct spec_backend *b);

struct spec_quote {
    char text[SPEC_QUOTE_CHARS * 4 + 8];
};
/* "text" for a message: printable ASCII, the rest as \xNN, cut; not shown at all where it may be a key or a password. */
const char *spec_quote(struct spec_quote *q, const char *text, size_t len);
#define SPEC_QUOTE(text, len) spec_quote(&(struct spec_quote){{0}}, (text), (len))

/* As spec_parse, but fills `out` and `marks` (one enum spec_mark mask a document) whatever went wrong; documents that
 * are no mapping stand there too, empty. -1: the bytes are no YAML, or pass a limit, and were not read to their end. */
int spec_parse_marked(const uint8_t *bytes, size_t len, struct spec *out, unsigned **marks,
                      struct spec_problems *problems);
/* As spec_check; marks may be NULL. */
void spec_check_marked(const struct spec *s, const unsigned *marks, struct spec_cert *certs,
                       struct spec_problems *problems);

#endif
