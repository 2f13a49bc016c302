/* kube_watch.h - the bytes of a WATCH -> its events
 * Shape:   chunks of any size -> lines -> {type, object}; half a line waits for the rest
 * Units:   bytes
 * Owner:   kube_watch_init ... kube_watch_done; an event's object is borrowed during the call
 * Errors:  LIMIT (a line over KUBE_WATCH_LINE), SYNTAX (no JSON, or no object in it); events before it were given. An empty line is skipped
 * Limits:  KUBE_WATCH_LINE a line; a byte is scanned once
 * Threads: one at a time; pure
 * Source:  k8s.md W3-W7; kubernetes api-concepts "efficient detection of changes" */
#ifndef CONTROLLER_KUBE_KUBE_WATCH_H
#define CONTROLLER_KUBE_KUBE_WATCH_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>

#define KUBE_WATCH_LINE (8u << 20)

enum kube_event_type { KUBE_ADDED = 0, KUBE_MODIFIED, KUBE_DELETED, KUBE_BOOKMARK, KUBE_ERROR, KUBE_UNKNOWN };

struct kube_watch {
    struct buf line; /* begun and not ended: holds no newline, so nothing is scanned twice */
};

void kube_watch_init(struct kube_watch *w);
void kube_watch_done(struct kube_watch *w);
/* Calls `event` for each whole line; `event` returning false stops (the rest is dropped, 0 is returned). */
__attribute__((warn_unused_result)) int
kube_watch_feed(struct kube_watch *w, const uint8_t *bytes, size_t len,
                bool (*event)(void *arg, enum kube_event_type type, json_t *object), void *arg,
                struct err *err);

#endif
