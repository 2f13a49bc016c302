/* master.h - the process that people start: it reads, opens, starts, watches and reports, and never touches traffic
 * Shape:   run dir lock -> admin port -> spec -> ports -> workers -> reloads, until a stop
 * Owner:   the process
 * Errors:  one line on stderr and exit code 1 for what cannot be begun; later ones are logged and survived
 * Limits:  a stop ends within the longest drain + MASTER_GRACE_MS
 * Threads: one
 * Source:  design.md 2.4, 4, 5; bars S33, S55, S57, S58 */
#ifndef PROXY_RUN_MASTER_H
#define PROXY_RUN_MASTER_H

#include "run/options.h"

#define MASTER_MAX_FDS   1048576 /* the soft descriptor limit is raised so far, if the hard one lets it */
#define MASTER_GRACE_MS  700
#define MASTER_TICK_MS   1000
#define MASTER_COUNTS_MS 10000 /* status.json: how old its counts may be */
#define MASTER_TICKET_KEY_MS                                                                                 \
    (12u * 3600 * 1000) /* a ticket key seals for so long, and opens for as long again */

/* First thing in main: SIGTERM, SIGINT, SIGHUP and SIGCHLD wait until the master reads them. */
void master_block_signals(void);
/* For the other things that the binary does. */
void master_unblock_signals(void);
/* Returns the exit code. */
int master_run(const struct options *o);

#endif
