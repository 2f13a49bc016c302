/* wss.h - one WebSocketServer object: what it asks for, in our terms
 * Shape:   JSON of the API server -> struct wss. The keys that only an object has are taken out of its spec; the rest is written as
 *          JSON, which is YAML, and read by the proxy's own parser: `spec`
 * Units:   as in spec.h; created is RFC 3339 as the server wrote it (UTC, seconds: it orders as text)
 * Owner:   wss_free frees all; strings belong to the struct
 * Errors:  wss_parse fails only for what has no usable namespace and name. Whatever else is wrong is `problem`: all of it, a sentence each, with
 *          the field as it is written in the object ("spec.port: 70000 is out of range; ..."), never with key material; the
 *          object is kept
 * Limits:  those of spec.h; `problem` WSS_MAX_PROBLEM bytes; WSS_MAX_LABELS labels
 * Threads: any; pure
 * Source:  design.md 3 (CR only keys); deploy/crd.yaml */
#ifndef CONTROLLER_WSS_H
#define CONTROLLER_WSS_H

#include "base/err.h"
#include "spec/spec.h"

#include <jansson.h>

#define WSS_MAX_PROBLEM 2048
#define WSS_MAX_LABELS  64
#define WSS_GROUP       "tidegate.dev"
#define WSS_VERSION     "v1alpha1"
#define WSS_KIND        "WebSocketServer"
#define WSS_PLURAL      "websocketservers"
#define WSS_GATEWAY     "tidegate" /* default of spec.gatewayName */

/* {name, namespace?}; name NULL: not given; ns is the object's own where it names none. */
struct wss_ref {
    char *ns, *name;
};

struct wss_label {
    char *key, *value;
};

enum wss_condition_type { WSS_ACCEPTED = 0, WSS_RESOLVED_REFS, WSS_PROGRAMMED, WSS_READY, WSS_CONDITIONS };
enum wss_condition_status { WSS_UNKNOWN = 0, WSS_TRUE, WSS_FALSE };

/* As it stands in the object, or as it shall stand. Texts are NULL where the object has none. */
struct wss_condition {
    enum wss_condition_status status;
    bool present;
    int64_t observed_generation;
    char *reason, *message, *since; /* since: lastTransitionTime */
};

struct wss {
    char *ns, *name, *full_name; /* full_name: "ns/name", the server's name in the spec */
    char *uid, *resource_version, *created;
    int64_t generation;
    char *gateway;
    bool has_selector; /* spec.workloadSelector is there: sidecars take it */
    struct wss_label *labels;
    size_t label_count;
    struct wss_ref tls_secret, client_ca, backend_secret,
        backend_ca; /* tls.secretRef, tls.clientCARef, backendTLS.secretRef, .caRef */
    struct {
        char *name; /* NULL: none */
        uint16_t port;
        bool tls; /* scheme: wss */
    } backend_ref;
    bool inline_keys; /* keyBase64 or wssKeyBase64: anyone who can get the object can read them */
    struct spec_server spec;
    char *problem;               /* NULL: nothing wrong as far as the object alone shows */
    int64_t observed_generation; /* of status, 0: none */
    struct wss_condition conditions[WSS_CONDITIONS];
};

__attribute__((warn_unused_result)) int wss_parse(json_t *object, struct wss *out, struct err *err);
void wss_free(struct wss *w);
/* Does workloadSelector.matchLabels hold for these labels? False without one. */
bool wss_selects(const struct wss *w, const struct wss_label *labels, size_t count);
/* A problem of the proxy's parser in the object's terms, to be freed: "spec." in front, without the lines of a file that nobody has. */
char *wss_problem_text(const char *text);
/* The Service that a host of `backend` or `backends` names: a bare one in the object's namespace, or NAME.NS.svc[.cluster.local]. False: it
 * is dialled as written. */
#define WSS_LABEL_BYTES 64
struct wss_service {
    char ns[WSS_LABEL_BYTES], name[WSS_LABEL_BYTES];
};
bool wss_host_service(const struct wss *w, const char *host, struct wss_service *out);
/* "Accepted", "ResolvedRefs", "Programmed", "Ready"; "Unknown", "True", "False" */
const char *wss_condition_label(enum wss_condition_type type);
const char *wss_status_label(enum wss_condition_status status);

#endif
