/* file.h - whole small files
 * Shape:   path -> bytes; bytes -> path, all of them or none
 * Owner:   the bytes are the caller's (`out` is a buf that the caller has initialised)
 * Errors:  NOT_FOUND, IO, LIMIT (larger than the buf's max); a FIFO or device is refused instead of waited for.
 *          After a file_replace that failed the old file is what it was; a failure said to be of the directory alone
 *          means that the new one stands and might not outlive a power cut
 * Limits:  the max of `out`
 * Threads: any; may block on a disk, so never in the relay. One writer a path
 * Source:  rename(2), fsync(2) */
#ifndef PROXY_BASE_FILE_H
#define PROXY_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <sys/types.h>

__attribute__((warn_unused_result)) int file_read(const char *path, struct buf *out, struct err *err);
/* By a temporary file beside it, PATH.tmp. Whatever stands at either name is replaced and not followed. `mode` is
 * narrowed by the umask. */
__attribute__((warn_unused_result)) int file_replace(const char *path, const void *bytes, size_t len,
                                                     mode_t mode, struct err *err);

#endif
