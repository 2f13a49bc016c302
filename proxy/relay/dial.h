/* dial.h - from a server's backend to an open socket: name, addresses in turn, TCP, TLS
 * Shape:   dial_start -> done(true) with the sock connected (and its TLS verified), or done(false) with status and why
 * Units:   status is the HTTP status that the client should get
 * Owner:   embedded in a handshake; the sock is the pair's, dial only opens it and closes it between two addresses
 * Errors:  502 for a name, a refusal, a certificate; 504 when time ran out on the last address; 503 without a socket
 * Limits:  RESOLVE_MAX addresses, timeouts.connect for the name and for each address with its TLS
 * Threads: the loop's own
 * Source:  bars S37, S38, S42 */
#ifndef PROXY_RELAY_DIAL_H
#define PROXY_RELAY_DIAL_H

#include "relay/pair.h"

struct dial {
    struct pair *pair;
    void (*done)(struct dial *d, bool ok);
    struct resolve_query query;
    struct loop_timer timer;
    struct in6_addr ips[RESOLVE_MAX];
    size_t count, next;
    struct addr addr; /* the one being tried, or connected to */
    bool connected;   /* TCP is through */
    int status;
    char why[256];
};

void dial_start(struct dial *d, struct pair *p, void (*done)(struct dial *d, bool ok));
/* Gives up without calling done. The sock stays as it is. */
void dial_cancel(struct dial *d);
/* An event of the backend's sock while dialling. */
void dial_ready(struct dial *d, uint32_t events);

#endif
