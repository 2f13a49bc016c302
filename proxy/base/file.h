/* file.h - whole small files
 * Shape:   path -> bytes
 * Owner:   the bytes are the caller's (`out` is a buf that the caller has initialised)
 * Errors:  NOT_FOUND, IO, LIMIT (larger than the buf's max); a FIFO or device is refused instead of waited for
 * Limits:  the max of `out`
 * Threads: any; may block on a disk, so never in the relay */
#ifndef PROXY_BASE_FILE_H
#define PROXY_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

__attribute__((warn_unused_result)) int file_read(const char *path, struct buf *out, struct err *err);

#endif
