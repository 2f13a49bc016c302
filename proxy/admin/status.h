/* status.h - what the proxy is doing, as facts that the master keeps, and as JSON for status.json and /status
 * Shape:   struct status (kept by the master) + the shared counters -> JSON text
 * Units:   *_at are seconds since 1970 (0: never); revisions and digests are lower-case hex; ports in host order
 * Owner:   strings of struct status belong to the master and live until it next changes them; `out` is the caller's
 * Errors:  LIMIT when `out` is too small
 * Limits:  STATUS_MAX_ERRORS problems are listed; a name stands in `servers` once
 * Threads: the master's
 * Source:  design.md 4 "status.json" */
#ifndef PROXY_ADMIN_STATUS_H
#define PROXY_ADMIN_STATUS_H

#include "base/buf.h"
#include "base/err.h"
#include "relay/shared.h"

#include <sys/types.h>
#include <time.h>

#define STATUS_MAX_ERRORS 100
#define STATUS_HEX_BYTES  65

enum status_state {
    STATUS_ACTIVE = 0, /* the version in the file is what serves */
    STATUS_STALE,      /* the version in the file is wrong: its last good one serves */
    STATUS_FAILED,     /* wrong, and there is no good one */
    STATUS_DRAINING,   /* gone from the file: its connections are being closed */
};

enum status_result { STATUS_NONE = 0, STATUS_APPLIED, STATUS_PARTIAL, STATUS_REFUSED };

struct status_server {
    char *name;
    enum status_state state;
    char *message; /* why it is not active; NULL when it is */
    uint16_t port; /* where it is served, 0: nowhere */
    int slot;      /* -1: none */
    bool tls;
    char *backend;                      /* the URL of its first one, "and N more"; NULL: none */
    char cert_sha256[STATUS_HEX_BYTES]; /* of the leaf certificate's DER; "": none */
    time_t not_after;                   /* of the leaf certificate */
};

struct status_worker {
    pid_t pid; /* 0: dead, and not started again yet */
    uint64_t restarts;
    bool current; /* has applied the newest effective spec */
};

struct status {
    pid_t pid;
    time_t started_at;
    bool ready;                      /* a good spec is applied by every worker, and no stop is under way */
    bool stopping;                   /* a drain is under way */
    char revision[STATUS_HEX_BYTES]; /* of the applied file; "": none yet */
    time_t applied_at;
    struct {
        char revision[STATUS_HEX_BYTES];
        enum status_result result;
        char **errors; /* "12:7: server \"a\": port: ..." */
        size_t error_count;
    } seen; /* the file as it was read last */
    struct status_server *servers;
    size_t server_count;
    struct status_worker *workers;
    size_t worker_count;
    uint64_t reloads[4]; /* by enum status_result */
    const struct shared *shared;
};

/* status.json and /status: one line, keys in a fixed order. */
__attribute__((warn_unused_result)) int status_json(const struct status *s, struct buf *out, struct err *err);
/* "active", "stale", "failed", "draining"; "applied", "partial", "refused", NULL for STATUS_NONE. */
const char *status_state_label(enum status_state state);
const char *status_result_label(enum status_result result);
/* Each counter of a slot added up over all workers; zeros for slot -1. */
void status_sum(const struct status *s, int slot, struct stats_cell *out);
/* Sums of a slot over all workers: connections (tunnels), and all that are still to be waited for. */
uint64_t status_connections(const struct status *s, int slot);
uint64_t status_in_use(const struct status *s, int slot);

#endif
