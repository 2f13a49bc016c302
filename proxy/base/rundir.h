/* rundir.h - the directory that one proxy has for itself: proxy.pid, which is its lock, and status.json
 * Shape:   rundir_open -> the lock is held until the process ends -> rundir_write_status, again and again
 * Owner:   the caller, for the process's life: rundir_done frees memory only. The lock belongs to the process, and the kernel drops it
 *          as soon as the process closes *any* descriptor of proxy.pid: whoever has opened a run dir must never open that
 *          file again, so no rundir_open of the same directory and no rundir_holder there. Children do not inherit it
 * Errors:  IO, NOT_FOUND. A directory that another process holds: IO, and the message names that process
 * Limits:  the path's, PATH_MAX
 * Threads: one
 * Source:  fcntl(2) F_SETLK: the lock ends with its process, so a proxy.pid that was left behind means nothing, and it is
 *          never unlinked (two proxies could then hold locks on two files of that name) */
#ifndef PROXY_BASE_RUNDIR_H
#define PROXY_BASE_RUNDIR_H

#include "base/err.h"

#include <stddef.h>
#include <sys/types.h>

struct rundir {
    int lock_fd;
    char *status_path;
};

/* The directory must exist. A symbolic link or a FIFO in the place of proxy.pid is refused, not followed or waited for. */
__attribute__((warn_unused_result)) int rundir_open(const char *dir, struct rundir *out, struct err *err);
__attribute__((warn_unused_result)) int rundir_write_status(const struct rundir *r, const void *bytes,
                                                            size_t len, struct err *err);
/* Takes the lock again, after anything that may have opened proxy.pid by another way: a spec may name it as a key. */
__attribute__((warn_unused_result)) int rundir_keep(const struct rundir *r, struct err *err);
/* At the process's end; the lock goes with the process. */
void rundir_done(struct rundir *r);
/* The very last thing that a process does, after rundir_done. Process 1 of a container takes everyone in it along, also the
 * `--stop` of a preStop, which kubelet then calls failed: it gives the lock up and lets the others go first, for
 * RUNDIR_OTHERS_MS at most. Any other process does nothing here. */
#define RUNDIR_OTHERS_MS 1000
void rundir_give_up(struct rundir *r);
/* Who holds the lock: 0 nobody, 1 process *pid (0: one of another PID namespace, which cannot be named), -1 err. */
__attribute__((warn_unused_result)) int rundir_holder(const char *dir, pid_t *pid, struct err *err);
/* A pidfd of the holder, which held the lock after it was opened, so that a signal goes to no other process. *fd is left
 * alone when nobody holds the lock. Another PID namespace: IO. */
__attribute__((warn_unused_result)) int rundir_open_holder(const char *dir, int *fd, pid_t *pid,
                                                           struct err *err);

#endif
