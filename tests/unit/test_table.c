/* test_table.c - the worker's step from one effective spec to the next: bounds, and a sign of life on the way */
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

static void unchanged_servers_stay_the_same_objects(void **state)
{
    struct table none = {0}, first, second;
    struct buf b = servers(3);
    struct err err;

    (void)state;
    assert_int_equal(table_next(&none, relay, b.data, b.len, &first, &err), 0);
    assert_int_equal(table_next(&first, relay, b.data, b.len, &second, &err), 0);
    assert_int_equal(second.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_ptr_equal(first.entries[i].server, second.entries[i].server);
    table_free(&first);
    table_free(&second);
    buf_free(&b);
}

/* Thousands of certificates may take longer than the master waits for a heartbeat: a worker that is about them lives. */
static void making_a_server_is_a_sign_of_life(void **state)
{
    struct table none = {0}, next;
    struct buf b = servers(1);
    struct err err;

    (void)state;
    atomic_store(&relay->me->heartbeat_ms, 0);
    assert_int_equal(table_next(&none, relay, b.data, b.len, &next, &err), 0);
    assert_true(atomic_load(&relay->me->heartbeat_ms) > 0);
    table_free(&next);
    buf_free(&b);
}

static void more_servers_than_there_may_be_are_refused(void **state)
{
    struct table none = {0}, next;
    struct buf b = servers(SPEC_MAX_SERVERS + 1);
    struct err err;

    (void)state;
    assert_int_equal(table_next(&none, relay, b.data, b.len, &next, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    buf_free(&b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unchanged_servers_stay_the_same_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(making_a_server_is_a_sign_of_life, setup, teardown),
        cmocka_unit_test_setup_teardown(more_servers_than_there_may_be_are_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
