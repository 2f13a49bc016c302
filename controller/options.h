/* options.h - the command line of tidegate-controller
 * Shape:   argv and POD_NAME, POD_NAMESPACE -> struct options; --help and --version are answered here
 * Units:   none
 * Owner:   strings borrow from argv and the environment
 * Errors:  a sentence on stderr that names the flag and what would be right; exit code 2 then
 * Limits:  OPTIONS_MAX_NAMESPACES
 * Threads: before any
 * Source:  design.md 4 "controller flags" */
#ifndef CONTROLLER_OPTIONS_H
#define CONTROLLER_OPTIONS_H

#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>

#define OPTIONS_MAX_NAMESPACES 64

struct options_namespaces {
    const char *names[OPTIONS_MAX_NAMESPACES];
    size_t count; /* 0: all */
};

struct options {
    bool exit;
    int exit_code;
    const char *kubeconfig; /* NULL: see kube_config.h */
    struct options_namespaces namespaces;
    struct options_namespaces secret_namespaces; /* 0: those of `namespaces` */
    const char *run_dir;
    bool sidecar;
    const char *gateway, *lease;
    bool leader_elect;
    const char *service; /* NULL: none */
    bool allow_local_backends;
    const char *pod_labels; /* NULL: none */
    const char *secrets_dir;
    const char *admin, *health; /* NULL: off */
    enum log_level log_level;
    const char *pod_name, *pod_namespace; /* NULL: not in the environment */
};

struct options options_parse(int argc, char **argv);
/* Whether a namespace is one of them; NULL and none are all. */
bool options_includes(const struct options_namespaces *in, const char *ns);
/* Where Secrets are read. */
const struct options_namespaces *options_secrets(const struct options *o);

#endif
