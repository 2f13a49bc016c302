/* test_kube_config.c - where a configuration is looked for, files that change under us, and plugins that say as whom we speak
 * The code is included, so that its places can be made up, its waits be shorter and its clock be moved. */
#include "kube/kube_config.h"

#undef KUBE_CONFIG_EXEC_MS
#define KUBE_CONFIG_EXEC_MS 1500

#include "../../controller/kube/kube_exec.c" /* NOLINT */
#define take  config_take
#define text  config_text
#define start config_start
#include "../../controller/kube/kube_config.c" /* NOLINT */
#undef take
#undef text
#undef start

#include "test_spec_pem.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define PATIENCE_MS 20000

static struct loop loop;
static struct kube_config *config;
static struct kube_auth auth;
static struct err err;
static char dir[64];
static int readies;

static const char *in_dir(const char *name)
{
    static char path[16][160];
    static unsigned turn;
    char *p = path[turn++ % 16];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static void put_file(const char *name, const char *content)
{
    FILE *f = fopen(in_dir(name), "w");

    assert_non_null(f);
    fputs(content, f);
    assert_int_equal(fclose(f), 0);
}

static char *content_of(const char *name)
{
    static char bytes[65536];
    FILE *f = fopen(in_dir(name), "r");
    size_t n;

    if (!f)
        return NULL;
    n = fread(bytes, 1, sizeof bytes - 1, f);
    bytes[n] = '\0';
    fclose(f);
    return bytes;
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/tidegate-kube-XXXXXX");
    config = NULL;
    readies = 0;
    err = (struct err){0};
    return mkdtemp(dir) && !loop_init(&loop, &err) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    kube_config_free(config);
    loop_done(&loop);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command); /* NOLINT */
}

static void on_ready(void *arg)
{
    (void)arg;
    readies++;
}

static void open_ok(const struct places *p)
{
    if (open_from(&loop, p, &config, &err))
        fail_msg("%s", err.msg);
    kube_config_on_ready(config, on_ready, NULL);
}

static void asks(void)
{
    assert_true(kube_config_auth(config, &auth));
}

static void later(uint64_t ms)
{
    loop.now_ms += ms;
}

static void write_kubeconfig(const char *name, const char *server, const char *cluster, const char *user)
{
    char all[4096];

    snprintf(all, sizeof all,
             "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
             "clusters: [{name: k, cluster: {server: 'https://%s'%s}}]\nusers: [{name: u, user: {%s}}]\n",
             server, cluster, user);
    put_file(name, all);
}

/* ---- where ---- */

static void write_service_account(const char *token, const char *ca)
{
    mkdir(in_dir("sa"), 0700);
    put_file("sa/token", token);
    put_file("sa/ca.crt", ca);
    put_file("sa/namespace", "team-a\n");
}

static void places_are_asked_in_order(void **state)
{
    struct made_pair ca = make_pair("ca");
    char list[512], home[160], sa[160], flag[160];
    struct places p = {
        .flag = flag, .list = list, .home = home, .host = "10.0.0.1", .port = "443", .service_account = sa};
    const struct {
        const char *drop, *server;
    } steps[] = {{"flag", "https://flag"},
                 {"list", "https://list"},
                 {"pod", "https://10.0.0.1:443"},
                 {"home", "https://home"}};

    (void)state;
    snprintf(flag, sizeof flag, "%s", in_dir("flag"));
    snprintf(list, sizeof list, ":%s:%s::", in_dir("missing"), in_dir("list"));
    snprintf(home, sizeof home, "%s", dir);
    snprintf(sa, sizeof sa, "%s", in_dir("sa"));
    write_kubeconfig("flag", "flag", "", "token: t");
    write_kubeconfig("list", "list", "", "token: t");
    write_service_account("sa-token\n", ca.cert);
    mkdir(in_dir(".kube"), 0700);
    write_kubeconfig(".kube/config", "home", "", "token: t");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        open_ok(&p);
        asks();
        assert_string_equal(auth.server, steps[i].server);
        kube_config_free(config);
        config = NULL;
        if (!i)
            p.flag = NULL;
        else if (i == 1)
            p.list = "";
        else if (i == 2)
            p.host = NULL;
        else
            p.home = in_dir("nobody");
    }
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "$KUBECONFIG: not set"));
    assert_non_null(strstr(err.msg, "not in a cluster"));
    assert_non_null(strstr(err.msg, "nobody/.kube/config: No such file"));
    made_pair_free(&ca);
}

static void a_broken_or_missing_file_that_was_named_is_not_passed_over(void **state)
{
    char home[160];
    struct places p = {.home = home};

    (void)state;
    snprintf(home, sizeof home, "%s", dir);
    mkdir(in_dir(".kube"), 0700);
    write_kubeconfig(".kube/config", "home", "", "token: t");
    p.flag = in_dir("missing");
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    p.flag = NULL;
    p.list = in_dir("missing");
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "missing: no such file"));
    put_file("broken", "a: [");
    p.list = in_dir("broken");
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_int_equal(err.code, ERR_SYNTAX);
    assert_non_null(strstr(err.msg, "broken:"));
    put_file(".kube/config", "kind: Pod");
    p.list = NULL;
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    p.list = dir;
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_int_equal(err.code, ERR_IO);
}

static void a_pod_finds_its_service_account(void **state)
{
    struct made_pair ca = make_pair("ca");
    struct places p = {.host = "fd00::1", .port = "6443"};

    (void)state;
    write_service_account("  sa-token\n\n", ca.cert);
    p.service_account = in_dir("sa");
    open_ok(&p);
    asks();
    assert_string_equal(auth.server, "https://[fd00::1]:6443");
    assert_string_equal(auth.token, "sa-token");
    assert_non_null(auth.ca_pem);
    assert_null(auth.cert_pem);
    assert_null(auth.tls_server_name);
    assert_false(auth.insecure_skip_verify);
    assert_string_equal(kube_config_namespace(config), "team-a");
    kube_config_free(config);
    config = NULL;
    put_file("sa/namespace", "../kube-system");
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_non_null(strstr(err.msg, "sa/namespace: is no name"));
    unlink(in_dir("sa/namespace"));
    open_ok(&p);
    assert_string_equal(kube_config_namespace(config), "default");
    made_pair_free(&ca);
}

/* A4: such a CA never means the system's roots. */
static void a_pod_without_a_good_token_or_ca_does_not_start(void **state)
{
    struct made_pair ca = make_pair("ca");
    struct places p = {.host = "10.0.0.1", .port = "443"};

    (void)state;
    p.service_account = in_dir("sa");
    write_service_account("t", "");
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_non_null(strstr(err.msg, "sa/ca.crt: is empty"));
    write_service_account("t", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_non_null(strstr(err.msg, "sa/ca.crt: holds no certificate"));
    unlink(in_dir("sa/ca.crt"));
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    write_service_account(" \n", ca.cert);
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_non_null(strstr(err.msg, "sa/token: is empty"));
    unlink(in_dir("sa/token"));
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    made_pair_free(&ca);
}

static void proxies_are_said_as_curl_says_them(void **state)
{
    static const char *const cases[][2] = {{"http://u:p@proxy:3128", "http://u:p@proxy:3128"},
                                           {"https://proxy", "https://proxy"},
                                           {"socks5://proxy:1080", "socks5h://proxy:1080"}};
    struct places p = {0};

    (void)state;
    p.flag = in_dir("k");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char cluster[128];

        snprintf(cluster, sizeof cluster, ", proxy-url: '%s'", cases[i][0]);
        write_kubeconfig("k", "h", cluster, "token: t");
        open_ok(&p);
        asks();
        assert_string_equal(auth.proxy_url, cases[i][1]);
        kube_config_free(config);
        config = NULL;
    }
}

/* ---- files that change ---- */

static void a_token_is_read_again_each_minute_and_kept_when_it_cannot_be(void **state)
{
    struct places p = {0};

    (void)state;
    put_file("token", "one\n");
    write_kubeconfig("k", "h", "", "token: never, tokenFile: token");
    p.flag = in_dir("k");
    open_ok(&p);
    asks();
    assert_string_equal(auth.token, "one");
    put_file("token", "two");
    later(KUBE_CONFIG_TOKEN_MS - 1);
    asks();
    assert_string_equal(auth.token, "one");
    later(1);
    asks();
    assert_string_equal(auth.token, "two");
    put_file("token", " \n");
    later(KUBE_CONFIG_TOKEN_MS);
    asks();
    assert_string_equal(auth.token, "two");
    put_file("token", "three\r\nHost: evil");
    later(KUBE_CONFIG_TOKEN_MS);
    asks();
    assert_string_equal(auth.token, "two");
    unlink(in_dir("token"));
    later(KUBE_CONFIG_TOKEN_MS);
    asks();
    assert_string_equal(auth.token, "two");
    assert_int_equal(auth.generation, 1);
}

static void a_refused_token_is_read_again_at_once(void **state)
{
    struct places p = {0};

    (void)state;
    put_file("token", "one");
    write_kubeconfig("k", "h", "", "tokenFile: token");
    p.flag = in_dir("k");
    open_ok(&p);
    assert_false(kube_config_reject(config));
    put_file("token", "two");
    assert_true(kube_config_reject(config));
    asks();
    assert_string_equal(auth.token, "two");
    /* Another request, which was under way with the old one. */
    assert_true(kube_config_reject(config));
    later(PACE_MS);
    assert_false(kube_config_reject(config));
    unlink(in_dir("token"));
    assert_false(kube_config_reject(config));
    asks();
    assert_string_equal(auth.token, "two");
}

static void what_was_lent_lives_until_the_next_turn(void **state)
{
    struct places p = {0};
    struct kube_auth before;

    (void)state;
    put_file("token", "one");
    write_kubeconfig("k", "h", "", "tokenFile: token");
    p.flag = in_dir("k");
    open_ok(&p);
    assert_true(kube_config_auth(config, &before));
    put_file("token", "two");
    assert_true(kube_config_reject(config));
    assert_string_equal(before.token, "one");
    kube_config_free(config);
    config = NULL;
    assert_string_equal(before.token, "one");
}

static void a_swap_of_kubernetes_is_seen(void **state)
{
    struct made_pair a = make_pair("a"), b = make_pair("b");
    struct places p = {.host = "h", .port = "443"};

    (void)state;
    p.service_account = in_dir("sa");
    mkdir(in_dir("sa"), 0700);
    mkdir(in_dir("sa/..1"), 0700);
    put_file("sa/..1/token", "one");
    put_file("sa/..1/ca.crt", a.cert);
    assert_int_equal(symlink("..1", in_dir("sa/..data")), 0);
    assert_int_equal(symlink("..data/token", in_dir("sa/token")), 0);
    assert_int_equal(symlink("..data/ca.crt", in_dir("sa/ca.crt")), 0);
    open_ok(&p);
    mkdir(in_dir("sa/..2"), 0700);
    put_file("sa/..2/token", "two");
    put_file("sa/..2/ca.crt", b.cert);
    assert_int_equal(symlink("..2", in_dir("sa/..data_tmp")), 0);
    assert_int_equal(rename(in_dir("sa/..data_tmp"), in_dir("sa/..data")), 0);
    later(KUBE_CONFIG_CERT_MS);
    asks();
    assert_string_equal(auth.token, "two");
    assert_int_equal(auth.generation, 2);
    assert_memory_equal(auth.ca_pem, b.cert, auth.ca_len);
    made_pair_free(&a);
    made_pair_free(&b);
}

static void a_ca_is_read_again_and_kept_when_it_is_none(void **state)
{
    struct made_pair a = make_pair("a"), b = make_pair("b");
    const char *const bad[] = {"", "\n", "rubbish",
                               "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};
    char cut[4096];
    struct places p = {0};

    (void)state;
    put_file("ca.crt", a.cert);
    write_kubeconfig("k", "h", ", certificate-authority: ca.crt", "token: t");
    p.flag = in_dir("k");
    open_ok(&p);
    asks();
    assert_int_equal(auth.generation, 1);
    put_file("ca.crt", b.cert);
    later(KUBE_CONFIG_CERT_MS - 1);
    asks();
    assert_int_equal(auth.generation, 1);
    later(1);
    asks();
    assert_int_equal(auth.generation, 2);
    assert_memory_equal(auth.ca_pem, b.cert, auth.ca_len);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_file("ca.crt", bad[i]);
        assert_false(!(later(PACE_MS), 1) || kube_config_reject(config));
    }
    /* A good one, and half of the next. */
    snprintf(cut, sizeof cut, "%s%.*s", a.cert, (int)strlen(b.cert) / 2, b.cert);
    put_file("ca.crt", cut);
    later(KUBE_CONFIG_CERT_MS);
    asks();
    assert_int_equal(auth.generation, 2);
    assert_memory_equal(auth.ca_pem, b.cert, auth.ca_len);
    put_file("ca.crt", a.cert);
    assert_true(kube_config_reject(config));
    asks();
    assert_int_equal(auth.generation, 3);
    made_pair_free(&a);
    made_pair_free(&b);
}

static void a_client_certificate_changes_with_its_key_only(void **state)
{
    struct made_pair a = make_pair("a"), b = make_pair("b");
    struct places p = {0};

    (void)state;
    put_file("c.crt", a.cert);
    put_file("c.key", b.key);
    write_kubeconfig("k", "h", "", "client-certificate: c.crt, client-key: c.key");
    p.flag = in_dir("k");
    assert_int_equal(open_from(&loop, &p, &config, &err), -1);
    assert_non_null(strstr(err.msg, "c.crt"));
    put_file("c.key", a.key);
    open_ok(&p);
    asks();
    assert_null(auth.token);
    put_file("c.crt", b.cert);
    assert_false(kube_config_reject(config));
    later(KUBE_CONFIG_CERT_MS);
    asks();
    assert_int_equal(auth.generation, 1);
    assert_memory_equal(auth.cert_pem, a.cert, auth.cert_len);
    put_file("c.key", b.key);
    later(KUBE_CONFIG_CERT_MS);
    asks();
    assert_int_equal(auth.generation, 2);
    assert_memory_equal(auth.cert_pem, b.cert, auth.cert_len);
    assert_memory_equal(auth.key_pem, b.key, auth.key_len);
    made_pair_free(&a);
    made_pair_free(&b);
}

/* ---- plugins ---- */

#define CREDENTIAL                                                                                           \
    "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{%s}}"

static void write_plugin(const char *script)
{
    char all[4096];
    struct stat st;

    snprintf(all, sizeof all, "#!/bin/sh\n%s\n", script);
    put_file("plug.new", all);
    assert_int_equal(chmod(in_dir("plug.new"), 0700), 0);
    assert_int_equal(rename(in_dir("plug.new"), in_dir("plug")), 0);
    assert_int_equal(stat(in_dir("plug"), &st), 0);
}

/* Each run leaves a line in `runs`. */
static void write_plugin_that_says(const char *status)
{
    char script[3000];

    snprintf(script, sizeof script, "cd \"${0%%/*}\"; echo run >>runs; cat <<'E'\n" CREDENTIAL "\nE", status);
    write_plugin(script);
}

static int runs(void)
{
    const char *all = content_of("runs");

    return all ? (int)strlen(all) / 4 : 0;
}

static void open_with_plugin(const char *more)
{
    struct places p = {0};
    char user[1024];

    snprintf(user, sizeof user, "exec: {command: ./plug, apiVersion: client.authentication.k8s.io/v1%s}",
             more);
    write_kubeconfig("k", "h", "", user);
    p.flag = in_dir("k");
    open_ok(&p);
}

static void turn_until_ready(int so_often)
{
    uint64_t end = loop_clock_ms() + PATIENCE_MS;

    while (readies < so_often) {
        assert_true(loop_clock_ms() < end);
        loop_turn(&loop, 50);
    }
}

/* Until the plugin of a run that nobody waits for has ended. */
static void turn_until_quiet(void)
{
    uint64_t end = loop_clock_ms() + PATIENCE_MS;

    while (kube_exec_running(config->exec) || config->exec->pid) {
        assert_true(loop_clock_ms() < end);
        loop_turn(&loop, 50);
    }
}

static void requests_wait_for_the_first_run(void **state)
{
    (void)state;
    write_plugin_that_says("\"token\":\"t1\"");
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(1);
    asks();
    assert_string_equal(auth.token, "t1");
    later(86400000);
    asks();
    assert_int_equal(readies, 1);
    assert_int_equal(runs(), 1);
}

static void a_plugin_gets_its_environment_and_nothing_of_ours(void **state)
{
    char *seen;

    (void)state;
    setenv("FROM_US", "ours", 1);
    setenv("OVER", "ours", 1);
    setenv("KUBERNETES_EXEC_INFO", "stale", 1);
    write_plugin("cd \"${0%/*}\"; { echo \"args=$#:$1:$2\"; tr '\\0' '\\n' </proc/$$/environ; ls -l "
                 "/proc/self/fd/; grep SigBlk /proc/self/status; "
                 "grep SigIgn /proc/self/status; } >seen; echo hush >&2; echo '{}'; exit 0");
    assert_true(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    assert_true(dup2(STDOUT_FILENO, 77) == 77);
    open_with_plugin(
        ", args: [a, 'b c'], env: [{name: OVER, value: theirs}, {name: OVER, value: theirs2}, {name: "
        "KUBERNETES_EXEC_INFO, value: no}]");
    assert_false(kube_config_auth(config, &auth));
    turn_until_quiet();
    close(77);
    signal(SIGPIPE, SIG_DFL);
    unsetenv("KUBERNETES_EXEC_INFO");
    seen = content_of("seen");
    assert_non_null(strstr(seen, "args=2:a:b c\n"));
    assert_non_null(strstr(seen, "\nFROM_US=ours\n"));
    assert_non_null(strstr(seen, "\nOVER=theirs2\n"));
    assert_null(strstr(seen, "OVER=ours"));
    assert_null(strstr(seen, "OVER=theirs\n"));
    assert_non_null(
        strstr(seen, "\nKUBERNETES_EXEC_INFO={\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":"
                     "\"ExecCredential\",\"spec\":{\"interactive\":false}}\n"));
    assert_null(strstr(seen, "stale"));
    assert_non_null(strstr(seen, " 0 -> /dev/null"));
    assert_non_null(strstr(seen, " 2 -> /dev/null"));
    assert_null(strstr(seen, " 77 -> "));
    assert_null(strstr(seen, "eventpoll"));
    assert_non_null(strstr(seen, "SigBlk:\t0000000000000000"));
    /* glibc's posix_spawn ignores its own two, 32 and 33. */
    assert_non_null(strstr(seen, "SigIgn:\t"));
    assert_int_equal(strtoull(strstr(seen, "SigIgn:") + 8, NULL, 16) & 0x7fffffff, 0);
}

static void a_plugin_is_told_of_the_cluster_when_it_asks(void **state)
{
    struct made_pair ca = make_pair("ca");
    struct places p = {0};
    json_t *info, *cluster;

    (void)state;
    put_file("ca.crt", ca.cert);
    write_plugin("cd \"${0%/*}\"; printf %s \"$KUBERNETES_EXEC_INFO\" >seen");
    write_kubeconfig("k", "h/p/",
                     ", certificate-authority: ca.crt, tls-server-name: n, extensions: [{name: "
                     "client.authentication.k8s.io/exec, extension: {n: 5}}]",
                     "exec: {command: ./plug, apiVersion: client.authentication.k8s.io/v1beta1, "
                     "provideClusterInfo: true}");
    p.flag = in_dir("k");
    open_ok(&p);
    assert_false(kube_config_auth(config, &auth));
    turn_until_quiet();
    info = json_loads(content_of("seen"), 0, NULL);
    cluster = json_object_get(json_object_get(info, "spec"), "cluster");
    assert_string_equal(json_string_value(json_object_get(info, "apiVersion")),
                        "client.authentication.k8s.io/v1beta1");
    assert_string_equal(json_string_value(json_object_get(cluster, "server")), "https://h/p");
    assert_string_equal(json_string_value(json_object_get(cluster, "tls-server-name")), "n");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(cluster, "config"), "n")), 5);
    {
        char *bytes = need(strdup(json_string_value(json_object_get(cluster, "certificate-authority-data"))));
        size_t len;
        uint8_t *pem = kube_creds_base64_decode(bytes, &len);

        assert_non_null(pem);
        assert_memory_equal(pem, ca.cert, len);
        free(pem);
        free(bytes);
    }
    json_decref(info);
    made_pair_free(&ca);
}

static void a_client_certificate_of_a_plugin_raises_the_generation(void **state)
{
    struct made_pair a = make_pair("a");
    json_t *status = json_pack("{s:s, s:s}", "clientCertificateData", a.cert, "clientKeyData", a.key);
    char *json = json_dumps(status, 0);
    uint64_t before;

    (void)state;
    json[strlen(json) - 1] = '\0';
    write_plugin_that_says(json + 1);
    open_with_plugin("");
    before = config->generation;
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(1);
    asks();
    assert_null(auth.token);
    assert_string_equal(auth.cert_pem, a.cert);
    assert_string_equal(auth.key_pem, a.key);
    assert_true(auth.generation > before);
    free(json);
    json_decref(status);
    made_pair_free(&a);
}

static const char *status_that_ends_in(int seconds, const char *token)
{
    static char status[256];
    time_t at = time(NULL) + seconds;
    struct tm tm;
    char when[64];

    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", gmtime_r(&at, &tm));
    snprintf(status, sizeof status, "\"token\":\"%s\",\"expirationTimestamp\":\"%s.5Z\"", token, when);
    return status;
}

static void a_plugin_runs_again_before_the_token_ends(void **state)
{
    (void)state;
    write_plugin_that_says(status_that_ends_in(1000, "t1"));
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(1);
    write_plugin_that_says(status_that_ends_in(3000, "t2"));
    later(780000);
    asks();
    assert_false(kube_exec_running(config->exec));
    later(21000);
    /* Meanwhile the old one goes on. */
    asks();
    assert_string_equal(auth.token, "t1");
    assert_true(kube_exec_running(config->exec));
    turn_until_quiet();
    asks();
    assert_string_equal(auth.token, "t2");
    assert_int_equal(readies, 1);
    assert_int_equal(runs(), 2);
}

static void requests_wait_once_the_token_has_ended(void **state)
{
    (void)state;
    write_plugin_that_says(status_that_ends_in(1000, "t1"));
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(1);
    write_plugin_that_says(status_that_ends_in(3000, "t2"));
    later(1001000);
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(2);
    asks();
    assert_string_equal(auth.token, "t2");
}

static void a_token_that_has_ended_already_is_used_and_not_asked_for_in_a_storm(void **state)
{
    (void)state;
    write_plugin_that_says("\"token\":\"t1\",\"expirationTimestamp\":\"2001-01-01T00:00:00+01:00\"");
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(1);
    for (int i = 0; i < 50; i++)
        asks();
    assert_string_equal(auth.token, "t1");
    assert_int_equal(runs(), 1);
}

static void a_refused_token_runs_the_plugin_again(void **state)
{
    (void)state;
    write_plugin_that_says("\"token\":\"t1\"");
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(1);
    /* It has just run: what it gave is worth a try, another run is not. */
    assert_true(kube_config_reject(config));
    asks();
    assert_int_equal(runs(), 1);
    write_plugin_that_says("\"token\":\"t2\"");
    later(PACE_MS);
    assert_true(kube_config_reject(config));
    assert_true(kube_config_reject(config));
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(2);
    asks();
    assert_string_equal(auth.token, "t2");
    assert_int_equal(runs(), 2);
}

/* Sent as nobody they would get 403, which looks like a right that is missing. */
static void requests_wait_while_the_plugin_has_given_nothing(void **state)
{
    (void)state;
    write_plugin("cd \"${0%/*}\"; echo run >>runs; exit 3");
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    turn_until_quiet();
    for (int i = 0; i < 5; i++)
        assert_false(kube_config_auth(config, &auth));
    assert_int_equal(runs(), 1);
    assert_int_equal(readies, 0);
    assert_true(config->again.at_ms >= config->run_ms + PACE_MS);
    write_plugin_that_says("\"token\":\"t1\"");
    /* Nobody asks: the timer does. */
    loop_timer_set(&loop, &config->again, loop.now_ms);
    turn_until_ready(1);
    asks();
    assert_string_equal(auth.token, "t1");
    assert_int_equal(runs(), 2);
}

static void a_plugin_that_will_not_die_is_not_the_last_attempt(void **state)
{
    (void)state;
    write_plugin("exit 3");
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    turn_until_quiet();
    config->exec->pid = getpid(); /* as one that was killed and hangs in the kernel: not reaped yet */
    loop_timer_clear(&config->again);
    on_again(&config->again);
    config->exec->pid = 0;
    assert_false(kube_exec_running(config->exec));
    assert_true(config->again.at_ms > 0);
    write_plugin_that_says("\"token\":\"t1\"");
    loop_timer_set(&loop, &config->again, loop.now_ms);
    turn_until_ready(1);
    asks();
}

static void a_plugin_that_fails_leaves_what_there_was(void **state)
{
    (void)state;
    write_plugin_that_says("\"token\":\"t1\"");
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(1);
    write_plugin("cd \"${0%/*}\"; echo run >>runs; exit 3");
    later(PACE_MS);
    assert_true(kube_config_reject(config));
    assert_false(kube_config_auth(config, &auth));
    turn_until_ready(2);
    asks();
    assert_string_equal(auth.token, "t1");
    assert_int_equal(runs(), 2);
}

static struct err said;
static char said_token[64];

static void on_done(void *arg, const struct kube_credential *c, const struct err *failed)
{
    (void)arg;
    said = failed ? *failed : (struct err){0};
    snprintf(said_token, sizeof said_token, "%s", c && c->token ? c->token : "");
    readies++;
}

static void run_alone(const struct kube_plugin *p)
{
    struct kube_exec *e = kube_exec_new(&loop, p, on_done, NULL);
    uint64_t end = loop_clock_ms() + PATIENCE_MS;
    int before = readies;

    kube_exec_start(e, NULL);
    assert_true(kube_exec_running(e));
    assert_int_equal(readies, before);
    turn_until_ready(before + 1);
    assert_false(kube_exec_running(e));
    while (e->pid) {
        assert_true(loop_clock_ms() < end);
        loop_turn(&loop, 50);
    }
    assert_int_equal(readies, before + 1);
    kube_exec_free(e);
}

static void what_a_plugin_gives_is_checked_and_never_quoted(void **state)
{
    char version[] = "client.authentication.k8s.io/v1", command[160];
    struct kube_plugin p = {.command = command, .api_version = version};
    static const struct {
        const char *script, *says; /* NULL: the token t */
    } cases[] = {
        {"echo "
         "'{\"apiVersion\":\"client.authentication.k8s.io/"
         "v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":"
         "\"t\",\"clientKeyData\":\"\",\"expirationTimestamp\":null}}'",
         NULL},
        {"echo hush", "not JSON"},
        {"exit 0", "not JSON"},
        {"echo '{}'", "no ExecCredential"},
        {"echo '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"hush\"}'",
         "no ExecCredential"},
        {"echo '{\"apiVersion\":\"client.authentication.k8s.io/v1beta1\",\"kind\":\"ExecCredential\"}'",
         "another apiVersion"},
        {"echo '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\"}'",
         "no status"},
        {"printf '" CREDENTIAL "' ''", "neither"},
        {"printf '" CREDENTIAL "' '\"token\":\"hu sh\"'", "blank"},
        {"printf '" CREDENTIAL "' '\"token\":\"t\",\"clientKeyData\":\"hush\"'", "and not both"},
        {"printf '" CREDENTIAL "' '\"clientCertificateData\":\"hush\",\"clientKeyData\":\"hush\"'",
         "no pair"},
        {"printf '" CREDENTIAL "' '\"token\":\"hush\",\"expirationTimestamp\":\"tomorrow\"'", "RFC 3339"},
        {"printf '" CREDENTIAL "' '\"token\":\"hush\",\"expirationTimestamp\":\"2026-01-01T00:00:00\"'",
         "RFC 3339"},
        {"printf '" CREDENTIAL "' '\"token\":\"hush\"'; exit 7", "code 7"},
        {"kill -9 $$", "signal 9"},
        {"yes hush", "bytes"},
        {"sleep 600 & echo $! >child; wait", "took more than"},
        {"trap '' TERM; sleep 600", "took more than"},
        /* Its child keeps the pipe open: that is not waited for. */
        {"sleep 3 2>/dev/null & printf '" CREDENTIAL "' '\"token\":\"t\"'", NULL},
    };

    (void)state;
    snprintf(command, sizeof command, "%s", in_dir("plug"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char script[1024];

        snprintf(script, sizeof script, "cd \"${0%%/*}\"\n%s", cases[i].script);
        write_plugin(script);
        run_alone(&p);
        if (!cases[i].says ? strcmp(said_token, "t") != 0 : !strstr(said.msg, cases[i].says))
            fail_msg("case %zu: %s, %s", i, said.msg, said_token);
        assert_null(strstr(said.msg, "hush"));
        if (cases[i].says)
            assert_non_null(strstr(said.msg, command));
    }
}

/* A zombie counts as gone: whoever inherits it reaps it. */
static bool is_gone(int pid)
{
    char path[64], line[256], state = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    f = fopen(path, "r");
    if (!f)
        return true;
    if (fgets(line, sizeof line, f) && strrchr(line, ')'))
        state = strrchr(line, ')')[2];
    fclose(f);
    return state == 'Z' || state == 'X';
}

static void children_of_a_plugin_end_with_it(void **state)
{
    uint64_t end = loop_clock_ms() + PATIENCE_MS;
    int child = 0;

    (void)state;
    write_plugin("cd \"${0%/*}\"; sleep 600 & echo $! >child.new; mv child.new child; wait");
    open_with_plugin("");
    assert_false(kube_config_auth(config, &auth));
    while (!content_of("child")) {
        assert_true(loop_clock_ms() < end);
        loop_turn(&loop, 20);
    }
    child = (int)strtol(content_of("child"), NULL, 10);
    assert_true(child > 1);
    assert_false(is_gone(child));
    kube_config_free(config);
    config = NULL;
    while (!is_gone(child))
        assert_true(loop_clock_ms() < end);
}

/* As a plugin: its child stays in the group that we made, it goes into ours. */
static int leave_group(void)
{
    if (fork() && setpgid(0, getpgid(getppid())))
        return 1;
    for (;;)
        pause();
}

static void a_plugin_that_has_left_its_group_ends_all_the_same(void **state)
{
    char version[] = "client.authentication.k8s.io/v1", self[] = "/proc/self/exe", arg[] = "leave-group";
    char *args[] = {arg, NULL};
    struct kube_plugin p = {.command = self, .args = args, .api_version = version};

    (void)state;
    run_alone(&p);
    assert_non_null(strstr(said.msg, "took more than"));
}

static void a_plugin_that_cannot_be_started_is_named(void **state)
{
    char version[] = "client.authentication.k8s.io/v1", missing[160], name[] = "no-such-plugin-anywhere";
    struct kube_plugin p = {.command = missing, .api_version = version};

    (void)state;
    snprintf(missing, sizeof missing, "%s", in_dir("missing"));
    run_alone(&p);
    assert_int_equal(said.code, ERR_NOT_FOUND);
    assert_non_null(strstr(said.msg, missing));
    p.command = name;
    run_alone(&p);
    assert_int_equal(said.code, ERR_NOT_FOUND);
    put_file("missing", "#!/bin/sh\n");
    p.command = missing;
    run_alone(&p);
    assert_int_equal(said.code, ERR_IO);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(places_are_asked_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_broken_or_missing_file_that_was_named_is_not_passed_over, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_pod_finds_its_service_account, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pod_without_a_good_token_or_ca_does_not_start, setup, teardown),
        cmocka_unit_test_setup_teardown(proxies_are_said_as_curl_says_them, setup, teardown),
        cmocka_unit_test_setup_teardown(a_token_is_read_again_each_minute_and_kept_when_it_cannot_be, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_refused_token_is_read_again_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_lent_lives_until_the_next_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(a_swap_of_kubernetes_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(a_ca_is_read_again_and_kept_when_it_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_certificate_changes_with_its_key_only, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_wait_for_the_first_run, setup, teardown),
        cmocka_unit_test_setup_teardown(a_plugin_gets_its_environment_and_nothing_of_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(a_plugin_is_told_of_the_cluster_when_it_asks, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_certificate_of_a_plugin_raises_the_generation, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_plugin_runs_again_before_the_token_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_wait_once_the_token_has_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(a_token_that_has_ended_already_is_used_and_not_asked_for_in_a_storm,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_token_runs_the_plugin_again, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_wait_while_the_plugin_has_given_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_plugin_that_will_not_die_is_not_the_last_attempt, setup, teardown),
        cmocka_unit_test_setup_teardown(a_plugin_that_fails_leaves_what_there_was, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_plugin_gives_is_checked_and_never_quoted, setup, teardown),
        cmocka_unit_test_setup_teardown(children_of_a_plugin_end_with_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_plugin_that_has_left_its_group_ends_all_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(a_plugin_that_cannot_be_started_is_named, setup, teardown),
    };

    if (argc > 1 && !strcmp(argv[1], "leave-group"))
        return leave_group();
    log_init(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
