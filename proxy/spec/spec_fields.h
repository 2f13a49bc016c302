/* spec_fields.h - a YAML mapping whose keys are known -> calls of their readers
 * Shape:   a table of struct spec_field a mapping; each value goes to its `read`, which fills its place in the server
 * Units:   none
 * Owner:   all of it belongs to spec_parse_marked's stack; what the readers store belongs to the server
 * Errors:  unknown and doubled keys, values of the wrong kind: added to the problems, the rest is still read
 * Limits:  SPEC_READER_FIELDS keys a table
 * Threads: one a reader
 * Source:  design.md 3: an unknown key is an error, an empty value is an absent one */
#ifndef PROXY_SPEC_SPEC_FIELDS_H
#define PROXY_SPEC_SPEC_FIELDS_H

#include "spec/spec_yaml.h"

#define SPEC_READER_FIELDS 24
#define SPEC_COUNT(array)  (sizeof(array) / sizeof *(array))

struct spec_reader {
    struct spec_yaml *y;
    struct spec_problems *problems;
    struct spec_server *s; /* the document's */
    void *base;            /* what `at` and `pos_at` count from: s, or an item of a list */
    unsigned bad;          /* enum spec_mark */
    bool has_kind, wrong_kind;
    char field[96]; /* whose value is being read, with its parents: "tls.certFile" */
};

struct spec_field {
    const char *name;
    enum spec_node_kind kind;
    void (*read)(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v);
    size_t at;         /* of the value, from the reader's base */
    size_t pos_at;     /* of its position, 0: none */
    unsigned mark;     /* what is spoilt by a problem here */
    const char *other; /* the field that fills the same value */
};

/* "FIELD: ..." with the field that is being read. */
void spec_reader_problem(struct spec_reader *p, struct spec_pos pos, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *spec_reader_target(const struct spec_reader *p, const struct spec_field *f);
/* Nothing, null or an empty text. */
bool spec_reader_absent(const struct spec_node *v);
/* Numbers and bools must not be quoted: "true" in quotes is a text in YAML. False then, after saying so. */
bool spec_reader_plain(struct spec_reader *p, const struct spec_node *v);
/* Reads a mapping up to its end; p->field holds its parents. */
void spec_reader_fields(struct spec_reader *p, const struct spec_field *fields, size_t count);

/* The readers of spec_backends.c: `backend`, and the list. */
void spec_read_url(struct spec_reader *p, const struct spec_field *f, const struct spec_node *v);
void spec_read_backends(struct spec_reader *p, const struct spec_field *f, const struct spec_node *list);

#endif
