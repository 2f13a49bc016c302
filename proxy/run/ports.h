/* ports.h - the listening sockets, which the master opens and keeps: one a port and worker
 * Shape:   port number -> `workers` sockets of one SO_REUSEPORT group; sent[w] notes that worker w has its own
 * Units:   ports in host order
 * Owner:   the master; a worker gets a copy of its socket, so that its death resets no connection that still queues there
 * Errors:  IO from ports_open
 * Limits:  one a port number; PORTS_SPARE_FDS of the process's descriptors, a quarter at most, are left to all else
 * Threads: the master's
 * Source:  design.md 2.5; socket(7) SO_REUSEPORT. The first socket of a port is bound without SO_REUSEPORT, so that a
 *          port which somebody else holds is an error and not a silent split, and gets it before it listens */
#ifndef PROXY_RUN_PORTS_H
#define PROXY_RUN_PORTS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORTS_SPARE_FDS 128

struct port {
    uint16_t number;
    bool wanted;      /* by the plan that is being made */
    uint64_t closing; /* generation of the effective spec that no longer has it; 0: open */
    int *fds;         /* a worker */
    bool *sent;
};

struct ports {
    unsigned workers;
    struct port **items;
    size_t count;
};

/* The open port of this number, or NULL. */
struct port *ports_find(const struct ports *p, uint16_t number);
/* Opens it unless it is open. While workers still close it the answer is an error: try again once they are through. */
__attribute__((warn_unused_result)) int ports_open(struct ports *p, uint16_t number, struct err *err);
/* Closes all that no longer are `wanted`; the workers still have theirs, take what queues there and close them when
 * they apply this generation. */
void ports_close_unwanted(struct ports *p, uint64_t generation);
/* Every worker has applied this generation: ports closed until then may be opened anew. True when there were any. */
bool ports_closed(struct ports *p, uint64_t generation);
/* A new process for worker w has none of them. */
void ports_forget_sent(struct ports *p, unsigned w);
void ports_free(struct ports *p);

#endif
