#include "spec/spec_fields.h"

#include "spec/spec_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void spec_reader_problem(struct spec_reader *p, struct spec_pos pos, const char *fmt, ...)
{
    char text[ERR_MSG_BYTES];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    spec_problem_add(p->problems, pos, NULL, "%s: %s", p->field, text);
}

void *spec_reader_target(const struct spec_reader *p, const struct spec_field *f)
{
    return (char *)p->base + f->at;
}

bool spec_reader_absent(const struct spec_node *v)
{
    static const char *const nulls[] = {"~", "null", "Null", "NULL"};

    if (v->kind != SPEC_NODE_SCALAR || v->refused)
        return false;
    for (size_t i = 0; v->plain && i < sizeof nulls / sizeof *nulls; i++)
        if (v->len == strlen(nulls[i]) && !memcmp(v->text, nulls[i], v->len))
            return true;
    return !v->len;
}

bool spec_reader_plain(struct spec_reader *p, const struct spec_node *v)
{
    if (!v->plain)
        spec_reader_problem(p, v->pos, "%s is a text in quotes; write it without them",
                            SPEC_QUOTE(v->text, v->len));
    return v->plain;
}

/* Edits between two short words, upper and lower case alike: a letter too much, too few, wrong. */
static size_t edits(const char *a, const char *b, size_t b_len)
{
    size_t row[64], a_len = strlen(a);

    if (b_len >= SPEC_COUNT(row) || a_len >= SPEC_COUNT(row))
        return SPEC_COUNT(row);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + !!strncasecmp(&a[i - 1], &b[j - 1], 1);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b_len];
}

/* A key's text is quoted only when it looks like a field's name: a line of a misplaced key must not reach a log. */
static bool looks_like_field(const struct spec_node *key)
{
    for (size_t i = 0; i < key->len; i++)
        if (!key->text[i] ||
            !strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", key->text[i]))
            return false;
    return key->len > 0 && key->len <= 40;
}

static void unknown_key(struct spec_reader *p, const struct spec_field *fields, size_t count,
                        const struct spec_node *key)
{
    const struct spec_field *near = NULL;
    size_t best = 3;

    for (size_t i = 0; i < count; i++) {
        size_t n = edits(fields[i].name, key->text, key->len);

        if (n < best && n * 2 < strlen(fields[i].name)) {
            best = n;
            near = &fields[i];
        }
    }
    if (key->plain && key->len == 2 && !memcmp(key->text, "<<", 2))
        spec_problem_add(p->problems, key->pos, NULL,
                         "a merge key (<<) is not supported; write the fields out");
    else if (!looks_like_field(key))
        spec_problem_add(p->problems, key->pos, NULL, "%sunknown key of %zu bytes; remove it", p->field,
                         key->len);
    else if (near)
        spec_problem_add(p->problems, key->pos, NULL, "%s%s: unknown key; did you mean %s?", p->field,
                         key->text, near->name);
    else
        spec_problem_add(p->problems, key->pos, NULL, "%s%s: unknown key; remove it", p->field, key->text);
    if (near)
        p->bad |= near->mark;
}

/* Whose value comes next, or NULL after saying why not. p->field holds the parents, with their dot. */
static const struct spec_field *field_of(struct spec_reader *p, const struct spec_field *fields, size_t count,
                                         const struct spec_node *key, struct spec_pos *seen)
{
    if (key->refused || key->kind != SPEC_NODE_SCALAR) {
        spec_problem_add(p->problems, key->pos, NULL, "%s%s", p->field,
                         key->refused ? key->refused : "a key must be a word, not a list or mapping");
        p->bad = SPEC_MARK_ALL; /* it may have been any field */
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (key->len != strlen(fields[i].name) || memcmp(key->text, fields[i].name, key->len) != 0)
            continue;
        if (seen[i].line) {
            spec_problem_add(p->problems, key->pos, NULL,
                             "%s%s: stands here twice, first at line %u; keep one", p->field, fields[i].name,
                             seen[i].line);
            return NULL;
        }
        seen[i] = key->pos;
        return &fields[i];
    }
    unknown_key(p, fields, count, key);
    return NULL;
}

static void read_value(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v)
{
    static const char *const kinds[] = {
        [SPEC_NODE_SCALAR] = "single value", [SPEC_NODE_MAP] = "mapping", [SPEC_NODE_LIST] = "list"};
    size_t before = p->problems->count;

    if (spec_reader_absent(v))
        return;
    if (v->refused) {
        spec_reader_problem(p, v->pos, "%s", v->refused);
        spec_yaml_skip(p->y, v);
    } else if (v->kind != f->kind) {
        spec_reader_problem(p, v->pos, "is a %s; give a %s", kinds[v->kind], kinds[f->kind]);
        spec_yaml_skip(p->y, v);
    } else {
        struct spec_pos pos = v->pos;

        f->read(p, f, v);
        if (f->pos_at)
            memcpy((char *)p->base + f->pos_at, &pos, sizeof pos);
    }
    if (p->problems->count > before)
        p->bad |= f->mark;
}

/* A mapping whose keys are known, up to its end. */
void spec_reader_fields(struct spec_reader *p, const struct spec_field *fields, size_t count)
{
    struct spec_pos seen[SPEC_READER_FIELDS] = {{0}};
    size_t parents = strlen(p->field);
    struct spec_node key, v;

    assert(count <= SPEC_READER_FIELDS);
    if (parents)
        parents += (size_t)snprintf(p->field + parents, sizeof p->field - parents, ".");
    while (spec_yaml_next(p->y, &key) && key.kind != SPEC_NODE_END) {
        const struct spec_field *f = field_of(p, fields, count, &key, seen);

        spec_yaml_skip(p->y, &key);
        if (!spec_yaml_next(p->y, &v))
            break;
        if (!f) {
            spec_yaml_skip(p->y, &v);
            continue;
        }
        snprintf(p->field + parents, sizeof p->field - parents, "%s", f->name);
        read_value(p, f, &v);
        p->field[parents] = '\0';
    }
}
