/* worker.h - one process that serves a spec: its loop, servers and listeners, until a signal ends it
 * Shape:   struct spec -> listening ports -> pairs
 * Owner:   takes the servers out of the spec
 * Errors:  from worker_run before the first port is served: the server and what is wrong
 * Limits:  raises the soft descriptor limit to WORKER_MAX_FDS or the hard limit
 * Threads: one */
#ifndef PROXY_RUN_WORKER_H
#define PROXY_RUN_WORKER_H

#include "base/err.h"
#include "spec/spec.h"

#define WORKER_MAX_FDS 1048576

/* Call first thing in main: SIGTERM, SIGINT and SIGHUP wait until the worker reads them. */
void worker_block_signals(void);
/* Returns 0 after SIGTERM or SIGINT. */
__attribute__((warn_unused_result)) int worker_run(struct spec *spec, struct err *err);

#endif
