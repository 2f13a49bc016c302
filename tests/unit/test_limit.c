/* test_limit.c - admission: several workers in one shared memory, counted exactly whoever comes when */
#include "relay/limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define WORKERS 4
#define SLOT    7

/* What limit.c looks at of a worker, its server and its pairs. */
struct bench {
    struct relay relay;
    struct server server;
    struct spec_server spec;
};

static struct shared memory;
static struct bench *workers[WORKERS];

static void make_worker(unsigned i, unsigned slot)
{
    struct bench *b = calloc(1, sizeof *b);

    assert_non_null(b);
    b->relay.shared = memory;
    b->relay.worker = i;
    b->relay.me = shared_worker(&memory, i);
    b->server = (struct server){
        .refs = 1, .slot = (uint16_t)slot, .cell = shared_cell(&memory, i, slot), .spec = &b->spec};
    atomic_store(&b->relay.me->max_tunnels, 1000000);
    workers[i] = b;
}

static int setup(void **state)
{
    struct err err;
    int fd;

    (void)state;
    if (shared_new(&memory, WORKERS, 1000, &fd, &err))
        return -1;
    close(fd);
    atomic_store(&memory.slots[SLOT].used, 1);
    for (unsigned i = 0; i < WORKERS; i++)
        make_worker(i, SLOT);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++)
        free(workers[i]);
    shared_done(&memory);
    return 0;
}

static void set_limits(uint32_t connections, uint32_t per_ip, uint32_t per_second)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i]->spec.limits.max_connections = connections;
        workers[i]->spec.limits.max_connections_per_ip = per_ip;
        workers[i]->spec.limits.handshakes_per_second = per_second;
    }
}

static struct in6_addr ip(const char *text)
{
    struct in6_addr addr;

    assert_true(addr_parse_ip(text, &addr));
    return addr;
}

static struct pair pair_of(unsigned worker)
{
    return (struct pair){.relay = &workers[worker]->relay, .server = &workers[worker]->server};
}

static struct limit_refusal refusal;

static bool admit(struct pair *p, const char *client)
{
    struct in6_addr addr = ip(client);

    return limit_admit(p, &addr, &refusal);
}

static uint64_t admitted(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < WORKERS; i++)
        sum += stats_read(&workers[i]->server.cell->admitted);
    return sum;
}

/* All counts of addresses, of all workers. */
static uint64_t counted(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < WORKERS; i++)
        for (uint32_t e = 0; e < memory.head->ip_entries; e++)
            sum += atomic_load(&shared_ips(&memory, i)[e].count);
    return sum;
}

static uint64_t limited(enum stats_limit limit)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < WORKERS; i++)
        sum += stats_read(&workers[i]->server.cell->limited[limit]);
    return sum;
}

static void connections_are_counted_over_all_workers(void **state)
{
    struct pair pairs[6];

    (void)state;
    set_limits(5, 0, 0);
    for (unsigned i = 0; i < 6; i++)
        pairs[i] = pair_of(i % WORKERS);
    for (int i = 0; i < 5; i++)
        assert_true(admit(&pairs[i], "192.0.2.1"));
    assert_false(admit(&pairs[5], "192.0.2.1"));
    assert_string_equal(refusal.said, "the server has reached its limit of connections");
    assert_string_equal(refusal.why, "limits.maxConnections: 5");
    assert_int_equal(refusal.retry_after_s, 5);
    assert_int_equal(limited(STATS_MAX_CONNECTIONS), 1);
    assert_int_equal(admitted(), 5);
    /* who was refused gives nothing back; who was admitted does, once */
    limit_release(&pairs[5]);
    assert_int_equal(admitted(), 5);
    limit_release(&pairs[2]);
    limit_release(&pairs[2]);
    assert_int_equal(admitted(), 4);
    assert_true(admit(&pairs[5], "192.0.2.1"));
    assert_int_equal(counted(), 0); /* no limit by address: no table is touched */
}

static void another_server_has_its_own_count(void **state)
{
    struct pair a = pair_of(0), b;

    (void)state;
    set_limits(1, 1, 0);
    assert_true(admit(&a, "192.0.2.1"));
    free(workers[1]);
    make_worker(1, SLOT + 1);
    set_limits(1, 1, 0);
    b = pair_of(1);
    assert_true(admit(&b, "192.0.2.1"));
}

static void an_address_is_counted_over_all_workers(void **state)
{
    static const struct {
        const char *client;
        bool admitted;
    } steps[] = {
        {"192.0.2.1", true},    {"192.0.2.1", true},       {"192.0.2.1", false},
        {"192.0.2.2", true},    {"2001:db8::1", true},     {"2001:db8:0:0:ffff::9", true},
        {"2001:db8::3", false}, {"2001:db8:0:1::1", true}, {"::ffff:192.0.2.1", false},
        {"::192.0.2.1", true},
    };
    struct pair pairs[sizeof steps / sizeof *steps];

    (void)state;
    set_limits(0, 2, 0);
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        pairs[i] = pair_of(i % WORKERS);
        if (admit(&pairs[i], steps[i].client) != steps[i].admitted)
            fail_msg("step %u: %s", i, steps[i].client);
    }
    assert_string_equal(refusal.why, "limits.maxConnectionsPerIP: 2 for 192.0.2.1");
    assert_int_equal(refusal.retry_after_s, 5);
    assert_int_equal(limited(STATS_MAX_CONNECTIONS_PER_IP), 3);
    assert_int_equal(admitted(), 7);
    assert_int_equal(counted(), 7);
    limit_release(&pairs[1]);
    assert_true(admit(&pairs[2], "192.0.2.1"));
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++)
        limit_release(&pairs[i]);
    assert_int_equal(admitted() + counted(), 0);
}

/* Far more addresses than entries, one after the other: entries whose count is 0 serve again. */
static void an_address_that_has_left_makes_room(void **state)
{
    uint32_t entries = memory.head->ip_entries;

    (void)state;
    set_limits(0, 1, 0);
    for (uint32_t i = 0; i < entries * 3; i++) {
        struct in6_addr addr = {.s6_addr = {[10] = 0xFF, [11] = 0xFF}};
        struct pair a = pair_of(0), b = pair_of(1);

        memcpy(addr.s6_addr + 12, &i, sizeof i);
        assert_true(limit_admit(&a, &addr, &refusal));
        assert_int_not_equal(a.ip_entry, 0);
        assert_false(limit_admit(&b, &addr, &refusal));
        limit_release(&a);
    }
    assert_int_equal(counted(), 0);
}

/* More addresses at once than entries: who finds none is let in uncounted, and gives nothing back. */
static void a_full_table_lets_pass(void **state)
{
    uint32_t count = memory.head->ip_entries * 2, uncounted = 0;
    struct pair *pairs = calloc(count, sizeof *pairs);

    (void)state;
    assert_non_null(pairs);
    set_limits(0, 1, 0);
    for (uint32_t i = 0; i < count; i++) {
        struct in6_addr addr = {.s6_addr = {[10] = 0xFF, [11] = 0xFF}};

        memcpy(addr.s6_addr + 12, &i, sizeof i);
        pairs[i] = pair_of(0);
        assert_true(limit_admit(&pairs[i], &addr, &refusal));
        uncounted += !pairs[i].ip_entry;
    }
    assert_in_range(uncounted, memory.head->ip_entries, count - 1);
    assert_int_equal(counted(), count - uncounted);
    for (uint32_t i = 0; i < count; i++)
        limit_release(&pairs[i]);
    assert_int_equal(counted() + admitted(), 0);
    free(pairs);
}

static void the_pace_allows_a_second_saved_up_and_then_refills(void **state)
{
    struct pair p;
    _Atomic uint64_t *next = &memory.slots[SLOT].next_handshake_us;
    int got = 0;

    (void)state;
    set_limits(0, 0, 3);
    for (unsigned i = 0; i < 5; i++) {
        p = pair_of(i % WORKERS);
        got += admit(&p, "192.0.2.1");
    }
    assert_int_equal(got, 3);
    assert_string_equal(refusal.why, "limits.handshakesPerSecond: 3");
    assert_int_equal(refusal.retry_after_s, 1);
    assert_int_equal(limited(STATS_HANDSHAKES_PER_SECOND), 2);
    assert_int_equal(admitted(), 3);
    /* a third of a second passes */
    atomic_fetch_sub(next, 333333);
    p = pair_of(0);
    assert_true(admit(&p, "192.0.2.1"));
    p = pair_of(1);
    assert_false(admit(&p, "192.0.2.1"));
    /* an hour passes: no more than a second is saved up */
    atomic_store(next, 1);
    got = 0;
    for (unsigned i = 0; i < 5; i++) {
        p = pair_of(i % WORKERS);
        got += admit(&p, "192.0.2.1");
    }
    assert_int_equal(got, 3);
}

static void memory_and_descriptors_come_first(void **state)
{
    struct pair a = pair_of(0), b = pair_of(0), c = pair_of(1);

    (void)state;
    set_limits(1, 1, 1);
    atomic_store(&workers[0]->relay.me->max_tunnels, 1);
    atomic_store(&memory.head->pressure, SHARED_REFUSE);
    assert_false(admit(&a, "192.0.2.1"));
    assert_string_equal(refusal.said, "the gateway is short of memory");
    assert_int_equal(refusal.retry_after_s, 5);
    atomic_store(&memory.head->pressure, SHARED_SHED);
    assert_false(admit(&a, "192.0.2.1"));
    atomic_store(&memory.head->pressure, SHARED_CALM);
    assert_true(admit(&a, "192.0.2.1"));
    assert_false(admit(&b, "192.0.2.2"));
    assert_string_equal(refusal.said, "the gateway has reached its limit of connections");
    assert_string_equal(refusal.why, "connections that this worker's descriptors allow: 1");
    /* another worker's descriptors are its own, and a server without limits is held to them as well */
    set_limits(0, 0, 0);
    assert_true(admit(&c, "192.0.2.2"));
    assert_false(admit(&b, "192.0.2.2"));
    limit_release(&a);
    assert_true(admit(&b, "192.0.2.2"));
    assert_int_equal(limited(STATS_MEMORY), 2);
    assert_int_equal(limited(STATS_DESCRIPTORS), 2);
}

static void a_dead_worker_leaves_nothing(void **state)
{
    struct pair pairs[4], fresh = pair_of(1);

    (void)state;
    set_limits(4, 4, 0);
    for (unsigned i = 0; i < 4; i++) {
        pairs[i] = pair_of(i < 3 ? 0 : 1);
        assert_true(admit(&pairs[i], "192.0.2.1"));
    }
    assert_false(admit(&fresh, "192.0.2.1"));
    shared_worker_clear(&memory, 0);
    assert_int_equal(admitted(), 1);
    assert_int_equal(counted(), 1);
    for (unsigned i = 0; i < 3; i++) {
        pairs[i] = pair_of(2);
        assert_true(admit(&pairs[i], "192.0.2.1"));
    }
    assert_false(admit(&fresh, "192.0.2.1"));
}

static size_t bytes_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (size_t)st.st_blocks * 512;
}

/* A look at a page of shared memory makes it: to clear the table of many descriptors must not make all of it. */
static void clearing_a_large_table_costs_no_memory(void **state)
{
    struct shared large;
    struct err err;
    size_t before;
    int fd;

    (void)state;
    assert_int_equal(shared_new(&large, 2, 1 << 20, &fd, &err), 0);
    before = bytes_of(fd);
    for (uint32_t i = 0; i < large.head->ip_entries; i += large.head->ip_entries / 64)
        atomic_store(&shared_ips(&large, 0)[i].count, 1);
    atomic_store(&shared_ips(&large, 0)[large.head->ip_entries - 1].count, 1);
    atomic_store(&shared_ips(&large, 1)[0].count, 1);
    shared_worker_clear(&large, 0);
    assert_true(bytes_of(fd) < before + (4 << 20)); /* the table is 32 MiB; the slots are looked at */
    assert_int_equal(atomic_load(&shared_ips(&large, 1)[0].count), 1);
    for (uint32_t i = 0; i < large.head->ip_entries; i++)
        assert_int_equal(atomic_load(&shared_ips(&large, 0)[i].count), 0);
    shared_done(&large);
    close(fd);
}

/* Threads: one a worker, as the processes are. Those that stand are counted apart, after limit_admit has let them in
 * and before they are given back: a lower bound of how many are in at once. */
static _Atomic uint32_t standing[2], most[2], let_in;
static _Atomic bool stop;
static uint32_t step_of[WORKERS];

static void note(int which)
{
    uint32_t n = atomic_fetch_add(&standing[which], 1) + 1, m = atomic_load(&most[which]);

    while (n > m && !atomic_compare_exchange_weak(&most[which], &m, n))
        ;
}

static int hammer(void *arg)
{
    enum { HELD = 8 };
    unsigned worker = (unsigned)(uintptr_t)arg;
    struct pair pairs[HELD];
    int who[HELD] = {0};
    struct in6_addr clients[2] = {{.s6_addr = {[10] = 0xFF, [11] = 0xFF, [12] = 192, [15] = 1}},
                                  {.s6_addr = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}}};
    struct limit_refusal mine;
    uint32_t x = step_of[worker];

    for (int i = 0; i < HELD; i++)
        pairs[i] = pair_of(worker);
    while (!atomic_load(&stop)) {
        int i = (int)((x = x * 1664525 + 1013904223) >> 16) % HELD;

        if (pairs[i].admitted) {
            atomic_fetch_sub(&standing[who[i]], 1);
            limit_release(&pairs[i]);
        } else {
            who[i] = (int)(x >> 28) & 1;
            if (limit_admit(&pairs[i], &clients[who[i]], &mine)) {
                note(who[i]);
                atomic_fetch_add(&let_in, 1);
            }
        }
    }
    for (int i = 0; i < HELD; i++) {
        if (pairs[i].admitted)
            atomic_fetch_sub(&standing[who[i]], 1);
        limit_release(&pairs[i]);
    }
    return 0;
}

static void run_threads(void)
{
    struct timespec half = {.tv_nsec = 500000000};
    thrd_t threads[WORKERS];

    memset(standing, 0, sizeof standing);
    memset(most, 0, sizeof most);
    atomic_store(&let_in, 0);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < WORKERS; i++) {
        step_of[i] = i * 7919 + 1;
        assert_int_equal(thrd_create(&threads[i], hammer, (void *)(uintptr_t)i), thrd_success);
    }
    thrd_sleep(&half, NULL);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < WORKERS; i++)
        thrd_join(threads[i], NULL);
    assert_int_equal(admitted(), 0);
    assert_int_equal(counted(), 0);
    assert_true(atomic_load(&let_in) > 1000);
}

static void workers_at_the_same_time_never_pass_a_limit(void **state)
{
    (void)state;
    set_limits(3, 0, 0);
    run_threads();
    assert_in_range(most[0] + most[1], 3, 6); /* each had its most at its own time */
    assert_true(most[0] <= 3 && most[1] <= 3);
    assert_true(limited(STATS_MAX_CONNECTIONS) > 0);
    set_limits(0, 2, 0);
    run_threads();
    assert_int_equal(most[0], 2);
    assert_int_equal(most[1], 2);
    assert_true(limited(STATS_MAX_CONNECTIONS_PER_IP) > 0);
    set_limits(3, 2, 0);
    run_threads();
    assert_true(most[0] <= 2 && most[1] <= 2);
}

static uint64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

#define TRIES 200000

static int burst(void *arg)
{
    struct in6_addr client = {0};
    struct limit_refusal mine;
    uint32_t got = 0;

    while (atomic_load(&stop)) /* all at once */
        thrd_yield();
    for (int i = 0; i < TRIES; i++) {
        struct pair p = pair_of((unsigned)(uintptr_t)arg);

        got += limit_admit(&p, &client, &mine);
    }
    atomic_fetch_add(&let_in, got);
    return 0;
}

static void workers_at_the_same_time_share_one_pace(void **state)
{
    enum { RATE = 500000 };
    thrd_t threads[WORKERS];
    uint64_t start;
    uint32_t got;

    (void)state;
    set_limits(0, 0, RATE);
    atomic_store(&let_in, 0);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(thrd_create(&threads[i], burst, (void *)(uintptr_t)i), thrd_success);
    start = now_us();
    atomic_store(&stop, false);
    for (unsigned i = 0; i < WORKERS; i++)
        thrd_join(threads[i], NULL);
    got = atomic_load(&let_in);
    /* what was saved up, and what the time that it took allows */
    assert_in_range(got, RATE, RATE + (now_us() - start) * RATE / 1000000);
    assert_int_equal(limited(STATS_HANDSHAKES_PER_SECOND), WORKERS * TRIES - got);
}

static void descriptors_are_kept_back_for_refusals(void **state)
{
    static const struct {
        uint64_t fd_limit, max;
        unsigned in_use;
    } cases[] = {
        {1048576, (1048576 - 20 - 1024) / 2, 20},
        {1024, (1024 - 10 - 51) / 2, 10},
        {64, (64 - 10 - 16) / 2, 10},
        {30, 2, 10},
        {20, 1, 10},
        {0, 1, 10},
        {16, 1, 4000000000u},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(limit_max_tunnels(cases[i].fd_limit, cases[i].in_use), cases[i].max);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connections_are_counted_over_all_workers, setup, teardown),
        cmocka_unit_test_setup_teardown(another_server_has_its_own_count, setup, teardown),
        cmocka_unit_test_setup_teardown(an_address_is_counted_over_all_workers, setup, teardown),
        cmocka_unit_test_setup_teardown(an_address_that_has_left_makes_room, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_table_lets_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(the_pace_allows_a_second_saved_up_and_then_refills, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_and_descriptors_come_first, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_worker_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(workers_at_the_same_time_never_pass_a_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(workers_at_the_same_time_share_one_pace, setup, teardown),
        cmocka_unit_test(clearing_a_large_table_costs_no_memory),
        cmocka_unit_test(descriptors_are_kept_back_for_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
