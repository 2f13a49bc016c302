#include "run/table.h"

#include "base/cleanup.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

static int by_digest(const void *a, const void *b)
{
    return memcmp(((const struct table_entry *)a)->digest, ((const struct table_entry *)b)->digest,
                  TABLE_DIGEST_BYTES);
}

void table_free(struct table *t)
{
    for (size_t i = 0; i < t->count; i++)
        server_unref(t->entries[i].server);
    free(t->entries);
    *t = (struct table){0};
}

void table_slots(const struct table *t, uint64_t slots[SHARED_SLOTS / 64])
{
    memset(slots, 0, SHARED_SLOTS / 8);
    for (size_t i = 0; i < t->count; i++)
        slots[t->entries[i].server->slot / 64] |= UINT64_C(1) << t->entries[i].server->slot % 64;
}

static struct server *make_server(const struct relay *r, const uint8_t *doc, size_t len, struct err *err)
{
    struct spec_problems problems = {0};
    struct server *server = NULL;
    struct spec spec;
    int slot;

    if (spec_parse(doc, len, &spec, &problems)) {
        err_set(err, ERR_SYNTAX, "the master's spec: %.400s",
                problems.count ? problems.items[0].text : "not readable");
        spec_problems_free(&problems);
        return NULL;
    }
    slot = spec.count == 1 ? shared_slot_find(&r->shared, spec.servers[0].name) : -1;
    if (slot < 0)
        err_set(err, ERR_NOT_FOUND, "the master's spec names a server that has no slot");
    else
        server = server_new(&spec.servers[0], &r->shared, r->worker, (unsigned)slot, err);
    spec_free(&spec);
    return server;
}

/* Where the document at `doc` ends: a line `---` begins the next one, and stands nowhere else (spec_emit_server). */
static size_t document_bytes(const uint8_t *doc, size_t len)
{
    const uint8_t *next = memmem(doc, len, "\n---\n", 5);

    return next ? (size_t)(next - doc) + 1 : len;
}

int table_begin(struct table_build *b, const uint8_t *spec, size_t len, struct err *err)
{
    *b = (struct table_build){
        .next.entries = calloc(SPEC_MAX_SERVERS, sizeof *b->next.entries), .at = spec, .left = len};
    return b->next.entries ? 0 : err_set(err, ERR_LIMIT, "out of memory");
}

static int add_server(struct table_build *b, const struct table *before, const struct relay *r, size_t len,
                      struct err *err)
{
    struct table_entry *e = &b->next.entries[b->next.count], *old;

    if (b->next.count == SPEC_MAX_SERVERS)
        return err_set(err, ERR_LIMIT, "the master's spec: more than %d servers", SPEC_MAX_SERVERS);
    SHA256(b->at, len, e->digest);
    old = before->count ? bsearch(e, before->entries, before->count, sizeof *e, by_digest) : NULL;
    e->server = old ? server_ref(old->server) : make_server(r, b->at, len, err);
    if (!e->server)
        return -1;
    b->next.count++;
    return 0;
}

int table_step(struct table_build *b, const struct table *before, const struct relay *r, struct err *err)
{
    size_t n = b->left ? document_bytes(b->at, b->left) : 0;

    if (n && add_server(b, before, r, n, err)) {
        table_free(&b->next);
        return -1;
    }
    if (b->left > n) {
        b->at += n;
        b->left -= n;
        return 1;
    }
    if (b->next.count)
        qsort(b->next.entries, b->next.count, sizeof *b->next.entries, by_digest);
    return 0;
}
