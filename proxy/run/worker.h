/* worker.h - one process that relays: what the master sends it becomes servers, listeners and pairs
 * Shape:   control messages -> table, listeners; its end: DRAIN, STOP, or the master's death (which is a DRAIN)
 * Owner:   the process
 * Errors:  what cannot be applied is told to the master, and what served before goes on
 * Limits:  the soft descriptor limit is the master's; its heart beats once a WORKER_BEAT_MS; new servers are made for
 *          WORKER_BUILD_MS a turn
 * Threads: one
 * Source:  design.md 2.1, 2.4, 2.6 */
#ifndef PROXY_RUN_WORKER_H
#define PROXY_RUN_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#define WORKER_BEAT_MS  1000
#define WORKER_BUILD_MS 5

/* What the master handles is blocked since before exec and stays so: a terminal's ^C and a kill of the group are meant for
 * it. The process's exit code. CONTROL_FD and CONTROL_SHARED_FD are what the master left there. */
int worker_main(unsigned index, uint32_t max_drain_ms, bool deny_local);

#endif
