/* spec_yaml.h - YAML bytes as a bounded stream of nodes, on libyaml's events
 * Shape:   spec_yaml_next walks: DOC (root ... END) DOC ... ; a MAP is key value key value END, a LIST is item item END
 * Units:   positions count lines and columns from 1
 * Owner:   new/free; a node's text borrows from the stream until the next call
 * Errors:  what is not YAML and what passes a limit is added to the problems, once, and ends the stream
 * Limits:  SPEC_MAX_BYTES, _SERVERS (documents), _DEPTH, _SCALAR, SPEC_YAML_NODES a document, SPEC_YAML_GAP_BYTES
 *          between two nodes, so that nothing large is ever collected; aliases, anchors and tags come as `refused`
 * Threads: one a stream
 * Source:  YAML 1.1 as libyaml 0.2.5 reads it; bar S52 */
#ifndef PROXY_SPEC_SPEC_YAML_H
#define PROXY_SPEC_SPEC_YAML_H

#include "spec/spec.h"

#define SPEC_YAML_NODES     8192
#define SPEC_YAML_GAP_BYTES (2048u * 1024)

enum spec_node_kind { SPEC_NODE_DOC = 0, SPEC_NODE_SCALAR, SPEC_NODE_MAP, SPEC_NODE_LIST, SPEC_NODE_END };

struct spec_node {
    enum spec_node_kind kind;
    struct spec_pos pos;
    const char *text; /* a scalar's UTF-8, NUL behind it and perhaps inside */
    size_t len;
    bool plain;          /* not quoted, not a block: may be a number, a bool, nothing */
    const char *refused; /* why a value cannot stand here ("an alias..."), or NULL */
};

struct spec_yaml;

struct spec_yaml *spec_yaml_new(const uint8_t *bytes, size_t len, struct spec_problems *problems);
void spec_yaml_free(struct spec_yaml *y);
/* False: the stream is over, by its end or by a problem that was added. */
bool spec_yaml_next(struct spec_yaml *y, struct spec_node *n);
/* Reads over the rest of what `n` opened; nothing to do for a scalar. */
void spec_yaml_skip(struct spec_yaml *y, const struct spec_node *n);
/* Adds the problem and ends the stream. */
void spec_yaml_stop(struct spec_yaml *y, struct spec_pos pos, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* True once a problem ended it: what was being read is not whole. */
bool spec_yaml_broken(const struct spec_yaml *y);

#endif
