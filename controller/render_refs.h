/* render_refs.h - what an object refers to -> a spec that stands alone
 * Shape:   struct wss + store -> struct spec_server with the Secrets' PEM bytes and the Services' endpoints in it
 * Owner:   render_resolve ... render_resolved_free; `spec` borrows from the object, the store and the rest of the struct, until any changes
 * Errors:  reason and message, NULL when every reference holds; RefNotPermitted wins over InvalidCertificateRef over BackendNotFound
 * Limits:  SPEC_MAX_LIST backends, the first in their order
 * Threads: the loop's; reads the Secrets' folders of a sidecar
 * Source:  design.md 5 "Rendering", "Sidecar"; k8s.md C15, C16 */
#ifndef CONTROLLER_RENDER_REFS_H
#define CONTROLLER_RENDER_REFS_H

#include "render.h"

#define RENDER_REF_NOT_PERMITTED "RefNotPermitted"
#define RENDER_INVALID_CERT_REF  "InvalidCertificateRef"
#define RENDER_BACKEND_NOT_FOUND "BackendNotFound"
#define RENDER_FORBIDDEN         "Forbidden" /* the controller may not read that kind */

/* A reference into another namespace, which a grant allows. */
struct render_grant {
    const char *kind; /* "Secret", "Service" */
    char *ns, *name;
};

enum render_pem { RENDER_TLS = 0, RENDER_CLIENT_CA, RENDER_BACKEND_PAIR, RENDER_BACKEND_CA, RENDER_PEMS };

struct render_resolved {
    struct spec_server spec;
    const char *reason;
    char *message;
    char *note;        /* nothing is wrong, but people should know: no ready endpoints */
    char *unsupported; /* Accepted=False: what the file cannot say */
    struct render_grant *grants;
    size_t grant_count;
    struct spec_backend *backends; /* owned where spec.backends is this */
    size_t backend_count;
    char *server_name;
    struct store_secret *mounted[RENDER_PEMS]; /* sidecar: read for this */
};

/* names_only: of an object that sidecars serve: what is in its Secrets is theirs to judge, and its hosts theirs to dial. */
void render_resolve(const struct render_rules *rules, const struct store *s, const struct wss *w,
                    bool names_only, struct render_resolved *out);
void render_resolved_free(struct render_resolved *r);
void render_grants_free(struct render_grant *grants, size_t count);
/* "x; y" */
void render_append(char **text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
