/* test_kube_config.h - a configuration of made-up places, for its tests
 * Shape:   files in a folder of the test's own -> open_kubeconfig, or open_from of any places -> what requests are sent with;
 *          the code is included, so that its places can be made up, its waits be shorter and its clock be moved
 * Units:   later() moves the loop's clock, ms
 * Owner:   CASE's setup and teardown: loop, folder, config
 * Errors:  cmocka's asserts
 * Threads: one */
#ifndef TESTS_UNIT_TEST_KUBE_CONFIG_H
#define TESTS_UNIT_TEST_KUBE_CONFIG_H

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

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static struct loop loop;
static struct kube_config *config;
static struct kube_auth auth;
static struct err err;
static char dir[64];
static int readies;

static inline const char *in_dir(const char *name)
{
    static char path[16][160];
    static unsigned turn;
    char *p = path[turn++ % 16];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static inline void put_file(const char *name, const char *content)
{
    FILE *f = fopen(in_dir(name), "w");

    assert_non_null(f);
    fputs(content, f);
    assert_int_equal(fclose(f), 0);
}

static inline int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/tidegate-kube-XXXXXX");
    config = NULL;
    readies = 0;
    err = (struct err){0};
    return mkdtemp(dir) && !loop_init(&loop, &err) ? 0 : -1;
}

static inline int teardown(void **state)
{
    char command[128];

    (void)state;
    kube_config_free(config);
    loop_done(&loop);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command); /* NOLINT */
}

static inline void on_ready(void *arg)
{
    (void)arg;
    readies++;
}

static inline void open_ok(const struct places *p)
{
    if (open_from(&loop, p, &config, &err))
        fail_msg("%s", err.msg);
    kube_config_on_ready(config, on_ready, NULL);
}

static inline void asks(void)
{
    assert_true(kube_config_auth(config, &auth));
}

static inline void asks_as(const char *token)
{
    asks();
    assert_string_equal(auth.token, token);
}

static inline void later(uint64_t ms)
{
    loop.now_ms += ms;
}

static inline void write_kubeconfig(const char *name, const char *server, const char *cluster,
                                    const char *user)
{
    char all[4096];

    snprintf(all, sizeof all,
             "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
             "clusters: [{name: k, cluster: {server: 'https://%s'%s}}]\nusers: [{name: u, user: {%s}}]\n",
             server, cluster, user);
    put_file(name, all);
}

static inline void open_k(void)
{
    open_ok(&(struct places){.flag = in_dir("k")});
}

static inline void open_kubeconfig(const char *cluster, const char *user)
{
    write_kubeconfig("k", "h", cluster, user);
    open_k();
}

static inline void close_config(void)
{
    kube_config_free(config);
    config = NULL;
}

static inline void refused(const struct places *p, const char *says)
{
    assert_int_equal(open_from(&loop, p, &config, &err), -1);
    if (!strstr(err.msg, says))
        fail_msg("%s", err.msg);
}

#endif
