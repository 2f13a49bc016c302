/* kube_exec.h - credential plugins: programs that say as whom we speak
 * Shape:   struct kube_plugin -> a process beside the loop -> one ExecCredential on its stdout -> struct kube_credential
 * Units:   life_ms milliseconds from when it was read
 * Owner:   kube_exec_new ... kube_exec_free, which ends what runs; the plugin is the caller's and outlives it, a credential is
 *          borrowed during `done`
 * Errors:  by `done`; a message never holds what the plugin has written
 * Limits:  KUBE_CONFIG_EXEC_MS and KUBE_EXEC_BYTES, then SIGKILL to its process group. It gets no terminal, no descriptor of ours,
 *          an empty stdin, and its stderr is dropped: tokens in it must not reach our log
 * Threads: the loop's; one process at a time
 * Source:  client.authentication.k8s.io/v1; client-go plugin/pkg/client/auth/exec; pidfd_open(2); k8s.md A8 */
#ifndef CONTROLLER_KUBE_KUBE_EXEC_H
#define CONTROLLER_KUBE_KUBE_EXEC_H

#include "base/err.h"
#include "base/loop.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KUBE_EXEC_BYTES (1u << 20)

struct kube_plugin {
    char *command;     /* with a slash: a path, else looked for in PATH */
    char **args;       /* NULL-ended, NULL: none */
    char **env;        /* "NAME=VALUE", NULL-ended, over ours; NULL: none */
    char *api_version; /* of what goes in and must come out */
    bool wants_cluster;
};

struct kube_credential {
    const char *token; /* NULL: none; then there is a pair */
    const char *cert_pem, *key_pem;
    bool ends;
    uint64_t life_ms; /* 0 with `ends`: over already, by the wall clock */
};

struct kube_exec;

/* `done`: exactly one of the two is not NULL. */
struct kube_exec *kube_exec_new(struct loop *l, const struct kube_plugin *plugin,
                                void (*done)(void *arg, const struct kube_credential *got,
                                             const struct err *failed),
                                void *arg);
void kube_exec_free(struct kube_exec *e);
/* Nothing happens while the last one has not ended. `cluster` (spec.cluster) is borrowed, NULL: left out. Never calls back before it
 * returns: a program that cannot be started fails in the next turn. */
void kube_exec_start(struct kube_exec *e, json_t *cluster);
/* True from the start until `done`. */
bool kube_exec_running(const struct kube_exec *e);

#endif
