/* store.h - what the API server has told us: objects of five kinds by namespace and name, reduced to what is needed
 * Shape:   put and drop by JSON, begin ... end around a whole list (what was not put in between goes at `end`, of that namespace if one
 *          is given); sorted arrays; a change marks each WebSocketServer dirty that refers to what changed
 * Owner:   the store owns everything in it; pointers hold until the next put, drop or end
 * Errors:  none: an object that makes no sense is kept as far as it does (`problem`), one without a name is passed over and logged
 * Limits:  of a Secret only tls.crt, tls.key and ca.crt, each SPEC_MAX_CA_BYTES at most; STORE_MAX_ENDPOINTS a slice
 * Threads: the loop's
 * Source:  core/v1 Secret and Service, discovery.k8s.io/v1 EndpointSlice, gateway.networking.k8s.io ReferenceGrant */
#ifndef CONTROLLER_STORE_H
#define CONTROLLER_STORE_H

#include "wss.h"

#define STORE_MAX_ENDPOINTS 1000 /* as the API allows */

enum store_kind { STORE_WSS = 0, STORE_SECRETS, STORE_SERVICES, STORE_SLICES, STORE_GRANTS };
#define STORE_KINDS 5

struct store_pem {
    uint8_t *data; /* NULL: no such key, or empty */
    size_t len;
};

struct store_secret {
    char *ns, *name, *type;
    struct store_pem cert, key, ca;
    char *problem; /* data that is no base64 or too large: "tls.crt: ..." */
};

struct store_port {
    char *name; /* "" where the Service has one port without a name */
    uint16_t port;
    bool tcp;
    bool port_given; /* a slice may leave it out: all ports */
};

struct store_service {
    char *ns, *name;
    bool external_name;
    struct store_port *ports;
    size_t port_count;
};

struct store_endpoint {
    char **addresses;
    size_t address_count;
    bool ready, serving, terminating; /* absent `ready` stands as true */
};

struct store_slice {
    char *ns, *name, *service; /* service: label kubernetes.io/service-name, NULL without one */
    bool fqdn;                 /* addressType FQDN: not used */
    struct store_port *ports;
    size_t port_count;
    struct store_endpoint *endpoints;
    size_t endpoint_count;
};

struct store_grant {
    char *ns, *name;
    struct {
        char *group, *kind, *ns;
    } * from;
    struct {
        char *group, *kind, *name; /* name NULL: all */
    } * to;
    size_t from_count, to_count;
};

/* Whether the lists of a kind can be relied on. */
enum store_sync { STORE_WAITING = 0, STORE_SYNCED, STORE_FORBIDDEN, STORE_ABSENT };

struct store_object {
    struct wss wss;
    bool dirty; /* it, or what it refers to, changed since store_clean */
};

struct store;

struct store *store_new(void);
void store_free(struct store *s);
void store_begin(struct store *s, enum store_kind kind, const char *ns);
/* True when something changed. A status or metadata alone makes no object dirty. */
bool store_put(struct store *s, enum store_kind kind, json_t *object);
bool store_drop(struct store *s, enum store_kind kind, json_t *object);
bool store_end(struct store *s, enum store_kind kind, const char *ns);
/* A change marks all objects dirty that need this kind. */
void store_set_sync(struct store *s, enum store_kind kind, enum store_sync sync, const char *why);
enum store_sync store_sync(const struct store *s, enum store_kind kind);
const char *store_sync_why(const struct store *s, enum store_kind kind);

size_t store_count(const struct store *s);
struct store_object *store_at(struct store *s, size_t i); /* by ns/name */
struct store_object *store_find(struct store *s, const char *ns, const char *name);
void store_mark_all(struct store *s);

const struct store_secret *store_secret(const struct store *s, const char *ns, const char *name);
const struct store_service *store_service(const struct store *s, const char *ns, const char *name);
/* The slices of a Service, in the order of their names; returns how many were given to `each`. */
size_t store_slices(const struct store *s, const char *ns, const char *service,
                    void (*each)(void *arg, const struct store_slice *slice), void *arg);
/* May a WebSocketServer of `from_ns` refer to this Secret or Service ("Secret", "Service") of another namespace? */
bool store_granted(const struct store *s, const char *from_ns, const char *to_kind, const char *to_ns,
                   const char *to_name);

#endif
