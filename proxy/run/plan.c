#include "run/plan.h"

#include "base/cleanup.h"
#include "base/need.h"
#include "spec/spec_cert.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may become of one name. */
struct choice {
    const char *name;
    struct version *want, *last; /* borrowed */
    struct version *now;         /* want, last or NULL */
    char *message;
};

/* NULL: there is none. */
static char *backend_text(const struct spec_server *s)
{
    if (!s->backends_given)
        return need(strdup(s->backend.text));
    if (s->backend_count < 2)
        return s->backend_count ? need(strdup(s->backends[0].url.text)) : NULL;
    return need_printf("%s and %zu more", s->backends[0].url.text, s->backend_count - 1);
}

struct version *version_new(struct spec_server *s, struct version *last, struct err *err)
{
    struct version *v = need(calloc(1, sizeof *v));
    struct buf doc;

    v->refs = 1;
    spec_server_inline(s);
    buf_init(&doc, SPEC_MAX_BYTES);
    if (spec_emit_server(s, &doc, err)) {
        buf_free(&doc);
        free(v);
        return NULL;
    }
    v->doc = buf_take(&doc, &v->doc_len);
    SHA256(v->doc, v->doc_len, v->digest);
    if (last && !memcmp(last->digest, v->digest, sizeof v->digest)) {
        version_unref(v);
        last->refs++;
        return last;
    }
    v->name = need(strdup(s->name));
    v->backend = backend_text(s);
    v->port = s->port;
    v->tls = s->https;
    v->drain_ms = s->timeouts.drain_ms;
    if (s->cert.data)
        spec_cert_describe(&s->cert, v->cert_sha256, &v->not_after);
    return v;
}

void version_unref(struct version *v)
{
    if (!v || --v->refs)
        return;
    free(v->name);
    free(v->backend);
    if (v->doc)
        explicit_bzero(v->doc, v->doc_len);
    free(v->doc);
    free(v);
}

void plan_free(struct plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->entries[i].name);
        free(p->entries[i].message);
        version_unref(p->entries[i].serves);
    }
    free(p->entries);
    *p = (struct plan){0};
}

static int entry_by_name(const void *key, const void *entry)
{
    return strcmp(key, ((const struct plan_entry *)entry)->name);
}

const struct plan_entry *plan_find(const struct plan *p, const char *name)
{
    return p->count ? bsearch(name, p->entries, p->count, sizeof *p->entries, entry_by_name) : NULL;
}

static int by_name(const void *a, const void *b)
{
    const struct candidate *x = *(const struct candidate *const *)a;
    const struct candidate *y = *(const struct candidate *const *)b;
    int order = strcmp(x->name, y->name);

    return order ? order : x < y ? -1 : x > y;
}

/* One choice a name, in the order of the names; the first document of a name counts. */
static size_t choices_of(const struct plan *before, const struct candidate *c, size_t count,
                         struct choice *out)
{
    cleanup_free const struct candidate **sorted = need(calloc(count + 1, sizeof(struct candidate *)));
    size_t named = 0, n = 0;

    for (size_t i = 0; i < count; i++)
        if (c[i].name)
            sorted[named++] = &c[i];
    qsort(sorted, named, sizeof *sorted, by_name);
    for (size_t i = 0; i < named; i++) {
        const struct plan_entry *e;
        struct choice *ch = &out[n];

        if (n && !strcmp(out[n - 1].name, sorted[i]->name))
            continue;
        e = plan_find(before, sorted[i]->name);
        *ch = (struct choice){
            .name = sorted[i]->name, .want = sorted[i]->version, .last = e ? e->serves : NULL};
        ch->now = ch->want ? ch->want : ch->last;
        if (!ch->want)
            ch->message = need(strdup(sorted[i]->message ? sorted[i]->message : "wrong"));
        n++;
    }
    return n;
}

/* Not the new version, then, but the last one. Takes the message over. */
static void fall_back(struct choice *c, char *message)
{
    free(c->message);
    c->message = message;
    c->now = c->now == c->last ? NULL : c->last;
}

/* Does it stay where it is? Such a one goes before those that move. */
static bool stays(const struct choice *c)
{
    return c->now && c->last && c->now->port == c->last->port;
}

/* Gives each port to one choice and opens it. False: somebody fell back, so that all must be asked again; all who have
 * to fall back do so in one round, for a thousand ports that cannot be had must not take a thousand rounds. */
static bool settle_ports(struct choice *c, size_t count, struct ports *ports, struct plan *out)
{
    cleanup_free struct choice **owner = need(calloc(65536, sizeof(struct choice *)));
    bool settled = true;
    struct err err;

    for (int movers = 0; movers <= 1; movers++)
        for (size_t i = 0; i < count; i++) {
            struct choice *mine = &c[i], *other;

            if (!mine->now || stays(mine) == movers)
                continue;
            other = owner[mine->now->port];
            if (!other && !ports_open(ports, mine->now->port, &err)) {
                owner[mine->now->port] = mine;
                continue;
            }
            settled = false;
            fall_back(
                mine,
                other ? need_printf("port: %u is still served for \"%s\", whose new version is not served",
                                    mine->now->port, other->name)
                      : need_printf("port: %u: %s; free it, or give another one", mine->now->port, err.msg));
        }
    if (!settled) {
        out->port_trouble = true;
        return false;
    }
    for (size_t i = 0; i < ports->count; i++)
        ports->items[i]->wanted = !ports->items[i]->closing && owner[ports->items[i]->number];
    return true;
}

void plan_make(const struct plan *before, const struct candidate *c, size_t count, struct ports *ports,
               struct plan *out)
{
    cleanup_free struct choice *choices = need(calloc(count + 1, sizeof *choices));
    size_t n = choices_of(before, c, count, choices);
    struct plan p = {.entries = need(calloc(n + 1, sizeof *p.entries)), .count = n};

    /* Each round that fails takes a new version out, so it ends. */
    while (!settle_ports(choices, n, ports, &p))
        ;
    for (size_t i = 0; i < n; i++) {
        struct choice *ch = &choices[i];

        p.entries[i] =
            (struct plan_entry){.name = need(strdup(ch->name)), .serves = ch->now, .message = ch->message};
        p.entries[i].state = !ch->now ? STATUS_FAILED : ch->now == ch->want ? STATUS_ACTIVE : STATUS_STALE;
        if (ch->now)
            ch->now->refs++;
    }
    *out = p;
}
