/* kube_yaml.h - one YAML or JSON document as a jansson value
 * Shape:   bytes -> json_t: plain null, true, false and JSON's numbers are those, every other scalar is a text
 * Owner:   the value is the caller's
 * Errors:  SYNTAX and LIMIT as "NAME:LINE:COLUMN: what"; of the content nothing is quoted: it may be a secret. Refused are aliases,
 *          tags other than !!str, a key that stands twice, a second document
 * Limits:  KUBE_YAML_BYTES, _DEPTH, _NODES
 * Threads: any; pure
 * Source:  YAML 1.1 as libyaml 0.2.5 reads it; k8s.md A8 */
#ifndef CONTROLLER_KUBE_KUBE_YAML_H
#define CONTROLLER_KUBE_KUBE_YAML_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define KUBE_YAML_BYTES (1u << 20)
#define KUBE_YAML_DEPTH 16
#define KUBE_YAML_NODES 65536

/* NULL: see err. No document at all is null. `name` is what messages call it. */
__attribute__((warn_unused_result)) json_t *kube_yaml_load(const char *name, const uint8_t *bytes, size_t len,
                                                           struct err *err);

#endif
