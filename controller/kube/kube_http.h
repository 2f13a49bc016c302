/* kube_http.h - requests to the API server, and what comes back
 * Shape:   struct kube_request -> one call of done with a struct kube_reply; a streamed request gives opened and chunks before it
 * Units:   *_ms milliseconds
 * Owner:   kube_http_new ... kube_http_free (which ends all calls without calling back); a request is copied but for `arg`; a reply is
 *          borrowed during `done`. A call is gone once `done` has been called or kube_http_cancel was
 * Errors:  kube_http_new by err; a call's troubles are in its reply
 * Limits:  KUBE_HTTP_CALLS at once, the rest waits in order; every call has a deadline; a reply of at most max_bytes
 * Threads: the loop's; curl's multi handle stands on it, one wait for all
 * Source:  k8s.md D1-D8, R1, R3, A3; libcurl (multi_socket). HTTP/1.1: a watch has a connection of its own */
#ifndef CONTROLLER_KUBE_KUBE_HTTP_H
#define CONTROLLER_KUBE_KUBE_HTTP_H

#include "kube/kube_config.h"

#define KUBE_HTTP_CALLS       32
#define KUBE_HTTP_CALL_MS     30000
#define KUBE_HTTP_WHY_BYTES   256
#define KUBE_HTTP_REPLY_BYTES (1u << 20) /* default of max_bytes */

enum kube_end {
    KUBE_ANSWERED = 0, /* status is the server's */
    KUBE_CUT,          /* no connection, reset, EOF, a certificate that does not verify */
    KUBE_TIMED_OUT,    /* the deadline, or idle_ms without a byte */
    KUBE_TOO_LARGE,    /* more than max_bytes; or `chunk` said stop */
};

struct kube_reply {
    enum kube_end end;
    int status;          /* 0: no answer */
    const uint8_t *body; /* of a streamed request with status 200: empty */
    size_t body_len;
    uint32_t retry_after_s;        /* 0: the server did not say */
    char reason[64];               /* of a Status: "Expired", "AlreadyExists", "" */
    char why[KUBE_HTTP_WHY_BYTES]; /* for people: the Status' message or curl's, without credentials */
    bool streamed;                 /* at least one chunk came */
};

struct kube_request {
    const char *method;       /* "GET", "POST", "PUT", "PATCH" */
    const char *path;         /* "/apis/...": escaped already (kube_path.h), with its query */
    const char *content_type; /* of the body, NULL without one */
    const void *body;
    size_t body_len;
    uint32_t timeout_ms; /* of the whole call, 0: KUBE_HTTP_CALL_MS */
    uint32_t idle_ms;    /* no byte for so long ends it, 0: not judged */
    size_t max_bytes;    /* of the reply's body, 0: KUBE_HTTP_REPLY_BYTES; of a streamed one not judged */
    bool urgent;         /* past the bucket and the queue: the Lease's, and watches */
    /* Not NULL: the head of a 200 is in, once; before its first chunk and though none may come for long. */
    void (*opened)(void *arg);
    /* Not NULL: the body of a 200 comes here as it arrives; false ends the call. */
    bool (*chunk)(void *arg, const uint8_t *bytes, size_t len);
    void (*done)(void *arg, const struct kube_reply *reply);
    void *arg;
};

struct kube_http;
struct kube_call;

/* Requests other than urgent ones: `qps` a second on the average, `burst` at once. */
struct kube_http *kube_http_new(struct loop *l, struct kube_config *config, double qps, unsigned burst,
                                struct err *err);
void kube_http_free(struct kube_http *h);
/* Never calls back before it returns. A 401 has been tried again once with fresh credentials (A3), a GET cut by a reset once after 1 s,
 * 429 and 5xx with Retry-After up to 10 times within the deadline (R1; not streamed ones: their caller backs off itself). */
struct kube_call *kube_http_start(struct kube_http *h, const struct kube_request *r);
/* `done` is not called. */
void kube_http_cancel(struct kube_call *call);

/* Answers so far by method and code ("GET", 200), for metrics; code 0: none came. Calls `each` in a fixed order. */
void kube_http_counts(const struct kube_http *h,
                      void (*each)(void *arg, const char *method, int code, uint64_t n), void *arg);

#endif
