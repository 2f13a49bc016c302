/* kube_backoff.h - how long to wait before the next try
 * Shape:   base, 2 x base, ... cap, each stretched by a random share up to its own length (jitter 1.0)
 * Units:   *_ms milliseconds of CLOCK_MONOTONIC
 * Owner:   embedded; nothing to free
 * Limits:  KUBE_BACKOFF_CAP_MS x 2, what the server asks for up to KUBE_BACKOFF_ASKED_MS; forgets KUBE_BACKOFF_FORGET_MS after the
 *          end of the last wait
 * Threads: one at a time; pure but for the random number, which the caller gives
 * Source:  client-go reflector.go (800 ms, x2, 30 s, jitter 1.0, reset 2 min); k8s.md W11 */
#ifndef CONTROLLER_KUBE_KUBE_BACKOFF_H
#define CONTROLLER_KUBE_KUBE_BACKOFF_H

#include <stdint.h>

#define KUBE_BACKOFF_FIRST_MS  800
#define KUBE_BACKOFF_CAP_MS    30000
#define KUBE_BACKOFF_FORGET_MS 120000
#define KUBE_BACKOFF_ASKED_MS  600000

struct kube_backoff {
    uint32_t next_ms;    /* 0: the first */
    uint64_t last_at_ms; /* the end of the last wait */
};

/* How long from now on; retry_after_s of the server wins when it is longer. `random` is any 32 random bits. */
uint32_t kube_backoff_next(struct kube_backoff *b, uint64_t now_ms, uint32_t retry_after_s, uint32_t random);

#endif
