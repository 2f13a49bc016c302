/* test_table.c - the worker's step from one effective spec to the next: one server a step, and bounds */
#include "run/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct relay *relay;

static int setup(void **state)
{
    struct err err;
    int fd;

    (void)state;
    relay = calloc(1, sizeof *relay);
    if (!relay || shared_new(&relay->shared, 1, 1000, &fd, &err))
        return -1;
    close(fd);
    relay->me = shared_worker(&relay->shared, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shared_done(&relay->shared);
    free(relay);
    return 0;
}

/* `count` servers as the master writes them. */
static struct buf servers(unsigned count)
{
    struct buf b;

    buf_init(&b, SPEC_MAX_BYTES);
    for (unsigned i = 0; i < count; i++) {
        char name[16];

        snprintf(name, sizeof name, "s%u", i);
        shared_slot_take(&relay->shared, name);
        assert_int_equal(buf_addf(&b,
                                  "---\nkind: WebSocketServer\nname: \"%s\"\nport: %u\n"
                                  "backend: ws://127.0.0.1:80\n",
                                  name, 10000 + i),
                         0);
    }
    return b;
}

/* 0, or -1 as table_step says it; *steps: how many there were. */
static int build(const struct table *before, const struct buf *b, struct table *out, unsigned *steps,
                 struct err *err)
{
    struct table_build build;
    int r;

    assert_int_equal(table_begin(&build, b->data, b->len, err), 0);
    *steps = 0;
    do
        ++*steps;
    while ((r = table_step(&build, before, relay, err)) > 0);
    *out = build.next;
    return r;
}

static void unchanged_servers_stay_the_same_objects(void **state)
{
    struct table none = {0}, first, second;
    struct buf b = servers(3);
    unsigned steps;
    struct err err;

    (void)state;
    assert_int_equal(build(&none, &b, &first, &steps, &err), 0);
    assert_int_equal(build(&first, &b, &second, &steps, &err), 0);
    assert_int_equal(second.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_ptr_equal(first.entries[i].server, second.entries[i].server);
    table_free(&first);
    table_free(&second);
    buf_free(&b);
}

/* Who steps decides how long connections wait. */
static void a_step_makes_one_server(void **state)
{
    struct table none = {0}, next;
    struct buf b = servers(5), empty = {0};
    unsigned steps;
    struct err err;

    (void)state;
    assert_int_equal(build(&none, &b, &next, &steps, &err), 0);
    assert_int_equal(steps, 5);
    table_free(&next);
    assert_int_equal(build(&none, &empty, &next, &steps, &err), 0);
    assert_int_equal(next.count, 0);
    table_free(&next);
    buf_free(&b);
}

static void more_servers_than_there_may_be_are_refused(void **state)
{
    struct table none = {0}, next;
    struct buf b = servers(SPEC_MAX_SERVERS + 1);
    unsigned steps;
    struct err err;

    (void)state;
    assert_int_equal(build(&none, &b, &next, &steps, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(next.count, 0);
    buf_free(&b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unchanged_servers_stay_the_same_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(a_step_makes_one_server, setup, teardown),
        cmocka_unit_test_setup_teardown(more_servers_than_there_may_be_are_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
