/* test_kube_config.c - where a configuration is looked for */
#include "test_kube_config.h"

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
        close_config();
        if (!i)
            p.flag = NULL;
        else if (i == 1)
            p.list = "";
        else if (i == 2)
            p.host = NULL;
        else
            p.home = in_dir("nobody");
    }
    refused(&p, "");
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
    refused(&p, "");
    assert_int_equal(err.code, ERR_NOT_FOUND);
    p.flag = NULL;
    p.list = in_dir("missing");
    refused(&p, "");
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "missing: no such file"));
    put_file("broken", "a: [");
    p.list = in_dir("broken");
    refused(&p, "");
    assert_int_equal(err.code, ERR_SYNTAX);
    assert_non_null(strstr(err.msg, "broken:"));
    put_file(".kube/config", "kind: Pod");
    p.list = NULL;
    refused(&p, "");
    assert_int_equal(err.code, ERR_INVALID);
    p.list = dir;
    refused(&p, "");
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
    close_config();
    put_file("sa/namespace", "../kube-system");
    refused(&p, "sa/namespace: is no name");
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
    refused(&p, "sa/ca.crt: is empty");
    write_service_account("t", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    refused(&p, "sa/ca.crt: holds no certificate");
    unlink(in_dir("sa/ca.crt"));
    refused(&p, "");
    write_service_account(" \n", ca.cert);
    refused(&p, "sa/token: is empty");
    unlink(in_dir("sa/token"));
    refused(&p, "");
    assert_int_equal(err.code, ERR_NOT_FOUND);
    made_pair_free(&ca);
}

static void proxies_are_said_as_curl_says_them(void **state)
{
    static const char *const cases[][2] = {{"http://u:p@proxy:3128", "http://u:p@proxy:3128"},
                                           {"https://proxy", "https://proxy"},
                                           {"socks5://proxy:1080", "socks5h://proxy:1080"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char cluster[128];

        snprintf(cluster, sizeof cluster, ", proxy-url: '%s'", cases[i][0]);
        open_kubeconfig(cluster, "token: t");
        asks();
        assert_string_equal(auth.proxy_url, cases[i][1]);
        close_config();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(places_are_asked_in_order),
        CASE(a_broken_or_missing_file_that_was_named_is_not_passed_over),
        CASE(a_pod_finds_its_service_account),
        CASE(a_pod_without_a_good_token_or_ca_does_not_start),
        CASE(proxies_are_said_as_curl_says_them),
    };

    log_init(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
