/* test_kube_context.c - YAML and JSON within bounds, kubeconfig files merged as client-go does, and what is refused */
#include "kube/kube_context.h"
#include "kube/kube_creds.h"
#include "kube/kube_yaml.h"
#include "test_spec_pem.h"

#include <stdio.h>

#define FILE_NAME "/home/me/.kube/config"

static struct kube_contexts all;
static struct kube_context got;
static struct err err;

static int setup(void **state)
{
    (void)state;
    all = (struct kube_contexts){0};
    got = (struct kube_context){0};
    err = (struct err){0};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kube_contexts_free(&all);
    kube_context_free(&got);
    return 0;
}

static json_t *yaml(const char *text)
{
    return kube_yaml_load("f", (const uint8_t *)text, strlen(text), &err);
}

/* ---- YAML ---- */

static void reads_yaml_and_json_to_the_same(void **state)
{
    static const struct {
        const char *yaml, *json;
    } cases[] = {
        {"a: 1\nb: [x, \"1\", true, null, ~, -2.5]\nc:\n  d: |\n    two\n    lines\n",
         "{\"a\":1,\"b\":[\"x\",\"1\",true,null,null,-2.5],\"c\":{\"d\":\"two\\nlines\\n\"}}"},
        {"{\"a\":\"x\\/\\u00e9\\n\",\"b\":{}, \"c\":[]}", "{\"a\":\"x/\xc3\xa9\\n\",\"b\":{},\"c\":[]}"},
        {"{\n\t\"a\": [\n\t\t1,\n\t\t2\n\t]\n}\n", "{\"a\":[1,2]}"},
        {"\xef\xbb\xbf---\na: !!str 12\n", "{\"a\":\"12\"}"},
        {"a: yes\nb: 0x1F\nc: 1_000\nd: 01\ne: 1.\nf: 99999999999999999999\ng: 1e400\n",
         "{\"a\":\"yes\",\"b\":\"0x1F\",\"c\":\"1_000\",\"d\":\"01\",\"e\":\"1.\",\"f\":"
         "\"99999999999999999999\",\"g\":\"1e400\"}"},
        {"&x a: &y b\n", "{\"a\":\"b\"}"},
        {"", "null"},
        {"# nothing\n", "null"},
        {"---\n...\n", "null"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *a = yaml(cases[i].yaml), *b = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);

        if (!a)
            fail_msg("case %zu: %s", i, err.msg);
        assert_non_null(b);
        if (!json_equal(a, b))
            fail_msg("case %zu: %s", i, json_dumps(a, JSON_ENCODE_ANY));
        json_decref(a);
        json_decref(b);
    }
}

static void refuses_yaml_with_its_line_and_quotes_nothing(void **state)
{
    static const struct {
        const char *yaml, *message;
    } cases[] = {
        {"a: &x hush\nb: *x\n", "f:2:4: an alias (*name) is not supported"},
        {"a: !!binary aHVzaA==\n", "f:1:4: a tag (!name) is not supported"},
        {"a: !hush {}\n", "f:1:4: a tag"},
        {"a: 1\nb:\n  hush: 1\n  hush: 2\n", "f:4:3: a key that stands here twice"},
        {"a: 1\n---\nb: 1\n", "f:2:1: a second document"},
        {"[hush]: 1\n", "f:1:1: a key that is not a text"},
        {"a: \"hu\\0sh\"\n", "f:1:4: a text with a NUL"},
        {"a: [hush\nb: hush}", "f:2:"},
        {"a: \"hush\n", "f:2:1: found unexpected end of stream"},
        {"a: hu\x01sh\n", "f:1:"},
        {"a: hu\xffsh\n", "f:1:"},
        {"[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "f:1:17: nested too deep"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *v = yaml(cases[i].yaml);

        if (v || strncmp(err.msg, cases[i].message, strlen(cases[i].message)) != 0 || strstr(err.msg, "hush"))
            fail_msg("case %zu: %s", i, v ? "taken" : err.msg);
        assert_true(err.code == ERR_SYNTAX || err.code == ERR_LIMIT);
    }
    assert_non_null((all.users = yaml("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]")));
}

static void bounds_bytes_and_values(void **state)
{
    size_t n = KUBE_YAML_BYTES;
    char *text = malloc(n + 2);

    (void)state;
    assert_non_null(text);
    memset(text, ' ', n + 1);
    text[0] = '1';
    text[n + 1] = '\0';
    assert_null(yaml(text));
    assert_int_equal(err.code, ERR_LIMIT);
    text[n] = '\0';
    assert_non_null((all.users = yaml(text)));
    text[0] = '[';
    for (size_t i = 1; i < n; i++)
        text[i] = i % 2 ? '1' : ',';
    assert_null(yaml(text));
    assert_int_equal(err.code, ERR_LIMIT);
    assert_non_null(strstr(err.msg, "too many values"));
    free(text);
}

/* ---- base64, tokens ---- */

static void decodes_base64_as_encoders_write_it(void **state)
{
    static const struct {
        const char *text, *bytes; /* NULL: refused */
    } cases[] = {
        {"", ""},        {"YQ==", "a"},        {"YWI=", "ab"},
        {"YWJj", "abc"}, {"YWJjZA==", "abcd"}, {"YW\nJj\r\n", "abc"},
        {"YQ", NULL},    {"YQ=", NULL},        {"Y===", NULL},
        {"====", NULL},  {"YQ==YQ==", NULL},   {"YW Jj", NULL},
        {"YW-_", NULL},  {"YWJj=", NULL},      {"Y", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = 99;
        uint8_t *bytes = kube_creds_base64_decode(cases[i].text, &len);

        if (!bytes != !cases[i].bytes || (bytes && strcmp((char *)bytes, cases[i].bytes) != 0))
            fail_msg("case %zu: %s", i, cases[i].text);
        if (bytes)
            assert_int_equal(len, strlen(cases[i].bytes));
        free(bytes);
    }
    for (size_t n = 0; n < 70; n++) {
        uint8_t in[70], *out;
        char *text;
        size_t len;

        for (size_t i = 0; i < n; i++)
            in[i] = (uint8_t)(i * 37 + 251);
        text = kube_creds_base64_encode(in, n);
        out = kube_creds_base64_decode(text, &len);
        assert_non_null(out);
        assert_int_equal(len, n);
        assert_memory_equal(in, out, n);
        free(text);
        free(out);
    }
}

static void tokens_fit_into_a_header(void **state)
{
    (void)state;
    assert_true(kube_creds_token_ok("eyJh.b-c_d~+/="));
    assert_false(kube_creds_token_ok(""));
    assert_false(kube_creds_token_ok("a b"));
    assert_false(kube_creds_token_ok("a\r\nX-Evil: 1"));
    assert_false(kube_creds_token_ok("a\x7f"));
    assert_false(kube_creds_token_ok("\xc3\xa9"));
}

/* ---- kubeconfig ---- */

static int add(const char *file, const char *text)
{
    return kube_contexts_add(&all, file, (const uint8_t *)text, strlen(text), &err);
}

static const char *kubeconfig(const char *cluster, const char *user)
{
    static char text[16384];

    snprintf(text, sizeof text,
             "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
             "contexts: [{name: c, context: {cluster: k, user: u, namespace: web}}]\n"
             "clusters: [{name: k, cluster: {%s}}]\nusers: [{name: u, user: {%s}}]\n",
             cluster, user);
    return text;
}

static int load(const char *cluster, const char *user)
{
    kube_contexts_free(&all);
    kube_context_free(&got);
    return add(FILE_NAME, kubeconfig(cluster, user)) || kube_contexts_current(&all, &got, &err) ? -1 : 0;
}

#define SERVER "server: 'https://h'"

static void reads_what_the_context_names(void **state)
{
    struct made_pair p = make_pair("api");
    char cluster[4096], user[8192];

    (void)state;
    snprintf(cluster, sizeof cluster,
             "server: 'https://10.0.0.1:6443/', tls-server-name: api.local, proxy-url: 'socks5://p:1', "
             "certificate-authority-data: %s, certificate-authority: not-this.crt",
             p.cert64);
    snprintf(user, sizeof user,
             "client-certificate-data: %s, client-key-data: %s, token: t0, as: '', as-groups: [], "
             "as-user-extra: {}",
             p.cert64, p.key64);
    if (load(cluster, user))
        fail_msg("%s", err.msg);
    assert_string_equal(got.server, "https://10.0.0.1:6443");
    assert_string_equal(got.tls_server_name, "api.local");
    assert_string_equal(got.proxy_url, "socks5://p:1");
    assert_string_equal(got.ns, "web");
    assert_false(got.insecure);
    assert_string_equal(got.ca.data, p.cert);
    assert_null(got.ca.path);
    assert_string_equal(got.cert.data, p.cert);
    assert_string_equal(got.key.data, p.key);
    assert_string_equal(got.token.data, "t0");
    assert_null(got.plugin.command);
    made_pair_free(&p);
}

static void paths_are_below_the_files_own_folder(void **state)
{
    (void)state;
    assert_int_equal(
        load(SERVER ", certificate-authority: ca.crt",
             "client-certificate: pki/c.crt, client-key: /abs/c.key, tokenFile: ../token, token: t"),
        0);
    assert_string_equal(got.ca.path, "/home/me/.kube/ca.crt");
    assert_string_equal(got.cert.path, "/home/me/.kube/pki/c.crt");
    assert_string_equal(got.key.path, "/abs/c.key");
    assert_string_equal(got.token.path, "/home/me/.kube/../token");
    assert_null(got.token.data);
    kube_contexts_free(&all);
    kube_context_free(&got);
    assert_int_equal(add("config", kubeconfig(SERVER ", certificate-authority: ca.crt", "")), 0);
    assert_int_equal(kube_contexts_current(&all, &got, &err), 0);
    assert_string_equal(got.ca.path, "./ca.crt");
}

static void servers_are_https_urls(void **state)
{
    static const struct {
        const char *in, *out; /* NULL: refused */
    } cases[] = {
        {"https://h", "https://h"},
        {"HTTPS://h:443/", "https://h:443"},
        {"https://[fd00::1]:6443", "https://[fd00::1]:6443"},
        {"https://h/k8s/clusters/c-1//", "https://h/k8s/clusters/c-1"},
        {"http://h", NULL},
        {"h:6443", NULL},
        {"", NULL},
        {"https://", NULL},
        {"https:///x", NULL},
        {"https://h:", NULL},
        {"https://h:0", NULL},
        {"https://h:65536", NULL},
        {"https://h:6443x", NULL},
        {"https://u:p@h", NULL},
        {"https://h?x", NULL},
        {"https://h/#x", NULL},
        {"https://h x", NULL},
        {"https://[::1", NULL},
        {"https://[]", NULL},
        {"https://[h]", NULL},
        {"ftp://h", NULL},
    };
    char cluster[256];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int failed;

        snprintf(cluster, sizeof cluster, "server: '%s'", cases[i].in);
        failed = load(cluster, "");
        if (!failed != !!cases[i].out)
            fail_msg("%s: %s", cases[i].in, failed ? err.msg : "taken");
        if (!failed)
            assert_string_equal(got.server, cases[i].out);
        else
            assert_non_null(strstr(err.msg, FILE_NAME ": clusters[k].cluster.server: "));
    }
}

static void refuses_with_file_and_field_and_without_the_value(void **state)
{
    static const struct {
        const char *cluster, *user, *field, *says;
    } cases[] = {
        {SERVER, "username: hush, password: hush", "users[u].user.username", "basic authentication"},
        {SERVER, "password: hush", "users[u].user.password", "basic authentication"},
        {SERVER, "auth-provider: {name: gcp}", "users[u].user.auth-provider", "exec plugin"},
        {SERVER, "token: t, as: hush", "users[u].user.as", "impersonation"},
        {SERVER, "token: t, as-groups: [hush]", "users[u].user.as-groups", "impersonation"},
        {SERVER, "token: 12345", "users[u].user.token", "quotes"},
        {SERVER, "token: 'hu sh'", "users[u].user.token", "blank"},
        {SERVER, "token: {hush: 1}", "users[u].user.token", "must be a text"},
        {SERVER, "client-key-data: '!hush'", "users[u].user.client-key-data", "base64"},
        {SERVER, "client-certificate: a", "users[u].user.client-certificate", "needs both"},
        {SERVER, "client-key: a", "users[u].user.client-key", "needs both"},
        {SERVER, "client-certificate-data: aHVzaA==, client-key-data: aHVzaA==",
         "users[u].user.client-certificate-data", "key of"},
        {SERVER ", certificate-authority-data: aHVzaA==", "",
         "clusters[k].cluster.certificate-authority-data", "no certificate"},
        {SERVER ", insecure-skip-tls-verify: true, certificate-authority: a", "",
         "clusters[k].cluster.insecure-skip-tls-verify", "take one out"},
        {SERVER ", insecure-skip-tls-verify: 'true'", "", "clusters[k].cluster.insecure-skip-tls-verify",
         "true or false"},
        {SERVER ", proxy-url: 'ftp://hush'", "", "clusters[k].cluster.proxy-url", "socks5"},
        {SERVER, "exec: hush", "users[u].user.exec", "a map"},
        {SERVER, "exec: {apiVersion: client.authentication.k8s.io/v1}", "users[u].user.exec.command",
         "missing"},
        {SERVER, "exec: {command: x}", "users[u].user.exec.apiVersion", "v1beta1"},
        {SERVER, "exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}",
         "users[u].user.exec.apiVersion", "v1beta1"},
        {SERVER, "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Always}",
         "users[u].user.exec.interactiveMode", "terminal"},
        {SERVER, "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, args: [1]}",
         "users[u].user.exec.args", "list of texts"},
        {SERVER, "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, env: [{value: hush}]}",
         "users[u].user.exec.env", "name and value"},
        {SERVER, "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, env: [{name: a=b}]}",
         "users[u].user.exec.env", "name and value"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char start[128];

        if (!load(cases[i].cluster, cases[i].user))
            fail_msg("case %zu: taken", i);
        snprintf(start, sizeof start, FILE_NAME ": %s: ", cases[i].field);
        if (err.code != ERR_INVALID || strncmp(err.msg, start, strlen(start)) != 0 ||
            !strstr(err.msg, cases[i].says) || strstr(err.msg, "hush"))
            fail_msg("case %zu: %s", i, err.msg);
    }
}

static void says_what_is_wrong_with_the_file_as_a_whole(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[]", "must be a map"},
        {"kind: Pod", "whose kind is Config"},
        {"clusters: {}", "clusters: must be a list"},
        {"clusters: [x]", "list of maps"},
        {"clusters: [{cluster: {}}]", "one has no name"},
        {"clusters: [{name: a, cluster: x}]", "clusters[a].cluster: must be a map"},
        {"clusters: [{name: a}, {name: a}]", "clusters[a].cluster: the name stands twice"},
        {"contexts: [{name: a}]", "current-context: is missing"},
        {"current-context: a", "there is no context a"},
        {"current-context: [a]", "current-context: must be a text"},
        {"current-context: a\ncontexts: [{name: a}]", "contexts[a].context.cluster: names no cluster"},
        {"current-context: a\ncontexts: [{name: a, context: {namespace: ../b}}]",
         "contexts[a].context.namespace: is no"},
        {"current-context: a\ncontexts: [{name: a, context: {cluster: b}}]\nclusters: [{name: b}]",
         "contexts[a].context.user: names no user"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kube_contexts_free(&all);
        if (!add(FILE_NAME, cases[i].text) && !kube_contexts_current(&all, &got, &err))
            fail_msg("case %zu: taken", i);
        if (err.code != ERR_INVALID || !strstr(err.msg, FILE_NAME) || !strstr(err.msg, cases[i].says))
            fail_msg("case %zu: %s", i, err.msg);
    }
    kube_contexts_free(&all);
    assert_int_equal(add(FILE_NAME, "apiVersion: v1\nkind: Config\nclusters: null\nusers: []\n"), 0);
    assert_int_equal(kube_contexts_current(&all, &got, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void the_first_file_to_say_something_wins(void **state)
{
    (void)state;
    assert_int_equal(add("/1/config", "users: [{name: u, user: {tokenFile: t}}]\n"), 0);
    assert_int_equal(add("/2/config",
                         "current-context: two\nusers: [{name: u, user: {token: second}}, {name: v}]\n"
                         "contexts: [{name: two, context: {cluster: k, user: u}}]\n"),
                     0);
    assert_int_equal(
        add("/3/config",
            "current-context: three\nclusters: [{name: k, cluster: {server: 'https://3', "
            "certificate-authority: ca}}]\n"
            "contexts: [{name: two, context: {cluster: x, user: x, namespace: never}}, {name: three}]"),
        0);
    if (kube_contexts_current(&all, &got, &err))
        fail_msg("%s", err.msg);
    assert_string_equal(got.server, "https://3");
    assert_string_equal(got.ca.path, "/3/ca");
    assert_string_equal(got.token.path, "/1/t");
    assert_null(got.ns);
    assert_string_equal(all.files, "/1/config, /2/config, /3/config");
}

static void other_users_may_be_what_they_like(void **state)
{
    (void)state;
    assert_int_equal(add(FILE_NAME,
                         "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
                         "clusters: [{name: k, cluster: {server: 'https://h'}}, {name: old, cluster: "
                         "{server: 'http://h'}}]\n"
                         "users: [{name: u, user: {token: t}}, {name: v, user: {auth-provider: {}}}]\n"
                         "preferences: {colors: true}\nextensions: [{name: x, extension: {a: 1.5}}]\n"),
                     0);
    assert_int_equal(kube_contexts_current(&all, &got, &err), 0);
    assert_string_equal(got.token.data, "t");
}

#define EXEC                                                                                                 \
    "exec: {command: %s, apiVersion: client.authentication.k8s.io/v1, args: [a, ''], env: [{name: N, "       \
    "value: v}, "                                                                                            \
    "{name: E}], provideClusterInfo: true, interactiveMode: IfAvailable}"

static void reads_exec_plugins(void **state)
{
    char user[512];

    (void)state;
    snprintf(user, sizeof user, EXEC, "bin/plug");
    if (load(SERVER ", extensions: [{name: other, extension: 1}, {name: client.authentication.k8s.io/exec, "
                    "extension: {audience: x, n: 5, b: true}}]",
             user))
        fail_msg("%s", err.msg);
    assert_string_equal(got.plugin.command, "/home/me/.kube/bin/plug");
    assert_string_equal(got.plugin.args[0], "a");
    assert_string_equal(got.plugin.args[1], "");
    assert_null(got.plugin.args[2]);
    assert_string_equal(got.plugin.env[0], "N=v");
    assert_string_equal(got.plugin.env[1], "E=");
    assert_null(got.plugin.env[2]);
    assert_true(got.plugin.wants_cluster);
    assert_int_equal(json_integer_value(json_object_get(got.plugin_config, "n")), 5);
    snprintf(user, sizeof user, EXEC, "plug");
    assert_int_equal(load(SERVER, user), 0);
    assert_string_equal(got.plugin.command, "plug");
    snprintf(user, sizeof user, "token: t, " EXEC, "plug");
    assert_int_equal(load(SERVER, user), 0);
    assert_null(got.plugin.command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_yaml_and_json_to_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_yaml_with_its_line_and_quotes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(bounds_bytes_and_values, setup, teardown),
        cmocka_unit_test_setup_teardown(decodes_base64_as_encoders_write_it, setup, teardown),
        cmocka_unit_test_setup_teardown(tokens_fit_into_a_header, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_what_the_context_names, setup, teardown),
        cmocka_unit_test_setup_teardown(paths_are_below_the_files_own_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(servers_are_https_urls, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_with_file_and_field_and_without_the_value, setup, teardown),
        cmocka_unit_test_setup_teardown(says_what_is_wrong_with_the_file_as_a_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(the_first_file_to_say_something_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(other_users_may_be_what_they_like, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_exec_plugins, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
