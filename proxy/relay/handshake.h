/* handshake.h - from an accepted socket to an open tunnel, or to an answer that says why not
 * Shape:   TLS -> client's head -> dial -> backend's head -> 101 -> pair
 *                     |             |          |
 *                     +-------------+----------+--> an answer (ours, or the backend's with its body) -> linger -> end
 * Units:   *_ms on the loop's clock
 * Owner:   a struct handshake belongs to its pair until one of the two ends; it is freed after the turn
 * Errors:  each is one HTTP answer where one can be sent, and one `refuse` line in the log
 * Limits:  timeouts.handshake for TLS and head together, again for the backend's head; HANDSHAKE_TOTAL_MS in all, and the
 *          deadline of a drain; heads as in head.h; bodies of other answers as in response.h; HANDSHAKE_LINGER_* after
 *          an answer
 * Threads: the loop's own
 * Source:  RFC 6455 4, RFC 9112 9.6 (lingering close); design 2.3; bars S1-S17, S29 */
#ifndef PROXY_RELAY_HANDSHAKE_H
#define PROXY_RELAY_HANDSHAKE_H

#include "relay/pair.h"

#define HANDSHAKE_TOTAL_MS  30000
#define HANDSHAKE_LINGER_MS 2000
#define HANDSHAKE_DRAIN_RETRY_S                                                                              \
    1 /* Retry-After of a 503 because of a drain: another gateway, or server, is there by then */
#define HANDSHAKE_RETRY_S      5 /* Retry-After of a 503 for want of descriptors, memory or any backend */
#define HANDSHAKE_LINGER_BYTES (1024u * 1024)
#define HANDSHAKE_DRAIN_MS     2000 /* for a request that is under way when its server goes */

/* Starts it for a pair just made. */
void handshake_start(struct pair *p);
/* Ends the handshake and its pair without an answer. */
void handshake_abort(struct handshake *h);
/* Its pair has got a deadline_ms (drain.h): 503 to a whole request, now or once it is there. */
void handshake_drain(struct handshake *h);
/* Its server has become `now`: see dial_follow. */
void handshake_follow(struct handshake *h, struct server *now);

#endif
