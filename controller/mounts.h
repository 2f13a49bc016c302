/* mounts.h - the files that a sidecar's pod has: which of them are to be watched
 * Shape:   labels' file + each folder of the Secrets' directory -> paths -> watch_set
 * Owner:   nothing is kept
 * Errors:  LIMIT and IO; a directory that is not there is none: the pod has no Secrets
 * Limits:  MOUNTS_MAX Secrets
 * Threads: any
 * Source:  design.md 5 "Sidecar"; k8s.md A6 */
#ifndef CONTROLLER_MOUNTS_H
#define CONTROLLER_MOUNTS_H

#include "base/err.h"
#include "base/watch.h"

#define MOUNTS_MAX 256

__attribute__((warn_unused_result)) int mounts_watch(struct watch *w, const char *labels,
                                                     const char *secrets_dir, struct err *err);

#endif
