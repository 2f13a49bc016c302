#include "ports_service.h"

#include "base/need.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const field_keys[PORTS_FIELDS] = {"f:name", "f:port", "f:protocol", "f:targetPort"};

void ports_name(char out[PORTS_NAME_BYTES], uint16_t port)
{
    snprintf(out, PORTS_NAME_BYTES, "p-%u", port);
}

static const char *text_of(json_t *in, const char *key)
{
    const char *text = json_string_value(json_object_get(in, key));

    return text ? text : "";
}

static bool is_tcp(json_t *in)
{
    const char *protocol = text_of(in, "protocol");

    return !*protocol || !strcmp(protocol, "TCP");
}

static void set_text(char **to, const char *from)
{
    free(*to);
    *to = need(strdup(from));
}

/* The number behind `mark` in `text`; 0: none. */
static uint16_t port_behind(const char *text, const char *mark)
{
    const char *at = strstr(text, mark);
    unsigned long n = at ? strtoul(at + strlen(mark), NULL, 10) : 0;

    return n <= UINT16_MAX ? (uint16_t)n : 0;
}

static void item_parse(json_t *port, struct ports_item *out)
{
    json_t *target = json_object_get(port, "targetPort");
    char as_ours[PORTS_NAME_BYTES];

    out->port = (uint16_t)json_integer_value(json_object_get(port, "port"));
    out->tcp = is_tcp(port);
    set_text(&out->name, text_of(port, "name"));
    ports_name(as_ours, port_behind(out->name, "p-"));
    out->named = strcmp(as_ours, out->name) ? 0 : port_behind(out->name, "p-");
    out->target = json_is_integer(target) ? (int)json_integer_value(target) : -1;
}

/* `key` is "k:{"port":443,"protocol":"TCP"}". */
static struct ports_item *item_of_key(struct ports_service *s, const char *key)
{
    json_t *json = strncmp(key, "k:", 2) ? NULL : json_loads(key + 2, 0, NULL);
    json_int_t port = json_integer_value(json_object_get(json, "port"));
    bool tcp = is_tcp(json);

    json_decref(json);
    for (size_t i = 0; json && i < s->count; i++)
        if (s->items[i].port == port && s->items[i].tcp == tcp)
            return &s->items[i];
    return NULL;
}

/* One manager's share of one port. */
static void mark(struct ports_item *item, const char *manager, bool ours, json_t *fields)
{
    if (ours) {
        item->ours = true;
        return;
    }
    if (json_object_get(fields, "."))
        set_text(&item->other, manager);
    for (int f = 0; f < PORTS_FIELDS; f++)
        if (json_object_get(fields, field_keys[f]))
            set_text(&item->owners[f], manager);
}

static void mark_all(struct ports_service *s, json_t *managed)
{
    size_t i;
    json_t *entry, *fields;
    const char *key;

    json_array_foreach(managed, i, entry)
    {
        const char *manager = text_of(entry, "manager");
        bool ours = !strcmp(manager, PORTS_MANAGER) && !strcmp(text_of(entry, "operation"), "Apply");
        json_t *ports =
            json_object_get(json_object_get(json_object_get(entry, "fieldsV1"), "f:spec"), "f:ports");

        json_object_foreach(ports, key, fields)
        {
            struct ports_item *item = item_of_key(s, key);

            if (item)
                mark(item, manager, ours, fields);
        }
    }
    for (size_t n = 0; n < s->count; n++) {
        s->ours += s->items[n].ours;
        s->foreign += !s->items[n].ours || s->items[n].other;
    }
}

bool ports_service_parse(json_t *object, const char *ns, const char *name, struct ports_service *out)
{
    json_t *meta = json_object_get(object, "metadata"), *port,
           *ports = json_object_get(json_object_get(object, "spec"), "ports");
    struct ports_service s = {0};
    size_t i;

    if (strcmp(text_of(meta, "name"), name) != 0 || strcmp(text_of(meta, "namespace"), ns) != 0 ||
        !*text_of(meta, "resourceVersion"))
        return false;
    set_text(&s.uid, text_of(meta, "uid"));
    set_text(&s.version, text_of(meta, "resourceVersion"));
    s.items = need(calloc(json_array_size(ports) + 1, sizeof *s.items));
    json_array_foreach(ports, i, port) item_parse(port, &s.items[s.count++]);
    mark_all(&s, json_object_get(meta, "managedFields"));
    *out = s;
    return true;
}

void ports_service_done(struct ports_service *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free(s->items[i].name);
        free(s->items[i].other);
        for (int f = 0; f < PORTS_FIELDS; f++)
            free(s->items[i].owners[f]);
    }
    free(s->items);
    free(s->uid);
    free(s->version);
    *s = (struct ports_service){0};
}

/* Who has set a field of it to something else than we would; NULL: nobody. */
static const char *who_differs(const struct ports_item *item, const char *name)
{
    if (item->owners[PORTS_FIELD_NAME] && strcmp(item->name, name) != 0)
        return item->owners[PORTS_FIELD_NAME];
    if (item->owners[PORTS_FIELD_TARGET] && item->target != item->port)
        return item->owners[PORTS_FIELD_TARGET];
    return NULL;
}

static enum ports_state judge_item(const struct ports_item *item, const char *name, bool *edited, char **why)
{
    const char *other = item->ours ? who_differs(item, name) : item->other;

    if (other && item->ours && !item->other) {
        *edited = true;
        *why = need_printf("%s has changed port %u of this Service: it is made anew", other, item->port);
        return PORTS_PENDING;
    }
    if (other) {
        *why =
            need_printf("port %u of this Service (name \"%s\") belongs to %s", item->port, item->name, other);
        return PORTS_TAKEN;
    }
    return item->ours && !strcmp(item->name, name) && item->target == item->port ? PORTS_PRESENT
                                                                                 : PORTS_PENDING;
}

enum ports_state ports_service_judge(const struct ports_service *s, uint16_t port, bool *edited, char **why)
{
    const struct ports_item *same = NULL;
    char name[PORTS_NAME_BYTES];

    ports_name(name, port);
    *edited = false;
    for (size_t i = 0; i < s->count; i++) {
        const struct ports_item *item = &s->items[i];

        if (item->tcp && item->port == port) {
            same = item;
        } else if (item->named == port && (!item->ours || item->other)) {
            *why = need_printf("the name %s belongs to port %u of this Service, of %s", name, item->port,
                               item->other ? item->other : "somebody else");
            return PORTS_TAKEN;
        }
    }
    return same ? judge_item(same, name, edited, why) : PORTS_PENDING;
}

void ports_service_clashes(json_t *status, void (*clash)(void *arg, uint16_t port, const char *message),
                           void *arg)
{
    json_t *cause;
    size_t i;

    json_array_foreach(json_object_get(json_object_get(status, "details"), "causes"), i, cause)
    {
        const char *field = text_of(cause, "field"), *message = text_of(cause, "message");
        /* .spec.ports[port=10020,protocol="TCP"].name, and of duplicates: Duplicate value: "p-10020" */
        uint16_t port = port_behind(field, "ports[port=");
        char *text;

        if (!port)
            port = port_behind(message, "\"p-");
        if (!port)
            continue;
        text = need_printf("%s: %s", field, message);
        clash(arg, port, text);
        free(text);
    }
}
