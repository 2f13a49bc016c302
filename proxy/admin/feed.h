/* feed.h - what the live page is told each second
 * Shape:   struct status + the shared counters -> one JSON text: counters as they are; the page makes rates of them
 * Units:   as the names say; times are RFC 3339, buckets of handshakes are not cumulative
 * Owner:   `out` is the caller's
 * Errors:  LIMIT when `out` is too small
 * Limits:  counters that are 0 are left out where there are many, so a server takes 150 to 1,500 bytes
 * Threads: the master's */
#ifndef PROXY_ADMIN_FEED_H
#define PROXY_ADMIN_FEED_H

#include "admin/status.h"

__attribute__((warn_unused_result)) int feed_text(const struct status *s, struct buf *out, struct err *err);

#endif
