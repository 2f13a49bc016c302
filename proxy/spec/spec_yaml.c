#include "spec/spec_yaml.h"

#include "spec/spec_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* libyaml decodes a whole read at once: small reads let what stands before a bad byte come out first. */
#define READ_BYTES 512

struct spec_yaml {
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    bool over, broken;
    const uint8_t *bytes;
    size_t len, read;
    size_t gap_bytes; /* read since the last event */
    unsigned depth;
    size_t nodes, documents;
    struct spec_pos last;
    struct spec_problems *problems;
};

static int give_bytes(void *arg, unsigned char *into, size_t size, size_t *given)
{
    struct spec_yaml *y = arg;
    size_t n = y->len - y->read;

    if (n > size)
        n = size;
    if (n > READ_BYTES)
        n = READ_BYTES;
    y->gap_bytes += n;
    if (y->gap_bytes > SPEC_YAML_GAP_BYTES)
        return 0;
    if (n)
        memcpy(into, y->bytes + y->read, n);
    y->read += n;
    *given = n;
    return 1;
}

struct spec_yaml *spec_yaml_new(const uint8_t *bytes, size_t len, struct spec_problems *problems)
{
    struct spec_yaml *y = need(calloc(1, sizeof *y));
    /* libyaml counts a byte order mark as a column when it is told the encoding, and then indents by it. */
    size_t mark = len >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3) ? 3 : 0;

    y->bytes = mark ? bytes + mark : bytes;
    y->len = len - mark;
    y->problems = problems;
    y->last = (struct spec_pos){1, 1};
    need(yaml_parser_initialize(&y->parser) ? y : NULL);
    yaml_parser_set_encoding(&y->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input(&y->parser, give_bytes, y);
    if (len > SPEC_MAX_BYTES)
        spec_yaml_stop(y, (struct spec_pos){0}, "%zu bytes are too many; a file may have %u", len,
                       SPEC_MAX_BYTES);
    return y;
}

static void event_done(struct spec_yaml *y)
{
    if (y->has_event)
        yaml_event_delete(&y->event);
    y->has_event = false;
}

void spec_yaml_free(struct spec_yaml *y)
{
    event_done(y);
    yaml_parser_delete(&y->parser);
    free(y);
}

bool spec_yaml_broken(const struct spec_yaml *y)
{
    return y->broken;
}

void spec_yaml_stop(struct spec_yaml *y, struct spec_pos pos, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    spec_problem_add(y->problems, pos, NULL, "%s", text);
    y->over = y->broken = true;
}

static struct spec_pos pos_of(yaml_mark_t mark)
{
    return (struct spec_pos){(uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

static struct spec_pos pos_of_offset(const struct spec_yaml *y, size_t offset)
{
    struct spec_pos pos = {1, 1};

    for (size_t i = 0; i < offset && i < y->len; i++) {
        if (y->bytes[i] == '\n')
            pos = (struct spec_pos){pos.line + 1, 1};
        else if ((y->bytes[i] & 0xc0) != 0x80)
            pos.column++;
    }
    return pos;
}

static void syntax_problem(struct spec_yaml *y)
{
    const yaml_parser_t *p = &y->parser;
    const char *problem = p->problem ? p->problem : "no reason given";

    if (p->error == YAML_MEMORY_ERROR)
        spec_yaml_stop(y, y->last, "out of memory");
    else if (y->gap_bytes > SPEC_YAML_GAP_BYTES)
        spec_yaml_stop(y, y->last, "a value or comment of more than %u bytes begins here; make it shorter",
                       SPEC_YAML_GAP_BYTES);
    else if (p->error == YAML_READER_ERROR)
        spec_yaml_stop(y, pos_of_offset(y, p->problem_offset),
                       "not a text in UTF-8: %s; write the file in UTF-8 without control characters",
                       problem);
    else
        spec_yaml_stop(y, pos_of(p->problem_mark), "not valid YAML: %s%s%s", p->context ? p->context : "",
                       p->context ? ", " : "", problem);
}

static const char *refusal(const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor)
        return "an anchor (&name) is not supported; write the value without it";
    if (tag)
        return "a tag (!name) is not supported; write the value without it";
    return NULL;
}

static void scalar(struct spec_yaml *y, struct spec_node *n)
{
    const yaml_event_t *e = &y->event;

    n->kind = SPEC_NODE_SCALAR;
    n->text = (const char *)e->data.scalar.value;
    n->len = e->data.scalar.length;
    n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    n->refused = refusal(e->data.scalar.anchor, e->data.scalar.tag);
    if (n->len > SPEC_MAX_SCALAR && !n->refused)
        n->refused = "is too long; a value may have 1572864 bytes";
}

/* False: an event that is no node. */
static bool node_of_event(struct spec_yaml *y, struct spec_node *n)
{
    const yaml_event_t *e = &y->event;

    *n = (struct spec_node){.pos = pos_of(e->start_mark)};
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        y->nodes = 0;
        y->documents++;
        n->kind = SPEC_NODE_DOC;
        return true;
    case YAML_MAPPING_START_EVENT:
        n->kind = SPEC_NODE_MAP;
        n->refused = refusal(e->data.mapping_start.anchor, e->data.mapping_start.tag);
        y->depth++;
        return true;
    case YAML_SEQUENCE_START_EVENT:
        n->kind = SPEC_NODE_LIST;
        n->refused = refusal(e->data.sequence_start.anchor, e->data.sequence_start.tag);
        y->depth++;
        return true;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        n->kind = SPEC_NODE_END;
        y->depth--;
        return true;
    case YAML_ALIAS_EVENT:
        n->kind = SPEC_NODE_SCALAR;
        n->text = "";
        n->refused = "an alias (*name) is not supported; write the value out";
        return true;
    case YAML_SCALAR_EVENT: scalar(y, n); return true;
    case YAML_STREAM_END_EVENT: y->over = true; return false;
    default: return false;
    }
}

static void limits(struct spec_yaml *y, const struct spec_node *n)
{
    if (y->depth > SPEC_MAX_DEPTH)
        spec_yaml_stop(y, n->pos, "nested deeper than %d levels; no field is that deep", SPEC_MAX_DEPTH);
    else if (++y->nodes > SPEC_YAML_NODES)
        spec_yaml_stop(y, n->pos, "a document with more than %d values; split it", SPEC_YAML_NODES);
    else if (y->documents > SPEC_MAX_SERVERS)
        spec_yaml_stop(y, n->pos, "more than %d documents; a file may have that many", SPEC_MAX_SERVERS);
    else if (y->problems->cut)
        y->over = y->broken = true;
}

bool spec_yaml_next(struct spec_yaml *y, struct spec_node *n)
{
    while (!y->over) {
        event_done(y);
        if (!yaml_parser_parse(&y->parser, &y->event)) {
            syntax_problem(y);
            return false;
        }
        y->has_event = true;
        y->gap_bytes = 0;
        y->last = pos_of(y->event.end_mark);
        if (node_of_event(y, n)) {
            limits(y, n);
            return !y->over;
        }
    }
    return false;
}

void spec_yaml_skip(struct spec_yaml *y, const struct spec_node *n)
{
    struct spec_node in;
    unsigned outside = y->depth - 1;

    if (n->kind != SPEC_NODE_MAP && n->kind != SPEC_NODE_LIST)
        return;
    while (y->depth > outside && spec_yaml_next(y, &in))
        ;
}
