#include "kube/kube_yaml.h"

#include "base/need.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
    const char *name;
    yaml_parser_t parser;
    yaml_event_t event; /* the one that is being looked at */
    bool has_event;
    size_t nodes;
    unsigned depth;
    struct err *err;
};

static int refuse(struct reader *r, enum err_code code, yaml_mark_t at, const char *what)
{
    return err_set(r->err, code, "%s:%zu:%zu: %s", r->name, at.line + 1, at.column + 1, what);
}

static int broken(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;

    if (p->error == YAML_MEMORY_ERROR)
        return refuse(r, ERR_LIMIT, p->mark, "out of memory");
    if (p->error == YAML_READER_ERROR)
        return refuse(r, ERR_SYNTAX, p->mark, "not a text in UTF-8 without control characters");
    return refuse(r, ERR_SYNTAX, p->problem_mark, p->problem ? p->problem : "not valid YAML");
}

static int next(struct reader *r)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = false;
    if (!yaml_parser_parse(&r->parser, &r->event))
        return broken(r);
    r->has_event = true;
    return 0;
}

static bool is_one_of(const char *text, const char *const words[])
{
    for (; *words; words++)
        if (!strcmp(text, *words))
            return true;
    return false;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)? : JSON's numbers and no others, so that 0x1F and 1_000 stay texts. */
static bool is_number(const char *p, bool *whole)
{
    *whole = true;
    p += *p == '-';
    if (*p == '0')
        p++;
    else if (*p >= '1' && *p <= '9')
        p += strspn(p, "0123456789");
    else
        return false;
    if (*p == '.') {
        size_t n = strspn(++p, "0123456789");

        *whole = false;
        if (!n)
            return false;
        p += n;
    }
    if (*p == 'e' || *p == 'E') {
        size_t n;

        p++;
        p += *p == '-' || *p == '+';
        n = strspn(p, "0123456789");
        *whole = false;
        if (!n)
            return false;
        p += n;
    }
    return !*p;
}

/* NULL: the text is no number that can be held. */
static json_t *number(const char *text)
{
    bool whole;

    if (!is_number(text, &whole))
        return NULL;
    errno = 0;
    if (whole) {
        long long n = strtoll(text, NULL, 10);

        return errno ? NULL : need(json_integer(n));
    }
    return json_real(strtod(text, NULL)); /* NULL for what is infinite */
}

static json_t *plain(const char *text)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};

    if (is_one_of(text, nulls))
        return json_null();
    if (is_one_of(text, trues))
        return json_true();
    if (is_one_of(text, falses))
        return json_false();
    return number(text);
}

static int check_tag(struct reader *r, const yaml_char_t *tag, const char *fits)
{
    if (!tag || !strcmp((const char *)tag, fits))
        return 0;
    return refuse(r, ERR_SYNTAX, r->event.start_mark,
                  "a tag (!name) is not supported; write the value without it");
}

static json_t *scalar(struct reader *r)
{
    const char *text = (const char *)r->event.data.scalar.value;
    size_t len = r->event.data.scalar.length;
    json_t *v = NULL;

    if (check_tag(r, r->event.data.scalar.tag, YAML_STR_TAG))
        return NULL;
    if (memchr(text, '\0', len)) {
        refuse(r, ERR_SYNTAX, r->event.start_mark, "a text with a NUL in it");
        return NULL;
    }
    if (r->event.data.scalar.plain_implicit && r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        v = plain(text);
    if (!v)
        v = json_stringn(text, len);
    if (!v)
        refuse(r, ERR_SYNTAX, r->event.start_mark, "a text that is not UTF-8");
    return v;
}

static json_t *node(struct reader *r);

static int pair(struct reader *r, json_t *map)
{
    char *key;
    json_t *value;
    int failed;

    if (r->event.type != YAML_SCALAR_EVENT)
        return refuse(r, ERR_SYNTAX, r->event.start_mark, "a key that is not a text");
    value = scalar(r); /* for what it refuses */
    if (!value)
        return -1;
    json_decref(value);
    key = need(strdup((const char *)r->event.data.scalar.value));
    failed = json_object_get(map, key)
                 ? refuse(r, ERR_SYNTAX, r->event.start_mark, "a key that stands here twice; take one out")
                 : next(r);
    value = failed ? NULL : node(r);
    if (value && json_object_set_new(map, key, value)) {
        refuse(r, ERR_SYNTAX, r->event.start_mark, "a key that is not UTF-8");
        value = NULL;
    }
    free(key);
    return value ? 0 : -1;
}

/* From the opening of a map or list to its end. */
static json_t *collection(struct reader *r, bool map)
{
    yaml_event_type_t end = map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    json_t *all;

    if (check_tag(r, map ? r->event.data.mapping_start.tag : r->event.data.sequence_start.tag,
                  map ? YAML_MAP_TAG : YAML_SEQ_TAG))
        return NULL;
    if (++r->depth > KUBE_YAML_DEPTH) {
        refuse(r, ERR_LIMIT, r->event.start_mark, "nested too deep");
        return NULL;
    }
    all = need(map ? json_object() : json_array());
    for (;;) {
        json_t *item = NULL;
        bool fine = !next(r);

        if (fine && r->event.type == end)
            break;
        if (fine && map)
            fine = !pair(r, all);
        else if (fine)
            fine = (item = node(r)) && !json_array_append_new(all, item);
        if (!fine) {
            json_decref(all);
            return NULL;
        }
    }
    r->depth--;
    return all;
}

static json_t *node(struct reader *r)
{
    if (++r->nodes > KUBE_YAML_NODES) {
        refuse(r, ERR_LIMIT, r->event.start_mark, "too many values");
        return NULL;
    }
    switch (r->event.type) {
    case YAML_SCALAR_EVENT: return scalar(r);
    case YAML_MAPPING_START_EVENT: return collection(r, true);
    case YAML_SEQUENCE_START_EVENT: return collection(r, false);
    default:
        refuse(r, ERR_SYNTAX, r->event.start_mark, "an alias (*name) is not supported; write the value out");
        return NULL;
    }
}

static bool next_is(struct reader *r, yaml_event_type_t type)
{
    return !next(r) && r->event.type == type;
}

/* STREAM-START [DOCUMENT-START node DOCUMENT-END] STREAM-END */
static json_t *document(struct reader *r)
{
    json_t *v;

    if (!next_is(r, YAML_STREAM_START_EVENT) || next(r))
        return NULL;
    if (r->event.type == YAML_STREAM_END_EVENT)
        return json_null();
    if (next(r))
        return NULL;
    v = node(r);
    if (!v || (next_is(r, YAML_DOCUMENT_END_EVENT) && next_is(r, YAML_STREAM_END_EVENT)))
        return v;
    if (r->has_event) /* else it was broken, and err says so */
        refuse(r, ERR_SYNTAX, r->event.start_mark, "a second document; one file holds one");
    json_decref(v);
    return NULL;
}

json_t *kube_yaml_load(const char *name, const uint8_t *bytes, size_t len, struct err *err)
{
    struct reader r = {.name = name, .err = err};
    json_t *v;

    if (len > KUBE_YAML_BYTES) {
        err_set(err, ERR_LIMIT, "%s: larger than %u bytes", name, KUBE_YAML_BYTES);
        return NULL;
    }
    /* libyaml counts a byte order mark as a column when it is told the encoding, and then indents by it. */
    if (len >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3)) {
        bytes += 3;
        len -= 3;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        err_set(err, ERR_LIMIT, "%s: out of memory", name);
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, len ? bytes : (const uint8_t *)"", len);
    v = document(&r);
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return v;
}
