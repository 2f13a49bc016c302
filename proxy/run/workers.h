/* workers.h - the worker processes as the master sees them: started, fed, watched, started again
 * Shape:   fork and exec of this binary with `--worker INDEX`; each gets the ports it lacks, then the newest effective spec; a
 *          worker that is slow to read gets only the newest one
 * Units:   *_ms of the loop's clock
 * Owner:   the master; struct shared and struct ports are borrowed
 * Errors:  from workers_start; a worker that dies later is started again at once, then with a backoff
 * Limits:  a worker whose heart stands still for WORKERS_SILENT_MS is killed; at most WORKERS_BACKOFF_MS between two starts
 * Threads: the master's loop
 * Source:  design.md 2.4; bar S57 */
#ifndef PROXY_RUN_WORKERS_H
#define PROXY_RUN_WORKERS_H

#include "base/log.h"
#include "base/loop.h"
#include "relay/shared.h"
#include "run/ports.h"

#include <sys/types.h>

#define WORKERS_SILENT_MS  10000
#define WORKERS_BACKOFF_MS 1000
#define WORKERS_RETRY_MS   1000 /* before a spec that a worker could not apply is sent to it again */

struct workers;

struct workers_config {
    unsigned count;
    enum log_level log_level;
    uint32_t max_drain_ms;
    bool deny_local;
    struct loop *loop;
    struct shared *shared;
    int shared_fd;
    struct ports *ports;
    void (*changed)(void *arg); /* a worker came, went or applied something */
    void *arg;
};

struct workers *workers_new(const struct workers_config *c, struct err *err);
/* Kills what still runs. */
void workers_free(struct workers *w);
__attribute__((warn_unused_result)) int workers_start(struct workers *w, struct err *err);
/* The effective spec of this generation (a sealed memfd, borrowed until the next one) and the ports go to all. */
void workers_apply(struct workers *w, uint64_t generation, int spec_fd);
/* The oldest generation that a live worker has applied. */
uint64_t workers_applied(const struct workers *w);
/* Are all of them dead, for the last of several times in a row? */
bool workers_failing(const struct workers *w);
/* After SIGCHLD. */
void workers_reap(struct workers *w);
/* Once a second: kills the silent ones. */
void workers_check(struct workers *w);
/* No new ones from here on; those that live close their ports, say goodbye to their clients and exit. */
void workers_drain(struct workers *w);
/* The same without waiting for anybody. */
void workers_stop(struct workers *w);
void workers_kill(struct workers *w);
unsigned workers_alive(const struct workers *w);
/* Of worker i: 0 when it is dead. */
pid_t workers_pid(const struct workers *w, unsigned i);
uint64_t workers_restarts(const struct workers *w, unsigned i);
bool workers_current(const struct workers *w, unsigned i);

#endif
