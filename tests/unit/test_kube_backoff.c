/* test_kube_backoff.c - the figures of client-go: 800 ms, twice as long each time, 30 s at the cap, all of it up to twice as long;
 * and the bucket that paces requests */
#include "kube/kube_backoff.h"
#include "kube/kube_bucket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint32_t bases[] = {800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000};
enum { BASES = sizeof bases / sizeof *bases };

static void waits_double_up_to_the_cap(void **state)
{
    struct kube_backoff b = {0};
    uint64_t now_ms = 5000;

    (void)state;
    for (size_t i = 0; i < BASES; i++) {
        assert_int_equal(kube_backoff_next(&b, now_ms, 0, 0), bases[i]);
        now_ms += bases[i];
    }
}

static void a_wait_is_stretched_up_to_twice_its_length(void **state)
{
    struct kube_backoff b = {0}, half = {0};

    (void)state;
    for (size_t i = 0; i < BASES; i++) {
        assert_int_equal(kube_backoff_next(&b, 1, 0, UINT32_MAX), 2 * bases[i] - 1);
        assert_int_equal(kube_backoff_next(&half, 1, 0, UINT32_C(1) << 31), bases[i] + bases[i] / 2);
    }
}

static void two_minutes_without_a_failure_begin_anew(void **state)
{
    struct kube_backoff b = {0};

    (void)state;
    assert_int_equal(kube_backoff_next(&b, 1000, 0, 0), 800);
    assert_int_equal(kube_backoff_next(&b, 1800 + KUBE_BACKOFF_FORGET_MS, 0, 0), 1600);
    assert_int_equal(kube_backoff_next(&b, 3401 + 2 * KUBE_BACKOFF_FORGET_MS, 0, 0), 800);
    assert_int_equal(kube_backoff_next(&b, 3401 + 2 * KUBE_BACKOFF_FORGET_MS, 0, 0), 1600);
}

static void the_server_may_ask_for_longer_and_not_for_shorter(void **state)
{
    struct kube_backoff b = {0};

    (void)state;
    assert_int_equal(kube_backoff_next(&b, 1, 7, 0), 7000);
    assert_int_equal(kube_backoff_next(&b, 7001, 1, 0), 1600);
    assert_int_equal(kube_backoff_next(&b, 8601, 3, UINT32_MAX), 6399);
    assert_int_equal(kube_backoff_next(&b, 8601, UINT32_MAX, 0), KUBE_BACKOFF_ASKED_MS);
}

static void a_burst_goes_at_once_and_the_rest_at_the_rate(void **state)
{
    struct kube_bucket b;
    unsigned taken = 0;

    (void)state;
    kube_bucket_init(&b, 5, 10, 1000);
    for (int i = 0; i < 10; i++)
        assert_int_equal(kube_bucket_take(&b, 1000), 0);
    assert_in_range(kube_bucket_take(&b, 1000), 200, 201);
    assert_in_range(kube_bucket_take(&b, 1100), 100, 101);
    for (uint64_t now_ms = 1100; now_ms <= 11000; now_ms++)
        taken += kube_bucket_take(&b, now_ms) == 0;
    assert_in_range(taken, 49, 50);
}

static void a_bucket_holds_no_more_than_the_burst(void **state)
{
    struct kube_bucket b;

    (void)state;
    kube_bucket_init(&b, 50, 3, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(kube_bucket_take(&b, 1000000), 0);
    assert_int_not_equal(kube_bucket_take(&b, 1000000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_double_up_to_the_cap),
        cmocka_unit_test(a_wait_is_stretched_up_to_twice_its_length),
        cmocka_unit_test(two_minutes_without_a_failure_begin_anew),
        cmocka_unit_test(the_server_may_ask_for_longer_and_not_for_shorter),
        cmocka_unit_test(a_burst_goes_at_once_and_the_rest_at_the_rate),
        cmocka_unit_test(a_bucket_holds_no_more_than_the_burst),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
