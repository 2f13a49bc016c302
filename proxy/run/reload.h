/* reload.h - from the spec file to what the workers serve, again and again
 * Shape:   file -> candidates -> plan -> effective spec (sealed memfd) of the next generation; and the status that says so
 *          a file that cannot be judged changes nothing (refused); servers that are gone drain until nothing of them is left
 * Units:   generations count the effective specs
 * Owner:   the master; struct ports, shared and status are borrowed, the status' strings are the reload's
 * Errors:  none to the caller: they stand in status->seen, in the status of each server, and in the log
 * Limits:  those of the spec; RELOAD_LOG_LINES problems a reading are logged
 * Threads: the master's
 * Source:  design.md 2.4, 2.6, 5; bars S49, S50, S54, S55 */
#ifndef PROXY_RUN_RELOAD_H
#define PROXY_RUN_RELOAD_H

#include "admin/status.h"
#include "base/watch.h"
#include "run/plan.h"

#define RELOAD_LOG_LINES 50

struct reload;

struct reload *reload_new(const char *path, struct ports *ports, struct shared *shared, struct status *status,
                          struct err *err);
void reload_free(struct reload *r);
/* Reads the file and makes the next plan; problems that are news go to the log, if wanted. True: there is a new effective
 * spec (generation and spec_fd). */
bool reload_read(struct reload *r, bool log);
/* Makes the plan anew, for ports that may have come free. */
bool reload_again(struct reload *r);
/* Is there something that another try may bring: a port, memory? */
bool reload_is_waiting(const struct reload *r);
uint64_t reload_generation(const struct reload *r);
int reload_spec_fd(const struct reload *r);
/* Every live worker has applied this generation: the revision moves. True when the status changed. */
bool reload_applied(struct reload *r, uint64_t generation);
/* Forgets the drained servers of which nothing is left. True when the status changed. */
bool reload_forget(struct reload *r, uint64_t applied);
/* What a watch is to look at: the file, and the files that it names. */
void reload_watch(const struct reload *r, struct watch *w);
/* The longest drain that a server served so far may take. */
uint32_t reload_longest_drain_ms(const struct reload *r);
/* The problems of the last reading, `FILE:LINE:COL: ...` a line. */
void reload_print_problems(const struct reload *r, FILE *to);

#endif
