#include "kube/kube_config.h"

#include "base/file.h"
#include "base/log.h"
#include "base/need.h"
#include "kube/kube_context.h"
#include "kube/kube_creds.h"
#include "kube/kube_exec.h"
#include "kube/kube_path.h"
#include "kube/kube_yaml.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_BYTES      (1u << 20)
#define SERVICE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"
/* An exec plugin runs not more often than that, and what came within it is what a request that was refused had not got yet. */
#define PACE_MS 10000

/* Where a configuration is looked for. */
struct places {
    const char *flag;
    const char *list; /* $KUBECONFIG */
    const char *home;
    const char *host, *port; /* of the API server, for pods */
    const char *service_account;
};

/* Lent to callers until the loop's next turn: so long it outlives the one that replaces it. */
struct value {
    struct loop_dead dead;
    size_t len;
    char bytes[]; /* a NUL behind them */
};

struct kube_config {
    struct loop *loop;
    struct kube_context context;
    char *proxy_url;                       /* as curl says it, NULL: none */
    struct value *ca, *cert, *key, *token; /* NULL: none */
    uint64_t generation;
    uint64_t token_ms, certs_ms;         /* when the files were read */
    uint64_t changed_ms;                 /* when anything of it last became something else, 0: never */
    bool token_said, ca_said, pair_said; /* that the file cannot be used, in the log */
    struct kube_exec *exec;              /* NULL: no plugin */
    bool known;                          /* the plugin has given something */
    bool rejected;              /* and the server does not want it: requests wait for the run that goes on */
    bool waiting;               /* `ready` is to be called */
    struct loop_timer again;    /* nothing is known and the last run failed */
    uint64_t run_ms;            /* when the last run ended, 0: none */
    uint64_t renew_ms, over_ms; /* 0: never */
    void (*ready)(void *arg);
    void *ready_arg;
    struct loop_dead dead;
};

/* ---- values ---- */

static void release_value(struct loop_dead *d)
{
    struct value *v = (struct value *)((char *)d - offsetof(struct value, dead));

    kube_creds_free(v, sizeof *v + v->len);
}

static struct value *value_new(const void *bytes, size_t len)
{
    struct value *v = need(malloc(sizeof *v + len + 1));

    v->len = len;
    memcpy(v->bytes, bytes, len);
    v->bytes[len] = '\0';
    v->dead.release = release_value;
    return v;
}

static bool same(const struct value *a, const struct value *b)
{
    return a == b || (a && b && a->len == b->len && !memcmp(a->bytes, b->bytes, a->len));
}

/* Takes `v`. True: it is something else than what was there. */
static bool put(struct kube_config *c, struct value **into, struct value *v)
{
    struct value *old = *into;
    bool changed = !same(old, v);

    *into = v;
    if (old)
        loop_free_later(c->loop, &old->dead);
    if (changed)
        c->changed_ms = c->loop->now_ms;
    return changed;
}

/* Without the blanks around it. NULL: it cannot be read, or nothing stands in it. */
static struct value *read_value(const char *path, struct err *err)
{
    struct value *v = NULL;
    struct buf b;
    size_t from = 0;

    buf_init(&b, FILE_BYTES);
    if (!file_read(path, &b, err)) {
        while (b.len && isspace(b.data[b.len - 1]))
            b.len--;
        while (from < b.len && isspace(b.data[from]))
            from++;
        if (from < b.len)
            v = value_new(b.data + from, b.len - from);
        else
            err_set(err, ERR_INVALID, "%s: is empty", path);
    }
    kube_creds_free(b.data, b.cap);
    return v;
}

static struct value *read_source(const struct kube_source *s, struct err *err)
{
    return s->data ? value_new(s->data, s->len) : read_value(s->path, err);
}

static void drop(struct value *v)
{
    if (v)
        release_value(&v->dead);
}

/* ---- files, again and again ---- */

static int read_token(struct kube_config *c, struct err *err)
{
    struct value *v;

    if (!kube_source_given(&c->context.token))
        return 0;
    v = read_source(&c->context.token, err);
    if (!v)
        return -1;
    if (strlen(v->bytes) != v->len || !kube_creds_token_ok(v->bytes)) {
        drop(v);
        return err_set(err, ERR_INVALID, "%s: is no token: a blank or a byte that cannot stand in a header",
                       c->context.token.path);
    }
    put(c, &c->token, v);
    return 0;
}

static int read_ca(struct kube_config *c, struct err *err)
{
    struct value *v;

    if (!kube_source_given(&c->context.ca))
        return 0;
    v = read_source(&c->context.ca, err);
    if (!v)
        return -1;
    if (!kube_creds_certs_ok(v->bytes, v->len)) {
        drop(v);
        return err_set(err, ERR_INVALID, "%s: holds no certificate that can be read", c->context.ca.path);
    }
    c->generation += put(c, &c->ca, v);
    return 0;
}

/* Both or none: in the midst of a rotation one may be of the new pair and the other of the old one. */
static int read_pair(struct kube_config *c, struct err *err)
{
    const struct kube_context *x = &c->context;
    struct value *cert, *key = NULL;
    bool changed;

    if (!kube_source_given(&x->cert))
        return 0;
    cert = read_source(&x->cert, err);
    if (cert)
        key = read_source(&x->key, err);
    if (!key) {
        drop(cert);
        return -1;
    }
    if (!kube_creds_pair_ok(cert->bytes, cert->len, key->bytes, key->len)) {
        drop(cert);
        drop(key);
        return err_set(err, ERR_INVALID, "%s and %s: no certificate and its key (without a passphrase)",
                       x->cert.path ? x->cert.path : "client-certificate-data",
                       x->key.path ? x->key.path : "client-key-data");
    }
    changed = put(c, &c->cert, cert);
    changed = put(c, &c->key, key) || changed;
    c->generation += changed;
    return 0;
}

/* What was known stays. Said once, until it is well again. */
static void read_again(struct kube_config *c, int (*read)(struct kube_config *c, struct err *err), bool *said)
{
    struct err err;
    bool failed = read(c, &err) != 0;

    if (failed && !*said)
        log_msg(LOG_WARN, "credentials", "%s; what was read before is used on", err.msg);
    *said = failed;
}

static void token_again(struct kube_config *c)
{
    if (c->context.token.path)
        read_again(c, read_token, &c->token_said);
    c->token_ms = c->loop->now_ms;
}

static void certs_again(struct kube_config *c)
{
    if (c->context.ca.path)
        read_again(c, read_ca, &c->ca_said);
    if (c->context.cert.path || c->context.key.path)
        read_again(c, read_pair, &c->pair_said);
    c->certs_ms = c->loop->now_ms;
}

/* ---- the plugin ---- */

static void set_text(json_t *in, const char *key, const char *text)
{
    if (text)
        json_object_set_new(in, key, need(json_string_nocheck(text)));
}

/* spec.cluster of client.authentication.k8s.io/v1 */
static json_t *cluster_info(const struct kube_config *c)
{
    const struct kube_context *x = &c->context;
    json_t *info = need(json_object());
    char *ca = c->ca ? kube_creds_base64_encode(c->ca->bytes, c->ca->len) : NULL;

    set_text(info, "server", x->server);
    set_text(info, "tls-server-name", x->tls_server_name);
    set_text(info, "certificate-authority-data", ca);
    set_text(info, "proxy-url", x->proxy_url);
    if (x->insecure)
        json_object_set_new(info, "insecure-skip-tls-verify", json_true());
    if (x->plugin_config)
        json_object_set(info, "config", x->plugin_config);
    free(ca);
    return info;
}

static void run_plugin(struct kube_config *c)
{
    json_t *info = c->context.plugin.wants_cluster ? cluster_info(c) : NULL;

    kube_exec_start(c->exec, info);
    json_decref(info);
}

static struct value *value_of_text(const char *text)
{
    return text ? value_new(text, strlen(text)) : NULL;
}

static void take(struct kube_config *c, const struct kube_credential *got)
{
    uint64_t now = c->loop->now_ms;
    bool changed;

    put(c, &c->token, value_of_text(got->token));
    changed = put(c, &c->cert, value_of_text(got->cert_pem));
    changed = put(c, &c->key, value_of_text(got->key_pem)) || changed;
    c->generation += changed;
    c->known = true;
    c->renew_ms = got->ends ? now + got->life_ms / 5 * 4 : 0;
    c->over_ms = got->ends ? now + got->life_ms : 0;
}

static void on_plugin_done(void *arg, const struct kube_credential *got, const struct err *failed)
{
    struct kube_config *c = arg;

    if (got)
        take(c, got);
    else
        log_msg(LOG_WARN, "credentials", "%s", failed->msg);
    c->run_ms = c->loop->now_ms;
    c->rejected = false;
    if (!c->known) {
        loop_timer_set(c->loop, &c->again, c->run_ms + PACE_MS);
    } else if (c->waiting) {
        c->waiting = false;
        if (c->ready)
            c->ready(c->ready_arg);
    }
}

static void on_again(struct loop_timer *t)
{
    struct kube_config *c = (struct kube_config *)((char *)t - offsetof(struct kube_config, again));

    run_plugin(c);
    if (!kube_exec_running(c->exec)) /* the last one was killed and is not gone yet */
        loop_timer_set(c->loop, &c->again, c->loop->now_ms + PACE_MS);
}

static bool plugin_is_due(const struct kube_config *c)
{
    uint64_t now = c->loop->now_ms;

    if (kube_exec_running(c->exec) || (c->run_ms && now < c->run_ms + PACE_MS))
        return false;
    return !c->known || (c->renew_ms && now >= c->renew_ms);
}

/* True: requests wait for it. As nobody they are not sent: 403 would look like a right that is missing. */
static bool plugin_holds_up(struct kube_config *c)
{
    if (plugin_is_due(c))
        run_plugin(c);
    return !c->known ||
           (kube_exec_running(c->exec) && (c->rejected || (c->over_ms && c->loop->now_ms >= c->over_ms)));
}

/* ---- what others ask ---- */

bool kube_config_auth(struct kube_config *c, struct kube_auth *out)
{
    const struct kube_context *x = &c->context;
    uint64_t now = c->loop->now_ms;

    if (now >= c->token_ms + KUBE_CONFIG_TOKEN_MS)
        token_again(c);
    if (now >= c->certs_ms + KUBE_CONFIG_CERT_MS)
        certs_again(c);
    if (c->exec && plugin_holds_up(c)) {
        c->waiting = true;
        return false;
    }
    *out = (struct kube_auth){
        .server = x->server,
        .tls_server_name = x->tls_server_name,
        .proxy_url = c->proxy_url,
        .insecure_skip_verify = x->insecure,
        .ca_pem = c->ca ? c->ca->bytes : NULL,
        .ca_len = c->ca ? c->ca->len : 0,
        .cert_pem = c->cert ? c->cert->bytes : NULL,
        .cert_len = c->cert ? c->cert->len : 0,
        .key_pem = c->key ? c->key->bytes : NULL,
        .key_len = c->key ? c->key->len : 0,
        .token = c->token ? c->token->bytes : NULL,
        .generation = c->generation,
    };
    return true;
}

void kube_config_on_ready(struct kube_config *c, void (*ready)(void *arg), void *arg)
{
    c->ready = ready;
    c->ready_arg = arg;
}

bool kube_config_reject(struct kube_config *c)
{
    uint64_t now = c->loop->now_ms;

    token_again(c);
    certs_again(c);
    if (c->exec && !kube_exec_running(c->exec) && (!c->run_ms || now >= c->run_ms + PACE_MS))
        run_plugin(c);
    if (c->exec && kube_exec_running(c->exec)) {
        c->rejected = true;
        return true;
    }
    /* Or an answer to another request, or the clock, has made it so while this one was under way. */
    return c->changed_ms && now < c->changed_ms + PACE_MS;
}

const char *kube_config_namespace(const struct kube_config *c)
{
    return c->context.ns ? c->context.ns : "default";
}

/* ---- where it comes from ---- */

/* A file that is not there is none. */
static int add_file(struct kube_contexts *all, const char *path, bool must, struct err *err)
{
    struct buf b;
    int failed;

    buf_init(&b, KUBE_YAML_BYTES);
    failed = file_read(path, &b, err);
    if (!failed)
        failed = kube_contexts_add(all, path, b.data, b.len, err);
    else if (!must && err->code == ERR_NOT_FOUND)
        failed = 0;
    kube_creds_free(b.data, b.cap);
    return failed;
}

static int from_file(const char *path, struct kube_context *out, struct err *err)
{
    struct kube_contexts all = {0};
    int failed = add_file(&all, path, true, err) || kube_contexts_current(&all, out, err);

    kube_contexts_free(&all);
    return failed ? -1 : 0;
}

static int from_list(const char *list, struct kube_context *out, struct err *err)
{
    struct kube_contexts all = {0};
    char *copy = need(strdup(list)), *rest = copy, *path;
    int failed = 0;

    while (!failed && (path = strsep(&rest, ":")))
        if (*path)
            failed = add_file(&all, path, false, err);
    if (!failed && !all.files)
        failed = err_set(err, ERR_NOT_FOUND, "%s: no such file", list);
    if (!failed)
        failed = kube_contexts_current(&all, out, err);
    kube_contexts_free(&all);
    free(copy);
    return failed;
}

/* Not said is fine; said wrongly is not. */
static int read_namespace(const char *folder, char **out, struct err *err)
{
    char *path = need_printf("%s/namespace", folder);
    struct err none;
    struct value *v = read_value(path, &none);
    int failed = v && !kube_path_label_ok(v->bytes)
                     ? err_set(err, ERR_INVALID, "%s: is no name of a namespace", path)
                     : 0;

    *out = v && !failed ? need(strdup(v->bytes)) : NULL;
    drop(v);
    free(path);
    return failed;
}

static int from_cluster(const struct places *p, struct kube_context *out, struct err *err)
{
    bool v6;

    if (!p->host || !*p->host || !p->port || !*p->port) {
        err_set(err, ERR_NOT_FOUND,
                "not in a cluster (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set)");
        return -1;
    }
    *out = (struct kube_context){.token.path = need_printf("%s/token", p->service_account),
                                 .ca.path = need_printf("%s/ca.crt", p->service_account)};
    v6 = strchr(p->host, ':') != NULL;
    out->server = need_printf("https://%s%s%s:%s", v6 ? "[" : "", p->host, v6 ? "]" : "", p->port);
    if (access(out->token.path, F_OK))
        err_set(err, ERR_NOT_FOUND, "in a cluster, without a service account (no %s)", out->token.path);
    else if (!read_namespace(p->service_account, &out->ns, err))
        return 0;
    kube_context_free(out);
    return -1;
}

/* --kubeconfig > $KUBECONFIG > the pod's service account > ~/.kube/config. Only where nothing is, the next one is asked. */
static int look(const struct places *p, struct kube_context *out, struct err *err)
{
    struct err list = {0}, pod, home = {0};

    if (p->flag)
        return from_file(p->flag, out, err);
    if (p->list && *p->list) {
        if (!from_list(p->list, out, &list))
            return 0;
        if (list.code != ERR_NOT_FOUND) {
            *err = list;
            return err_prefix(err, "$KUBECONFIG");
        }
    }
    if (!from_cluster(p, out, &pod))
        return 0;
    if (pod.code != ERR_NOT_FOUND) {
        *err = pod;
        return -1;
    }
    /* As client-go: who has set $KUBECONFIG does not mean this file. */
    if (!list.code && p->home && *p->home) {
        char *path = need_printf("%s/.kube/config", p->home);
        int failed = from_file(path, out, &home);

        free(path);
        if (!failed)
            return 0;
        if (home.code != ERR_NOT_FOUND) {
            *err = home;
            return -1;
        }
    }
    return err_set(err, ERR_NOT_FOUND,
                   "no API server is configured: --kubeconfig is not given; $KUBECONFIG: %.150s; %.150s; "
                   "~/.kube/config: %.150s",
                   list.code ? list.msg : "not set", pod.msg,
                   home.code ? home.msg : (list.code ? "not looked at" : "there is no $HOME"));
}

/* Go leaves the names to a SOCKS proxy; curl calls that socks5h. */
static char *proxy_for_curl(const char *url)
{
    static const char socks[] = "socks5://";

    if (!url || strncmp(url, socks, sizeof socks - 1) != 0)
        return url ? need(strdup(url)) : NULL;
    return need_printf("socks5h://%s", url + sizeof socks - 1);
}

static int open_from(struct loop *l, const struct places *p, struct kube_config **out, struct err *err)
{
    struct kube_context context = {0};
    struct kube_config *c;

    if (look(p, &context, err))
        return -1;
    c = need(calloc(1, sizeof *c));
    c->loop = l;
    c->context = context;
    c->proxy_url = proxy_for_curl(context.proxy_url);
    c->again.fire = on_again;
    c->token_ms = c->certs_ms = l->now_ms;
    if (c->context.plugin.command)
        c->exec = kube_exec_new(l, &c->context.plugin, on_plugin_done, c);
    if (read_token(c, err) || read_ca(c, err) || read_pair(c, err)) {
        kube_config_free(c);
        return -1;
    }
    c->generation = 1;
    c->changed_ms = 0;
    *out = c;
    return 0;
}

int kube_config_new(struct loop *l, const char *path, struct kube_config **out, struct err *err)
{
    const struct places p = {
        .flag = path,
        .list = getenv("KUBECONFIG"),
        .home = getenv("HOME"),
        .host = getenv("KUBERNETES_SERVICE_HOST"),
        .port = getenv("KUBERNETES_SERVICE_PORT"),
        .service_account = SERVICE_ACCOUNT,
    };

    return open_from(l, &p, out, err);
}

static void release_config(struct loop_dead *d)
{
    struct kube_config *c = (struct kube_config *)((char *)d - offsetof(struct kube_config, dead));

    drop(c->ca);
    drop(c->cert);
    drop(c->key);
    drop(c->token);
    kube_creds_free(c->proxy_url, c->proxy_url ? strlen(c->proxy_url) : 0);
    kube_context_free(&c->context);
    free(c);
}

void kube_config_free(struct kube_config *c)
{
    if (!c)
        return;
    kube_exec_free(c->exec);
    c->exec = NULL;
    loop_timer_clear(&c->again);
    c->dead.release = release_config;
    loop_free_later(c->loop, &c->dead);
}
