/* table.h - the servers of a worker: the effective spec in memory, and the step from one to the next
 * Shape:   effective spec (documents of spec_emit_server) -> entries, a server each, one a step, for a certificate takes a
 *          millisecond and connections are waiting meanwhile; a document whose bytes are those of
 *          an entry before keeps that entry's server, so that an unchanged one costs a digest and nothing else
 * Units:   none
 * Owner:   the worker; an entry holds one reference to its server
 * Errors:  those of the parser and of server_new, with the server's name; the table that was stays then
 * Limits:  SPEC_MAX_SERVERS
 * Threads: the loop's own
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

/* A table on its way; the spec's bytes are borrowed. */
struct table_build {
    struct table next;
    const uint8_t *at;
    size_t left;
};

/* The table that follows `before`, of which nothing changes. -1: nothing is left of it. */
__attribute__((warn_unused_result)) int table_begin(struct table_build *b, const uint8_t *spec, size_t len,
                                                    struct err *err);
/* One server more. 1: there are others; 0: b->next is complete, and the caller's; -1: nothing is left of it. */
__attribute__((warn_unused_result)) int table_step(struct table_build *b, const struct table *before,
                                                   const struct relay *r, struct err *err);
void table_free(struct table *t);
/* A bit for each slot of SHARED_SLOTS that a server of the table has. */
void table_slots(const struct table *t, uint64_t slots[SHARED_SLOTS / 64]);

#endif
