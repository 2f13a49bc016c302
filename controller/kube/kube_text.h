/* kube_text.h - texts and times as the API server takes them
 * Shape:   any bytes -> at most `max` bytes of valid UTF-8; the clock -> MicroTime and Time
 * Units:   bytes; UTC
 * Owner:   the text is the caller's
 * Errors:  none: a byte that is no UTF-8 becomes '?'
 * Limits:  KUBE_TIME_BYTES
 * Threads: any; pure but for the clock
 * Source:  apimachinery meta/v1 micro_time.go and time.go; k8s.md E2, P5, P8, V1 */
#ifndef CONTROLLER_KUBE_KUBE_TEXT_H
#define CONTROLLER_KUBE_KUBE_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define KUBE_TIME_BYTES 64

/* Cut between two characters; NULL counts as "". */
char *kube_text(const char *text, size_t max);
/* Now: "2026-01-02T03:04:05.000000Z", always six decimals (servers refuse any other width). */
void kube_time_micro(char out[KUBE_TIME_BYTES]);
/* Now: "2026-01-02T03:04:05Z" */
void kube_time(char out[KUBE_TIME_BYTES]);
/* Nanoseconds since 1970. */
uint64_t kube_time_nanos(void);

#endif
