/* dial.h - from a server's backends to an open socket: backends in turn, of each its name, addresses in turn, TCP, TLS
 * Shape:   dial_start -> done(true) with the sock connected (and its TLS verified), or done(false) with status and why
 * Units:   status is the HTTP status that the client should get
 * Owner:   embedded in a handshake; the sock is the pair's, dial only opens it and closes it between two addresses
 * Errors:  of the last address that was tried: 502 for a name, a refusal, a certificate, a local address where they
 *          are denied; 504 when time ran out on it; 503 without a socket. 503 for a server without backends
 * Limits:  each backend once, RESOLVE_MAX addresses of each, timeouts.connect for the name and for each address with
 *          its TLS; HANDSHAKE_TOTAL_MS ends it all
 * Threads: the loop's own
 * Source:  bars S37, S38, S42, S47 */
#ifndef PROXY_RELAY_DIAL_H
#define PROXY_RELAY_DIAL_H

#include "relay/pair.h"

struct dial {
    struct pair *pair;
    void (*done)(struct dial *d, bool ok);
    struct backend *to; /* the one that is being tried, or was the last; NULL: there is none */
    struct server_tried tried;
    struct resolve_query query;
    struct loop_timer timer;
    struct in6_addr ips[RESOLVE_MAX];
    size_t count, next;
    struct addr addr; /* the one being tried, or connected to */
    bool resolving;   /* in resolve_start, which may answer at once */
    bool connected;   /* TCP is through */
    int status;
    char why[256];
};

void dial_start(struct dial *d, struct pair *p, void (*done)(struct dial *d, bool ok));
/* Gives up without calling done. The sock stays as it is. */
void dial_cancel(struct dial *d);
/* Its server has become `now`: where that no longer has the backend that is being dialled, the dial begins anew among
 * those that it has, or is done. Nobody waits for an address that is known to be gone. */
void dial_follow(struct dial *d, struct server *now);
/* An event of the backend's sock while dialling. */
void dial_ready(struct dial *d, uint32_t events);

#endif
