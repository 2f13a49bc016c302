/* test_kube_files.c - files of a configuration that change under us */
#include "test_kube_config.h"

static void a_token_is_read_again_each_minute_and_kept_when_it_cannot_be(void **state)
{
    (void)state;
    put_file("token", "one\n");
    open_kubeconfig("", "token: never, tokenFile: token");
    asks_as("one");
    put_file("token", "two");
    later(KUBE_CONFIG_TOKEN_MS - 1);
    asks_as("one");
    later(1);
    asks_as("two");
    put_file("token", " \n");
    later(KUBE_CONFIG_TOKEN_MS);
    asks_as("two");
    put_file("token", "three\r\nHost: evil");
    later(KUBE_CONFIG_TOKEN_MS);
    asks_as("two");
    unlink(in_dir("token"));
    later(KUBE_CONFIG_TOKEN_MS);
    asks_as("two");
    assert_int_equal(auth.generation, 1);
}

static void a_refused_token_is_read_again_at_once(void **state)
{
    (void)state;
    put_file("token", "one");
    open_kubeconfig("", "tokenFile: token");
    assert_false(kube_config_reject(config));
    put_file("token", "two");
    assert_true(kube_config_reject(config));
    asks_as("two");
    /* Another request, which was under way with the old one. */
    assert_true(kube_config_reject(config));
    later(PACE_MS);
    assert_false(kube_config_reject(config));
    unlink(in_dir("token"));
    assert_false(kube_config_reject(config));
    asks_as("two");
}

static void what_was_lent_lives_until_the_next_turn(void **state)
{
    struct kube_auth before;

    (void)state;
    put_file("token", "one");
    open_kubeconfig("", "tokenFile: token");
    assert_true(kube_config_auth(config, &before));
    put_file("token", "two");
    assert_true(kube_config_reject(config));
    assert_string_equal(before.token, "one");
    close_config();
    assert_string_equal(before.token, "one");
}

static void asks_at(uint64_t generation)
{
    asks();
    assert_int_equal(auth.generation, generation);
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
    asks_as("two");
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

    (void)state;
    put_file("ca.crt", a.cert);
    open_kubeconfig(", certificate-authority: ca.crt", "token: t");
    asks_at(1);
    put_file("ca.crt", b.cert);
    later(KUBE_CONFIG_CERT_MS - 1);
    asks_at(1);
    later(1);
    asks_at(2);
    assert_memory_equal(auth.ca_pem, b.cert, auth.ca_len);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_file("ca.crt", bad[i]);
        later(PACE_MS);
        assert_false(kube_config_reject(config));
    }
    /* A good one, and half of the next. */
    snprintf(cut, sizeof cut, "%s%.*s", a.cert, (int)strlen(b.cert) / 2, b.cert);
    put_file("ca.crt", cut);
    later(KUBE_CONFIG_CERT_MS);
    asks_at(2);
    assert_memory_equal(auth.ca_pem, b.cert, auth.ca_len);
    put_file("ca.crt", a.cert);
    assert_true(kube_config_reject(config));
    asks_at(3);
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
    refused(&p, "c.crt");
    put_file("c.key", a.key);
    open_ok(&p);
    asks();
    assert_null(auth.token);
    put_file("c.crt", b.cert);
    assert_false(kube_config_reject(config));
    later(KUBE_CONFIG_CERT_MS);
    asks_at(1);
    assert_memory_equal(auth.cert_pem, a.cert, auth.cert_len);
    put_file("c.key", b.key);
    later(KUBE_CONFIG_CERT_MS);
    asks_at(2);
    assert_memory_equal(auth.cert_pem, b.cert, auth.cert_len);
    assert_memory_equal(auth.key_pem, b.key, auth.key_len);
    made_pair_free(&a);
    made_pair_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_token_is_read_again_each_minute_and_kept_when_it_cannot_be),
        CASE(a_refused_token_is_read_again_at_once),
        CASE(what_was_lent_lives_until_the_next_turn),
        CASE(a_swap_of_kubernetes_is_seen),
        CASE(a_ca_is_read_again_and_kept_when_it_is_none),
        CASE(a_client_certificate_changes_with_its_key_only),
    };

    log_init(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
