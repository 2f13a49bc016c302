/* kube_bucket.h - so many requests a second on the average, so many at once
 * Shape:   a bucket of `burst` tokens that fills with `qps` a second; a request takes one
 * Units:   *_ms of CLOCK_MONOTONIC
 * Owner:   embedded; nothing to free
 * Threads: one at a time; pure
 * Source:  client-go flowcontrol (5 qps, burst 10); k8s.md R3 */
#ifndef CONTROLLER_KUBE_KUBE_BUCKET_H
#define CONTROLLER_KUBE_KUBE_BUCKET_H

#include <stdint.h>

struct kube_bucket {
    double qps, burst, tokens;
    uint64_t at_ms; /* when `tokens` was right */
};

/* Full. */
void kube_bucket_init(struct kube_bucket *b, double qps, unsigned burst, uint64_t now_ms);
/* 0: one was taken; else in how many ms there is one. */
uint32_t kube_bucket_take(struct kube_bucket *b, uint64_t now_ms);

#endif
