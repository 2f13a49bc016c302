/* test_rundir.c - one proxy a run dir: the lock, its holder, what may stand in the place of proxy.pid */
#include "base/rundir.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/tidegate-rundir-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    static const char *const names[] = {"proxy.pid", "status.json", "target"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_dir(names[i]));
    return rmdir(dir);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void assert_holds(const char *path, const char *text)
{
    char got[256] = "";
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    (void)!fread(got, 1, sizeof got - 1, f);
    fclose(f);
    assert_string_equal(got, text);
}

/* A lock belongs to a process and ends when any descriptor of the file is closed there: each holder is a child. It
 * writes '0' once it holds the lock, or the error, and lives until it is killed. */
struct child {
    pid_t pid;
    int from;
    char said[512];
};

static struct child open_in_child(void)
{
    struct child c = {0};
    int pipes[2];
    ssize_t n;

    assert_int_equal(pipe(pipes), 0);
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (!c.pid) {
        struct rundir r;
        struct err err;

        if (rundir_open(dir, &r, &err))
            (void)!write(pipes[1], err.msg, strlen(err.msg));
        else if (rundir_write_status(&r, "{}\n", 3, &err))
            (void)!write(pipes[1], err.msg, strlen(err.msg));
        else
            (void)!write(pipes[1], "0", 1);
        close(pipes[0]);
        for (;;)
            pause();
    }
    close(pipes[1]);
    c.from = pipes[0];
    n = read(c.from, c.said, sizeof c.said - 1);
    assert_true(n > 0);
    return c;
}

static void end(struct child *c)
{
    kill(c->pid, SIGKILL);
    assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
    close(c->from);
}

static void the_holder_has_its_number_and_status_in_there(void **state)
{
    struct child c;
    char pid[32];
    pid_t found = 0;
    struct err err;
    struct stat st;

    (void)state;
    put(in_dir("proxy.pid"), "12345678901234567890 of somebody else\n");
    assert_int_equal(rundir_holder(dir, &found, &err), 0);
    c = open_in_child();
    assert_string_equal(c.said, "0");
    snprintf(pid, sizeof pid, "%ld\n", (long)c.pid);
    assert_holds(in_dir("proxy.pid"), pid);
    assert_holds(in_dir("status.json"), "{}\n");
    assert_int_equal(stat(in_dir("status.json"), &st), 0);
    assert_int_equal(st.st_mode & 0133, 0);
    assert_int_equal(rundir_holder(dir, &found, &err), 1);
    assert_int_equal(found, c.pid);
    end(&c);
}

static void a_second_one_is_told_who_is_there(void **state)
{
    struct child first, second;
    char text[128];
    pid_t found = 0;
    struct err err;

    (void)state;
    first = open_in_child();
    second = open_in_child();
    snprintf(text, sizeof text, "%s is in use by process %ld", dir, (long)first.pid);
    assert_string_equal(second.said, text);
    /* Its attempt took nothing away. */
    assert_int_equal(rundir_holder(dir, &found, &err), 1);
    assert_int_equal(found, first.pid);
    snprintf(text, sizeof text, "%ld\n", (long)first.pid);
    assert_holds(in_dir("proxy.pid"), text);
    end(&second);
    end(&first);
}

static void a_killed_holder_leaves_no_lock(void **state)
{
    struct child first, second;
    pid_t found = 0;
    struct err err;

    (void)state;
    first = open_in_child();
    end(&first);
    assert_int_equal(rundir_holder(dir, &found, &err), 0);
    second = open_in_child();
    assert_string_equal(second.said, "0");
    end(&second);
}

static void what_is_no_file_is_neither_followed_nor_waited_for(void **state)
{
    struct rundir r;
    struct err err;
    pid_t found = 0;

    (void)state;
    alarm(5);
    put(in_dir("target"), "keep\n");
    assert_int_equal(symlink("target", in_dir("proxy.pid")), 0);
    assert_int_equal(rundir_open(dir, &r, &err), -1);
    assert_non_null(strstr(err.msg, "proxy.pid: a symbolic link"));
    assert_int_equal(rundir_holder(dir, &found, &err), -1);
    assert_holds(in_dir("target"), "keep\n");
    unlink(in_dir("proxy.pid"));
    assert_int_equal(symlink("nothing", in_dir("proxy.pid")), 0);
    assert_int_equal(rundir_open(dir, &r, &err), -1);
    assert_int_equal(access(in_dir("nothing"), F_OK), -1);
    unlink(in_dir("proxy.pid"));
    assert_int_equal(mkfifo(in_dir("proxy.pid"), 0600), 0);
    assert_int_equal(rundir_open(dir, &r, &err), -1);
    assert_non_null(strstr(err.msg, "proxy.pid: not a regular file"));
    assert_int_equal(rundir_holder(dir, &found, &err), -1);
    alarm(0);
}

static void the_directory_is_not_made(void **state)
{
    struct rundir r;
    struct err err;

    (void)state;
    assert_int_equal(rundir_open(in_dir("none"), &r, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "none: No such file or directory"));
    assert_int_equal(access(in_dir("none"), F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_holder_has_its_number_and_status_in_there, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_one_is_told_who_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_holder_leaves_no_lock, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_neither_followed_nor_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(the_directory_is_not_made, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
