/* test_kube_exec.c - plugins that say as whom we speak */
#include "test_kube_config.h"

#define PATIENCE_MS 20000

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
    char user[1024];

    snprintf(user, sizeof user, "exec: {command: ./plug, apiVersion: client.authentication.k8s.io/v1%s}",
             more);
    open_kubeconfig("", user);
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

static void asks_in_vain(void)
{
    assert_false(kube_config_auth(config, &auth));
}

/* Until a plugin has run so often, that of this request among them. */
static void asks_and_waits(int so_often)
{
    asks_in_vain();
    turn_until_ready(so_often);
}

static void begin_with(const char *status)
{
    write_plugin_that_says(status);
    open_with_plugin("");
    asks_and_waits(1);
}

static void requests_wait_for_the_first_run(void **state)
{
    (void)state;
    write_plugin_that_says("\"token\":\"t1\"");
    open_with_plugin("");
    asks_in_vain();
    asks_and_waits(1);
    asks_as("t1");
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
    asks_in_vain();
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
    json_t *info, *cluster;

    (void)state;
    put_file("ca.crt", ca.cert);
    write_plugin("cd \"${0%/*}\"; printf %s \"$KUBERNETES_EXEC_INFO\" >seen");
    write_kubeconfig("k", "h/p/",
                     ", certificate-authority: ca.crt, tls-server-name: n, extensions: [{name: "
                     "client.authentication.k8s.io/exec, extension: {n: 5}}]",
                     "exec: {command: ./plug, apiVersion: client.authentication.k8s.io/v1beta1, "
                     "provideClusterInfo: true}");
    open_k();
    asks_in_vain();
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
    asks_and_waits(1);
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
    begin_with(status_that_ends_in(1000, "t1"));
    write_plugin_that_says(status_that_ends_in(3000, "t2"));
    later(780000);
    asks();
    assert_false(kube_exec_running(config->exec));
    later(21000);
    /* Meanwhile the old one goes on. */
    asks_as("t1");
    assert_true(kube_exec_running(config->exec));
    turn_until_quiet();
    asks_as("t2");
    assert_int_equal(readies, 1);
    assert_int_equal(runs(), 2);
}

static void requests_wait_once_the_token_has_ended(void **state)
{
    (void)state;
    begin_with(status_that_ends_in(1000, "t1"));
    write_plugin_that_says(status_that_ends_in(3000, "t2"));
    later(1001000);
    asks_and_waits(2);
    asks_as("t2");
}

static void a_token_that_has_ended_already_is_used_and_not_asked_for_in_a_storm(void **state)
{
    (void)state;
    begin_with("\"token\":\"t1\",\"expirationTimestamp\":\"2001-01-01T00:00:00+01:00\"");
    for (int i = 0; i < 50; i++)
        asks_as("t1");
    assert_int_equal(runs(), 1);
}

static void a_refused_token_runs_the_plugin_again(void **state)
{
    (void)state;
    begin_with("\"token\":\"t1\"");
    /* It has just run: what it gave is worth a try, another run is not. */
    assert_true(kube_config_reject(config));
    asks();
    assert_int_equal(runs(), 1);
    write_plugin_that_says("\"token\":\"t2\"");
    later(PACE_MS);
    assert_true(kube_config_reject(config));
    assert_true(kube_config_reject(config));
    asks_and_waits(2);
    asks_as("t2");
    assert_int_equal(runs(), 2);
}

/* Sent as nobody they would get 403, which looks like a right that is missing. */
static void requests_wait_while_the_plugin_has_given_nothing(void **state)
{
    (void)state;
    write_plugin("cd \"${0%/*}\"; echo run >>runs; exit 3");
    open_with_plugin("");
    asks_in_vain();
    turn_until_quiet();
    for (int i = 0; i < 5; i++)
        asks_in_vain();
    assert_int_equal(runs(), 1);
    assert_int_equal(readies, 0);
    assert_true(config->again.at_ms >= config->run_ms + PACE_MS);
    write_plugin_that_says("\"token\":\"t1\"");
    /* Nobody asks: the timer does. */
    loop_timer_set(&loop, &config->again, loop.now_ms);
    turn_until_ready(1);
    asks_as("t1");
    assert_int_equal(runs(), 2);
}

static void a_plugin_that_will_not_die_is_not_the_last_attempt(void **state)
{
    (void)state;
    write_plugin("exit 3");
    open_with_plugin("");
    asks_in_vain();
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
    begin_with("\"token\":\"t1\"");
    write_plugin("cd \"${0%/*}\"; echo run >>runs; exit 3");
    later(PACE_MS);
    assert_true(kube_config_reject(config));
    asks_and_waits(2);
    asks_as("t1");
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
    asks_in_vain();
    while (!content_of("child")) {
        assert_true(loop_clock_ms() < end);
        loop_turn(&loop, 20);
    }
    child = (int)strtol(content_of("child"), NULL, 10);
    assert_true(child > 1);
    assert_false(is_gone(child));
    close_config();
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
        CASE(requests_wait_for_the_first_run),
        CASE(a_plugin_gets_its_environment_and_nothing_of_ours),
        CASE(a_plugin_is_told_of_the_cluster_when_it_asks),
        CASE(a_client_certificate_of_a_plugin_raises_the_generation),
        CASE(a_plugin_runs_again_before_the_token_ends),
        CASE(requests_wait_once_the_token_has_ended),
        CASE(a_token_that_has_ended_already_is_used_and_not_asked_for_in_a_storm),
        CASE(a_refused_token_runs_the_plugin_again),
        CASE(requests_wait_while_the_plugin_has_given_nothing),
        CASE(a_plugin_that_will_not_die_is_not_the_last_attempt),
        CASE(a_plugin_that_fails_leaves_what_there_was),
        CASE(what_a_plugin_gives_is_checked_and_never_quoted),
        CASE(children_of_a_plugin_end_with_it),
        CASE(a_plugin_that_has_left_its_group_ends_all_the_same),
        CASE(a_plugin_that_cannot_be_started_is_named),
    };

    if (argc > 1 && !strcmp(argv[1], "leave-group"))
        return leave_group();
    log_init(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
