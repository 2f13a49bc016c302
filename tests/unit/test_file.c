/* test_file.c - a file is replaced whole or not at all, whatever stands in the way */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OLD "old: the bytes that stood here\n"
#define NEW "new\n"
/* Exit codes of a child: it may not do what the test needs. */
#define CHILD_CANNOT 77

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
    snprintf(dir, sizeof dir, "/tmp/tidegate-file-XXXXXX");
    umask(022);
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    static const char *const names[] = {"f", "f.tmp", "target"};

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

static bool holds(const char *path, const char *text)
{
    struct err err;
    struct buf b;
    bool same;

    buf_init(&b, 1 << 20);
    same = !file_read(path, &b, &err) && b.len == strlen(text) && !memcmp(b.data, text, b.len);
    buf_free(&b);
    return same;
}

static void new_bytes_take_the_place_of_the_old(void **state)
{
    struct err err;
    struct stat st, before;

    (void)state;
    put(in_dir("f"), OLD);
    assert_int_equal(stat(in_dir("f"), &before), 0);
    assert_int_equal(file_replace(in_dir("f"), NEW, strlen(NEW), 0600, &err), 0);
    assert_true(holds(in_dir("f"), NEW));
    assert_int_equal(stat(in_dir("f"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(st.st_ino != before.st_ino); /* a reader of the old file keeps it whole */
    assert_int_equal(access(in_dir("f.tmp"), F_OK), -1);
    assert_int_equal(file_replace(in_dir("f"), "", 0, 0644, &err), 0);
    assert_true(holds(in_dir("f"), ""));
}

static void a_bare_name_is_of_the_working_directory(void **state)
{
    struct err err;
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(file_replace("f", NEW, strlen(NEW), 0644, &err), 0);
    assert_int_equal(fchdir(here), 0);
    close(here);
    assert_true(holds(in_dir("f"), NEW));
}

static void planted_names_are_not_followed(void **state)
{
    struct err err;
    struct stat st;

    (void)state;
    put(in_dir("target"), OLD);
    assert_int_equal(symlink("target", in_dir("f")), 0);
    assert_int_equal(symlink("target", in_dir("f.tmp")), 0);
    assert_int_equal(file_replace(in_dir("f"), NEW, strlen(NEW), 0600, &err), 0);
    assert_true(holds(in_dir("target"), OLD));
    assert_int_equal(lstat(in_dir("f"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    /* A FIFO without a reader would hold up whoever opens it. */
    unlink(in_dir("f"));
    assert_int_equal(mkfifo(in_dir("f"), 0600), 0);
    assert_int_equal(mkfifo(in_dir("f.tmp"), 0600), 0);
    alarm(5);
    assert_int_equal(file_replace(in_dir("f"), NEW, strlen(NEW), 0600, &err), 0);
    alarm(0);
    assert_true(holds(in_dir("f"), NEW));
}

static void a_directory_that_is_not_there_is_said(void **state)
{
    struct err err;
    char name[300];

    (void)state;
    assert_int_equal(file_replace(in_dir("none/f"), NEW, strlen(NEW), 0600, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "none/f: No such file"));
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(file_replace(name, NEW, strlen(NEW), 0600, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
}

/* In a child, for what it does to itself is for good. Its exit code: 0, the number of the check, or CHILD_CANNOT. */
static void in_child(int (*work)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid)
        _exit(work());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_CANNOT && !getenv("CI"))
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int write_beyond_a_limit(void)
{
    static char big[8192];
    struct rlimit lim = {4096, 4096};
    struct err err;

    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &lim);
    if (!file_replace(in_dir("f"), big, sizeof big, 0600, &err))
        return 1;
    if (!strstr(err.msg, strerror(EFBIG)))
        return 2;
    return access(in_dir("f.tmp"), F_OK) ? 0 : 3;
}

static void a_write_that_fails_half_way_leaves_the_old_file(void **state)
{
    (void)state;
    put(in_dir("f"), OLD);
    in_child(write_beyond_a_limit);
    assert_true(holds(in_dir("f"), OLD));
}

/* A file system of 64 KiB of our own, seen by nobody else. */
static int mount_small(void)
{
    bool own = geteuid() == 0 ? !unshare(CLONE_NEWNS) : !unshare(CLONE_NEWUSER | CLONE_NEWNS);

    if (!own || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k"))
        return CHILD_CANNOT;
    return 0;
}

static int fill_the_disk(void)
{
    static char big[256 * 1024];
    struct err err;
    int r = mount_small();

    if (r)
        return r;
    if (file_replace(in_dir("f"), OLD, strlen(OLD), 0600, &err))
        return 1;
    if (!file_replace(in_dir("f"), big, sizeof big, 0600, &err) || !strstr(err.msg, strerror(ENOSPC)))
        return 2;
    if (!holds(in_dir("f"), OLD) || !access(in_dir("f.tmp"), F_OK))
        return 3;
    /* The next attempt finds room. */
    return file_replace(in_dir("f"), NEW, strlen(NEW), 0600, &err) || !holds(in_dir("f"), NEW) ? 4 : 0;
}

static int write_protect_the_disk(void)
{
    struct err err;
    int r = mount_small();

    if (r)
        return r;
    if (file_replace(in_dir("f"), OLD, strlen(OLD), 0600, &err))
        return 1;
    if (mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL))
        return CHILD_CANNOT;
    if (!file_replace(in_dir("f"), NEW, strlen(NEW), 0600, &err) || !strstr(err.msg, strerror(EROFS)))
        return 2;
    return holds(in_dir("f"), OLD) ? 0 : 3;
}

static void a_full_disk_leaves_the_old_file(void **state)
{
    (void)state;
    in_child(fill_the_disk);
}

static void a_read_only_disk_leaves_the_old_file(void **state)
{
    (void)state;
    in_child(write_protect_the_disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(new_bytes_take_the_place_of_the_old, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bare_name_is_of_the_working_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(planted_names_are_not_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_directory_that_is_not_there_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_that_fails_half_way_leaves_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_read_only_disk_leaves_the_old_file, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
