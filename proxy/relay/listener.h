/* listener.h - a port of this worker: takes connections and starts their handshakes
 * Shape:   one listening socket, one server behind it, which may be exchanged at any time
 * Units:   port in host order
 * Owner:   the caller of listener_new; takes over the descriptor and holds one reference to its server; open connections outlive it
 * Errors:  IO from listener_new, with the port in front; at run time a lack of descriptors or memory pauses accepting
 *          for LISTENER_PAUSE_MS with one log line a second, instead of spinning
 * Limits:  LISTENER_BACKLOG connections wait in the kernel
 * Threads: the loop's own
 * Source:  accept(2), tcp(7): accepted sockets inherit NODELAY, keepalive and USER_TIMEOUT; bars S32, S37 */
#ifndef PROXY_RELAY_LISTENER_H
#define PROXY_RELAY_LISTENER_H

#include "relay/pair.h"

#define LISTENER_BACKLOG  4096
#define LISTENER_PAUSE_MS 500

struct listener;

/* `fd` is bound and listens (run/ports.h). Nothing is accepted before listener_serve. */
struct listener *listener_new(struct relay *r, int fd, uint16_t port, struct err *err);
/* From now on new connections belong to this server, or to its new version. */
__attribute__((warn_unused_result)) int listener_serve(struct listener *l, struct server *server,
                                                       struct err *err);
/* Takes what waits in the kernel, so that nobody who got through to the port is reset, then closes it. */
void listener_close(struct listener *l);

#endif
