/* status.h - what an object's conditions shall be, and the writing of them
 * Shape:   facts of one object -> four conditions (status_judge, pure) -> compared with those in the object -> server-side apply of
 *          its /status when anything but the time differs
 * Units:   times RFC 3339 with seconds, UTC
 * Owner:   status_new ... status_free; struct status_wanted is the caller's, its texts are copied
 * Errors:  none: a write that failed is tried again with backoff (5 ms x 2^n, 1000 s at most); 404 is success, 422 and 400 are logged and left
 * Limits:  a message STATUS_MESSAGE_BYTES, cut on a UTF-8 boundary; one write an object at a time, the newest wins
 * Threads: the loop's
 * Source:  k8s.md P1-P8, R2, R4, R5, C10-C13; design.md 5 "Gateway status" */
#ifndef CONTROLLER_STATUS_H
#define CONTROLLER_STATUS_H

#include "kube/kube_http.h"
#include "ports.h"
#include "render.h"

#define STATUS_MESSAGE_BYTES 4096
#define STATUS_MANAGER       "tidegate-controller"

enum status_programmed {
    STATUS_PROG_PENDING = 0, /* the proxy has not said yet */
    STATUS_PROG_ACTIVE,      /* the newest document is what serves */
    STATUS_PROG_STALE,       /* the proxy or we keep an older one: message says why */
    STATUS_PROG_FAILED,      /* nothing of it serves: message says why */
};

struct status_facts {
    const struct render_verdict *verdict;
    enum status_programmed programmed;
    const char *programmed_message; /* NULL: a standard text */
    bool service_managed;           /* --service */
    enum ports_state service_port;  /* of verdict->port */
    const char *service_message;    /* why it is not PORTS_PRESENT; NULL: a standard text */
};

struct status_wanted {
    struct render_condition conditions[WSS_CONDITIONS]; /* messages belong to it: status_wanted_free */
};

/* Pure. False: nothing is to be said of this object (another gateway's). */
bool status_judge(const struct status_facts *facts, struct status_wanted *out);
void status_wanted_free(struct status_wanted *w);
/* Do the object's conditions say this already, at its generation? */
bool status_equal(const struct wss *w, const struct status_wanted *wanted);

struct status_writer;

/* `leads` is asked before each write. */
struct status_writer *status_new(struct kube_http *h, struct loop *l, bool (*leads)(void *arg), void *arg);
void status_free(struct status_writer *s);
/* Remembers what the object's status shall be and writes it when it differs from what the object says and we lead; without
 * the lead it waits (status_flush). A wanted that equals the object's clears what waited. */
void status_want(struct status_writer *s, const struct wss *w, const struct status_wanted *wanted);
/* The object is gone. */
void status_forget(struct status_writer *s, const char *ns, const char *name);
/* The lead was won: all that waits is written now. */
void status_flush(struct status_writer *s);
struct status_counts {
    uint64_t writes, failures;
    size_t waiting;
    unsigned flying; /* sent, and not answered yet */
};
struct status_counts status_counts(const struct status_writer *s);

#endif
