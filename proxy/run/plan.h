/* plan.h - which version of each server is served: what the file wants, what served before, which ports are to be had
 * Shape:   candidates (the documents of the file) + the plan before + ports -> the next plan, sorted by name
 *              wanted and good                         its new version serves    active
 *              wrong, or its port cannot be had        its last version serves   stale
 *              the same without a last version         nothing                   failed
 *          who has a port keeps it against who wants to move there, until it lets go of it
 * Units:   ports in host order
 * Owner:   versions are refcounted; a plan holds one reference to each that it serves
 * Errors:  none: what cannot be served is said in its entry's message; memory: the process ends with a line
 * Limits:  SPEC_MAX_SERVERS
 * Threads: the master's
 * Source:  design.md 2.6, 5 "What stays served"; bars S49, S50 */
#ifndef PROXY_RUN_PLAN_H
#define PROXY_RUN_PLAN_H

#include "admin/status.h"
#include "run/ports.h"
#include "spec/spec.h"

#define VERSION_DIGEST_BYTES 32

/* A good document: what the workers are given, and what the status says of it. Never changed. */
struct version {
    unsigned refs;
    char *name;
    char *backend; /* the URL of the first, and how many more there are; NULL: none */
    uint16_t port;
    bool tls;
    uint32_t drain_ms;
    uint8_t *doc; /* as spec_emit_server writes it, files inlined; holds keys */
    size_t doc_len;
    uint8_t digest[VERSION_DIGEST_BYTES]; /* of doc */
    char cert_sha256[STATUS_HEX_BYTES];
    time_t not_after;
};

/* Of a good server with its files read, whose file names are forgotten. When it says what `last` does (or NULL), that one
 * gets one more reference instead. NULL: it cannot be emitted. */
struct version *version_new(struct spec_server *s, struct version *last, struct err *err);
void version_unref(struct version *v);

struct candidate {
    char *name;
    struct version *version; /* NULL: wrong */
    char *message;           /* what is wrong */
};

struct plan_entry {
    char *name;
    struct version *serves; /* NULL: failed */
    int slot;               /* of its counters (reload.c); -1: none */
    enum status_state state;
    char *message; /* NULL: active */
};

struct plan {
    struct plan_entry *entries;
    size_t count;
    bool port_trouble; /* worth another try when a port comes free */
};

/* Opens the ports that are wanted, marks in `ports` which ones those are, and closes none. Candidates without a name, and the
 * later ones of a name, are passed over. */
void plan_make(const struct plan *before, const struct candidate *c, size_t count, struct ports *ports,
               struct plan *out);
void plan_free(struct plan *p);
const struct plan_entry *plan_find(const struct plan *p, const char *name);

#endif
