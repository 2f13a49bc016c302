/* ping.h - is a silent side still there?
 * Shape:   nothing came from a side for ping.interval -> a Ping to it -> any byte of it, or closing_fault after ping.timeout
 *          Each side for itself. A Ping of the other side that was passed on and followed by no byte serves as ours.
 *          Ours goes at a frame end of the stream towards the side; its Pong is swallowed (frame.h), others pass.
 * Units:   *_ms on the loop's clock
 * Owner:   the pair's; what is waited for stands in struct side
 * Errors:  without random bytes there is no Ping; out of memory ends the pair
 * Limits:  one Ping of ours a side and interval, with fresh bytes once all Pongs have come; none once an end has begun
 * Threads: the loop's own
 * Source:  RFC 6455 5.3, 5.5.2, 5.5.3; design.md 5 "On the wire"; bars S25, S26, S37 */
#ifndef PROXY_RELAY_PING_H
#define PROXY_RELAY_PING_H

#include "relay/pair.h"

/* When this side is to be looked at; 0: something else comes first. For tunnels with ping.interval whose end has not
 * begun, as the next one. */
uint64_t ping_due_ms(const struct pair *p, const struct side *s);
/* Is it time for a Ping to this side, or for its end? */
void ping_check(struct pair *p, struct side *s);
/* s->pinged_ms is set and a byte of this side has come. */
void ping_answered(struct pair *p, struct side *s);
/* s->ping_waits, and the frame towards it has ended. */
void ping_put_waiting(struct pair *p, struct side *s);

#endif
