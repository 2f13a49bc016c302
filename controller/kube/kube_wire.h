/* kube_wire.h - one HTTP exchange over TLS: curl's multi handle on our loop
 * Shape:   struct kube_ask -> bytes... -> one call of done with a struct kube_trip_end; what curl says is kept until it has returned, so
 *          that callbacks may start and cancel whatever they like
 * Units:   *_ms milliseconds
 * Owner:   kube_wire_new ... kube_wire_retire, after which it frees itself with its last exchange, and its connections with it. An
 *          exchange is gone once `done` has been called or kube_wire_cancel was; the body sent is borrowed until then, all else is copied
 * Errors:  kube_wire_new by err; an exchange's by enum kube_trip
 * Limits:  KUBE_WIRE_CONNECT_MS to connect; every exchange has a deadline; max_bytes of a body that is collected
 * Threads: the loop's; names are resolved in a thread of curl's, for which nobody ever waits
 * Source:  k8s.md D1-D8; libcurl 7.88 to 8.14: multi_socket. HTTP/1.1, so that a watch has a connection of its own */
#ifndef CONTROLLER_KUBE_KUBE_WIRE_H
#define CONTROLLER_KUBE_KUBE_WIRE_H

#include "base/err.h"
#include "base/loop.h"
#include "kube/kube_config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KUBE_WIRE_CONNECT_MS 10000
#define KUBE_WIRE_CHUNK_BYTES                                                                                \
    (16u << 20) /* what one turn of curl may bring of a stream; it reads a tenth of that */

enum kube_trip {
    KUBE_TRIP_ANSWERED = 0,
    KUBE_TRIP_LOST,      /* a connection that stood was reset or ended too soon */
    KUBE_TRIP_UNTRUSTED, /* the server's certificate does not verify */
    KUBE_TRIP_TOO_LARGE, /* over max_bytes, or `bytes` said stop */
    KUBE_TRIP_FAILED,    /* no connection, no TLS, no HTTP */
};

struct kube_trip_end {
    enum kube_trip trip;
    int status; /* 0: none came */
    const uint8_t *body;
    size_t body_len;
    uint32_t retry_after_s; /* of the header */
    const char *why;        /* curl's words, "" when answered */
};

struct kube_ask {
    const char *method, *path, *content_type; /* as in struct kube_request */
    const void *body;
    size_t body_len;
    uint32_t timeout_ms; /* not 0 */
    size_t max_bytes;
    const struct kube_auth *auth;
    /* Not NULL: a 200 has begun, once; what it brings comes after it. */
    void (*opened)(void *arg);
    /* Not NULL: the body of a 200 comes here instead of being collected; false ends the exchange. */
    bool (*bytes)(void *arg, const uint8_t *bytes, size_t len);
    void (*done)(void *arg, const struct kube_trip_end *end);
    void *arg;
};

struct kube_wire;
struct kube_exchange;

struct kube_wire *kube_wire_new(struct loop *l, struct err *err);
void kube_wire_retire(struct kube_wire *w);
/* Never calls back before it returns. */
struct kube_exchange *kube_wire_start(struct kube_wire *w, const struct kube_ask *ask);
void kube_wire_cancel(struct kube_exchange *x);
/* When the last byte of the answer came; the start before the first. */
uint64_t kube_wire_heard_ms(const struct kube_exchange *x);

#endif
