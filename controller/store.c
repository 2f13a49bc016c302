#include "store.h"

#include "base/log.h"
#include "base/need.h"
#include "kube/kube_path.h"
#include "store_object.h"

#include <stdlib.h>
#include <string.h>

/* What all kinds begin with, so that one search serves them all. */
struct key {
    char *ns, *name;
};

/* Objects of one kind, by namespace and name; `seen`: it was put since the list of its namespace began. */
struct table {
    void **items; /* each begins with a struct key */
    bool *seen;
    size_t count, room;
    enum store_sync sync;
    char *why;
};

struct wss_item {
    struct key key; /* borrows from object.wss */
    struct store_object object;
};

struct store {
    struct table tables[STORE_KINDS];
};

/* Each struct of store.h begins with ns and name: that is what makes it a key. */
_Static_assert(offsetof(struct store_secret, name) == offsetof(struct key, name),
               "a Secret begins with its key");
_Static_assert(offsetof(struct store_service, name) == offsetof(struct key, name),
               "a Service begins with its key");
_Static_assert(offsetof(struct store_slice, name) == offsetof(struct key, name),
               "a slice begins with its key");
_Static_assert(offsetof(struct store_grant, name) == offsetof(struct key, name),
               "a grant begins with its key");

static const size_t sizes[STORE_KINDS] = {
    [STORE_WSS] = sizeof(struct wss_item),           [STORE_SECRETS] = sizeof(struct store_secret),
    [STORE_SERVICES] = sizeof(struct store_service), [STORE_SLICES] = sizeof(struct store_slice),
    [STORE_GRANTS] = sizeof(struct store_grant),
};

static void item_free(enum store_kind kind, void *item)
{
    if (kind == STORE_WSS)
        wss_free(&((struct wss_item *)item)->object.wss);
    else if (kind == STORE_SECRETS)
        store_secret_free(item);
    else if (kind == STORE_SERVICES)
        store_service_free(item);
    else if (kind == STORE_SLICES)
        store_slice_free(item);
    else
        store_grant_free(item);
    free(item);
}

/* Tables */

static int compare(const struct key *k, const char *ns, const char *name)
{
    int order = strcmp(k->ns, ns);

    return order ? order : strcmp(k->name, name);
}

/* Where it stands or would stand. Lists come sorted, so the end is looked at first. */
static size_t place(const struct table *t, const char *ns, const char *name, bool *found)
{
    size_t low = 0, high = t->count;

    *found = false;
    if (t->count && compare(t->items[t->count - 1], ns, name) < 0)
        return t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(t->items[middle], ns, name);

        if (!order) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void *find(const struct table *t, const char *ns, const char *name)
{
    bool found;
    size_t at = place(t, ns, name, &found);

    return found ? t->items[at] : NULL;
}

static void insert(struct table *t, size_t at, void *item)
{
    if (t->count == t->room) {
        t->room = t->room ? 2 * t->room : 64;
        t->items = need(realloc(t->items, t->room * sizeof *t->items));
        t->seen = need(realloc(t->seen, t->room * sizeof *t->seen));
    }
    memmove(&t->items[at + 1], &t->items[at], (t->count - at) * sizeof *t->items);
    memmove(&t->seen[at + 1], &t->seen[at], (t->count - at) * sizeof *t->seen);
    t->items[at] = item;
    t->seen[at] = true;
    t->count++;
}

static void take_out(struct table *t, enum store_kind kind, size_t at)
{
    item_free(kind, t->items[at]);
    t->count--;
    memmove(&t->items[at], &t->items[at + 1], (t->count - at) * sizeof *t->items);
    memmove(&t->seen[at], &t->seen[at + 1], (t->count - at) * sizeof *t->seen);
}

/* Who is touched by what */

static bool refers(const struct wss_ref *ref, const char *ns, const char *name)
{
    return ref->name && !strcmp(ref->name, name) && !strcmp(ref->ns, ns);
}

/* Does this host name the Service? "name" in the object's own namespace, "name.ns.svc" and longer. */
static bool host_is(const char *host, const char *own_ns, const char *ns, const char *name)
{
    size_t len = strlen(name), ns_len = strlen(ns);

    if (!host || strncmp(host, name, len) != 0)
        return false;
    if (!host[len])
        return !strcmp(own_ns, ns);
    return host[len] == '.' && !strncmp(host + len + 1, ns, ns_len) &&
           !strncmp(host + len + 1 + ns_len, ".svc", 4);
}

static bool needs_service(const struct wss *w, const char *ns, const char *name)
{
    if (w->backend_ref.name && !strcmp(w->backend_ref.name, name) && !strcmp(w->ns, ns))
        return true;
    if (host_is(w->spec.backend.host, w->ns, ns, name))
        return true;
    for (size_t i = 0; i < w->spec.backend_count; i++)
        if (host_is(w->spec.backends[i].url.host, w->ns, ns, name))
            return true;
    return false;
}

static bool needs_secret(const struct wss *w, const char *ns, const char *name)
{
    return refers(&w->tls_secret, ns, name) || refers(&w->client_ca, ns, name) ||
           refers(&w->backend_secret, ns, name) || refers(&w->backend_ca, ns, name);
}

/* Marks all objects for which `touched` holds; `touched` NULL: all. True when there was one. */
static bool mark(struct store *s, bool (*touched)(const struct wss *w, const char *ns, const char *name),
                 const char *ns, const char *name)
{
    bool any = false;

    for (size_t i = 0; i < store_count(s); i++) {
        struct store_object *o = store_at(s, i);

        if (touched && !touched(&o->wss, ns, name))
            continue;
        o->dirty = any = true;
    }
    return any;
}

/* A change of this object of this kind. */
static bool mark_for(struct store *s, enum store_kind kind, const void *item)
{
    const struct key *k = item;
    const struct store_slice *slice = item;

    if (kind == STORE_SECRETS)
        return mark(s, needs_secret, k->ns, k->name);
    if (kind == STORE_SERVICES)
        return mark(s, needs_service, k->ns, k->name);
    if (kind == STORE_SLICES)
        return slice->service && mark(s, needs_service, slice->ns, slice->service);
    return kind == STORE_WSS || mark(s, NULL, NULL, NULL);
}

/* Objects */

/* Passed over, and told: what has no usable name cannot be kept. */
static bool name_of(json_t *object, const char **ns, const char **name)
{
    const json_t *metadata = json_object_get(object, "metadata");

    *ns = json_string_value(json_object_get(metadata, "namespace"));
    *name = json_string_value(json_object_get(metadata, "name"));
    if (*ns && *name && kube_path_label_ok(*ns) && kube_path_name_ok(*name))
        return true;
    log_msg(LOG_WARN, "object", "an object without a usable namespace and name is passed over");
    return false;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static bool put_wss(struct table *t, size_t at, bool found, json_t *object)
{
    struct wss_item *item, *old = found ? t->items[at] : NULL;
    struct wss parsed = {0};
    struct err err;
    bool news, changed;

    if (wss_parse(object, &parsed, &err)) {
        log_msg(LOG_WARN, "object", "%s", err.msg);
        return false;
    }
    news = !old || !same_text(old->object.wss.uid, parsed.uid) ||
           old->object.wss.generation != parsed.generation;
    changed = !old || !same_text(old->object.wss.resource_version, parsed.resource_version);
    if (old) {
        wss_free(&old->object.wss);
        item = old;
    } else {
        item = need(calloc(1, sizeof *item));
        insert(t, at, item);
    }
    item->object.wss = parsed;
    item->key = (struct key){item->object.wss.ns, item->object.wss.name};
    item->object.dirty |= news;
    return news || changed;
}

static void *take(enum store_kind kind, json_t *object, const char *ns, const char *name)
{
    struct key *item = need(calloc(1, sizes[kind]));

    item->ns = need(strdup(ns));
    item->name = need(strdup(name));
    if (kind == STORE_SECRETS)
        store_secret_take((void *)item, object);
    else if (kind == STORE_SERVICES)
        store_service_take((void *)item, object);
    else if (kind == STORE_SLICES)
        store_slice_take((void *)item, object);
    else
        store_grant_take((void *)item, object);
    return item;
}

static bool equal(enum store_kind kind, const void *a, const void *b)
{
    if (kind == STORE_SECRETS)
        return store_secret_equal(a, b);
    if (kind == STORE_SERVICES)
        return store_service_equal(a, b);
    if (kind == STORE_SLICES)
        return store_slice_equal(a, b);
    return store_grant_equal(a, b);
}

bool store_put(struct store *s, enum store_kind kind, json_t *object)
{
    struct table *t = &s->tables[kind];
    const char *ns, *name;
    bool found, changed;
    void *item;
    size_t at;

    if (!name_of(object, &ns, &name))
        return false;
    at = place(t, ns, name, &found);
    if (found)
        t->seen[at] = true;
    if (kind == STORE_WSS)
        return put_wss(t, at, found, object);
    item = take(kind, object, ns, name);
    if (found && equal(kind, t->items[at], item)) {
        item_free(kind, item);
        return false;
    }
    changed = found && mark_for(s, kind, t->items[at]); /* a slice may have gone to another Service */
    if (found) {
        item_free(kind, t->items[at]);
        t->items[at] = item;
    } else {
        insert(t, at, item);
    }
    return mark_for(s, kind, item) || changed;
}

bool store_drop(struct store *s, enum store_kind kind, json_t *object)
{
    struct table *t = &s->tables[kind];
    const char *ns, *name;
    bool found, changed;
    size_t at;

    if (!name_of(object, &ns, &name))
        return false;
    at = place(t, ns, name, &found);
    if (!found)
        return false;
    changed = mark_for(s, kind, t->items[at]);
    take_out(t, kind, at);
    return changed;
}

void store_begin(struct store *s, enum store_kind kind, const char *ns)
{
    struct table *t = &s->tables[kind];

    for (size_t i = 0; i < t->count; i++)
        if (!ns || !strcmp(((const struct key *)t->items[i])->ns, ns))
            t->seen[i] = false;
}

/* Marks and drops in one sweep: an object at a time would move the rest each time. */
bool store_end(struct store *s, enum store_kind kind, const char *ns)
{
    struct table *t = &s->tables[kind];
    size_t kept = 0;
    bool changed = false;

    for (size_t i = 0; i < t->count; i++) {
        const struct key *k = t->items[i];

        if (t->seen[i] || (ns && strcmp(k->ns, ns) != 0)) {
            t->seen[kept] = t->seen[i];
            t->items[kept++] = t->items[i];
            continue;
        }
        if (kind != STORE_WSS)
            changed |= mark_for(s, kind, t->items[i]);
        else
            changed = true;
        item_free(kind, t->items[i]);
    }
    t->count = kept;
    return changed;
}

/* Lists as a whole */

static bool needs_kind(const struct wss *w, enum store_kind kind)
{
    switch (kind) {
    case STORE_SECRETS:
        return w->tls_secret.name || w->client_ca.name || w->backend_secret.name || w->backend_ca.name;
    case STORE_SERVICES:
    case STORE_SLICES:
    case STORE_GRANTS: return true;
    case STORE_WSS: break;
    }
    return false;
}

void store_set_sync(struct store *s, enum store_kind kind, enum store_sync sync, const char *why)
{
    struct table *t = &s->tables[kind];

    if (t->sync == sync && same_text(t->why, why))
        return;
    t->sync = sync;
    free(t->why);
    t->why = why ? need(strdup(why)) : NULL;
    for (size_t i = 0; i < store_count(s); i++)
        if (needs_kind(&store_at(s, i)->wss, kind))
            store_at(s, i)->dirty = true;
}

enum store_sync store_sync(const struct store *s, enum store_kind kind)
{
    return s->tables[kind].sync;
}

const char *store_sync_why(const struct store *s, enum store_kind kind)
{
    return s->tables[kind].why ? s->tables[kind].why : "";
}

/* Questions */

size_t store_count(const struct store *s)
{
    return s->tables[STORE_WSS].count;
}

struct store_object *store_at(struct store *s, size_t i)
{
    return &((struct wss_item *)s->tables[STORE_WSS].items[i])->object;
}

struct store_object *store_find(struct store *s, const char *ns, const char *name)
{
    struct wss_item *item = find(&s->tables[STORE_WSS], ns, name);

    return item ? &item->object : NULL;
}

void store_mark_all(struct store *s)
{
    mark(s, NULL, NULL, NULL);
}

const struct store_secret *store_secret(const struct store *s, const char *ns, const char *name)
{
    return find(&s->tables[STORE_SECRETS], ns, name);
}

const struct store_service *store_service(const struct store *s, const char *ns, const char *name)
{
    return find(&s->tables[STORE_SERVICES], ns, name);
}

size_t store_slices(const struct store *s, const char *ns, const char *service,
                    void (*each)(void *arg, const struct store_slice *slice), void *arg)
{
    const struct table *t = &s->tables[STORE_SLICES];
    bool found;
    size_t given = 0;

    for (size_t i = place(t, ns, "", &found); i < t->count; i++) {
        const struct store_slice *slice = t->items[i];

        if (strcmp(slice->ns, ns) != 0)
            break;
        if (!slice->service || strcmp(slice->service, service) != 0)
            continue;
        each(arg, slice);
        given++;
    }
    return given;
}

static bool grants(const struct store_grant *g, const char *from_ns, const char *to_kind, const char *to_name)
{
    bool from = false;

    for (size_t i = 0; i < g->from_count && !from; i++)
        from = !strcmp(g->from[i].group, WSS_GROUP) && !strcmp(g->from[i].kind, WSS_KIND) &&
               !strcmp(g->from[i].ns, from_ns);
    for (size_t i = 0; from && i < g->to_count; i++)
        if (!*g->to[i].group && !strcmp(g->to[i].kind, to_kind) &&
            (!g->to[i].name || !*g->to[i].name || !strcmp(g->to[i].name, to_name)))
            return true;
    return false;
}

bool store_granted(const struct store *s, const char *from_ns, const char *to_kind, const char *to_ns,
                   const char *to_name)
{
    const struct table *t = &s->tables[STORE_GRANTS];
    bool found;

    for (size_t i = place(t, to_ns, "", &found); i < t->count; i++) {
        const struct store_grant *g = t->items[i];

        if (strcmp(g->ns, to_ns) != 0)
            break;
        if (grants(g, from_ns, to_kind, to_name))
            return true;
    }
    return false;
}

struct store *store_new(void)
{
    return need(calloc(1, sizeof(struct store)));
}

void store_free(struct store *s)
{
    if (!s)
        return;
    for (size_t kind = 0; kind < STORE_KINDS; kind++) {
        struct table *t = &s->tables[kind];

        for (size_t i = 0; i < t->count; i++)
            item_free((enum store_kind)kind, t->items[i]);
        free(t->items);
        free(t->seen);
        free(t->why);
    }
    free(s);
}
