/* table.h - the servers of a worker: the effective spec in memory, and the step from one to the next
 * Shape:   effective spec (documents of spec_emit_server) -> entries, a server each; a document whose bytes are those of
 *          an entry before keeps that entry's server, so that an unchanged one costs a digest and nothing else
 * Units:   none
 * Owner:   the worker; an entry holds one reference to its server
 * Errors:  those of the parser and of server_new, with the server's name; the table that was stays then
 * Limits:  SPEC_MAX_SERVERS
 * Threads: the loop's own; each server of the next table is a sign of life of the worker
 * Source:  design.md 2.6 */
#ifndef PROXY_RUN_TABLE_H
#define PROXY_RUN_TABLE_H

#include "relay/pair.h"

#define TABLE_DIGEST_BYTES 32

struct table_entry {
    uint8_t digest[TABLE_DIGEST_BYTES];
    struct server *server;
};

struct table {
    struct table_entry *entries; /* sorted by digest */
    size_t count;
};

/* Makes the table that follows `before`; nothing of `before` changes. */
__attribute__((warn_unused_result)) int table_next(const struct table *before, const struct relay *r,
                                                   const uint8_t *spec, size_t len, struct table *out,
                                                   struct err *err);
void table_free(struct table *t);
/* A bit for each slot of SHARED_SLOTS that a server of the table has. */
void table_slots(const struct table *t, uint64_t slots[SHARED_SLOTS / 64]);

#endif
