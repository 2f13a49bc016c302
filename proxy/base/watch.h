/* watch.h - says when a file may have changed; whoever is told reads the bytes and compares them
 * Shape:   paths -> changed(arg), once for all that happened together
 *            inotify on the files' directories ─► a look now ─┐
 *            a poll each WATCH_POLL_MS ──────────► a look ────┴► stat of every path ─► stamps differ ─► changed
 *          A file that was renamed into its place is whole: told at once. Any other change (written in place, made,
 *          vanished) is told once its stamp has stood still for WATCH_QUIET_MS; meanwhile the others wait too, at most
 *          WATCH_HOLD_MS. Between two calls lie WATCH_PACE_MS.
 *          The kernel's time stamps are coarse: a second write within the same tick may leave the same stamp. So a path
 *          that changed, or is new to watch_set (it was read before it was watched), is told again at each poll, until one
 *          that is WATCH_UNSURE_MS later
 * Units:   *_ms of CLOCK_MONOTONIC; times of files are compared for equality alone, with no clock
 * Owner:   watch_new ... watch_free; paths are copied. `changed` may call any function of watch
 * Errors:  LIMIT (memory); watch_set leaves the old set then. Without inotify, or without a watch for a directory, the poll
 *          does it, and one line in the log says so
 * Limits:  one inotify watch a directory, and at most an eighth of the time spent in looks that events ask for; a look
 *          allocates nothing
 * Threads: the loop's
 * Source:  inotify(7), stat(2); git's "racy" index entries; Kubernetes swaps `..data`, a link that its files lead through */
#ifndef PROXY_BASE_WATCH_H
#define PROXY_BASE_WATCH_H

#include "base/err.h"
#include "base/loop.h"

#include <stddef.h>

#define WATCH_POLL_MS   1000
#define WATCH_QUIET_MS  100
#define WATCH_PACE_MS   20
#define WATCH_HOLD_MS   2000
#define WATCH_UNSURE_MS 2000

struct watch;

__attribute__((warn_unused_result)) struct watch *watch_new(struct loop *l, void (*changed)(void *arg),
                                                            void *arg, struct err *err);
/* These paths from now on. One that was watched already keeps its stamp: what happened since the last look is told. */
__attribute__((warn_unused_result)) int watch_set(struct watch *w, const char *const paths[], size_t count,
                                                  struct err *err);
/* Calls back even if nothing has changed, for a person or the controller says that it is time: in the next turn, or
 * WATCH_PACE_MS after the last call. A file that is being written is waited for all the same: half of it may be a good
 * spec that lacks servers. */
void watch_now(struct watch *w);
/* NULL is fine. */
void watch_free(struct watch *w);

#endif
