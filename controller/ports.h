/* ports.h - the managed Service: its spec.ports follow the servers that are accepted
 * Shape:   wanted ports + the Service as it is -> server-side apply of our `p-<port>` entries; what others own is left alone
 * Units:   ports in host order
 * Owner:   ports_new ... ports_free; wanted ports are copied
 * Errors:  none: a port that cannot be had is `taken` with why; a failed write is tried again with backoff
 * Limits:  PORTS_MAX entries
 * Threads: the loop's
 * Source:  design.md 5 "Managed Service"; cluster.md (unforced apply: one clash fails the whole, a Service without ports is invalid) */
#ifndef CONTROLLER_PORTS_H
#define CONTROLLER_PORTS_H

#include "kube/kube_http.h"

#include <jansson.h>

#define PORTS_MAX     4096
#define PORTS_MANAGER "tidegate-controller-ports"

struct ports;

/* `changed` is called when ports_state of any port may have changed; `leads` is asked before each write. */
struct ports *ports_new(struct kube_http *h, struct loop *l, const char *ns, const char *service,
                        bool (*leads)(void *arg), void (*changed)(void *arg), void *arg);
void ports_free(struct ports *p);
/* Sorted, without doubles. */
void ports_want(struct ports *p, const uint16_t *wanted, size_t count);
enum ports_state { PORTS_PENDING = 0, PORTS_PRESENT, PORTS_TAKEN };
/* TAKEN: another manager owns this port or its name; `why` for people. PENDING: not there yet, `why` says what is missing. */
enum ports_state ports_state(const struct ports *p, uint16_t port, const char **why);
/* It looks after the Service by itself (a reflector of one object); "" or what is wrong with that. */
const char *ports_trouble(const struct ports *p);

#endif
