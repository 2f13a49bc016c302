/* metrics.h - what Prometheus is told
 * Shape:   struct status + the shared counters, added up over the workers -> text format 0.0.4
 * Units:   seconds and bytes, as the names say; counters live as long as the master does, over reloads and workers' deaths
 * Owner:   `out` is the caller's
 * Errors:  LIMIT when `out` is too small or memory is out
 * Limits:  a server has 7 series of its own (8 with a certificate); what it has never counted is left out: at most 32
 *          more of handshakes by code, 15 of their times, 10 of messages, 54 of closes, 8 of limits and drains, so about
 *          30 in use and 127 at worst; 25 for the whole
 * Threads: the master's
 * Source:  design.md 4 "metrics"; Prometheus exposition formats, text 0.0.4 */
#ifndef PROXY_ADMIN_METRICS_H
#define PROXY_ADMIN_METRICS_H

#include "admin/status.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

__attribute__((warn_unused_result)) int metrics_text(const struct status *s, struct buf *out,
                                                     struct err *err);

#endif
