/* listener.h - a port: takes connections and starts their handshakes
 * Shape:   one listening socket, one server behind it
 * Units:   port in host order
 * Owner:   the caller of listener_open; holds one reference to its server; open connections outlive it
 * Errors:  IO from listener_open, with the port in front; at run time a lack of descriptors or memory pauses accepting
 *          for LISTENER_PAUSE_MS with one log line a second, instead of spinning
 * Limits:  LISTENER_BACKLOG
 * Threads: the loop's own
 * Source:  accept(2), tcp(7): accepted sockets inherit NODELAY, keepalive and USER_TIMEOUT; bars S32, S37 */
#ifndef PROXY_RELAY_LISTENER_H
#define PROXY_RELAY_LISTENER_H

#include "relay/pair.h"

#define LISTENER_BACKLOG  4096
#define LISTENER_PAUSE_MS 500

struct listener;

/* [::] with IPv4 mapped in, else 0.0.0.0 where IPv6 is off. */
struct listener *listener_open(struct relay *r, struct server *server, struct err *err);
void listener_close(struct listener *l);

#endif
