/* test_watch.c - no change of a file is missed, half a file is not told, and many changes are one call
 * The code is included, so that its waits can be shorter and each of its two senses be switched off. */
#include "base/watch.h"

#undef WATCH_POLL_MS
#undef WATCH_QUIET_MS
#undef WATCH_PACE_MS
#undef WATCH_HOLD_MS
#undef WATCH_UNSURE_MS
#define WATCH_POLL_MS   40
#define WATCH_QUIET_MS  150
#define WATCH_PACE_MS   150
#define WATCH_HOLD_MS   500
#define WATCH_UNSURE_MS 200

#include "../../proxy/base/watch.c" /* NOLINT */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>

#include <cmocka.h>

#define PATIENCE_MS 10000

static struct loop loop;
static struct watch *watch;
static char dir[64];
static char reads[64]; /* the file whose content `seen` is, as of the last call */
static char seen[256];
static int calls;
static uint64_t called_ms;

static const char *in_dir(const char *name)
{
    static char path[8][128];
    static unsigned turn;
    char *p = path[turn++ % 8];

    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

/* What the master does: reads the bytes. */
static void on_changed(void *arg)
{
    FILE *f = fopen(in_dir(reads), "r");
    size_t n = 0;

    (void)arg;
    if (f) {
        n = fread(seen, 1, sizeof seen - 1, f);
        fclose(f);
    }
    seen[n] = '\0';
    calls++;
    called_ms = loop_clock_ms();
}

static void start(const char *read)
{
    struct err err;

    snprintf(reads, sizeof reads, "%s", read);
    watch = watch_new(&loop, on_changed, NULL, &err);
    assert_non_null(watch);
}

static int setup(void **state)
{
    struct err err;

    (void)state;
    snprintf(dir, sizeof dir, "/tmp/tidegate-watch-XXXXXX");
    watch = NULL;
    calls = 0;
    seen[0] = '\0';
    return mkdtemp(dir) && !loop_init(&loop, &err) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    watch_free(watch);
    loop_done(&loop);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command); /* NOLINT */
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* As every writer should. */
static void replace(const char *path, const char *text)
{
    char tmp[160];

    snprintf(tmp, sizeof tmp, "%s.new", path);
    put(tmp, text);
    assert_int_equal(rename(tmp, path), 0);
}

static void set(const char *a, const char *b)
{
    const char *paths[] = {in_dir(a), b ? in_dir(b) : NULL};
    struct err err;

    assert_int_equal(watch_set(watch, paths, b ? 2 : 1, &err), 0);
}

static void turn(void)
{
    loop_turn(&loop, loop_wait_ms(&loop));
}

static void turn_until_seen(const char *text)
{
    uint64_t end_ms = loop_clock_ms() + PATIENCE_MS;

    while (strcmp(seen, text) != 0 && loop_clock_ms() < end_ms)
        turn();
    assert_string_equal(seen, text);
}

static void turn_for(uint64_t ms)
{
    uint64_t end_ms = loop_clock_ms() + ms;

    while (loop_clock_ms() < end_ms)
        loop_turn(&loop, 10);
}

/* Until it is sure of every file: what is told afterwards has a new reason. */
static void settle(void)
{
    uint64_t end_ms = loop_clock_ms() + PATIENCE_MS;
    bool unsure = true;

    while (unsure && loop_clock_ms() < end_ms) {
        turn();
        unsure = false;
        for (size_t i = 0; i < watch->entry_count; i++)
            unsure |= watch->entries[i].unsure || !same(&watch->entries[i].now, &watch->entries[i].told);
    }
    assert_false(unsure);
    turn_for(WATCH_QUIET_MS + LOOP_TICK_MS);
}

/* Only inotify is left. */
static void stop_polling(void)
{
    loop_timer_clear(&watch->poll);
}

/* No descriptor is left for inotify: only the poll is. */
static void start_without_inotify(const char *read)
{
    struct rlimit was, none;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){3, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    start(read);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(watch->inotify.fd, -1);
}

static void a_renamed_file_is_told_in_the_same_turn(void **state)
{
    (void)state;
    put(in_dir("f"), "one");
    start("f");
    set("f", NULL);
    settle();
    stop_polling();
    calls = 0;
    replace(in_dir("f"), "two");
    loop_turn(&loop, PATIENCE_MS);
    assert_int_equal(calls, 1);
    assert_string_equal(seen, "two");
}

/* Without inotify, so that the looks come from the poll and each of them could take the half. */
static void half_a_file_is_not_told(void **state)
{
    int fd;

    (void)state;
    put(in_dir("f"), "the old one");
    start_without_inotify("f");
    set("f", NULL);
    settle();
    for (int tries = 0; tries < 20; tries++) {
        uint64_t begin_ms = loop_clock_ms();

        calls = 0;
        fd = open(in_dir("f"), O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_int_equal(write(fd, "one half, ", 10), 10);
        while (watch->entries[0].now.size != 10)
            turn();
        if (calls && loop_clock_ms() - begin_ms < WATCH_QUIET_MS)
            fail_msg("told at \"%s\"", seen);
        assert_int_equal(write(fd, "the other", 9), 9);
        close(fd);
        /* A machine that paused for so long has shown nothing: again. */
        if (loop_clock_ms() - begin_ms < WATCH_QUIET_MS)
            break;
        settle();
    }
    while (!calls)
        turn();
    assert_string_equal(seen, "one half, the other");
}

/* `cat > f`: a new file, empty for a moment; as a spec it would be a valid one. What is renamed beside it meanwhile does
 * not make it whole. */
static void a_file_that_is_being_made_is_not_told(void **state)
{
    int fd;

    (void)state;
    start("f");
    set("f", NULL);
    settle();
    calls = 0;
    fd = open(in_dir("f"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    replace(in_dir("other"), "x");
    turn_for(WATCH_QUIET_MS / 4);
    assert_int_equal(write(fd, "all of it", 9), 9);
    close(fd);
    while (!calls)
        turn();
    assert_string_equal(seen, "all of it");
}

static void a_file_that_is_never_quiet_holds_the_others_up_for_a_while_only(void **state)
{
    uint64_t begin_ms;
    FILE *f;

    (void)state;
    put(in_dir("f"), "one");
    put(in_dir("log"), "");
    start("f");
    set("f", "log");
    settle();
    f = fopen(in_dir("log"), "a");
    replace(in_dir("f"), "two");
    begin_ms = loop_clock_ms();
    while (strcmp(seen, "two") != 0 && loop_clock_ms() - begin_ms < PATIENCE_MS) {
        fputs("x", f);
        fflush(f);
        loop_turn(&loop, 10);
    }
    fclose(f);
    assert_string_equal(seen, "two");
}

static void a_swap_of_kubernetes_is_one_call(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_dir("..1"), 0700), 0);
    assert_int_equal(mkdir(in_dir("..2"), 0700), 0);
    put(in_dir("..1/tls.crt"), "cert 1");
    put(in_dir("..1/tls.key"), "key 1");
    put(in_dir("..2/tls.crt"), "cert 2");
    put(in_dir("..2/tls.key"), "key 2");
    assert_int_equal(symlink("..1", in_dir("..data")), 0);
    assert_int_equal(symlink("..data/tls.crt", in_dir("tls.crt")), 0);
    assert_int_equal(symlink("..data/tls.key", in_dir("tls.key")), 0);
    start("tls.crt");
    set("tls.crt", "tls.key");
    settle();
    stop_polling();
    calls = 0;
    assert_int_equal(symlink("..2", in_dir("..data_tmp")), 0);
    assert_int_equal(rename(in_dir("..data_tmp"), in_dir("..data")), 0);
    loop_turn(&loop, PATIENCE_MS);
    assert_int_equal(calls, 1);
    assert_string_equal(seen, "cert 2");
    turn_for(2 * WATCH_QUIET_MS);
    assert_int_equal(calls, 1);
}

static void a_file_may_vanish_and_return(void **state)
{
    (void)state;
    put(in_dir("f"), "here");
    start("f");
    set("f", NULL);
    settle();
    stop_polling();
    assert_int_equal(unlink(in_dir("f")), 0);
    turn_until_seen("");
    put(in_dir("f"), "back");
    turn_until_seen("back");
}

/* The poll finds it; what happens in the new one afterwards is an event again. */
static void a_directory_may_be_missing_and_be_replaced(void **state)
{
    (void)state;
    start("sub/f");
    set("sub/f", NULL);
    settle();
    assert_int_equal(mkdir(in_dir("sub"), 0700), 0);
    put(in_dir("sub/f"), "first");
    turn_until_seen("first");
    settle();
    assert_int_equal(rename(in_dir("sub"), in_dir("old")), 0);
    assert_int_equal(mkdir(in_dir("sub"), 0700), 0);
    put(in_dir("sub/f"), "second");
    turn_until_seen("second");
    settle();
    stop_polling();
    replace(in_dir("sub/f"), "third");
    loop_turn(&loop, PATIENCE_MS);
    assert_string_equal(seen, "third");
    /* Of the old one there is no event: nothing wakes this turn. */
    calls = 0;
    replace(in_dir("old/f"), "forgotten");
    turn_for(2 * WATCH_QUIET_MS);
    assert_int_equal(loop.ready_count, 0);
    assert_int_equal(calls, 0);
}

static void a_touched_file_is_told_and_then_left_alone(void **state)
{
    (void)state;
    put(in_dir("f"), "same");
    start("f");
    set("f", NULL);
    settle();
    calls = 0;
    assert_int_equal(utimensat(AT_FDCWD, in_dir("f"), NULL, 0), 0);
    while (!calls)
        turn();
    settle();
    calls = 0;
    turn_for(5 * WATCH_POLL_MS + WATCH_UNSURE_MS);
    assert_int_equal(calls, 0);
}

static void a_burst_is_one_call(void **state)
{
    char text[16];

    (void)state;
    put(in_dir("f"), "0");
    start("f");
    set("f", NULL);
    settle();
    stop_polling();
    calls = 0;
    for (int i = 1; i <= 20; i++) {
        snprintf(text, sizeof text, "%d", i);
        replace(in_dir("f"), text);
    }
    turn_until_seen("20");
    turn_for(2 * WATCH_QUIET_MS);
    assert_int_equal(calls, 1);
}

static void changes_without_end_are_told_now_and_then(void **state)
{
    uint64_t begin_ms, took_ms;
    char text[16] = "0";

    (void)state;
    put(in_dir("f"), text);
    start("f");
    set("f", NULL);
    settle();
    calls = 0;
    begin_ms = loop_clock_ms();
    for (int i = 1; loop_clock_ms() - begin_ms < 5 * WATCH_QUIET_MS; i++) {
        snprintf(text, sizeof text, "%d", i);
        replace(in_dir("f"), text);
        watch_now(watch);
        loop_turn(&loop, 1);
    }
    took_ms = loop_clock_ms() - begin_ms;
    assert_in_range(calls, 2, took_ms / WATCH_QUIET_MS + 1);
    turn_until_seen(text);
}

static void a_signal_does_not_make_half_a_file_whole(void **state)
{
    (void)state;
    put(in_dir("f"), "whole");
    start("f");
    set("f", NULL);
    settle();
    stop_polling();
    calls = 0;
    put(in_dir("f"), "ha");
    watch_now(watch);
    turn_for(WATCH_QUIET_MS / 2);
    assert_int_equal(calls, 0);
    put(in_dir("f"), "half is whole now");
    turn_for(WATCH_QUIET_MS / 2);
    assert_int_equal(calls, 0);
    turn_for(WATCH_QUIET_MS + LOOP_TICK_MS);
    assert_int_equal(calls, 1);
}

static void a_signal_is_obeyed_without_a_change(void **state)
{
    (void)state;
    put(in_dir("f"), "same");
    start("f");
    set("f", NULL);
    settle();
    stop_polling();
    calls = 0;
    for (int i = 0; i < 1000; i++)
        watch_now(watch);
    loop_turn(&loop, 0);
    assert_int_equal(calls, 1);
    turn_for(2 * WATCH_QUIET_MS);
    assert_int_equal(calls, 1);
}

/* As `touch -r` and some tools do. */
static void a_rewrite_of_the_same_size_and_time_is_told(void **state)
{
    struct stat before, after;
    struct timespec times[2];

    (void)state;
    put(in_dir("f"), "one");
    start_without_inotify("f");
    set("f", NULL);
    settle();
    assert_int_equal(stat(in_dir("f"), &before), 0);
    put(in_dir("f"), "two");
    times[0] = before.st_atim;
    times[1] = before.st_mtim;
    assert_int_equal(utimensat(AT_FDCWD, in_dir("f"), times, 0), 0);
    assert_int_equal(stat(in_dir("f"), &after), 0);
    assert_true(before.st_ino == after.st_ino && before.st_size == after.st_size &&
                before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    turn_until_seen("two");
}

/* The stamp says nothing about a second write in the tick of the first. Nobody can force that from outside, so the
 * stamp that was told is forged into the one that the file has now. */
static void a_write_behind_the_same_stamp_is_told(void **state)
{
    (void)state;
    put(in_dir("f"), "one");
    start_without_inotify("f");
    set("f", NULL);
    settle();
    replace(in_dir("f"), "two");
    turn_until_seen("two");
    put(in_dir("f"), "TWO");
    watch->entries[0].now = watch->entries[0].told = stamp_of(in_dir("f"));
    turn_until_seen("TWO");
}

/* It was read before it was watched. */
static void a_new_path_is_told_once_more(void **state)
{
    (void)state;
    put(in_dir("f"), "one");
    start_without_inotify("f");
    set("f", NULL);
    turn_until_seen("one");
    settle();
    set("f", NULL);
    calls = 0;
    turn_for(5 * WATCH_POLL_MS + WATCH_UNSURE_MS);
    assert_int_equal(calls, 0); /* not new any more */
}

/* What happened between the last look and watch_set is not lost with the new set. */
static void a_path_that_stays_keeps_its_stamp(void **state)
{
    (void)state;
    put(in_dir("f"), "one");
    put(in_dir("g"), "one");
    start_without_inotify("f");
    set("f", NULL);
    settle();
    replace(in_dir("f"), "two");
    set("f", "g");
    assert_false(same(&watch->entries[0].told, &(struct stamp){.error = ENOENT}));
    watch->entries[1].unsure = false; /* or the new one would be a reason as well */
    turn_until_seen("two");
}

static void the_poll_alone_sees_renames(void **state)
{
    (void)state;
    put(in_dir("f"), "one");
    start_without_inotify("f");
    set("f", NULL);
    settle();
    replace(in_dir("f"), "two");
    turn_until_seen("two");
}

/* No clock is asked what time it is: whatever a file's time says, it only has to stand still. */
static void times_of_yesterday_and_tomorrow_are_just_stamps(void **state)
{
    static const time_t off[] = {-86400, 86400, 86400 * 365 * 20};
    struct timespec times[2];

    (void)state;
    put(in_dir("f"), "one");
    start_without_inotify("f");
    set("f", NULL);
    settle();
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        clock_gettime(CLOCK_REALTIME, &times[0]);
        times[0].tv_sec += off[i];
        times[1] = times[0];
        calls = 0;
        assert_int_equal(utimensat(AT_FDCWD, in_dir("f"), times, 0), 0);
        while (!calls)
            turn();
        settle();
        calls = 0;
        turn_for(3 * WATCH_POLL_MS + WATCH_UNSURE_MS);
        assert_int_equal(calls, 0);
    }
}

/* What the kernel watches for us, by its own account. */
static int kernel_watches(void)
{
    char path[64], line[256];
    int n = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", watch->inotify.fd);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += !strncmp(line, "inotify wd:", 11);
    fclose(f);
    return n;
}

static void there_is_one_watch_a_directory(void **state)
{
    const char *many[] = {in_dir("f"),   in_dir("a/f"), in_dir("g"),
                          in_dir("a/g"), in_dir("f"),   in_dir("none/f")};
    struct err err;

    (void)state;
    assert_int_equal(mkdir(in_dir("a"), 0700), 0);
    start("f");
    assert_int_equal(watch_set(watch, many, sizeof many / sizeof *many, &err), 0);
    assert_int_equal(watch->entry_count, 5);
    assert_int_equal(watch->folder_count, 3);
    assert_int_equal(kernel_watches(), 2);
    turn_for(3 * WATCH_POLL_MS);
    assert_int_equal(kernel_watches(), 2);
    set("a/g", NULL);
    assert_int_equal(kernel_watches(), 1);
    assert_int_equal(watch_set(watch, NULL, 0, &err), 0);
    assert_int_equal(kernel_watches(), 0);
}

static void set_in_call(void *arg)
{
    on_changed(arg);
    set("g", NULL);
}

static void the_set_may_be_replaced_in_a_call(void **state)
{
    (void)state;
    put(in_dir("f"), "one");
    start("f");
    watch->changed = set_in_call;
    set("f", NULL);
    turn_until_seen("one");
    assert_string_equal(watch->entries[0].path, in_dir("g"));
    watch->changed = on_changed;
    settle();
    calls = 0;
    replace(in_dir("f"), "two"); /* nobody's any more */
    turn_for(3 * WATCH_POLL_MS);
    assert_int_equal(calls, 0);
}

static void free_in_call(void *arg)
{
    on_changed(arg);
    watch_free(watch);
    watch = NULL;
}

static void the_watch_may_be_freed_in_a_call(void **state)
{
    (void)state;
    put(in_dir("f"), "one");
    start("f");
    watch->changed = free_in_call;
    set("f", NULL);
    turn_until_seen("one");
    turn_for(3 * WATCH_POLL_MS);
    assert_int_equal(calls, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_renamed_file_is_told_in_the_same_turn),
        TEST(half_a_file_is_not_told),
        TEST(a_file_that_is_being_made_is_not_told),
        TEST(a_file_that_is_never_quiet_holds_the_others_up_for_a_while_only),
        TEST(a_swap_of_kubernetes_is_one_call),
        TEST(a_file_may_vanish_and_return),
        TEST(a_directory_may_be_missing_and_be_replaced),
        TEST(a_touched_file_is_told_and_then_left_alone),
        TEST(a_burst_is_one_call),
        TEST(changes_without_end_are_told_now_and_then),
        TEST(a_signal_does_not_make_half_a_file_whole),
        TEST(a_signal_is_obeyed_without_a_change),
        TEST(a_rewrite_of_the_same_size_and_time_is_told),
        TEST(a_write_behind_the_same_stamp_is_told),
        TEST(a_new_path_is_told_once_more),
        TEST(a_path_that_stays_keeps_its_stamp),
        TEST(the_poll_alone_sees_renames),
        TEST(times_of_yesterday_and_tomorrow_are_just_stamps),
        TEST(there_is_one_watch_a_directory),
        TEST(the_set_may_be_replaced_in_a_call),
        TEST(the_watch_may_be_freed_in_a_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
