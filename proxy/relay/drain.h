/* drain.h - connections that must go, because their server does or the whole worker: told one by one, then cut
 * Shape:   now |<------------- window: drain - min(5 s, drain / 5) ------------->|<-- answers -->| deadline
 *                  1001 to the 1st of n      to the 2nd     ...      to the nth                    the rest is cut
 *          drain = the server's timeouts.drain, at most max_drain_ms; the order has nothing to do with age.
 *          Handshakes: one with a whole request is answered 503 at once; one without has HANDSHAKE_DRAIN_MS to complete
 *          it, and 503 then; an answer that is under way goes on. All of them end at the deadline.
 * Units:   *_ms on the loop's clock; 0 ms: told and cut at once
 * Owner:   nothing of its own: times in the pairs, what a pair needs that comes later in the relay
 * Errors:  none
 * Limits:  no pair lives longer than its deadline; a Close that cannot be sent until then is not sent
 * Threads: the loop's own
 * Source:  design.md 5 "Drain"; bar S57 */
#ifndef PROXY_RELAY_DRAIN_H
#define PROXY_RELAY_DRAIN_H

#include "relay/pair.h"

/* All connections of these slots (a bitmap of SHARED_SLOTS bits); NULL: of every slot, and r->draining is set, so that
 * who is accepted later has the same end. max_drain_ms 0: no cap. Called again it may only shorten what is left. */
void drain_slots(struct relay *r, const uint64_t *slots, uint32_t max_drain_ms);
/* Deleted servers came back: their tunnels that were not asked to close yet live on. Nothing while r->draining. */
void drain_cancel(struct relay *r, const uint64_t *slots);
/* No more waiting for anything: every connection has ended behind it. r->draining is set. */
void drain_now(struct relay *r);

/* For handshake.c: when a connection accepted while r->draining is cut. */
uint64_t drain_deadline(const struct relay *r, const struct server *s);
/* For pair.c: the timer of a tunnel with a deadline has fired. */
void drain_due(struct pair *p);

#endif
