/* test_cgroup.c - quotas and memory limits found in made trees of /proc and /sys, as kernels and containers show them */
#include "run/cgroup.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define V1_CPU    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct\n"
#define V1_MEMORY "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
#define V2        "30 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V2_HYBRID "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
#define OTHERS                                                                                               \
    "22 1 8:1 / / rw - ext4 /dev/root rw\n31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
#define MEMINFO "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"
#define V1_HUGE "9223372036854771712\n"
#define GIB     (1024ull * 1024 * 1024)

static char root[64];

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/tidegate-cgroup-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int drop(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, drop, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *name, const char *text)
{
    char path[PATH_MAX];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(!mkdir(path, 0755) || errno == EEXIST);
        *slash = '/';
    }
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void self(const char *cgroup, const char *mountinfo)
{
    put("proc/self/cgroup", cgroup);
    put("proc/self/mountinfo", mountinfo);
    put("proc/meminfo", MEMINFO);
}

/* limit_bytes; 0: none. used_bytes unless NULL. */
static uint64_t limit(uint64_t *used)
{
    struct cgroup_memory m;
    uint64_t limit_bytes = 0, used_bytes = 0;
    bool is;

    cgroup_memory_open_at(&m, root);
    is = cgroup_memory_read(&m, &limit_bytes, &used_bytes);
    cgroup_memory_close(&m);
    if (used)
        *used = used_bytes;
    return is ? limit_bytes : 0;
}

static void without_any_cgroup_there_is_no_limit(void **state)
{
    (void)state;
    assert_int_equal(cgroup_cpus_at(root, 8), 8);
    assert_int_equal(cgroup_cpus_at(root, 0), 1);
    assert_int_equal(limit(NULL), 0);
    self("", OTHERS);
    assert_int_equal(cgroup_cpus_at(root, 8), 8);
    self("0::/a\n", OTHERS);
    assert_int_equal(cgroup_cpus_at(root, 8), 8);
    assert_int_equal(limit(NULL), 0);
    self("no colons\n0:\n::\n", "short\n1 2 3 - cgroup2\n - - -\n" V2);
    assert_int_equal(cgroup_cpus_at(root, 8), 8);
    assert_int_equal(limit(NULL), 0);
}

static void quota_of_v2_is_rounded_up(void **state)
{
    static const struct {
        const char *max;
        unsigned cpus;
    } cases[] = {
        {"max 100000\n", 8},   {"100000 100000\n", 1}, {"100001 100000\n", 2}, {"250000 100000\n", 3},
        {"20000 100000\n", 1}, {"50000 10000\n", 5},   {"900000 100000\n", 8}, {"\n", 8},
        {"200000 0\n", 8},     {"-1 100000\n", 8},
    };

    (void)state;
    self("0::/\n", OTHERS V2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("sys/fs/cgroup/cpu.max", cases[i].max);
        if (cgroup_cpus_at(root, 8) != cases[i].cpus)
            fail_msg("`%s` gives %u", cases[i].max, cgroup_cpus_at(root, 8));
    }
}

static void the_tightest_quota_on_the_way_up_counts(void **state)
{
    (void)state;
    self("0::/pods/one/box\n", OTHERS V2);
    put("sys/fs/cgroup/pods/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/pods/one/cpu.max", "200000 100000\n");
    put("sys/fs/cgroup/pods/one/box/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/pods/other/cpu.max", "100000 100000\n");
    assert_int_equal(cgroup_cpus_at(root, 8), 2);
    put("sys/fs/cgroup/pods/cpu.max", "100000 100000\n");
    assert_int_equal(cgroup_cpus_at(root, 8), 1);
    /* above the mount point nobody looks */
    put("sys/fs/cpu.max", "100000 100000\n");
    put("sys/fs/cgroup/pods/cpu.max", "max 100000\n");
    assert_int_equal(cgroup_cpus_at(root, 8), 2);
}

static void quota_of_v1(void **state)
{
    (void)state;
    self("2:memory:/\n1:cpu,cpuacct:/a/b\n0::/\n", OTHERS V2_HYBRID V1_MEMORY V1_CPU);
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cgroup_cpus_at(root, 8), 8);
    put("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "350000\n");
    put("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cgroup_cpus_at(root, 8), 4);
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "60000\n");
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "50000\n");
    assert_int_equal(cgroup_cpus_at(root, 8), 2);
}

static void memory_of_v2(void **state)
{
    uint64_t used;

    (void)state;
    self("0::/pod\n", OTHERS V2);
    put("sys/fs/cgroup/pod/memory.max", "max\n");
    put("sys/fs/cgroup/pod/memory.current", "700000\n");
    put("sys/fs/cgroup/pod/memory.stat",
        "anon 400000\nfile 300000\nactive_inactive_file 9\ninactive_file 200000\n");
    assert_int_equal(limit(NULL), 0);
    put("sys/fs/cgroup/pod/memory.max", "1000000\n");
    assert_int_equal(limit(&used), 1000000);
    assert_int_equal(used, 500000);
    put("sys/fs/cgroup/pod/memory.stat", "inactive_file 800000\n");
    assert_int_equal(limit(&used), 1000000);
    assert_int_equal(used, 0);
    /* more than the machine has */
    put("sys/fs/cgroup/pod/memory.max", "17179869184\n");
    assert_int_equal(limit(NULL), 0);
    put("sys/fs/cgroup/pod/memory.max", "1000000\n");
    put("sys/fs/cgroup/pod/memory.current", "");
    assert_int_equal(limit(&used), 0);
}

static void memory_of_v1(void **state)
{
    uint64_t used;

    (void)state;
    self("4:memory:/pod\n0::/\n", OTHERS V1_MEMORY V2_HYBRID);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", V1_HUGE);
    put("sys/fs/cgroup/memory/pod/memory.limit_in_bytes", V1_HUGE);
    put("sys/fs/cgroup/memory/pod/memory.usage_in_bytes", "700000\n");
    put("sys/fs/cgroup/memory/pod/memory.stat",
        "inactive_file 1\ntotal_inactive_file 300000\ntotal_unevictable 0\n");
    assert_int_equal(limit(NULL), 0);
    put("sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "1000000\n");
    assert_int_equal(limit(&used), 1000000);
    assert_int_equal(used, 400000);
}

static void the_tightest_memory_limit_on_the_way_up_counts(void **state)
{
    uint64_t used;

    (void)state;
    self("0::/pod/box\n", OTHERS V2);
    put("sys/fs/cgroup/pod/memory.max", "2000000\n");
    put("sys/fs/cgroup/pod/memory.current", "1500000\n");
    put("sys/fs/cgroup/pod/memory.stat", "inactive_file 100000\n");
    put("sys/fs/cgroup/pod/box/memory.max", "max\n");
    put("sys/fs/cgroup/pod/box/memory.current", "50000\n");
    put("sys/fs/cgroup/pod/box/memory.stat", "inactive_file 0\n");
    assert_int_equal(limit(&used), 2000000);
    assert_int_equal(used, 1400000);
    put("sys/fs/cgroup/pod/box/memory.max", "1000000\n");
    assert_int_equal(limit(&used), 1000000);
    assert_int_equal(used, 50000);
}

/* A limit that is raised or set while we run is seen: the files stay open. */
static void a_changed_limit_is_seen(void **state)
{
    struct cgroup_memory m;
    uint64_t limit_bytes, used_bytes;

    (void)state;
    self("0::/pod\n", OTHERS V2);
    put("sys/fs/cgroup/pod/memory.max", "max\n");
    put("sys/fs/cgroup/pod/memory.current", "700000\n");
    cgroup_memory_open_at(&m, root);
    assert_false(cgroup_memory_read(&m, &limit_bytes, &used_bytes));
    put("sys/fs/cgroup/pod/memory.max", "1000000\n");
    put("sys/fs/cgroup/pod/memory.current", "800000\n");
    assert_true(cgroup_memory_read(&m, &limit_bytes, &used_bytes));
    assert_int_equal(limit_bytes, 1000000);
    assert_int_equal(used_bytes, 800000);
    cgroup_memory_close(&m);
    assert_false(cgroup_memory_read(&m, &limit_bytes, &used_bytes));
}

static void a_container_sees_its_cgroup_at_the_mount_point(void **state)
{
    static const struct {
        const char *cgroup, *mountinfo;
    } cases[] = {
        /* a cgroup namespace of its own */
        {"0::/\n", OTHERS V2},
        /* the host's path, of which only our part is mounted */
        {"0::/kubepods/pod1/box\n",
         OTHERS "30 23 0:28 /kubepods/pod1/box /sys/fs/cgroup ro - cgroup2 cgroup rw\n"},
        /* the host's path, and a mount that shows the container's without saying so */
        {"0::/kubepods/pod1/box\n", OTHERS V2},
        /* a namespace that was entered from outside */
        {"0::/../../box\n", OTHERS V2},
        /* the path of another part, of which the names begin the same */
        {"0::/kubepods/pod10\n", OTHERS "30 23 0:28 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n"},
    };

    (void)state;
    put("sys/fs/cgroup/cpu.max", "300000 100000\n");
    put("sys/fs/cgroup/memory.max", "1000000\n");
    put("sys/fs/cgroup/memory.current", "600000\n");
    put("sys/fs/cgroup/memory.stat", "inactive_file 0\n");
    put("sys/fs/box/memory.max", "1\n");
    put("sys/fs/box/cpu.max", "100000 100000\n");
    put("sys/fs/cgroup/0/memory.max", "1\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        self(cases[i].cgroup, cases[i].mountinfo);
        if (limit(NULL) != 1000000 || cgroup_cpus_at(root, 8) != 3)
            fail_msg("case %zu: limit %llu, %u cpus", i, (unsigned long long)limit(NULL),
                     cgroup_cpus_at(root, 8));
    }
}

static void a_part_below_what_is_mounted_is_found(void **state)
{
    (void)state;
    self("0::/kubepods/pod1/box\n",
         OTHERS "30 23 0:28 /kubepods /sys/fs/my\\040cgroup ro - cgroup2 cgroup rw\n");
    put("sys/fs/my cgroup/memory.max", "max\n");
    put("sys/fs/my cgroup/pod1/memory.max", "max\n");
    put("sys/fs/my cgroup/pod1/box/memory.max", "1000000\n");
    put("sys/fs/my cgroup/pod1/box/memory.current", "1\n");
    assert_int_equal(limit(NULL), 1000000);
}

static void pressure_ends_below_where_it_begins(void **state)
{
    static const struct {
        enum shared_pressure before;
        unsigned percent;
        enum shared_pressure after;
    } cases[] = {
        {SHARED_CALM, 0, SHARED_CALM},    {SHARED_CALM, 94, SHARED_CALM},
        {SHARED_CALM, 95, SHARED_REFUSE}, {SHARED_CALM, 97, SHARED_REFUSE},
        {SHARED_CALM, 98, SHARED_SHED},   {SHARED_REFUSE, 93, SHARED_REFUSE},
        {SHARED_REFUSE, 92, SHARED_CALM}, {SHARED_REFUSE, 97, SHARED_REFUSE},
        {SHARED_REFUSE, 98, SHARED_SHED}, {SHARED_SHED, 96, SHARED_SHED},
        {SHARED_SHED, 95, SHARED_REFUSE}, {SHARED_SHED, 93, SHARED_REFUSE},
        {SHARED_SHED, 92, SHARED_CALM},   {SHARED_CALM, 130, SHARED_SHED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t used = GIB / 100 * cases[i].percent;

        if (cgroup_pressure(cases[i].before, GIB, used) != cases[i].after)
            fail_msg("%u %% after %d", cases[i].percent, (int)cases[i].before);
    }
}

/* Wherever this runs: no crash, and a figure that makes sense. */
static void this_machine_is_read(void **state)
{
    struct cgroup_memory m;
    uint64_t limit_bytes = 1, used_bytes = 0;

    (void)state;
    assert_in_range(cgroup_cpus(), 1, (unsigned)sysconf(_SC_NPROCESSORS_CONF));
    cgroup_memory_open(&m);
    if (cgroup_memory_read(&m, &limit_bytes, &used_bytes))
        assert_in_range(used_bytes, 1, limit_bytes);
    cgroup_memory_close(&m);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_any_cgroup_there_is_no_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(quota_of_v2_is_rounded_up, setup, teardown),
        cmocka_unit_test_setup_teardown(the_tightest_quota_on_the_way_up_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(quota_of_v1, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_of_v2, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_of_v1, setup, teardown),
        cmocka_unit_test_setup_teardown(the_tightest_memory_limit_on_the_way_up_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_limit_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(a_container_sees_its_cgroup_at_the_mount_point, setup, teardown),
        cmocka_unit_test_setup_teardown(a_part_below_what_is_mounted_is_found, setup, teardown),
        cmocka_unit_test(pressure_ends_below_where_it_begins),
        cmocka_unit_test(this_machine_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
