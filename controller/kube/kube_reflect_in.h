/* kube_reflect_in.h - what the halves of the reflector share: kube_reflect.c lists and watches, kube_find.c discovers
 * Shape:   struct kube_reflect; a step is what is asked for next, or what `call` asks for now
 * Units:   *_ms of CLOCK_MONOTONIC
 * Owner:   kube_reflect.c; the halves give each other a step to go on with
 * Threads: the loop's */
#ifndef CONTROLLER_KUBE_KUBE_REFLECT_IN_H
#define CONTROLLER_KUBE_KUBE_REFLECT_IN_H

#include "kube/kube_backoff.h"
#include "kube/kube_doc.h"
#include "kube/kube_reflect.h"
#include "kube/kube_watch.h"

#include "base/log.h"

enum kube_step {
    KUBE_STEP_GROUP = 0, /* GET /apis/GROUP: its versions */
    KUBE_STEP_VERSION,   /* GET /apis/GROUP/VERSION, one after the other: does it know the plural? */
    KUBE_STEP_GROUPS, /* GET /apis: a 404 may be another's (a load balancer's); this list is the API server's own */
    KUBE_STEP_LIST,
    KUBE_STEP_WATCH
};

/* Why we ended a watch ourselves. */
enum kube_stop { KUBE_STOP_NONE = 0, KUBE_STOP_EXPIRED, KUBE_STOP_BUSY, KUBE_STOP_ERROR };

struct kube_reflect {
    struct kube_http *http;
    struct loop *loop;
    struct kube_sink sink;
    char *group, *fixed_version, *plural, *field_selector, *ns;

    enum kube_step step;
    struct kube_call *call;
    struct loop_task start;
    struct loop_timer again;
    struct kube_backoff backoff;

    enum kube_reflect_state state;
    char trouble[KUBE_HTTP_WHY_BYTES + 128];
    struct kube_reflect_counts counts;
    bool holds; /* the sink may hold objects: a list was complete and the kind has not gone since */

    /* Discovery */
    char *version; /* in use */
    char *versions[KUBE_DOC_VERSIONS];
    size_t version_count, version_at;
    bool doubt;  /* a 404 among the answers */
    bool proved; /* a watch of `version` went well since: a 404 is news, and worth asking again at once */

    /* LIST */
    char *resume; /* the last version seen, NULL: none */
    char *token;  /* of the next page, NULL: the first */
    char *listed; /* the version of the list whose pages come in */
    unsigned limit;
    bool whole;           /* without limit */
    bool unset;           /* without a version, though one is known */
    bool whole_too_large; /* since the last complete list */

    /* WATCH */
    struct kube_watch watch;
    uint64_t opened_ms;
    unsigned expired_in_row;
    bool open;  /* the server has begun to answer it */
    bool heard; /* this watch gave an event */
    enum kube_stop stop;
    uint32_t stop_retry_s;
    char stop_why[KUBE_HTTP_WHY_BYTES];
};

/* Asks for what `step` says, now. */
void kube_reflect_go(struct kube_reflect *r, enum kube_step step);
/* Later: after the backoff, or after its longest wait (there is nothing to hurry for until somebody changes something). */
void kube_reflect_later(struct kube_reflect *r, enum kube_step step, uint32_t retry_after_s);
void kube_reflect_much_later(struct kube_reflect *r, enum kube_step step, uint32_t retry_after_s);
/* Notes and logs it, once as long as it stays the same. "" clears. */
void kube_reflect_say(struct kube_reflect *r, const char *doing, const char *why);
void kube_reflect_note(struct kube_reflect *r, enum log_level level, const char *doing, const char *why);
/* The state as far as it may change; tells the sink. */
void kube_reflect_be(struct kube_reflect *r, enum kube_reflect_state state);
/* GET of `path`, which is freed here. */
void kube_reflect_get(struct kube_reflect *r, char *path,
                      void (*done)(void *arg, const struct kube_reply *reply));

/* kube_find.c */
void kube_find_ask(struct kube_reflect *r);
/* The kind's own path answered 404. */
void kube_find_again(struct kube_reflect *r);
void kube_find_forget(struct kube_reflect *r);

#endif
