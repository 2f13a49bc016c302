#include "kube/kube_bucket.h"

void kube_bucket_init(struct kube_bucket *b, double qps, unsigned burst, uint64_t now_ms)
{
    *b = (struct kube_bucket){.qps = qps, .burst = burst, .tokens = burst, .at_ms = now_ms};
}

uint32_t kube_bucket_take(struct kube_bucket *b, uint64_t now_ms)
{
    if (now_ms > b->at_ms)
        b->tokens += (double)(now_ms - b->at_ms) / 1000 * b->qps;
    if (b->tokens > b->burst)
        b->tokens = b->burst;
    b->at_ms = now_ms;
    if (b->tokens < 1)
        return (uint32_t)((1 - b->tokens) / b->qps * 1000) + 1;
    b->tokens -= 1;
    return 0;
}
