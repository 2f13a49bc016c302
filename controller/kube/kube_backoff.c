#include "kube/kube_backoff.h"

uint32_t kube_backoff_next(struct kube_backoff *b, uint64_t now_ms, uint32_t retry_after_s, uint32_t random)
{
    uint64_t asked_ms = (uint64_t)retry_after_s * 1000;
    uint32_t base, wait;

    if (!b->next_ms || now_ms > b->last_at_ms + KUBE_BACKOFF_FORGET_MS)
        b->next_ms = KUBE_BACKOFF_FIRST_MS;
    base = b->next_ms;
    wait = base + (uint32_t)((uint64_t)random * base >> 32);
    if (asked_ms > KUBE_BACKOFF_ASKED_MS)
        asked_ms = KUBE_BACKOFF_ASKED_MS;
    if (asked_ms > wait)
        wait = (uint32_t)asked_ms;
    b->next_ms = base < KUBE_BACKOFF_CAP_MS / 2 ? base * 2 : KUBE_BACKOFF_CAP_MS;
    b->last_at_ms = now_ms + wait;
    return wait;
}
