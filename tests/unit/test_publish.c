/* test_publish.c - the file, the signal and the echo, with a stand-in for the proxy: a process that holds the run dir's lock */
#include "publish.h"

#include "base/file.h"
#include "base/rundir.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 5000

struct fixture {
    char dir[64];
    struct loop loop;
    struct publish *publish;
    unsigned echoes;
    pid_t holder;
    int hups; /* a byte for each SIGHUP that the holder got */
};

static const char *in_dir(const struct fixture *f, const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", f->dir, name);
    return p;
}

static void on_echo(void *arg)
{
    struct fixture *f = arg;

    f->echoes++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err;

    snprintf(f->dir, sizeof f->dir, "/tmp/tidegate-publish-XXXXXX");
    f->hups = -1;
    *state = f;
    if (!mkdtemp(f->dir) || loop_init(&f->loop, &err))
        return -1;
    f->publish = publish_new(&f->loop, f->dir, on_echo, f, &err);
    return f->publish ? 0 : -1;
}

static void end_holder(struct fixture *f)
{
    if (!f->holder)
        return;
    kill(f->holder, SIGKILL);
    waitpid(f->holder, NULL, 0);
    close(f->hups);
    f->holder = 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"proxy.pid", "status.json", "servers.yaml", "servers.yaml.tmp/x"};
    struct fixture *f = *state;

    end_holder(f);
    publish_free(f->publish);
    loop_done(&f->loop);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_dir(f, names[i]));
    rmdir(in_dir(f, "servers.yaml.tmp"));
    rmdir(f->dir);
    free(f);
    return 0;
}

/* Turns the loop until the condition holds. */
#define turn_until(f, condition)                                                                             \
    do {                                                                                                     \
        uint64_t until_ = loop_clock_ms() + WAIT_MS;                                                         \
        while (!(condition) && loop_clock_ms() < until_)                                                     \
            loop_turn(&(f)->loop, 20);                                                                       \
        assert_true(condition);                                                                              \
    } while (0)

static void hold(const char *dir, const sigset_t *set, int to)
{
    struct rundir r;
    struct err err;
    int signal_number;

    if (rundir_open(dir, &r, &err))
        _exit(1);
    for (char byte = 'l';; byte = 'h') { /* locked, then a byte each signal */
        if (write(to, &byte, 1) != 1 || sigwait(set, &signal_number))
            _exit(1);
    }
}

static void begin_holder(struct fixture *f)
{
    sigset_t set, old;
    int ends[2];
    char byte = 0;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &old);
    assert_int_equal(pipe(ends), 0);
    f->holder = fork();
    if (!f->holder)
        hold(f->dir, &set, ends[1]);
    close(ends[1]);
    sigprocmask(SIG_SETMASK, &old, NULL);
    f->hups = ends[0];
    assert_int_equal(read(f->hups, &byte, 1), 1);
    assert_int_equal(byte, 'l');
}

static void assert_hup(const struct fixture *f)
{
    char byte = 0;

    assert_int_equal(read(f->hups, &byte, 1), 1);
    assert_int_equal(byte, 'h');
}

static void publish(struct fixture *f, const char *text)
{
    struct buf b;
    struct err err;

    buf_init(&b, 1 << 20);
    assert_int_equal(buf_add_str(&b, text), 0);
    assert_int_equal(publish_text(f->publish, &b, &err), 0);
    buf_free(&b);
}

static void say(struct fixture *f, const char *revision, const char *seen, const char *result,
                const char *rest)
{
    char text[1024];
    struct err err;
    int len = snprintf(
        text, sizeof text,
        "{\"pid\":1,\"revision\":\"%s\",\"seen\":{\"revision\":\"%s\",\"result\":\"%s\",\"errors\":[%s]},"
        "\"servers\":[{\"name\":\"b/y\",\"state\":\"stale\",\"message\":\"port is taken\"},"
        "{\"name\":\"a/x\",\"state\":\"active\",\"message\":null}]}",
        revision, seen, result, rest);

    assert_int_equal(file_replace(in_dir(f, "status.json"), text, (size_t)len, 0644, &err), 0);
}

static void a_text_is_written_signalled_and_confirmed_by_its_revision(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    const char *why = NULL;

    begin_holder(f);
    publish(f, "---\nname: a/x\n");
    assert_hup(f);
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(strlen(publish_revision(f->publish)), 64);
    assert_false(publish_confirmed(f->publish));

    say(f, "0123", publish_revision(f->publish), "applied", "");
    turn_until(f, f->echoes == 1);
    assert_false(publish_confirmed(f->publish)); /* another revision is no echo */

    say(f, publish_revision(f->publish), publish_revision(f->publish), "applied", "");
    turn_until(f, publish_confirmed(f->publish));
    assert_false(publish_late(f->publish, &why));
    assert_int_equal(publish_server(f->publish, "a/x")->state, ECHO_ACTIVE);
    assert_int_equal(publish_server(f->publish, "b/y")->state, ECHO_STALE);
    assert_string_equal(publish_server(f->publish, "b/y")->message, "port is taken");
    assert_null(publish_server(f->publish, "c/z"));
}

static void the_same_text_is_not_written_again(void **state)
{
    struct fixture *f = *state;
    struct stat before, after;

    publish(f, "---\n");
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &before), 0);
    publish(f, "---\n");
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    publish(f, "--- \n");
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
}

static void a_signal_without_an_echo_is_sent_again(void **state)
{
    struct fixture *f = *state;

    begin_holder(f);
    publish(f, "---\n");
    assert_hup(f);
    for (uint64_t until = loop_clock_ms() + PUBLISH_RESEND_MS + 200; loop_clock_ms() < until;)
        loop_turn(&f->loop, 50);
    assert_hup(f);
}

static void a_refusal_is_told_with_the_proxys_own_words(void **state)
{
    struct fixture *f = *state;
    const char *why = NULL;

    publish(f, "---\n");
    assert_false(publish_late(f->publish, &why));
    say(f, "", publish_revision(f->publish), "refused", "\"3:1: no YAML\"");
    turn_until(f, f->echoes == 1);
    assert_true(publish_late(f->publish, &why));
    assert_non_null(strstr(why, "3:1: no YAML"));
}

static void a_file_that_cannot_be_written_leaves_the_old_one_and_says_so(void **state)
{
    struct fixture *f = *state;
    const char *why = NULL;
    struct stat before, after;
    struct buf b;
    struct err err;
    FILE *x;

    publish(f, "---\n");
    say(f, publish_revision(f->publish), publish_revision(f->publish), "applied", "");
    turn_until(f, publish_confirmed(f->publish));
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &before), 0);
    /* what stands in the way of the temporary file is a directory that is not empty */
    assert_int_equal(mkdir(in_dir(f, "servers.yaml.tmp"), 0700), 0);
    x = fopen(in_dir(f, "servers.yaml.tmp/x"), "w");
    assert_non_null(x);
    fclose(x);
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_add_str(&b, "---\nname: a/x\n"), 0);
    assert_int_equal(publish_text(f->publish, &b, &err), -1);
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_false(publish_confirmed(f->publish));
    assert_true(publish_late(f->publish, &why));
    assert_string_equal(why, err.msg);

    unlink(in_dir(f, "servers.yaml.tmp/x"));
    rmdir(in_dir(f, "servers.yaml.tmp"));
    assert_int_equal(publish_text(f->publish, &b, &err), 0);
    assert_false(publish_late(f->publish, &why));
    buf_free(&b);
}

static void what_an_earlier_process_published_is_recalled_and_signalled_once(void **state)
{
    struct fixture *f = *state;
    struct buf b;
    struct err err;
    struct stat before, after;

    buf_init(&b, 1 << 20);
    assert_int_equal(publish_recall(f->publish, &b, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(file_replace(in_dir(f, "servers.yaml"), "---\n", 4, 0600, &err), 0);
    assert_int_equal(publish_recall(f->publish, &b, &err), 0);
    assert_int_equal(b.len, 4);
    buf_free(&b);

    begin_holder(f);
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &before), 0);
    publish(f, "---\n");
    assert_hup(f);
    assert_int_equal(stat(in_dir(f, "servers.yaml"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
}

static void a_status_that_is_no_json_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct err err;

    publish(f, "---\n");
    say(f, publish_revision(f->publish), publish_revision(f->publish), "applied", "");
    turn_until(f, publish_confirmed(f->publish));
    assert_int_equal(file_replace(in_dir(f, "status.json"), "{\"revision\":", 12, 0644, &err), 0);
    for (uint64_t until = loop_clock_ms() + 300; loop_clock_ms() < until;)
        loop_turn(&f->loop, 50);
    assert_true(publish_confirmed(f->publish));
    assert_int_equal(f->echoes, 1);
}

#define with_fixture(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_fixture(a_text_is_written_signalled_and_confirmed_by_its_revision),
        with_fixture(the_same_text_is_not_written_again),
        with_fixture(a_signal_without_an_echo_is_sent_again),
        with_fixture(a_refusal_is_told_with_the_proxys_own_words),
        with_fixture(a_file_that_cannot_be_written_leaves_the_old_one_and_says_so),
        with_fixture(what_an_earlier_process_published_is_recalled_and_signalled_once),
        with_fixture(a_status_that_is_no_json_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
