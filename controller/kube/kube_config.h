/* kube_config.h - where the API server is, and as whom we speak to it
 * Shape:   --kubeconfig > $KUBECONFIG (a colon list, merged) > in-cluster > ~/.kube/config -> struct kube_config;
 *          its files are read again as they change (tokens, CAs, client certificates), exec plugins run again in time. As in
 *          client-go, ~/.kube/config is not looked at where $KUBECONFIG is set
 * Units:   *_ms of CLOCK_MONOTONIC
 * Owner:   kube_config_new ... kube_config_free; what kube_config_auth gives is borrowed until the loop's next turn
 * Errors:  NOT_FOUND (nowhere a configuration: the message names the places that were looked at), SYNTAX and INVALID with file
 *          and field; what is not supported is refused, not passed over (http://, impersonation, basic authentication,
 *          auth-provider). A file that cannot be read again, is empty or is no certificate leaves what was known in force
 * Limits:  files of 1 MiB; YAML as kube_yaml.h bounds it; an exec plugin gets KUBE_CONFIG_EXEC_MS and 1 MiB of output, and runs
 *          each 10 s at most; never a secret in a message
 * Threads: the loop's; an exec plugin runs beside it
 * Source:  client-go rest/config.go, clientcmd; k8s.md A1-A8; client.authentication.k8s.io/v1 */
#ifndef CONTROLLER_KUBE_KUBE_CONFIG_H
#define CONTROLLER_KUBE_KUBE_CONFIG_H

#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KUBE_CONFIG_EXEC_MS  30000
#define KUBE_CONFIG_TOKEN_MS 60000  /* a token file is read again that often at least (A2) */
#define KUBE_CONFIG_CERT_MS  300000 /* CAs and client certificates (A4, A5) */

struct kube_config;

struct kube_auth {
    const char *server;          /* "https://host:port[/prefix]", no slash at the end */
    const char *tls_server_name; /* NULL: the host of `server` */
    const char *
        proxy_url; /* http, https or socks5h, as curl takes it; NULL: HTTPS_PROXY and NO_PROXY of the environment */
    bool insecure_skip_verify;
    const char *ca_pem; /* NULL: the system's roots (only where a kubeconfig names no CA) */
    size_t ca_len;
    const char *cert_pem, *key_pem; /* client certificate, NULL: none */
    size_t cert_len, key_len;
    const char *token; /* NULL: none */
    uint64_t
        generation; /* rises when CA or client certificate change: connections made before are to be closed */
};

/* `path` is --kubeconfig's, or NULL. The environment is looked at here only. */
__attribute__((warn_unused_result)) int kube_config_new(struct loop *l, const char *path,
                                                        struct kube_config **out, struct err *err);
void kube_config_free(struct kube_config *c);
/* Reads what is due. False: an exec plugin is running, or has failed and given nothing yet (it is tried again each 10 s), so requests
 * wait (`out` is left alone); `ready` of kube_config_on_ready is called once that changes. A plugin that fails later leaves what it
 * gave before: the server will say 401. */
bool kube_config_auth(struct kube_config *c, struct kube_auth *out);
void kube_config_on_ready(struct kube_config *c, void (*ready)(void *arg), void *arg);
/* The server said 401, or its certificate did not verify: read token, CA and certificate files (or run the plugin) again now. True when one more
 * try makes sense at once: that gave something else than before, or will (kube_config_auth says when), or something else came
 * within the last 10 s, while the request was under way. */
bool kube_config_reject(struct kube_config *c);
/* The namespace of the service account or of the context; "default" when neither says. */
const char *kube_config_namespace(const struct kube_config *c);

#endif
