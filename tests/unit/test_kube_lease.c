/* test_kube_lease.c - who leads, by whose clock, and what is written into the Lease */
#include "test_kube_stub.h"

#include "kube/kube_lease.h"

#define US   "tidegate-0_1"
#define THEM "tidegate-1_2"

static struct kube_lease *lease;
static int won, lost, released;

static void changed(void *arg, bool leads)
{
    (void)arg;
    if (leads)
        won++;
    else
        lost++;
}

static void on_released(void *arg)
{
    (void)arg;
    released++;
}

static int setup(void **state)
{
    (void)state;
    stub_init();
    won = lost = released = 0;
    lease = kube_lease_new(NULL, &stub_loop, "tidegate", "gateway", US, changed, NULL);
    stub_pass(LOOP_TICK_MS * 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kube_lease_free(lease);
    stub_done();
    return 0;
}

/* The Lease as the server would give it. */
static const char *held_by(const char *holder, int renewal, int seconds, int transitions)
{
    static char text[600];

    snprintf(
        text, sizeof text,
        "{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"gateway\","
        "\"namespace\":\"tidegate\",\"resourceVersion\":\"%d\",\"labels\":{\"kept\":\"yes\"}},\"spec\":{"
        "\"holderIdentity\":\"%s\",\"leaseDurationSeconds\":%d,\"acquireTime\":\"2020-01-01T00:00:00."
        "000000Z\",\"renewTime\":\"2020-01-01T00:00:%02d.000000Z\",\"leaseTransitions\":%d}}",
        1000 + renewal, holder, seconds, renewal, transitions);
    return text;
}

/* ---- lease_decide ---- */

static void the_decision_follows_the_record_and_our_own_clock(void **state)
{
    static const struct {
        uint64_t at_ms;
        const char *holder; /* NULL: 404 */
        int renewal, seconds;
        enum lease_act act;
    } steps[] = {
        {0, NULL, 0, 0, LEASE_CREATE},     {1000, THEM, 1, 15, LEASE_WAIT},
        {15999, THEM, 1, 15, LEASE_WAIT}, /* unchanged, 14.999 s after it was seen first */
        {16000, THEM, 1, 15, LEASE_TAKE},  {16001, THEM, 2, 15, LEASE_WAIT}, /* it moved again: alive */
        {31000, THEM, 3, 15, LEASE_WAIT},  {31000, US, 4, 15, LEASE_RENEW},
        {99000, US, 4, 15, LEASE_RENEW}, /* ours, however old */
        {99001, "", 5, 1, LEASE_TAKE},   /* released */
        {99002, THEM, 6, 3, LEASE_WAIT},   {102001, THEM, 6, 3, LEASE_WAIT},
        {102002, THEM, 6, 3, LEASE_TAKE},  /* the record's own duration counts */
        {102003, THEM, 7, -5, LEASE_WAIT}, /* a duration that makes no sense is ours */
        {117003, THEM, 7, -5, LEASE_TAKE},
    };
    struct lease_seen seen = {NULL, 0};

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        json_t *object =
            steps[i].holder
                ? json_loads(held_by(steps[i].holder, steps[i].renewal, steps[i].seconds, 0), 0, NULL)
                : NULL;

        print_message("step %zu\n", i);
        assert_int_equal(lease_decide(&seen, object, US, steps[i].at_ms), steps[i].act);
        json_decref(object);
    }
    json_decref(seen.spec);
}

static void a_record_without_a_holder_or_a_spec_is_nobodys(void **state)
{
    static const char *const texts[] = {"{}", "{\"spec\":{}}", "{\"spec\":null}",
                                        "{\"spec\":{\"holderIdentity\":7}}"};
    struct lease_seen seen = {NULL, 0};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *object = json_loads(texts[i], 0, NULL);

        assert_int_equal(lease_decide(&seen, object, US, 1), LEASE_TAKE);
        json_decref(object);
    }
    json_decref(seen.spec);
}

/* ---- the Lease itself ---- */

static json_t *spec_sent(void)
{
    return json_object_get(stub_open(0)->body, "spec");
}

static json_int_t number(json_t *in, const char *key)
{
    return json_integer_value(json_object_get(in, key));
}

/* Reads our Lease and renews it. */
static void renew(int renewal)
{
    stub_answer(200, held_by(US, renewal, 15, 3));
    assert_string_equal(stub_open(0)->method, "PUT");
    stub_answer(200, "{}");
}

/* The lease becomes ours. */
static void win(void)
{
    stub_answer(404, NULL);
    assert_string_equal(stub_open(0)->method, "POST");
    stub_answer(201, "{}");
    assert_true(kube_lease_leads(lease));
    assert_int_equal(won, 1);
}

static bool six_decimals(const char *t)
{
    return strlen(t) == 27 && t[19] == '.' && t[26] == 'Z';
}

static void where_there_is_none_one_is_made(void **state)
{
    (void)state;
    assert_string_equal(stub_open(0)->method, "GET");
    assert_string_equal(stub_open(0)->path,
                        "/apis/coordination.k8s.io/v1/namespaces/tidegate/leases/gateway");
    assert_true(stub_open(0)->r.urgent);
    assert_in_range(stub_open(0)->r.timeout_ms, 1, KUBE_LEASE_RENEW_MS);
    stub_answer(404, NULL);
    assert_string_equal(stub_open(0)->method, "POST");
    assert_string_equal(stub_open(0)->path, "/apis/coordination.k8s.io/v1/namespaces/tidegate/leases");
    assert_string_equal(stub_str(json_object_get(stub_open(0)->body, "metadata"), "name"), "gateway");
    assert_string_equal(stub_str(spec_sent(), "holderIdentity"), US);
    assert_int_equal(number(spec_sent(), "leaseDurationSeconds"), 15);
    assert_int_equal(number(spec_sent(), "leaseTransitions"), 0);
    assert_true(six_decimals(stub_str(spec_sent(), "acquireTime")));
    assert_true(six_decimals(stub_str(spec_sent(), "renewTime")));
    assert_false(kube_lease_leads(lease));
    stub_answer(201, "{}");
    assert_true(kube_lease_leads(lease));
}

static void a_renewal_moves_only_the_renew_time(void **state)
{
    (void)state;
    win();
    stub_pass(KUBE_LEASE_RETRY_MS + LOOP_TICK_MS);
    stub_answer(200, held_by(US, 9, 15, 3));
    assert_string_equal(stub_open(0)->method, "PUT");
    assert_string_equal(stub_open(0)->path,
                        "/apis/coordination.k8s.io/v1/namespaces/tidegate/leases/gateway");
    assert_string_equal(stub_str(json_object_get(stub_open(0)->body, "metadata"), "resourceVersion"), "1009");
    assert_string_equal(
        stub_str(json_object_get(json_object_get(stub_open(0)->body, "metadata"), "labels"), "kept"), "yes");
    assert_int_equal(number(spec_sent(), "leaseTransitions"), 3);
    assert_string_equal(stub_str(spec_sent(), "acquireTime"), "2020-01-01T00:00:00.000000Z");
    assert_string_not_equal(stub_str(spec_sent(), "renewTime"), "2020-01-01T00:00:09.000000Z");
    stub_answer(200, "{}");
    for (int i = 10; i < 40; i++) {
        stub_pass(KUBE_LEASE_RETRY_MS + LOOP_TICK_MS);
        renew(i);
        assert_true(kube_lease_leads(lease));
    }
    assert_int_equal(won, 1);
    assert_int_equal(lost, 0);
}

/* The next GET, whenever the jitter lets it come. */
static void next_read(void)
{
    for (int i = 0; i < 60 && !stub_open(0); i++)
        stub_pass(100);
    assert_string_equal(stub_open(0)->method, "GET");
}

static void somebody_elses_is_taken_once_it_has_stood_still_for_its_duration(void **state)
{
    uint64_t begun_ms;

    (void)state;
    for (int i = 1; i < 20; i++) { /* alive for long */
        stub_answer(200, held_by(THEM, i, 15, 3));
        assert_null(stub_open(0));
        next_read();
    }
    begun_ms = stub_clock_ms;
    stub_answer(200, held_by(THEM, 20, 15, 3));
    do {
        next_read();
        stub_answer(200, held_by(THEM, 20, 15, 3));
    } while (!stub_open(0));
    assert_in_range(stub_clock_ms - begun_ms, 15000, 15000 + 4500);
    assert_string_equal(stub_open(0)->method, "PUT");
    assert_string_equal(stub_str(spec_sent(), "holderIdentity"), US);
    assert_int_equal(number(spec_sent(), "leaseTransitions"), 4);
    assert_string_not_equal(stub_str(spec_sent(), "acquireTime"), "2020-01-01T00:00:00.000000Z");
    stub_answer(200, "{}");
    assert_true(kube_lease_leads(lease));
}

static void a_released_one_is_taken_at_once(void **state)
{
    (void)state;
    stub_answer(200, held_by("", 1, 1, 3));
    assert_string_equal(stub_open(0)->method, "PUT");
    stub_answer(200, "{}");
    assert_true(kube_lease_leads(lease));
}

static void a_race_that_is_lost_is_lost(void **state)
{
    (void)state;
    stub_answer(404, NULL);
    stub_answer(409, NULL);
    assert_false(kube_lease_leads(lease));
    next_read();
    stub_answer(200, held_by("", 1, 1, 3));
    stub_answer(409, NULL);
    assert_false(kube_lease_leads(lease));
    next_read();
    stub_answer(200, held_by(THEM, 2, 15, 4));
    assert_null(stub_open(0));
    assert_int_equal(won, 0);
}

static void a_write_in_between_ends_no_lead_and_another_holder_does(void **state)
{
    (void)state;
    win();
    next_read();
    stub_answer(200, held_by(US, 1, 15, 3));
    stub_answer(409, NULL); /* somebody put a label on it */
    assert_true(kube_lease_leads(lease));
    stub_pass(200);
    renew(1);
    assert_int_equal(lost, 0);
    next_read();
    stub_answer(200, held_by(THEM, 2, 15, 4));
    assert_false(kube_lease_leads(lease));
    assert_int_equal(lost, 1);
}

static void a_server_that_fails_ends_the_lead_after_ten_seconds(void **state)
{
    uint64_t begun_ms;

    (void)state;
    win();
    begun_ms = stub_clock_ms;
    while (kube_lease_leads(lease)) {
        if (stub_open(0))
            stub_answer(stub_started % 2 ? 503 : 0, NULL);
        stub_pass(100);
    }
    assert_in_range(stub_clock_ms - begun_ms, 9900, 10000);
    stub_pass(2 * LOOP_TICK_MS);
    assert_int_equal(lost, 1); /* told without anybody asking */
    /* It comes back: ours still, and we lead again. */
    if (stub_open(0))
        stub_answer(503, NULL);
    next_read();
    renew(5);
    assert_true(kube_lease_leads(lease));
    assert_int_equal(won, 2);
}

static void a_request_that_hangs_keeps_nobody_leader(void **state)
{
    (void)state;
    win();
    next_read();
    stub_pass(8000);
    assert_false(kube_lease_leads(lease));
    assert_int_equal(lost, 1);
}

static void the_time_of_the_question_counts_and_not_that_of_the_answer(void **state)
{
    (void)state;
    win();
    next_read();
    stub_answer(200, held_by(US, 1, 15, 3));
    stub_pass(9000);
    stub_answer(200, "{}");
    assert_true(kube_lease_leads(lease));
    stub_pass(1000);
    assert_false(kube_lease_leads(lease));
}

static void who_was_stopped_for_20_s_does_not_believe_that_it_leads(void **state)
{
    (void)state;
    win();
    next_read();
    stub_answer(200, held_by(US, 1, 15, 3));
    stub_clock_ms += 20000; /* SIGSTOP; nothing of us runs */
    assert_false(kube_lease_leads(lease));
    stub_answer(200, "{}"); /* the renewal of before: too old to count */
    assert_false(kube_lease_leads(lease));
    assert_int_equal(lost, 1);
    next_read();
    stub_answer(200, held_by(THEM, 2, 15, 4));
    assert_false(kube_lease_leads(lease));
    assert_int_equal(won, 1);
}

static void what_was_read_before_the_stop_takes_nothing_over(void **state)
{
    (void)state;
    stub_answer(200, held_by(THEM, 1, 15, 3));
    next_read();
    stub_clock_ms += 20000;
    stub_answer(200, held_by(THEM, 1, 15, 3)); /* an answer of before */
    /* It asks with the version of then, which the server refuses. */
    assert_string_equal(stub_str(json_object_get(stub_open(0)->body, "metadata"), "resourceVersion"), "1001");
    stub_answer(409, NULL);
    assert_false(kube_lease_leads(lease));
}

static void a_leader_that_renews_nothing_for_long_is_stuck(void **state)
{
    (void)state;
    assert_false(kube_lease_stuck(lease));
    win();
    stub_clock_ms += 34000; /* the loop does not turn */
    assert_false(kube_lease_stuck(lease));
    stub_clock_ms += 2000;
    assert_true(kube_lease_stuck(lease));
    stub_pass(100); /* it does: the end of the lead is noticed */
    assert_false(kube_lease_stuck(lease));
}

static void nonsense_for_an_answer_makes_no_leader(void **state)
{
    static const char *const texts[] = {"", "[]", "{", "{}", "{\"metadata\":7}", NULL};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        stub_answer(200, texts[i]);
        assert_null(stub_open(0));
        next_read();
    }
    assert_false(kube_lease_leads(lease));
}

static void at_the_end_it_is_given_up(void **state)
{
    (void)state;
    win();
    next_read(); /* one is on its way */
    kube_lease_release(lease, on_released, NULL);
    assert_int_equal(stub_cancelled, 1);
    assert_false(kube_lease_leads(lease));
    stub_answer(200, held_by(US, 1, 15, 3));
    assert_string_equal(stub_open(0)->method, "PUT");
    assert_string_equal(stub_str(spec_sent(), "holderIdentity"), "");
    assert_int_equal(number(spec_sent(), "leaseDurationSeconds"), 1);
    assert_int_equal(number(spec_sent(), "leaseTransitions"), 3);
    assert_true(six_decimals(stub_str(spec_sent(), "renewTime")));
    assert_string_not_equal(stub_str(spec_sent(), "acquireTime"), "2020-01-01T00:00:00.000000Z");
    assert_int_equal(released, 0);
    stub_answer(409, NULL); /* the one that was cancelled had arrived */
    assert_string_equal(stub_open(0)->method, "GET");
    stub_answer(200, held_by(US, 2, 15, 3));
    stub_answer(200, "{}");
    assert_int_equal(released, 1);
    stub_pass(20000);
    assert_int_equal(released, 1);
    assert_null(stub_open(0));
}

static void the_end_waits_three_seconds_at_most(void **state)
{
    (void)state;
    win();
    kube_lease_release(lease, on_released, NULL);
    stub_pass(2900);
    assert_int_equal(released, 0);
    stub_pass(200);
    assert_int_equal(released, 1);
    assert_null(stub_open(0));
}

static void who_holds_nothing_gives_nothing_up(void **state)
{
    (void)state;
    stub_answer(200, held_by(THEM, 1, 15, 3));
    kube_lease_release(lease, on_released, NULL);
    assert_int_equal(released, 0); /* never before it returns */
    stub_turn();
    assert_int_equal(released, 1);
    assert_null(stub_open(0));
}

static void another_holder_is_left_alone_at_the_end(void **state)
{
    (void)state;
    win();
    kube_lease_release(lease, on_released, NULL);
    stub_answer(200, held_by(THEM, 1, 15, 3));
    assert_int_equal(released, 1);
    assert_null(stub_open(0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_decision_follows_the_record_and_our_own_clock),
        cmocka_unit_test(a_record_without_a_holder_or_a_spec_is_nobodys),
        TEST(where_there_is_none_one_is_made),
        TEST(a_renewal_moves_only_the_renew_time),
        TEST(somebody_elses_is_taken_once_it_has_stood_still_for_its_duration),
        TEST(a_released_one_is_taken_at_once),
        TEST(a_race_that_is_lost_is_lost),
        TEST(a_write_in_between_ends_no_lead_and_another_holder_does),
        TEST(a_server_that_fails_ends_the_lead_after_ten_seconds),
        TEST(a_request_that_hangs_keeps_nobody_leader),
        TEST(the_time_of_the_question_counts_and_not_that_of_the_answer),
        TEST(who_was_stopped_for_20_s_does_not_believe_that_it_leads),
        TEST(what_was_read_before_the_stop_takes_nothing_over),
        TEST(a_leader_that_renews_nothing_for_long_is_stuck),
        TEST(nonsense_for_an_answer_makes_no_leader),
        TEST(at_the_end_it_is_given_up),
        TEST(the_end_waits_three_seconds_at_most),
        TEST(who_holds_nothing_gives_nothing_up),
        TEST(another_holder_is_left_alone_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
