#include "store.h"

#include "base/log.h"
#include "base/need.h"
#include "store_object.h"

#include <stdlib.h>
#include <string.h>

/* ns and name are those inside `item`. */
struct entry {
    const char *ns, *name;
    void *item;
    bool seen; /* put since store_begin */
};

struct entries {
    struct entry *items;
    size_t count, room;
};

struct store {
    struct entries kinds[STORE_KINDS];
    enum store_sync sync[STORE_KINDS];
    char *why[STORE_KINDS];
};

static const char *const kind_names[] = {"websocketservers", "secrets", "services", "endpointslices",
                                         "referencegrants"};

struct store *store_new(void)
{
    return need(calloc(1, sizeof(struct store)));
}

static void item_free(enum store_kind kind, void *item)
{
    struct store_object *o = item;

    switch (kind) {
    case STORE_SECRETS: store_secret_free(item); break;
    case STORE_SERVICES: store_service_free(item); break;
    case STORE_SLICES: store_slice_free(item); break;
    case STORE_GRANTS: store_grant_free(item); break;
    default: wss_free(&o->wss); free(o);
    }
}

void store_free(struct store *s)
{
    for (int kind = 0; kind < STORE_KINDS; kind++) {
        for (size_t i = 0; i < s->kinds[kind].count; i++)
            item_free((enum store_kind)kind, s->kinds[kind].items[i].item);
        free(s->kinds[kind].items);
        free(s->why[kind]);
    }
    free(s);
}

static int order(const char *ns, const char *name, const struct entry *e)
{
    int by_ns = strcmp(ns, e->ns);

    return by_ns ? by_ns : strcmp(name, e->name);
}

/* Where it is, or belongs. Lists come sorted, so the end is tried first. */
static size_t place_of(const struct entries *e, const char *ns, const char *name, bool *there)
{
    size_t low = 0, high = e->count;

    *there = false;
    if (high && order(ns, name, &e->items[high - 1]) > 0)
        return high;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int o = order(ns, name, &e->items[middle]);

        if (!o) {
            *there = true;
            return middle;
        }
        if (o < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void *find(const struct store *s, enum store_kind kind, const char *ns, const char *name)
{
    bool there;
    size_t at = place_of(&s->kinds[kind], ns, name, &there);

    return there ? s->kinds[kind].items[at].item : NULL;
}

static void insert(struct entries *e, size_t at, struct entry entry)
{
    if (e->count == e->room) {
        e->room = e->room ? e->room + e->room / 2 : 64;
        e->items = need(reallocarray(e->items, e->room, sizeof *e->items));
    }
    memmove(&e->items[at + 1], &e->items[at], (e->count - at) * sizeof *e->items);
    e->items[at] = entry;
    e->count++;
}

static bool is_ref(const struct wss_ref *r, const char *ns, const char *name)
{
    return r->name && (!ns || !strcmp(r->ns, ns)) && (!name || !strcmp(r->name, name));
}

/* Of any name or namespace where that is NULL. */
static bool needs_secret(const struct wss *w, const char *ns, const char *name)
{
    return is_ref(&w->tls_secret, ns, name) || is_ref(&w->client_ca, ns, name) ||
           is_ref(&w->backend_secret, ns, name) || is_ref(&w->backend_ca, ns, name);
}

static bool host_needs_service(const struct wss *w, const char *host, const char *ns, const char *name)
{
    struct wss_service v;

    return host && wss_host_service(w, host, &v) && (!ns || !strcmp(v.ns, ns)) &&
           (!name || !strcmp(v.name, name));
}

static bool needs_service(const struct wss *w, const char *ns, const char *name)
{
    if (w->backend_ref.name && (!ns || !strcmp(w->ns, ns)) && (!name || !strcmp(w->backend_ref.name, name)))
        return true;
    for (size_t i = 0; i < w->spec.backend_count; i++)
        if (host_needs_service(w, w->spec.backends[i].url.host, ns, name))
            return true;
    return host_needs_service(w, w->spec.backend.host, ns, name);
}

static bool needs_grant(const struct wss *w, const char *ns)
{
    return needs_secret(w, ns, NULL) || needs_service(w, ns, NULL);
}

static bool needs(const struct wss *w, enum store_kind kind, const char *ns, const char *name)
{
    switch (kind) {
    case STORE_SECRETS: return needs_secret(w, ns, name);
    case STORE_SERVICES:
    case STORE_SLICES: return needs_service(w, ns, name);
    case STORE_GRANTS: return needs_grant(w, ns);
    default: return false;
    }
}

static void mark(struct store *s, enum store_kind kind, const char *ns, const char *name)
{
    for (size_t i = 0; i < s->kinds[STORE_WSS].count; i++) {
        struct store_object *o = s->kinds[STORE_WSS].items[i].item;

        if (!o->dirty)
            o->dirty = needs(&o->wss, kind, ns, name);
    }
}

/* Marks who needs this item; a slice stands for its Service. */
static void mark_item(struct store *s, enum store_kind kind, const struct entry *e)
{
    const struct store_slice *slice = e->item;

    if (kind != STORE_SLICES)
        mark(s, kind, e->ns, e->name);
    else if (slice->service)
        mark(s, kind, e->ns, slice->service);
}

void store_begin(struct store *s, enum store_kind kind, const char *ns)
{
    for (size_t i = 0; i < s->kinds[kind].count; i++)
        if (!ns || !strcmp(s->kinds[kind].items[i].ns, ns))
            s->kinds[kind].items[i].seen = false;
}

static bool parse(enum store_kind kind, json_t *object, struct entry *out)
{
    struct store_object *o;
    const char *ns, *name;
    struct err err;

    *out = (struct entry){.seen = true};
    if (kind == STORE_WSS) {
        o = need(calloc(1, sizeof *o));
        if (wss_parse(object, &o->wss, &err)) {
            free(o);
            log_msg(LOG_WARN, "object", "%s: %s", kind_names[kind], err.msg);
            return false;
        }
        o->dirty = true;
        *out = (struct entry){o->wss.ns, o->wss.name, o, true};
        return true;
    }
    if (!store_object_key(object, &ns, &name)) {
        log_msg(LOG_WARN, "object", "%s: an object without a namespace and a name", kind_names[kind]);
        return false;
    }
    if (kind == STORE_SECRETS) {
        struct store_secret *v = out->item = store_secret_parse(object);
        *out = (struct entry){v->ns, v->name, v, true};
    } else if (kind == STORE_SERVICES) {
        struct store_service *v = out->item = store_service_parse(object);
        *out = (struct entry){v->ns, v->name, v, true};
    } else if (kind == STORE_SLICES) {
        struct store_slice *v = out->item = store_slice_parse(object);
        *out = (struct entry){v->ns, v->name, v, true};
    } else {
        struct store_grant *v = out->item = store_grant_parse(object);
        *out = (struct entry){v->ns, v->name, v, true};
    }
    return true;
}

static bool same(enum store_kind kind, const void *a, const void *b)
{
    const struct wss *x = &((const struct store_object *)a)->wss, *y = &((const struct store_object *)b)->wss;

    switch (kind) {
    case STORE_SECRETS: return store_secret_same(a, b);
    case STORE_SERVICES: return store_service_same(a, b);
    case STORE_SLICES: return store_slice_same(a, b);
    case STORE_GRANTS: return store_grant_same(a, b);
    default:
        /* The API server raises the generation with each change of the spec, and a new object has a new uid. */
        return x->generation && x->generation == y->generation && x->uid && y->uid && !strcmp(x->uid, y->uid);
    }
}

/* The same spec again; true when the rest of it may be another. */
static bool take_dirty(struct store_object *to, const struct store_object *from)
{
    const char *a = to->wss.resource_version, *b = from->wss.resource_version;

    to->dirty = from->dirty;
    return !a || !b || strcmp(a, b) != 0;
}

bool store_put(struct store *s, enum store_kind kind, json_t *object)
{
    struct entries *e = &s->kinds[kind];
    struct entry entry, old;
    bool there, equal, news;
    size_t at;

    if (!parse(kind, object, &entry))
        return false;
    at = place_of(e, entry.ns, entry.name, &there);
    if (!there) {
        insert(e, at, entry);
        mark_item(s, kind, &entry);
        return true;
    }
    old = e->items[at];
    equal = same(kind, old.item, entry.item);
    news = !equal;
    if (kind == STORE_WSS && equal)
        news = take_dirty(entry.item, old.item);
    e->items[at] = entry;
    if (!equal) {
        mark_item(s, kind, &old);
        mark_item(s, kind, &entry);
    }
    item_free(kind, old.item);
    return news;
}

bool store_drop(struct store *s, enum store_kind kind, json_t *object)
{
    struct entries *e = &s->kinds[kind];
    const char *ns, *name;
    bool there;
    size_t at;

    if (!store_object_key(object, &ns, &name))
        return false;
    at = place_of(e, ns, name, &there);
    if (!there)
        return false;
    mark_item(s, kind, &e->items[at]);
    item_free(kind, e->items[at].item);
    memmove(&e->items[at], &e->items[at + 1], (--e->count - at) * sizeof *e->items);
    return true;
}

bool store_end(struct store *s, enum store_kind kind, const char *ns)
{
    struct entries *e = &s->kinds[kind];
    size_t kept = 0, count = e->count;

    for (size_t i = 0; i < count; i++) {
        if (e->items[i].seen || (ns && strcmp(e->items[i].ns, ns) != 0)) {
            e->items[kept++] = e->items[i];
            continue;
        }
        if (kind != STORE_WSS)
            mark_item(s, kind, &e->items[i]);
        item_free(kind, e->items[i].item);
    }
    e->count = kept;
    return kept < count;
}

void store_set_sync(struct store *s, enum store_kind kind, enum store_sync sync, const char *why)
{
    char *copy = need(strdup(why ? why : ""));
    bool changed = sync != s->sync[kind] || strcmp(copy, store_sync_why(s, kind)) != 0;

    free(s->why[kind]);
    s->why[kind] = copy;
    s->sync[kind] = sync;
    if (changed)
        mark(s, kind, NULL, NULL);
}

enum store_sync store_sync(const struct store *s, enum store_kind kind)
{
    return s->sync[kind];
}

const char *store_sync_why(const struct store *s, enum store_kind kind)
{
    return s->why[kind] ? s->why[kind] : "";
}

size_t store_count(const struct store *s)
{
    return s->kinds[STORE_WSS].count;
}

struct store_object *store_at(struct store *s, size_t i)
{
    return s->kinds[STORE_WSS].items[i].item;
}

struct store_object *store_find(struct store *s, const char *ns, const char *name)
{
    return find(s, STORE_WSS, ns, name);
}

void store_mark_all(struct store *s)
{
    for (size_t i = 0; i < store_count(s); i++)
        store_at(s, i)->dirty = true;
}

const struct store_secret *store_secret(const struct store *s, const char *ns, const char *name)
{
    return find(s, STORE_SECRETS, ns, name);
}

const struct store_service *store_service(const struct store *s, const char *ns, const char *name)
{
    return find(s, STORE_SERVICES, ns, name);
}

/* Where a namespace begins. */
static size_t first_of(const struct entries *e, const char *ns)
{
    bool there;

    return place_of(e, ns, "", &there);
}

size_t store_slices(const struct store *s, const char *ns, const char *service,
                    void (*each)(void *arg, const struct store_slice *slice), void *arg)
{
    const struct entries *e = &s->kinds[STORE_SLICES];
    size_t given = 0;

    for (size_t i = first_of(e, ns); i < e->count && !strcmp(e->items[i].ns, ns); i++) {
        const struct store_slice *slice = e->items[i].item;

        if (!slice->service || strcmp(slice->service, service) != 0)
            continue;
        each(arg, slice);
        given++;
    }
    return given;
}

static bool grants_from(const struct store_grant *g, const char *from_ns)
{
    for (size_t i = 0; i < g->from_count; i++)
        if (!strcmp(g->from[i].group, WSS_GROUP) && !strcmp(g->from[i].kind, WSS_KIND) &&
            !strcmp(g->from[i].ns, from_ns))
            return true;
    return false;
}

static bool grants_to(const struct store_grant *g, const char *kind, const char *name)
{
    for (size_t i = 0; i < g->to_count; i++)
        if (!*g->to[i].group && !strcmp(g->to[i].kind, kind) &&
            (!g->to[i].name || !strcmp(g->to[i].name, name)))
            return true;
    return false;
}

bool store_granted(const struct store *s, const char *from_ns, const char *to_kind, const char *to_ns,
                   const char *to_name)
{
    const struct entries *e = &s->kinds[STORE_GRANTS];

    if (!strcmp(from_ns, to_ns))
        return true;
    for (size_t i = first_of(e, to_ns); i < e->count && !strcmp(e->items[i].ns, to_ns); i++)
        if (grants_from(e->items[i].item, from_ns) && grants_to(e->items[i].item, to_kind, to_name))
            return true;
    return false;
}
