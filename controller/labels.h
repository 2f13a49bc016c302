/* labels.h - the labels of the pod that we are in, as the downward API writes them into a file
 * Shape:   lines of key="value" -> struct wss_label
 * Owner:   labels_free frees what labels_read gave
 * Errors:  NOT_FOUND, IO, SYNTAX with the line's number; nothing is given then
 * Limits:  WSS_MAX_LABELS, 64 KiB
 * Threads: any
 * Source:  Kubernetes downward API, fieldRef metadata.labels: values are quoted as Go's %q; label values hold nothing that it escapes */
#ifndef CONTROLLER_LABELS_H
#define CONTROLLER_LABELS_H

#include "wss.h"

__attribute__((warn_unused_result)) int labels_read(const char *path, struct wss_label **out, size_t *count,
                                                    struct err *err);
void labels_free(struct wss_label *labels, size_t count);

#endif
