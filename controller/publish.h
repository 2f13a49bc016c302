/* publish.h - the text -> servers.yaml -> the proxy -> its echo
 * Shape:   publish_text -> file replaced if its bytes differ -> SIGHUP (pidfd of the run dir's lock holder) -> status.json ->
 *          struct echo; a revision that is not echoed is signalled again
 * Units:   *_ms of CLOCK_MONOTONIC; revisions are the SHA-256 of the file's bytes in lower-case hex
 * Owner:   publish_new ... publish_free; the echo is borrowed until the next turn
 * Errors:  IO by publish_text: nothing was replaced; tried again by the caller
 * Limits:  status.json of 64 MiB; PUBLISH_LATE_MS until a revision counts as refused
 * Threads: the loop's
 * Source:  design.md 4 "run dir", "status.json"; k8s.md X1-X5 */
#ifndef CONTROLLER_PUBLISH_H
#define CONTROLLER_PUBLISH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>

#define PUBLISH_REVISION_BYTES 65
#define PUBLISH_RESEND_MS      2000  /* a signal that had no echo is sent again */
#define PUBLISH_LATE_MS        15000 /* after which "not yet" is a failure */

enum echo_state { ECHO_ABSENT = 0, ECHO_ACTIVE, ECHO_STALE, ECHO_FAILED, ECHO_DRAINING };

struct echo_server {
    char *name;
    enum echo_state state;
    char *message; /* NULL: none */
};

struct echo {
    char revision[PUBLISH_REVISION_BYTES];      /* applied; "": none */
    char seen_revision[PUBLISH_REVISION_BYTES]; /* read last */
    bool seen_refused;
    char *seen_error;            /* the first one, NULL: none */
    struct echo_server *servers; /* by name */
    size_t count;
};

struct publish;

/* `echoed` is called when status.json has changed and was read. */
struct publish *publish_new(struct loop *l, const char *run_dir, void (*echoed)(void *arg), void *arg,
                            struct err *err);
void publish_free(struct publish *p);
/* servers.yaml as it stands, into `out`; NOT_FOUND without one. */
__attribute__((warn_unused_result)) int publish_recall(struct publish *p, struct buf *out, struct err *err);
__attribute__((warn_unused_result)) int publish_text(struct publish *p, const struct buf *text,
                                                     struct err *err);
/* The revision of the file as it was written last; "" before. */
const char *publish_revision(const struct publish *p);
/* The proxy runs what was published last. */
bool publish_confirmed(const struct publish *p);
/* It has had PUBLISH_LATE_MS and has not said so; `why` for people: no proxy, a refusal's error, silence. */
bool publish_late(struct publish *p, const char **why);
const struct echo *publish_echo(const struct publish *p);
const struct echo_server *publish_server(const struct publish *p, const char *name);

#endif
