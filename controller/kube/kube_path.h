/* kube_path.h - names that may stand in a URL, and the URLs of resources
 * Shape:   (group, version, namespace, plural, name, subresource) -> "/apis/G/V/namespaces/NS/PLURAL/NAME/SUB", every segment escaped
 * Owner:   the text is the caller's
 * Errors:  none: a name that is no DNS-1123 subdomain is the caller's mistake (assert); ask kube_path_name_ok first
 * Limits:  a name of 253 bytes, a namespace of 63
 * Threads: any; pure
 * Source:  k8s.md A9; RFC 1123 2.1, RFC 3986 2.3 */
#ifndef CONTROLLER_KUBE_KUBE_PATH_H
#define CONTROLLER_KUBE_KUBE_PATH_H

#include <stdbool.h>
#include <stddef.h>

/* A DNS-1123 subdomain of at most 253 bytes; a label of at most 63. */
bool kube_path_name_ok(const char *name);
bool kube_path_label_ok(const char *name);
/* `group` "" is the core ("/api/v1"); ns, name and sub may be NULL. */
char *kube_path(const char *group, const char *version, const char *ns, const char *plural, const char *name,
                const char *sub);
/* PATH?KEY=VALUE..., or PATH&KEY=VALUE where a query stands already; the value escaped; replaces *path. */
void kube_path_query(char **path, const char *key, const char *value);

#endif
