#include "render.h"

#include "base/cleanup.h"
#include "base/need.h"
#include "render_judge.h"

#include <stdlib.h>
#include <string.h>

/* In front of each document: whose it is, so that an object made anew while no controller ran does not get it. */
static const char uid_line[] = "# uid ";
static const char first_line[] = "# Written by tidegate-controller, which replaces it: edits are lost.\n";

/* A good document. */
struct doc {
    uint8_t *text; /* NULL: none */
    size_t len;
    uint64_t version;
    uint16_t port;
    bool recalled; /* of an earlier process: what it rests on is not known */
    struct render_grant *grants;
    size_t grant_count;
};

struct slot {
    char *ns, *name, *created, *uid; /* created, uid: NULL or as in the object that was judged last */
    struct render_verdict verdict;
    struct render_condition own; /* Accepted, before the others are looked at */
    char *refused;               /* Accepted's message, when the others decide it */
    struct doc newest;           /* of the object as it is; none while that is bad */
    struct doc last;             /* good and older */
    const struct doc *served;
    bool judged;
};

struct render {
    struct render_rules rules;
    struct spec_cert *certs;
    struct slot **slots; /* by ns/name */
    size_t count;
    uint64_t versions;
    bool ran;
};

static void doc_free(struct doc *d)
{
    if (d->text)
        explicit_bzero(d->text, d->len);
    free(d->text);
    render_grants_free(d->grants, d->grant_count);
    *d = (struct doc){0};
}

static void slot_free(struct slot *s)
{
    doc_free(&s->newest);
    doc_free(&s->last);
    free(s->own.message);
    free(s->verdict.resolved.message);
    free(s->refused);
    free(s->ns);
    free(s->name);
    free(s->created);
    free(s->uid);
    free(s);
}

static struct slot *slot_new(const char *ns, const char *name)
{
    struct slot *s = need(calloc(1, sizeof *s));

    s->ns = need(strdup(ns));
    s->name = need(strdup(name));
    s->verdict.ns = s->ns;
    s->verdict.name = s->name;
    return s;
}

static void labels_free(struct render_rules *rules)
{
    for (size_t i = 0; i < rules->label_count; i++) {
        free(rules->labels[i].key);
        free(rules->labels[i].value);
    }
    free((void *)(uintptr_t)rules->labels);
    free((void *)(uintptr_t)rules->gateway);
    free((void *)(uintptr_t)rules->secrets_dir);
}

static struct render_rules rules_copy(const struct render_rules *from)
{
    struct render_rules to = *from;
    struct wss_label *labels = need(calloc(from->label_count + 1, sizeof *labels));

    for (size_t i = 0; i < from->label_count; i++)
        labels[i] =
            (struct wss_label){need(strdup(from->labels[i].key)), need(strdup(from->labels[i].value))};
    to.labels = labels;
    to.gateway = need(strdup(from->gateway ? from->gateway : WSS_GATEWAY));
    to.secrets_dir = from->secrets_dir ? need(strdup(from->secrets_dir)) : NULL;
    return to;
}

struct render *render_new(const struct render_rules *rules)
{
    struct render *r = need(calloc(1, sizeof *r));

    r->rules = rules_copy(rules);
    r->certs = spec_cert_new();
    return r;
}

void render_free(struct render *r)
{
    for (size_t i = 0; i < r->count; i++)
        slot_free(r->slots[i]);
    free(r->slots);
    labels_free(&r->rules);
    spec_cert_free(r->certs);
    free(r);
}

void render_set_rules(struct render *r, const struct render_rules *rules, struct store *s)
{
    struct render_rules copy = rules_copy(rules);

    labels_free(&r->rules);
    r->rules = copy;
    store_mark_all(s);
}

static int order(const struct slot *s, const char *ns, const char *name)
{
    int o = strcmp(s->ns, ns);

    return o ? o : strcmp(s->name, name);
}

/* --- what an earlier process left -------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
    const struct slot *y = *(struct slot *const *)b;

    return order(*(struct slot *const *)a, y->ns, y->name);
}

/* False: not a document of ours. */
static bool recall_one(struct render *r, struct spec_server *t)
{
    const char *slash = t->name ? strchr(t->name, '/') : NULL;
    const char *paths[SPEC_MAX_FILES];
    cleanup_free char *ns = NULL;
    struct slot *s;
    struct err err;
    struct buf b;

    if (t->bad || !slash || spec_server_files(t, paths))
        return false;
    buf_init(&b, SPEC_MAX_BYTES);
    if (spec_emit_server(t, &b, &err)) {
        buf_free(&b);
        return false;
    }
    ns = need(strndup(t->name, (size_t)(slash - t->name)));
    s = slot_new(ns, slash + 1);
    s->last = (struct doc){.port = t->port, .recalled = true, .version = ++r->versions};
    s->last.text = buf_take(&b, &s->last.len);
    s->last.text = need(realloc(s->last.text, s->last.len));
    r->slots = need(reallocarray(r->slots, r->count + 1, sizeof(struct slot *)));
    r->slots[r->count++] = s;
    return true;
}

/* "# uid NS/NAME UID" */
static void recall_uid(struct render *r, const char *line, size_t len)
{
    cleanup_free char *text = need(strndup(line, len));
    char *ns = text + sizeof uid_line - 1, *name = strchr(ns, '/'), *uid = name ? strchr(name, ' ') : NULL;
    struct slot key = {.ns = ns}, *k = &key, **found;

    if (!uid || !r->count)
        return;
    *name++ = '\0';
    *uid++ = '\0';
    key.name = name;
    found = bsearch(&k, r->slots, r->count, sizeof(struct slot *), by_key);
    if (!found)
        return;
    free((*found)->uid);
    (*found)->uid = need(strdup(uid));
}

static void recall_uids(struct render *r, const char *text, size_t len)
{
    const char *end = text + len, *next;

    for (const char *line = text; line < end; line = next + 1) {
        next = memchr(line, '\n', (size_t)(end - line));
        if (!next)
            return;
        if ((size_t)(next - line) > sizeof uid_line && !memcmp(line, uid_line, sizeof uid_line - 1))
            recall_uid(r, line, (size_t)(next - line));
    }
}

int render_recall(struct render *r, const uint8_t *bytes, size_t len, struct err *err)
{
    struct spec_problems problems = {0};
    struct spec spec = {0};
    size_t left_out = 0;
    int result = 0;

    if (spec_load_bytes(bytes, len, r->certs, &spec, &problems))
        result = err_set(err, ERR_SYNTAX, "no document can be taken over: %s",
                         problems.count ? problems.items[0].text : "not readable");
    for (size_t i = 0; i < spec.count; i++)
        left_out += !recall_one(r, &spec.servers[i]);
    if (left_out)
        result = err_set(err, ERR_INVALID, "%zu of %zu documents are left out%s%s", left_out, spec.count,
                         problems.count ? ": " : "", problems.count ? problems.items[0].text : "");
    if (r->count)
        qsort(r->slots, r->count, sizeof(struct slot *), by_key);
    recall_uids(r, (const char *)bytes, len);
    spec_problems_free(&problems);
    spec_free(&spec);
    return result;
}

/* --- one object ---------------------------------------------------------------------------------------------------- */

static void take_newest(struct render *r, struct slot *s, struct render_judged *j)
{
    struct doc d = {.text = STEAL(j->text),
                    .len = j->len,
                    .port = j->port,
                    .grants = STEAL(j->grants),
                    .grant_count = j->grant_count};
    const struct doc *twin = NULL;

    j->grant_count = 0;
    if (s->newest.text && s->newest.len == d.len && !memcmp(s->newest.text, d.text, d.len))
        twin = &s->newest;
    else if (s->last.text && s->last.len == d.len && !memcmp(s->last.text, d.text, d.len))
        twin = &s->last;
    d.version = twin ? twin->version : ++r->versions;
    /* What is served stays at hand until it is known that the new one can be. */
    if (s->newest.text && twin != &s->newest && s->served == &s->newest) {
        doc_free(&s->last);
        s->last = s->newest;
        s->newest = (struct doc){0};
    }
    doc_free(&s->newest);
    s->newest = d;
}

static void keep_last(struct slot *s)
{
    if (!s->newest.text)
        return;
    if (!s->last.text || s->served == &s->newest) {
        doc_free(&s->last);
        s->last = s->newest;
        s->newest = (struct doc){0};
    } else {
        doc_free(&s->newest);
    }
}

/* Whether the object was made anew under its old name since it was judged last. */
static bool made_anew(struct slot *s, const struct wss *w)
{
    bool anew = s->uid && w->uid && strcmp(s->uid, w->uid) != 0;

    free(s->uid);
    s->uid = w->uid ? need(strdup(w->uid)) : NULL;
    return anew;
}

static void judge(struct render *r, struct store *store, struct slot *s, struct store_object *o)
{
    struct render_verdict *v = &s->verdict;
    struct render_judged j;
    bool revoked;

    render_judge(&r->rules, store, &o->wss, r->certs, &j);
    free(s->own.message);
    free(v->resolved.message);
    s->own = j.accepted;
    v->resolved = j.resolved;
    j.accepted.message = j.resolved.message = NULL;
    v->part = j.part;
    v->warn_inline_key = o->wss.inline_keys;
    free(s->created);
    s->created = o->wss.created ? need(strdup(o->wss.created)) : NULL;
    revoked = j.resolved.reason && !strcmp(j.resolved.reason, RENDER_REF_NOT_PERMITTED);
    if (j.text)
        take_newest(r, s, &j);
    else
        keep_last(s);
    if (j.part != RENDER_OURS || (revoked && s->last.recalled)) {
        doc_free(&s->newest);
        doc_free(&s->last);
    }
    /* What an object that was deleted left is not a last good version of the next one of its name. */
    if (made_anew(s, &o->wss))
        doc_free(&s->last);
    s->judged = true;
    o->dirty = false;
    render_judged_free(&j);
}

static bool still_granted(const struct store *store, const char *ns, const struct doc *d)
{
    for (size_t i = 0; i < d->grant_count; i++)
        if (!store_granted(store, ns, d->grants[i].kind, d->grants[i].ns, d->grants[i].name))
            return false;
    return true;
}

/* --- all of them ----------------------------------------------------------------------------------------------------- */

/* Slots as the store has objects; true when one with a document went. */
static bool follow(struct render *r, struct store *store)
{
    size_t count = store_count(store), old = 0;
    struct slot **slots = need(calloc(count + 1, sizeof(struct slot *)));
    bool went = false;

    for (size_t i = 0; i < count; i++) {
        const struct wss *w = &store_at(store, i)->wss;

        for (; old < r->count && order(r->slots[old], w->ns, w->name) < 0; old++) {
            went = went || r->slots[old]->served;
            slot_free(r->slots[old]);
        }
        if (old < r->count && !order(r->slots[old], w->ns, w->name))
            slots[i] = r->slots[old++];
        else
            slots[i] = slot_new(w->ns, w->name);
    }
    for (; old < r->count; old++) {
        went = went || r->slots[old]->served;
        slot_free(r->slots[old]);
    }
    free(r->slots);
    r->slots = slots;
    r->count = count;
    return went;
}

static int by_age(const void *a, const void *b)
{
    const struct slot *x = *(struct slot *const *)a, *y = *(struct slot *const *)b;
    /* An object without a time is no older than one with. */
    int o = strcmp(x->created ? x->created : "~", y->created ? y->created : "~");

    return o ? o : order(x, y->ns, y->name);
}

struct room {
    const struct slot **owner; /* by port */
    size_t servers, bytes;
};

static bool fits(const struct room *room, const struct doc *d)
{
    return d->text && !room->owner[d->port] && room->servers < SPEC_MAX_SERVERS &&
           room->bytes + d->len <= SPEC_MAX_BYTES;
}

static void refuse(struct slot *s, const char *reason, char *message)
{
    s->refused = message;
    s->verdict.accepted = (struct render_condition){WSS_FALSE, reason, message};
}

static void place(struct room *room, struct slot *s)
{
    struct doc *newest = &s->newest, *last = &s->last;
    const struct slot *holder = newest->text ? room->owner[newest->port] : NULL;

    free(s->refused);
    s->refused = NULL;
    s->verdict.accepted = s->own;
    s->served = fits(room, newest) ? newest : fits(room, last) ? last : NULL;
    if (s->served) {
        room->owner[s->served->port] = s;
        room->servers++;
        room->bytes += s->served->len;
    }
    if (!newest->text || s->served == newest)
        return;
    if (holder)
        refuse(s, "PortConflict",
               need_printf("spec.port: %u is taken by %s/%s, which is older; give another port", newest->port,
                           holder->ns, holder->name));
    else
        refuse(s, "LimitReached",
               need_printf(
                   "there is no room for it: a gateway serves at most %d servers and %u MiB of documents",
                   SPEC_MAX_SERVERS, SPEC_MAX_BYTES >> 20));
}

static void place_all(struct render *r)
{
    cleanup_free struct slot **sorted = need(calloc(r->count + 1, sizeof(struct slot *)));
    cleanup_free const struct slot **owner = need(calloc(65536, sizeof(struct slot *)));
    struct room room = {.owner = owner, .bytes = sizeof first_line};

    memcpy(sorted, r->slots, r->count * sizeof(struct slot *));
    if (r->count)
        qsort(sorted, r->count, sizeof(struct slot *), by_age);
    for (size_t i = 0; i < r->count; i++)
        place(&room, sorted[i]);
}

/* True when another document of it is served than before. */
static bool settle(struct slot *s)
{
    struct render_verdict *v = &s->verdict;
    uint64_t before = v->version;

    v->served = s->served != NULL;
    v->newest = s->served && s->served == &s->newest;
    v->port = s->served ? s->served->port : 0;
    v->version = s->served ? s->served->version : 0;
    if (v->newest)
        doc_free(&s->last);
    return v->version != before;
}

bool render_run(struct render *r, struct store *store)
{
    bool changed = follow(r, store) || !r->ran;

    for (size_t i = 0; i < r->count; i++) {
        struct store_object *o = store_at(store, i);
        struct slot *s = r->slots[i];

        if (o->dirty || !s->judged)
            judge(r, store, s, o);
        if (!still_granted(store, s->ns, &s->newest))
            doc_free(&s->newest);
        if (!still_granted(store, s->ns, &s->last))
            doc_free(&s->last);
    }
    place_all(r);
    for (size_t i = 0; i < r->count; i++)
        changed |= settle(r->slots[i]);
    r->ran = true;
    return changed;
}

/* A UID of the API server's is; of anything else none of it is written down. */
static bool is_plain(const char *uid)
{
    return *uid && !uid[strspn(uid, "0123456789-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")];
}

int render_text(const struct render *r, struct buf *out, struct err *err)
{
    if (buf_add_str(out, first_line))
        return err_set(err, ERR_LIMIT, "the documents do not fit %zu bytes", out->max);
    for (size_t i = 0; i < r->count; i++) {
        const struct slot *s = r->slots[i];
        const struct doc *d = s->served;

        if (d && s->uid && is_plain(s->uid) &&
            buf_addf(out, "%s%s/%s %s\n", uid_line, s->ns, s->name, s->uid))
            return err_set(err, ERR_LIMIT, "the documents do not fit %zu bytes", out->max);
        if (d && buf_add(out, d->text, d->len))
            return err_set(err, ERR_LIMIT, "the documents do not fit %zu bytes", out->max);
    }
    return 0;
}

size_t render_count(const struct render *r)
{
    return r->count;
}

const struct render_verdict *render_at(const struct render *r, size_t i)
{
    return &r->slots[i]->verdict;
}

const struct render_verdict *render_find(const struct render *r, const char *ns, const char *name)
{
    size_t low = 0, high = r->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int o = order(r->slots[middle], ns, name);

        if (!o)
            return &r->slots[middle]->verdict;
        if (o < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
