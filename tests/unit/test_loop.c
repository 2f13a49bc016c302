/* test_loop.c - timers never early, tasks one turn later, the dead freed behind the turn */
#include "base/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop loop;

static int setup(void **state)
{
    struct err err;

    (void)state;
    return loop_init(&loop, &err);
}

static int teardown(void **state)
{
    (void)state;
    loop_done(&loop);
    return 0;
}

struct probe {
    struct loop_timer timer;
    uint64_t wanted_ms, fired_ms;
    struct loop_timer *clears;
    int *left;
};

static uint64_t monotonic_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void on_fire(struct loop_timer *t)
{
    struct probe *p = (struct probe *)t;

    p->fired_ms = monotonic_ms();
    if (p->clears)
        loop_timer_clear(p->clears);
    if (--*p->left == 0)
        loop.stop = true;
}

static void timers_fire_in_time_and_never_early(void **state)
{
    static const uint64_t after_ms[] = {0, 1, 31, 32, 33, 64, 100, 250};
    enum { COUNT = sizeof after_ms / sizeof *after_ms };
    struct probe probes[COUNT] = {0};
    int left = COUNT;

    (void)state;
    for (int i = 0; i < COUNT; i++) {
        probes[i].timer.fire = on_fire;
        probes[i].left = &left;
        probes[i].wanted_ms = loop.now_ms + after_ms[i];
        loop_timer_set(&loop, &probes[i].timer, probes[i].wanted_ms);
    }
    loop_run(&loop);
    for (int i = 0; i < COUNT; i++) {
        assert_true(probes[i].fired_ms >= probes[i].wanted_ms);
        /* A tick and the patience that a busy machine needs. */
        assert_true(probes[i].fired_ms < probes[i].wanted_ms + LOOP_TICK_MS + 400);
        assert_int_equal(probes[i].timer.at_ms, 0);
    }
}

static void a_timer_of_a_later_round_waits_for_it(void **state)
{
    int left = 1;
    struct probe now = {.timer.fire = on_fire, .left = &left}, later = {.timer.fire = on_fire, .left = &left};

    (void)state;
    /* The same slot of the wheel, one round apart. */
    loop_timer_set(&loop, &now.timer, loop.now_ms + 40);
    loop_timer_set(&loop, &later.timer, loop.now_ms + 40 + LOOP_SLOTS * LOOP_TICK_MS);
    loop_run(&loop);
    assert_true(now.fired_ms != 0);
    assert_int_equal(later.fired_ms, 0);
    assert_true(later.timer.at_ms != 0);
    loop_timer_clear(&later.timer);
}

static void a_timer_may_clear_another_of_its_slot(void **state)
{
    int left = 1;
    struct probe a = {.timer.fire = on_fire, .left = &left}, b = {.timer.fire = on_fire, .left = &left};
    uint64_t at = loop.now_ms + 40;

    (void)state;
    a.clears = &b.timer;
    b.clears = &a.timer;
    loop_timer_set(&loop, &a.timer, at);
    loop_timer_set(&loop, &b.timer, at);
    loop_run(&loop);
    assert_true((a.fired_ms != 0) != (b.fired_ms != 0));
    assert_int_equal(a.timer.at_ms, 0);
    assert_int_equal(b.timer.at_ms, 0);
}

struct work {
    struct loop_task task;
    int runs;
    uint64_t turn;
};

static void run_twice(struct loop_task *t)
{
    struct work *w = (struct work *)t;

    assert_true(w->runs == 0 || loop.turn > w->turn);
    w->turn = loop.turn;
    if (++w->runs == 2)
        loop.stop = true;
    else
        loop_task_add(&loop, t);
}

static void a_task_that_asks_again_gets_the_next_turn(void **state)
{
    struct work w = {.task.run = run_twice};

    (void)state;
    loop_task_add(&loop, &w.task);
    loop_task_add(&loop, &w.task);
    loop_run(&loop);
    assert_int_equal(w.runs, 2);
}

struct reader {
    struct loop_fd lf;
    struct loop_dead dead;
    int events;
    bool released;
};

static void on_release(struct loop_dead *d)
{
    ((struct reader *)(void *)((char *)d - offsetof(struct reader, dead)))->released = true;
}

static struct reader readers[2];

/* The first that is ready ends both: the event of the other has been fetched already. */
static void on_ready(struct loop_fd *f, uint32_t events)
{
    (void)events;
    ((struct reader *)f)->events++;
    for (int i = 0; i < 2; i++) {
        close(readers[i].lf.fd);
        readers[i].lf.fd = -1;
        loop_free_later(&loop, &readers[i].dead);
        assert_false(readers[i].released);
    }
    loop.stop = true;
}

static void what_dies_in_a_turn_gets_no_event_and_is_freed_behind_it(void **state)
{
    int pipes[2][2];
    struct err err;

    (void)state;
    memset(readers, 0, sizeof readers);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pipe(pipes[i]), 0);
        readers[i].lf = (struct loop_fd){.fd = pipes[i][0], .ready = on_ready};
        readers[i].dead.release = on_release;
        assert_int_equal(loop_add(&loop, &readers[i].lf, EPOLLIN | EPOLLET, &err), 0);
        assert_int_equal(write(pipes[i][1], "x", 1), 1);
    }
    loop_run(&loop);
    assert_int_equal(readers[0].events + readers[1].events, 1);
    assert_true(readers[0].released && readers[1].released);
    close(pipes[0][1]);
    close(pipes[1][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(timers_fire_in_time_and_never_early, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_of_a_later_round_waits_for_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_may_clear_another_of_its_slot, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_that_asks_again_gets_the_next_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(what_dies_in_a_turn_gets_no_event_and_is_freed_behind_it, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
