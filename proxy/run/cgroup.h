/* cgroup.h - what the cgroups that hold us allow: processors and memory
 * Shape:   /proc/self/cgroup (where we are) + /proc/self/mountinfo (where that is seen) -> a directory of the v2
 *          hierarchy, or of the v1 hierarchy of one controller, and the ones above it up to the mount point
 * Units:   bytes
 * Owner:   struct cgroup_memory holds its files open from cgroup_memory_open to cgroup_memory_close, so that it can
 *          still be read when descriptors are gone
 * Errors:  none: what cannot be read is no limit
 * Limits:  paths of PATH_MAX
 * Threads: any; reads a few files of the kernel's own
 * Source:  cgroups(7), proc_pid_mountinfo(5), the kernel's cgroup-v2.rst and cgroup-v1/memory.rst; bar S33.
 *          In a container our path may be that of the host's hierarchy, of which only a part is mounted: what is not
 *          seen under the mount point is looked for at the mount point itself */
#ifndef PROXY_RUN_CGROUP_H
#define PROXY_RUN_CGROUP_H

#include "relay/shared.h"

/* For --workers auto: the tightest CPU quota on the way up, rounded up, at most the processors that we may run on. */
unsigned cgroup_cpus(void);

struct cgroup_memory {
    int limit_fd, usage_fd, stat_fd; /* -1: there is no such file */
    bool v1;
    uint64_t machine_bytes; /* a limit above it is none */
};

/* The cgroup with the tightest memory limit on the way up, at this time; our own when none has one. */
void cgroup_memory_open(struct cgroup_memory *m);
void cgroup_memory_close(struct cgroup_memory *m);
/* The limit and what is in use of it: all but the file pages that the kernel would give up first. False: no limit. */
bool cgroup_memory_read(const struct cgroup_memory *m, uint64_t *limit_bytes, uint64_t *used_bytes);
/* From 95 % on refuse, from 98 % on shed; each ends 2 % below where it begins. */
enum shared_pressure cgroup_pressure(enum shared_pressure before, uint64_t limit_bytes, uint64_t used_bytes);

/* The same with everything below `root` in place of /, for tests; `cpus` is how many we may run on. */
unsigned cgroup_cpus_at(const char *root, unsigned cpus);
void cgroup_memory_open_at(struct cgroup_memory *m, const char *root);

#endif
