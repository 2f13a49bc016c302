/* report.h - the lines of a connection in the log: open and close of a tunnel, refuse of any other, and next for a
 * backend that was passed over
 * Shape:   struct pair and what its handshake read -> one line
 * Owner:   borrows everything for the call
 * Errors:  none; a level that is not wanted costs a comparison
 * Limits:  those of log.h
 * Threads: the loop's own
 * Source:  design.md 4 "logs"; bar S56: no query, no key, no token, no payload */
#ifndef PROXY_RELAY_REPORT_H
#define PROXY_RELAY_REPORT_H

#include "relay/pair.h"
#include "wire/request.h"

/* What a handshake knows by now. */
struct report_request {
    const uint8_t *head; /* the client's bytes, in which the slices of `request` lie */
    const struct request *request;
    const struct addr *backend; /* that is or was tried */
};

void report_open(const struct pair *p, const struct report_request *r, const uint8_t *protocol,
                 size_t protocol_len);
/* status: what the client got, 0: nothing. Debug level for one that never sent a byte. */
void report_refuse(const struct pair *p, const struct report_request *r, int status, const char *by,
                   const char *why);
/* A backend could not be dialled, and another one is tried. */
void report_next(const struct pair *p, const char *why);
void report_close(const struct pair *p);

#endif
