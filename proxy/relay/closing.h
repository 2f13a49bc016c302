/* closing.h - how a pair ends: whose Close goes where, and how long each answer is waited for
 * Shape:   a cause -> closing_note -> Closes at frame ends -> FINs -> pair_end, each wait within closing_within
 * Units:   *_ms on the loop's clock
 * Owner:   the pair's; nothing here outlives a call. Reasons and details are static text
 * Errors:  out of memory ends the pair: p->ended is to be asked behind each call that sends
 * Limits:  PAIR_CLOSE_MS for a Close, PAIR_FIN_MS for what follows a FIN; the deadline of a drain clamps all of it
 * Threads: the loop's own
 * Source:  RFC 6455 5.5.1, 7.1; design.md 5 "Close"; bars S25, S27, S35, S36 */
#ifndef PROXY_RELAY_CLOSING_H
#define PROXY_RELAY_CLOSING_H

#include "relay/pair.h"

/* Who and what began the end; the first cause counts. The reason is copied. */
void closing_note(struct pair *p, enum pair_who who, uint16_t code, const void *reason, size_t len);
/* Patience from now on; it replaces what was left of the last one. */
void closing_within(struct pair *p, uint64_t ms);
/* A Close of ours to `to`, right here: the stream towards it stands at a boundary. */
void closing_put(struct pair *p, struct side *to, uint16_t code, const char *reason);
/* A Close of ours to `to`, now or at the end of the frame that is open; none where one was sent. */
void closing_ask(struct pair *p, struct side *to, uint16_t code, const char *reason);
/* The frame that kept a Close of ours to `to` waiting has ended. */
void closing_put_waiting(struct pair *p, struct side *to);
/* The code for a side whose other side is at fault. */
uint16_t closing_innocent(const struct pair *p, const struct side *s);

/* We end it, and nobody is to blame: 1001 to the client, whose answer goes on to the backend. frame_ms: how long the end
 * of a frame that is on its way to the client is waited for. */
void closing_ours(struct pair *p, const char *reason, uint64_t frame_ms);
/* `bad` has lost: nothing of it counts any more. It gets `code` and `why`, the other side its innocent code and `told`,
 * the log `detail`. */
void closing_fault(struct pair *p, struct side *bad, uint16_t code, const char *why, const char *detail,
                   const char *told);
/* The same for one that broke a rule. */
void closing_offend(struct pair *p, struct side *bad, uint16_t code, const char *why);
/* Nothing more comes from `from`. */
void closing_side_ended(struct pair *p, struct side *from, bool reset);
/* A Close of `from` has passed to the other side. */
void closing_passed(struct pair *p, struct side *from, const struct frame_scan *scan);

/* After each event: ends what both sides have ended. */
void closing_settle(struct pair *p);
/* end_ms has come: first a Close where one is still owed and FIN to both, then RST. */
void closing_give_up(struct pair *p);
/* No more waiting: 1001 where a Close is owed and can be sent, FIN, and the pair has ended. */
void closing_cut(struct pair *p, const char *reason);

#endif
