#include "kube/kube_context.h"

#include "base/need.h"
#include "kube/kube_creds.h"
#include "kube/kube_path.h"
#include "kube/kube_yaml.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EXEC_GROUP "client.authentication.k8s.io/"

/* Where a value stands, for messages and for relative paths. */
struct place {
    const char *file;
    const char *list; /* "users" */
    const char *name;
    const char *part; /* "user", "user.exec" */
};

static void free_secret(char *text)
{
    kube_creds_free(text, text ? strlen(text) : 0);
}

bool kube_source_given(const struct kube_source *s)
{
    return s->data || s->path;
}

static int bad(const struct place *at, const char *key, struct err *err, const char *what)
{
    return err_set(err, ERR_INVALID, "%s: %s[%s].%s%s%s: %s", at->file, at->list, at->name, at->part,
                   key ? "." : "", key ? key : "", what);
}

/* NULL when it is absent, null or empty. Borrowed. */
static int text(const struct place *at, const json_t *in, const char *key, const char **out, struct err *err)
{
    const json_t *v = json_object_get(in, key);

    *out = NULL;
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_string(v))
        return bad(at, key, err, "must be a text; put it in quotes");
    if (json_string_length(v))
        *out = json_string_value(v);
    return 0;
}

static int copied(const struct place *at, const json_t *in, const char *key, char **out, struct err *err)
{
    const char *v;

    if (text(at, in, key, &v, err))
        return -1;
    if (v)
        *out = need(strdup(v));
    return 0;
}

static int boolean(const struct place *at, const json_t *in, const char *key, bool *out, struct err *err)
{
    const json_t *v = json_object_get(in, key);

    if (v && !json_is_null(v) && !json_is_boolean(v))
        return bad(at, key, err, "must be true or false");
    *out = json_is_true(v);
    return 0;
}

/* Below the kubeconfig's own folder, unless it is absolute. */
static char *resolved(const struct place *at, const char *path)
{
    const char *slash = strrchr(at->file, '/');

    if (*path == '/' || !slash)
        return need_printf("%s%s", *path == '/' ? "" : "./", path);
    return need_printf("%.*s%s", (int)(slash - at->file + 1), at->file, path);
}

/* KEY-data wins over KEY, as in client-go. */
static int source(const struct place *at, const json_t *in, const char *key, struct kube_source *out,
                  struct err *err)
{
    char data_key[64];
    const char *data, *path;

    snprintf(data_key, sizeof data_key, "%s-data", key);
    if (text(at, in, data_key, &data, err) || text(at, in, key, &path, err))
        return -1;
    if (data) {
        out->data = (char *)kube_creds_base64_decode(data, &out->len);
        return out->data ? 0 : bad(at, data_key, err, "is not base64");
    }
    if (path)
        out->path = resolved(at, path);
    return 0;
}

/* ---- the files ---- */

static json_t *list_of(struct kube_contexts *all, const char *list)
{
    json_t **map = !strcmp(list, "clusters") ? &all->clusters
                   : !strcmp(list, "users")  ? &all->users
                                             : &all->contexts;

    if (!*map)
        *map = need(json_object());
    return *map;
}

/* One of `clusters: [{name: N, cluster: {...}}]`. `mine` holds the names that this file has had. */
static int add_entry(json_t *into, json_t *mine, const char *file, const char *list, const char *part,
                     const json_t *entry, struct err *err)
{
    struct place at = {.file = file, .list = list, .name = "", .part = part};
    json_t *value = json_object_get(entry, part), *pair;
    const char *name;

    if (!json_is_object(entry))
        return err_set(err, ERR_INVALID, "%s: %s: must be a list of maps with name and %s", file, list, part);
    if (text(&at, entry, "name", &name, err))
        return -1;
    at.name = name ? name : "";
    if (!name)
        return err_set(err, ERR_INVALID, "%s: %s: one has no name", file, list);
    if (value && !json_is_null(value) && !json_is_object(value))
        return bad(&at, NULL, err, "must be a map");
    if (json_object_get(mine, name))
        return bad(&at, NULL, err, "the name stands twice; take one out");
    json_object_set_new(mine, name, json_true());
    if (json_object_get(into, name))
        return 0;
    pair = need(json_array());
    json_array_append_new(pair, need(json_string_nocheck(file))); /* a path need not be UTF-8 */
    json_array_append_new(pair, json_is_object(value) ? json_incref(value) : need(json_object()));
    json_object_set_new(into, name, pair);
    return 0;
}

static int add_list(struct kube_contexts *all, const char *file, const json_t *root, const char *list,
                    const char *part, struct err *err)
{
    const json_t *entries = json_object_get(root, list);
    json_t *mine;
    size_t i;
    const json_t *entry;
    int failed = 0;

    if (!entries || json_is_null(entries))
        return 0;
    if (!json_is_array(entries))
        return err_set(err, ERR_INVALID, "%s: %s: must be a list", file, list);
    mine = need(json_object());
    json_array_foreach(entries, i, entry)
    {
        failed = failed || add_entry(list_of(all, list), mine, file, list, part, entry, err);
    }
    json_decref(mine);
    return failed ? -1 : 0;
}

static int add_root(struct kube_contexts *all, const char *path, const json_t *root, struct err *err)
{
    const json_t *kind = json_object_get(root, "kind"), *current = json_object_get(root, "current-context");
    const char *context = json_string_value(current);
    char *files;

    if (!json_is_object(root) && !json_is_null(root))
        return err_set(err, ERR_INVALID, "%s: is no kubeconfig; it must be a map", path);
    if (kind && (!json_is_string(kind) || strcmp(json_string_value(kind), "Config") != 0))
        return err_set(err, ERR_INVALID, "%s: kind: is no kubeconfig, whose kind is Config", path);
    if (current && !json_is_null(current) && !context)
        return err_set(err, ERR_INVALID, "%s: current-context: must be a text; put it in quotes", path);
    if (add_list(all, path, root, "clusters", "cluster", err) ||
        add_list(all, path, root, "users", "user", err) ||
        add_list(all, path, root, "contexts", "context", err))
        return -1;
    if (!all->current && context && *context)
        all->current = need(strdup(context));
    files = need_printf("%s%s%s", all->files ? all->files : "", all->files ? ", " : "", path);
    free(all->files);
    all->files = files;
    return 0;
}

int kube_contexts_add(struct kube_contexts *all, const char *path, const uint8_t *bytes, size_t len,
                      struct err *err)
{
    json_t *root = kube_yaml_load(path, bytes, len, err);
    int failed = root ? add_root(all, path, root, err) : -1;

    json_decref(root);
    return failed;
}

void kube_contexts_free(struct kube_contexts *all)
{
    json_decref(all->clusters);
    json_decref(all->users);
    json_decref(all->contexts);
    free(all->current);
    free(all->files);
    *all = (struct kube_contexts){0};
}

/* ---- the cluster ---- */

/* host, host:port, [v6], [v6]:port; whatever more a URL may hold has no place here. */
static bool authority_ok(const char *p, size_t len)
{
    const char *end = p + len, *host = p;
    unsigned port = 0;

    if (len && *p == '[') {
        p++;
        while (p < end && (strchr("0123456789abcdefABCDEF:.", *p)))
            p++;
        if (p - host < 3 || p == end || *p++ != ']')
            return false;
    } else {
        while (p < end && *p != ':' && (unsigned char)*p > ' ' && (unsigned char)*p < 0x7f &&
               !strchr("@[]\\<>\"{}|^`%", *p))
            p++;
        if (p == host)
            return false;
    }
    if (p == end)
        return true;
    if (*p++ != ':' || p == end || end - p > 5)
        return false;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        port = port * 10 + (unsigned)(*p - '0');
    return p == end && port >= 1 && port <= 65535;
}

static int server(const struct place *at, const json_t *in, char **out, struct err *err)
{
    const char *url, *rest;
    size_t len;

    if (text(at, in, "server", &url, err))
        return -1;
    if (!url)
        return bad(at, "server", err, "is missing");
    if (!strncasecmp(url, "http://", 7))
        return bad(at, "server", err, "is http://; credentials are sent over https:// only");
    if (strncasecmp(url, "https://", 8) != 0)
        return bad(at, "server", err, "must begin with https://");
    rest = url + 8;
    len = strcspn(rest, "/?#");
    if (!authority_ok(rest, len) || !kube_creds_token_ok(url) || strpbrk(rest + len, "?#"))
        return bad(at, "server", err, "must be https://HOST[:PORT][/PATH]");
    len = strlen(rest);
    while (rest[len - 1] == '/')
        len--;
    *out = need_printf("https://%.*s", (int)len, rest);
    return 0;
}

static int proxy(const struct place *at, const json_t *in, char **out, struct err *err)
{
    static const char *const schemes[] = {"http://", "https://", "socks5://"};
    const char *url;

    if (text(at, in, "proxy-url", &url, err))
        return -1;
    if (!url)
        return 0;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (!strncmp(url, schemes[i], strlen(schemes[i])) && kube_creds_token_ok(url)) {
            *out = need(strdup(url));
            return 0;
        }
    return bad(at, "proxy-url", err, "must begin with http://, https:// or socks5://");
}

static json_t *plugin_config(const json_t *cluster)
{
    const json_t *all = json_object_get(cluster, "extensions");
    const json_t *one;
    size_t i;

    json_array_foreach(all, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));

        if (name && !strcmp(name, EXEC_GROUP "exec"))
            return json_incref(json_object_get(one, "extension"));
    }
    return NULL;
}

static int cluster(const struct place *at, const json_t *in, struct kube_context *c, struct err *err)
{
    if (server(at, in, &c->server, err) || copied(at, in, "tls-server-name", &c->tls_server_name, err) ||
        boolean(at, in, "insecure-skip-tls-verify", &c->insecure, err) ||
        source(at, in, "certificate-authority", &c->ca, err) || proxy(at, in, &c->proxy_url, err))
        return -1;
    if (c->insecure && kube_source_given(&c->ca))
        return bad(at, "insecure-skip-tls-verify", err,
                   "makes no sense with a certificate-authority; take one out");
    if (c->ca.data && !kube_creds_certs_ok(c->ca.data, c->ca.len))
        return bad(at, "certificate-authority-data", err, "holds no certificate that can be read");
    c->plugin_config = plugin_config(in);
    return 0;
}

/* ---- the user ---- */

/* A name and what to do instead; each would be passed over in silence otherwise. */
static int unsupported(const struct place *at, const json_t *in, struct err *err)
{
    static const struct {
        const char *key, *why;
    } all[] = {
        {"username", "basic authentication is not supported; no API server has it any more"},
        {"password", "basic authentication is not supported; no API server has it any more"},
        {"auth-provider", "is not supported; use an exec plugin"},
        {"as", "impersonation is not supported; use a user of its own"},
        {"as-uid", "impersonation is not supported; use a user of its own"},
        {"as-groups", "impersonation is not supported; use a user of its own"},
        {"as-user-extra", "impersonation is not supported; use a user of its own"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const json_t *v = json_object_get(in, all[i].key);

        if (v && !json_is_null(v) && !(json_is_string(v) && !json_string_length(v)) &&
            !(json_is_array(v) && !json_array_size(v)) && !(json_is_object(v) && !json_object_size(v)))
            return bad(at, all[i].key, err, all[i].why);
    }
    return 0;
}

static int plugin_args(const struct place *at, const json_t *in, char ***out, struct err *err)
{
    const json_t *args = json_object_get(in, "args");
    const json_t *arg;
    size_t i;

    if (!args || json_is_null(args))
        return 0;
    if (!json_is_array(args))
        return bad(at, "args", err, "must be a list of texts");
    *out = need(calloc(json_array_size(args) + 1, sizeof **out));
    json_array_foreach(args, i, arg)
    {
        if (!json_is_string(arg))
            return bad(at, "args", err, "must be a list of texts; put numbers in quotes");
        (*out)[i] = need(strdup(json_string_value(arg)));
    }
    return 0;
}

static int plugin_env(const struct place *at, const json_t *in, char ***out, struct err *err)
{
    const json_t *env = json_object_get(in, "env");
    const json_t *one;
    size_t i;

    if (!env || json_is_null(env))
        return 0;
    if (!json_is_array(env))
        return bad(at, "env", err, "must be a list of name and value");
    *out = need(calloc(json_array_size(env) + 1, sizeof **out));
    json_array_foreach(env, i, one)
    {
        const char *name, *value;

        if (text(at, one, "name", &name, err) || text(at, one, "value", &value, err))
            return -1;
        if (!name || strchr(name, '='))
            return bad(at, "env", err, "must be a list of name and value");
        (*out)[i] = need_printf("%s=%s", name, value ? value : "");
    }
    return 0;
}

static int plugin(const struct place *at, const json_t *in, struct kube_plugin *p, struct err *err)
{
    const char *command, *mode;

    if (!json_is_object(in))
        return bad(at, NULL, err, "must be a map");
    if (text(at, in, "command", &command, err) || copied(at, in, "apiVersion", &p->api_version, err) ||
        text(at, in, "interactiveMode", &mode, err) ||
        boolean(at, in, "provideClusterInfo", &p->wants_cluster, err) || plugin_args(at, in, &p->args, err) ||
        plugin_env(at, in, &p->env, err))
        return -1;
    if (!command)
        return bad(at, "command", err, "is missing");
    if (!p->api_version ||
        (strcmp(p->api_version, EXEC_GROUP "v1") != 0 && strcmp(p->api_version, EXEC_GROUP "v1beta1") != 0))
        return bad(at, "apiVersion", err, "must be " EXEC_GROUP "v1 or v1beta1");
    if (mode && !strcmp(mode, "Always"))
        return bad(at, "interactiveMode", err, "is Always, and there is no terminal here");
    p->command = strchr(command, '/') ? resolved(at, command) : need(strdup(command));
    return 0;
}

static int pair_ok(const struct place *at, const struct kube_context *c, struct err *err)
{
    if (kube_source_given(&c->cert) != kube_source_given(&c->key))
        return bad(at, kube_source_given(&c->key) ? "client-key" : "client-certificate", err,
                   "a client certificate needs both, client-certificate and client-key (or their -data)");
    if (c->cert.data && c->key.data &&
        !kube_creds_pair_ok(c->cert.data, c->cert.len, c->key.data, c->key.len))
        return bad(at, "client-certificate-data", err,
                   "is no certificate that client-key-data is the key of (without a passphrase)");
    return 0;
}

static int user(const struct place *at, const json_t *in, struct kube_context *c, struct err *err)
{
    const struct place exec_at = {at->file, at->list, at->name, "user.exec"};
    const json_t *exec = json_object_get(in, "exec");
    const char *token, *token_file;

    if (unsupported(at, in, err) || source(at, in, "client-certificate", &c->cert, err) ||
        source(at, in, "client-key", &c->key, err) || text(at, in, "token", &token, err) ||
        text(at, in, "tokenFile", &token_file, err) || pair_ok(at, c, err))
        return -1;
    if (token_file) {
        c->token.path = resolved(at, token_file);
    } else if (token) {
        if (!kube_creds_token_ok(token))
            return bad(at, "token", err, "holds a blank or a byte that cannot stand in a header");
        c->token.data = need(strdup(token));
        c->token.len = strlen(token);
    }
    /* Whoever has said who he is otherwise is not asked again; so does client-go. */
    if (!exec || json_is_null(exec) || kube_source_given(&c->token) || kube_source_given(&c->cert))
        return 0;
    return plugin(&exec_at, exec, &c->plugin, err);
}

/* ---- the context ---- */

/* What the map says of `name`, and where; NULL: nothing. */
static const json_t *entry(const json_t *map, const char *name, struct place *at)
{
    const json_t *e = json_object_get(map, name);

    at->name = name;
    at->file = json_string_value(json_array_get(e, 0));
    return json_array_get(e, 1);
}

static int current(const struct kube_contexts *all, struct kube_context *c, struct err *err)
{
    struct place at = {.list = "contexts", .part = "context"};
    struct place cluster_at = {.list = "clusters", .part = "cluster"},
                 user_at = {.list = "users", .part = "user"};
    const char *cluster_name, *user_name;
    const json_t *context, *in_cluster, *in_user;

    if (!all->current && !json_object_size(all->clusters) && !json_object_size(all->users) &&
        !json_object_size(all->contexts))
        return err_set(err, ERR_NOT_FOUND, "%s: nothing is configured there",
                       all->files ? all->files : "no file");
    if (!all->current)
        return err_set(err, ERR_INVALID,
                       "%s: current-context: is missing; kubectl config use-context sets it", all->files);
    context = entry(all->contexts, all->current, &at);
    if (!context)
        return err_set(err, ERR_INVALID, "%s: current-context: there is no context %s", all->files,
                       all->current);
    if (text(&at, context, "cluster", &cluster_name, err) || text(&at, context, "user", &user_name, err) ||
        copied(&at, context, "namespace", &c->ns, err))
        return -1;
    if (c->ns && !kube_path_label_ok(c->ns))
        return bad(&at, "namespace", err, "is no name of a namespace");
    in_cluster = cluster_name ? entry(all->clusters, cluster_name, &cluster_at) : NULL;
    in_user = user_name ? entry(all->users, user_name, &user_at) : NULL;
    if (!in_cluster)
        return bad(&at, "cluster", err, "names no cluster that there is");
    if (!in_user)
        return bad(&at, "user", err, "names no user that there is");
    return cluster(&cluster_at, in_cluster, c, err) || user(&user_at, in_user, c, err) ? -1 : 0;
}

int kube_contexts_current(const struct kube_contexts *all, struct kube_context *out, struct err *err)
{
    struct kube_context c = {0};

    if (current(all, &c, err)) {
        kube_context_free(&c);
        return -1;
    }
    *out = c;
    return 0;
}

static void free_source(struct kube_source *s)
{
    kube_creds_free(s->data, s->len);
    free(s->path);
}

static void free_texts(char **texts)
{
    for (char **t = texts; t && *t; t++)
        free_secret(*t);
    free(texts);
}

void kube_context_free(struct kube_context *c)
{
    free(c->server);
    free(c->tls_server_name);
    free_secret(c->proxy_url);
    free(c->ns);
    free_source(&c->ca);
    free_source(&c->cert);
    free_source(&c->key);
    free_source(&c->token);
    free(c->plugin.command);
    free_texts(c->plugin.args);
    free_texts(c->plugin.env);
    free(c->plugin.api_version);
    json_decref(c->plugin_config);
    *c = (struct kube_context){0};
}
