/* render.h - the store -> the documents of servers.yaml, and a verdict on each object
 * Shape:   render_run looks at each dirty object: refs resolved -> struct spec_server -> YAML -> parsed back and checked; then names and ports
 *          against each other (the oldest wins); render_text joins the documents, sorted by ns/name
 *            an object's document is its newest good one: while the newest rendering is bad, the last good one stays, but for
 *            what design.md 5 "What stays served" lets go
 * Units:   as in spec.h
 * Owner:   render_new ... render_free; verdicts are borrowed until the next render_run
 * Errors:  in the verdicts; render_recall by err
 * Limits:  SPEC_MAX_SERVERS documents, SPEC_MAX_BYTES in all: the youngest that do not fit are not Accepted
 * Threads: the loop's; no I/O but the Secrets' folders of a sidecar
 * Source:  design.md 3, 5 "Rendering", "What stays served", "Gateway status", "Sidecar"; k8s.md X2, X7, C10, C16; bar S47 */
#ifndef CONTROLLER_RENDER_H
#define CONTROLLER_RENDER_H

#include "store.h"

#define RENDER_RESERVED_FIRST 9900 /* ports of the gateway's own */
#define RENDER_RESERVED_LAST  9903

struct options_namespaces;

struct render_rules {
    bool sidecar;
    const char *gateway; /* --gateway */
    bool allow_local;    /* S47 is not asked of the objects */
    /* What a gateway knows of, and of which its Secrets; NULL: all. They outlive what is made of the rules. */
    const struct options_namespaces *watched, *secrets;
    const char *secrets_dir;        /* sidecar */
    const struct wss_label *labels; /* of the pod; sidecar */
    size_t label_count;
};

struct render_condition {
    enum wss_condition_status status;
    const char *reason; /* a literal: "Accepted", "Invalid", "PortConflict", "RefNotPermitted" ... */
    char *message;
};

enum render_part {
    RENDER_OURS = 0, /* served here: it may have a document */
    RENDER_SIDECARS, /* has a workloadSelector: judged by the gateway's leader (Accepted, ResolvedRefs), served by sidecars */
    RENDER_NOT_OURS, /* another gateway's; in a sidecar: selects other pods */
};

struct render_verdict {
    const char *ns, *name; /* of the store's object */
    enum render_part part;
    struct render_condition accepted, resolved;
    bool served;      /* its document is in the text, be it the newest or the last good one */
    bool newest;      /* it is the newest one */
    uint16_t port;    /* of that document */
    uint64_t version; /* changes exactly when the document does; 0: none */
    bool warn_inline_key;
};

struct render;

struct render *render_new(const struct render_rules *rules);
void render_free(struct render *r);
/* The rules' labels or mounted Secrets changed: everything is to be looked at again (marks the store). */
void render_set_rules(struct render *r, const struct render_rules *rules, struct store *s);
/* servers.yaml as an earlier process left it: its documents are the last good ones. What cannot be read is left out, and err says so. */
__attribute__((warn_unused_result)) int render_recall(struct render *r, const uint8_t *bytes, size_t len,
                                                      struct err *err);
/* True when the text changed. Objects are clean afterwards. */
bool render_run(struct render *r, struct store *s);
/* The whole file; it begins with one comment line, and each document with one that says its object's UID. */
__attribute__((warn_unused_result)) int render_text(const struct render *r, struct buf *out, struct err *err);
size_t render_count(const struct render *r);
const struct render_verdict *render_at(const struct render *r,
                                       size_t i); /* by ns/name; one each object of the store */
const struct render_verdict *render_find(const struct render *r, const char *ns, const char *name);

#endif
