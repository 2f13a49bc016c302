/* kube_context.h - kubeconfig files, merged, and what the current context of them says
 * Shape:   bytes of each file -> kube_contexts_add -> struct kube_contexts -> kube_contexts_current -> struct kube_context
 * Owner:   the caller: kube_contexts_free, kube_context_free (secrets are overwritten); everything in a kube_context is a copy
 * Errors:  SYNTAX (file, line, column), INVALID (file and field), NOT_FOUND (nothing is configured in any of the files);
 *          never a value that may be a secret
 * Limits:  those of kube_yaml.h
 * Threads: any; no file is opened here
 * Source:  client-go tools/clientcmd (loader.go, client_config.go, validation.go); k8s.md A7, A8. The first file to say something
 *          wins, for current-context as for each cluster, user and context by its name. Other than there are refused, not passed over:
 *          http://, impersonation, username and password */
#ifndef CONTROLLER_KUBE_KUBE_CONTEXT_H
#define CONTROLLER_KUBE_KUBE_CONTEXT_H

#include "kube/kube_exec.h"

struct kube_contexts {
    json_t *clusters, *users, *contexts; /* name -> [file, what it says] */
    char *current;                       /* NULL: none */
    char *files;                         /* "a, b": for messages, NULL: none */
};

/* One source of bytes: what stands in the file itself, or the path of another one. */
struct kube_source {
    char *data; /* decoded; a NUL behind it */
    size_t len;
    char *path; /* NULL with data */
};

struct kube_context {
    char *server, *tls_server_name, *proxy_url, *ns; /* NULL where nothing is said, but for `server` */
    bool insecure;
    struct kube_source ca, cert, key, token;
    struct kube_plugin plugin; /* command NULL: none */
    json_t *plugin_config;     /* of the cluster, for spec.cluster.config; NULL: none */
};

/* `path` is what messages say; relative paths in it are below its folder. */
__attribute__((warn_unused_result)) int kube_contexts_add(struct kube_contexts *all, const char *path,
                                                          const uint8_t *bytes, size_t len, struct err *err);
__attribute__((warn_unused_result)) int kube_contexts_current(const struct kube_contexts *all,
                                                              struct kube_context *out, struct err *err);
void kube_contexts_free(struct kube_contexts *all);
void kube_context_free(struct kube_context *c);
bool kube_source_given(const struct kube_source *s);

#endif
