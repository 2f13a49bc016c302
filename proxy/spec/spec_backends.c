#include "spec/spec.h"

#include "spec/spec_fields.h"
#include "spec/spec_internal.h"
#include "spec/spec_values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(struct spec_backend, member)

static const char url_form[] = "give ws://HOST[:PORT] or wss://HOST[:PORT]";

void spec_read_url(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct spec_url *url = spec_reader_target(p, f);
    struct err err;

    if (spec_value_url(v->text, v->len, url, &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
    else
        url->pos = v->pos;
}

static void read_weight(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    uint64_t n;
    struct err err;

    if (!spec_reader_plain(p, v))
        return;
    if (spec_value_uint(v->text, v->len, 0, SPEC_MAX_WEIGHT, &n, &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
    else
        *(uint32_t *)spec_reader_target(p, f) = (uint32_t)n;
}

static void read_host(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    struct err err;

    if (spec_value_authority(v->text, v->len, spec_reader_target(p, f), &err))
        spec_reader_problem(p, v->pos, "%s", err.msg);
}

/* The path of a URL is never sent, so two that differ in it alone are one. */
static const struct spec_backend *twin_of(const struct spec_server *s, const struct spec_url *url)
{
    for (size_t i = 0; i < s->backend_count; i++) {
        const struct spec_url *u = &s->backends[i].url;

        if (u->port == url->port && u->tls == url->tls && !strcmp(u->host, url->host))
            return &s->backends[i];
    }
    return NULL;
}

/* One item, a mapping; false, with nothing kept, after a problem. */
static bool read_item(struct spec_reader *p, struct spec_backend *b, const struct spec_node *map)
{
    static const struct spec_field fields[] = {
        {"url", SPEC_NODE_SCALAR, spec_read_url, AT(url), 0, 0, NULL},
        {"weight", SPEC_NODE_SCALAR, read_weight, AT(weight), 0, 0, NULL},
        {"host", SPEC_NODE_SCALAR, read_host, AT(host), 0, 0, NULL},
    };
    size_t before = p->problems->count, parents = strlen(p->field);
    const struct spec_backend *twin;
    void *outer = p->base;

    *b = (struct spec_backend){.weight = 1, .pos = map->pos};
    p->base = b;
    spec_reader_fields(p, fields, SPEC_COUNT(fields));
    p->base = outer;
    p->field[parents] = '\0';
    twin = b->url.host ? twin_of(p->s, &b->url) : NULL;
    if (p->problems->count == before && !b->url.host)
        spec_reader_problem(p, b->pos, "url is missing; %s", url_form);
    else if (twin)
        spec_reader_problem(p, b->url.pos, "%s is a backend already, at line %u; keep one and give it weight",
                            SPEC_QUOTE(b->url.text, strlen(b->url.text)), twin->url.pos.line);
    if (p->problems->count == before && !p->problems->cut)
        return true;
    spec_backend_free(b);
    return false;
}

void spec_read_backends(struct spec_reader *p, const struct spec_field *f, const struct spec_node *list)
{
    size_t parents = strlen(p->field), count = 0;
    struct spec_server *s = p->s;
    struct spec_backend b;
    struct spec_node v;

    (void)f;
    (void)list;
    s->backends_given = true;
    while (spec_yaml_next(p->y, &v) && v.kind != SPEC_NODE_END) {
        if (count == SPEC_MAX_LIST) {
            spec_yaml_stop(p->y, v.pos, "%s: more than %d items; shorten the list", p->field, SPEC_MAX_LIST);
            return;
        }
        snprintf(p->field + parents, sizeof p->field - parents, "[%zu]", count++);
        if (v.refused || v.kind != SPEC_NODE_MAP) {
            spec_reader_problem(p, v.pos, "%s",
                                v.refused ? v.refused
                                          : "is no mapping; give url: and, if need be, weight: and host:");
            spec_yaml_skip(p->y, &v);
        } else if (read_item(p, &b, &v)) {
            s->backends = spec_grow(s->backends, s->backend_count, sizeof *s->backends);
            s->backends[s->backend_count++] = b;
        }
        p->field[parents] = '\0';
    }
}
