/* kube_doc.h - what the API server's own documents say: lists, Statuses, discovery
 * Shape:   bytes of a reply -> json_t -> a page, a verdict, a set of versions
 * Owner:   kube_doc_read gives a reference; what the others give is borrowed from the document
 * Errors:  SYNTAX (no JSON), INVALID (not the kind of document that was asked for)
 * Limits:  KUBE_DOC_VERSIONS of a group; the bytes are bounded by whoever fetched them
 * Threads: any; pure
 * Source:  k8s.md L1-L4, L7, W7; apimachinery meta/v1 (ListMeta, Status, APIGroup, APIGroupList, APIResourceList) */
#ifndef CONTROLLER_KUBE_KUBE_DOC_H
#define CONTROLLER_KUBE_KUBE_DOC_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KUBE_DOC_VERSIONS 16

/* NULL with err set. A kind that ends differently than `kind_suffix` is INVALID ("List" for every list). */
json_t *kube_doc_read(const uint8_t *bytes, size_t len, const char *kind_suffix, struct err *err);

struct kube_page {
    json_t *items;       /* an array of objects */
    const char *version; /* of the whole list, never empty */
    const char *more;    /* the token of the next page, NULL: the last one */
};
__attribute__((warn_unused_result)) int kube_doc_page(const json_t *doc, struct kube_page *page,
                                                      struct err *err);
/* Its metadata.resourceVersion and metadata.name; NULL without one. */
const char *kube_doc_version(const json_t *object);
const char *kube_doc_name(const json_t *object);

enum kube_doc_verdict { KUBE_DOC_FAILED = 0, KUBE_DOC_EXPIRED, KUBE_DOC_TOO_NEW, KUBE_DOC_BUSY };

/* Of a Status (NULL: nothing is known but the code): the version is too old (410), newer than what the server has (504), or the server
 * asks for patience (429). retry_after_s 0: it does not say. */
enum kube_doc_verdict kube_doc_status(const json_t *status, int code, uint32_t *retry_after_s);
/* For people, else its reason; "" without one. */
const char *kube_doc_message(const json_t *status);

/* The names of an APIGroup's versions, the preferred one first; how many. Names that may not stand in a URL are left out. */
size_t kube_doc_versions(const json_t *group, const char *out[KUBE_DOC_VERSIONS]);
/* An APIResourceList knows the plural. */
bool kube_doc_has_plural(const json_t *resources, const char *plural);
/* An APIGroupList knows the group, and its version where that is not NULL. */
bool kube_doc_has_group(const json_t *groups, const char *group, const char *version);

#endif
