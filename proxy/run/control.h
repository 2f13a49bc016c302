/* control.h - what master and worker say to each other: one message a datagram of a SEQPACKET socket
 * Shape:   master -> worker   PORTS (numbers and their sockets), APPLY (generation and the effective spec), DRAIN, STOP
 *          worker -> master   APPLIED (generation, and what failed)
 *          the socket's end: the other one is gone
 * Units:   ports in host order, milliseconds
 * Owner:   descriptors that come out of control_recv are the caller's, with CLOEXEC
 * Errors:  CONTROL_AGAIN, CONTROL_GONE
 * Limits:  CONTROL_FDS descriptors a message (the kernel takes 253)
 * Threads: any; never blocks
 * Source:  unix(7); design.md 2.4 */
#ifndef PROXY_RUN_CONTROL_H
#define PROXY_RUN_CONTROL_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define CONTROL_FDS   128
#define CONTROL_OK    0
#define CONTROL_AGAIN (-1)
#define CONTROL_GONE  (-2)

/* Where a worker finds its ends after exec. */
#define CONTROL_FD        3
#define CONTROL_SHARED_FD 4

enum control_type { CONTROL_PORTS = 1, CONTROL_APPLY, CONTROL_DRAIN, CONTROL_STOP, CONTROL_APPLIED };

struct control {
    uint32_t type;
    uint32_t count;      /* of ports; APPLIED: 0 = well, else `text` says what failed */
    uint64_t generation; /* of the effective spec */
    union {
        uint16_t ports[CONTROL_FDS];
        char text[ERR_MSG_BYTES];
    };
};

/* fds[0..count) go along. */
__attribute__((warn_unused_result)) int control_send(int fd, const struct control *c, const int *fds,
                                                     size_t count);
/* *count descriptors came along, at most CONTROL_FDS. */
__attribute__((warn_unused_result)) int control_recv(int fd, struct control *c, int fds[CONTROL_FDS],
                                                     size_t *count);

#endif
