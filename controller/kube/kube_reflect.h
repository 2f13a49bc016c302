/* kube_reflect.h - all objects of one kind, kept up to date: LIST, then WATCH, and every way in which that goes wrong
 * Shape:   pages of a LIST -> sink.begin, put..., end; then events -> put, drop. A list that fails half way is begun again:
 *          `begin` says so, and only `end` allows to drop what no `put` has named since the last `begin`
 *            DISCOVER -> LIST -> WATCH -> (clean end, stall: WATCH from the last version at once | cut, 429, 5xx: backoff, WATCH |
 *            410: LIST | 404: DISCOVER | else: backoff, LIST). A kind that has gone for certain (discovery lists it no more) has
 *            `begin` and `end` and nothing between
 * Units:   *_ms milliseconds
 * Owner:   kube_reflect_new ... kube_reflect_free; objects are borrowed during the call; the sink and its arg are the caller's
 * Errors:  none: a state, with why for people
 * Limits:  KUBE_REFLECT_PAGE objects a page, fewer where a page would pass KUBE_REFLECT_PAGE_BYTES; one request at a time
 * Threads: the loop's
 * Source:  k8s.md L1-L8, W1-W15, D2; client-go reflector.go */
#ifndef CONTROLLER_KUBE_KUBE_REFLECT_H
#define CONTROLLER_KUBE_KUBE_REFLECT_H

#include "kube/kube_http.h"

#include <jansson.h>
#include <stdbool.h>

#define KUBE_REFLECT_PAGE       500
#define KUBE_REFLECT_PAGE_BYTES (32u << 20)
#define KUBE_REFLECT_IDLE_MS    240000 /* a watch without a byte (bookmarks come each minute) */

enum kube_reflect_state {
    KUBE_REFLECT_WAITING = 0, /* no complete list yet */
    KUBE_REFLECT_SYNCED,      /* at least one complete list is in */
    KUBE_REFLECT_FORBIDDEN, /* 401 or 403 to the first list; after a 403 asked again with the longest backoff */
    KUBE_REFLECT_ABSENT,    /* the API does not know this kind (404 or discovery); asked again likewise */
};

struct kube_kind {
    const char *group;   /* "": the core */
    const char *version; /* NULL: the group's preferred one that has the plural, by discovery */
    const char *plural;
    const char *field_selector; /* NULL: all */
};

struct kube_sink {
    void (*begin)(void *arg);
    void (*put)(void *arg, json_t *object);
    void (*drop)(void *arg, json_t *object); /* metadata of it at least */
    void (*end)(void *arg);
    /* The state changed; `why` for people, "" when synced. What was SYNCED once stays so, whatever the server says later
     * (an ABSENT or FORBIDDEN after it is told once by a log line and shown by kube_reflect_trouble). */
    void (*state)(void *arg, enum kube_reflect_state state, const char *why);
    void *arg;
};

struct kube_reflect;

/* `ns` NULL: all namespaces. Begins in the loop's next turn. */
struct kube_reflect *kube_reflect_new(struct kube_http *h, struct loop *l, const struct kube_kind *kind,
                                      const char *ns, const struct kube_sink *sink);
void kube_reflect_free(struct kube_reflect *r);
enum kube_reflect_state kube_reflect_state(const struct kube_reflect *r);
/* "" or what is wrong right now, for people: "list secrets: forbidden: ...". */
const char *kube_reflect_trouble(const struct kube_reflect *r);
/* The list is complete and followed without trouble; or the kind is one that a cluster may do without (of no fixed
 * version), and this one does. */
bool kube_reflect_is_well(const struct kube_reflect *r);

struct kube_reflect_counts {
    uint64_t lists, watches, relists; /* relists: lists after the first complete one */
    uint64_t restarts[5];             /* watches that ended, by kube_reflect_cause */
    uint64_t unknown;                 /* events of a type that is none of ours, or without a name: skipped */
    uint64_t last_ms;                 /* when the server was heard last: list, event or bookmark; 0: never */
};
enum kube_reflect_cause {
    KUBE_CAUSE_CLEAN = 0,
    KUBE_CAUSE_CUT,
    KUBE_CAUSE_STALLED,
    KUBE_CAUSE_EXPIRED,
    KUBE_CAUSE_ERROR
};
const struct kube_reflect_counts *kube_reflect_counts(const struct kube_reflect *r);
/* "clean", "cut", "stalled", "expired", "error" */
const char *kube_reflect_cause_label(enum kube_reflect_cause cause);

#endif
