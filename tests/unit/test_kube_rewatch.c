/* test_kube_rewatch.c - the ways in which a watch ends, and what is asked for after each; time is the stub's */
#include "test_kube_reflect.h"

static void gives_events_to_the_sink_and_goes_on_from_the_last_version(void **state)
{
    (void)state;
    begin_watched();
    stream(EVENT("MODIFIED", "a", "11") EVENT("ADDED", "c", "12")
               EVENT("DELETED", "b", "18446744073709551618"));
    sunk("+a +c -b ");
    answer_end(KUBE_CUT, 200, 0, "reset");
    asked_after_failure(0, WATCH("18446744073709551618"));
    stream(BOOKMARK("opaque-14"));
    sunk("");
    answer_end(KUBE_CUT, 200, 0, "reset");
    asked_after_failure(1, WATCH("opaque-14"));
    end_test();
}

static void puts_whatever_is_still_there(void **state)
{
    (void)state;
    begin_watched();
    stream(EVENT("ADDED", "a", "11") EVENT("ADDED", "a", "11"));
    stream("{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"12\","
           "\"deletionTimestamp\":\"2026-01-02T03:04:05Z\"},\"spec\":null,\"status\":null}}\n");
    sunk("+a +a +a ");
    end_test();
}

static void tells_an_object_from_its_successor_of_the_same_name(void **state)
{
    (void)state;
    begin_watched();
    stream("{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"a\",\"uid\":\"u1\","
           "\"resourceVersion\":\"11\"}}}\n"
           "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"uid\":\"u2\",\"resourceVersion\":"
           "\"12\"}}}\n");
    sunk("-a/u1 +a/u2 ");
    end_test();
}

static void skips_and_counts_what_it_does_not_know(void **state)
{
    (void)state;
    begin_watched();
    stream(EVENT("FANCY", "x", "11") "{\"type\":\"ADDED\",\"object\":{\"metadata\":null}}\n"
                                     "{\"type\":null,\"object\":{}}\n" EVENT("ADDED", "c", "12"));
    sunk("+c ");
    assert_int_equal(kube_reflect_counts(r)->unknown, 3);
    stream(EVENT("FANCY", "x", "13"));
    answer_end(KUBE_CUT, 200, 0, "reset");
    asked_after_failure(0, WATCH("13"));
    end_test();
}

static void watches_again_at_once_after_a_clean_end(void **state)
{
    unsigned first, differ = 0;

    (void)state;
    begin_watched();
    first = watch_seconds;
    for (int i = 0; i < 8; i++) {
        stub_pass(300000);
        answer_end(KUBE_ANSWERED, 200, 0, "");
        asked(WATCH("10"));
        differ += watch_seconds != first;
    }
    assert_true(differ > 0); /* drawn anew: eight times the same of 301 does not happen */
    stream(EVENT("ADDED", "c", "11"));
    answer_end(KUBE_ANSWERED, 200, 0, "");
    asked(WATCH("11"));
    assert_string_equal(kube_reflect_trouble(r), "");
    assert_int_equal(restarts(KUBE_CAUSE_CLEAN), 9);
    assert_int_equal(kube_reflect_counts(r)->lists, 1);
    sunk("+c ");
    end_test();
}

static void a_watch_that_ends_at_once_each_time_is_waited_for_longer_each_time(void **state)
{
    (void)state;
    begin_watched();
    for (unsigned i = 0; i < 7; i++) {
        answer_end(KUBE_ANSWERED, 200, 0, "");
        assert_string_not_equal(kube_reflect_trouble(r), "");
        asked_after_failure(i, THINGS "?resourceVersion=10");
        answer_page("10", NULL, "a b");
        asked(WATCH("10"));
    }
    assert_int_equal(restarts(KUBE_CAUSE_ERROR), 7);
    end_test();
}

static void goes_on_after_a_cut_without_a_list(void **state)
{
    (void)state;
    begin_watched();
    stream(EVENT("ADDED", "c", "11") "{\"type\":\"ADDED\",\"obj");
    answer_end(KUBE_CUT, 200, 0, "reset");
    assert_string_equal(kube_reflect_trouble(r), "");
    asked_after_failure(0, WATCH("11"));
    answer_end(KUBE_CUT, 0, 0, "refused");
    assert_string_equal(kube_reflect_trouble(r), "watch things: refused");
    asked_after_failure(1, WATCH("11"));
    answer_end(KUBE_TIMED_OUT, 0, 0, "no connection");
    asked_after_failure(2, WATCH("11"));
    /* The half of before is forgotten; an end in the middle of a line is a cut too. */
    stream(EVENT("ADDED", "d", "12") "{\"ty");
    assert_string_equal(kube_reflect_trouble(r), "");
    answer_end(KUBE_ANSWERED, 200, 0, "");
    asked_after_failure(3, WATCH("12"));
    assert_int_equal(restarts(KUBE_CAUSE_CUT), 4);
    assert_int_equal(kube_reflect_counts(r)->lists, 1);
    sunk("+c +d ");
    end_test();
}

static void a_watch_that_was_open_and_is_closed_on_our_side_is_no_trouble(void **state)
{
    const struct kube_reply closed = {
        .end = KUBE_CUT, .streamed = true, .why = "the certificate has changed"};

    (void)state;
    begin_watched();
    opened();
    stream(BOOKMARK("11"));
    stub_reply(stub_open(0), &closed);
    assert_string_equal(kube_reflect_trouble(r), "");
    asked_after_failure(0, WATCH("11"));
    end_test();
}

static void a_watch_that_is_open_is_no_trouble_before_its_first_event(void **state)
{
    (void)state;
    begin_watched();
    opened();
    answer_end(KUBE_CUT, 200, 0, "reset");
    asked_after_failure(0, WATCH("10"));
    answer_end(KUBE_CUT, 0, 0, "refused");
    asked_after_failure(1, WATCH("10"));
    assert_string_equal(kube_reflect_trouble(r), "watch things: refused");
    opened();
    assert_string_equal(kube_reflect_trouble(r), "");
    answer_end(KUBE_CUT, 0, 0, "the certificate has changed");
    assert_string_equal(kube_reflect_trouble(r), "");
    asked_after_failure(2, WATCH("10"));
    answer_end(KUBE_CUT, 0, 0, "refused");
    assert_string_equal(kube_reflect_trouble(r), "watch things: refused");
    end_test();
}

static void forgets_its_failures_after_two_good_minutes(void **state)
{
    (void)state;
    begin_watched();
    answer_end(KUBE_CUT, 0, 0, "refused");
    asked_after_failure(0, WATCH("10"));
    answer_end(KUBE_CUT, 0, 0, "refused");
    asked_after_failure(1, WATCH("10"));
    stub_pass(130000);
    answer_end(KUBE_CUT, 200, 0, "reset");
    asked_after_failure(0, WATCH("10"));
    end_test();
}

static void a_stall_is_an_end_like_another(void **state)
{
    (void)state;
    begin_watched();
    stream(BOOKMARK("11"));
    stub_pass(KUBE_REFLECT_IDLE_MS);
    answer_end(KUBE_TIMED_OUT, 0, 0, "not a byte");
    asked(WATCH("11"));
    assert_string_equal(kube_reflect_trouble(r), "");
    assert_int_equal(restarts(KUBE_CAUSE_STALLED), 1);
    assert_int_equal(kube_reflect_counts(r)->lists, 1);
    end_test();
}

static void an_error_in_the_stream_is_obeyed(void **state)
{
    (void)state;
    begin_watched();
    stream(EVENT("ADDED", "c", "11") ERROR("\"code\":429,\"details\":{\"retryAfterSeconds\":7}")
               EVENT("ADDED", "x", "12"));
    sunk("+c ");
    asked_after(7000, 7000, WATCH("11"));
    stream(ERROR("\"code\":429,\"message\":\"slow\""));
    assert_string_equal(kube_reflect_trouble(r), "watch things: the server ended it: slow");
    asked_after_failure(1, WATCH("11"));
    stream(ERROR("\"code\":500,\"reason\":\"InternalError\""));
    asked_after_failure(2, THINGS "?resourceVersion=11");
    assert_int_equal(restarts(KUBE_CAUSE_ERROR), 3);
    answer_page("12", NULL, "c");
    stream(ERROR("\"code\":410,\"reason\":\"Expired\""));
    asked(THINGS "?resourceVersion=12");
    end_test();
}

/* An API server that restarts twice forgets twice: each time a list at once answers it. */
static void a_version_that_a_watch_stood_on_was_good(void **state)
{
    (void)state;
    begin_watched();
    opened();
    stream(ERROR("\"code\":410,\"reason\":\"Expired\""));
    asked(THINGS "?resourceVersion=10");
    answer_page("12", NULL, "a b");
    asked(WATCH("12"));
    opened();
    stub_pass(1500);
    answer_end(KUBE_CUT, 200, 0, "reset");
    asked_after_failure(0, WATCH("12"));
    opened();
    stream(ERROR("\"code\":410,\"reason\":\"Expired\""));
    asked(THINGS "?resourceVersion=12");
    end_test();
}

static void what_is_broken_is_not_quoted(void **state)
{
    (void)state;
    begin_watched();
    stream("{\"type\":\"ADDED\",\"object\":{\"data\":{\"p\" \"cGFzcw==\"}}}\n");
    assert_non_null(strstr(kube_reflect_trouble(r), "no JSON"));
    assert_null(strstr(kube_reflect_trouble(r), "cGFz"));
    asked_after_failure(0, THINGS "?resourceVersion=10");
    stub_answer(200, "{\"items\":[{\"data\":{\"p\" \"cGFzcw==\"}}]}");
    assert_non_null(strstr(kube_reflect_trouble(r), "no JSON"));
    assert_null(strstr(kube_reflect_trouble(r), "cGFz"));
    end_test();
}

static void a_line_that_is_no_event_is_followed_by_a_list(void **state)
{
    (void)state;
    begin_watched();
    stream(EVENT("ADDED", "c", "11") "<html>\n" EVENT("ADDED", "x", "12"));
    sunk("+c ");
    assert_non_null(strstr(kube_reflect_trouble(r), "no JSON"));
    asked_after_failure(0, THINGS "?resourceVersion=11");
    answer_page("12", NULL, "c");
    stream("{\"type\":\"ADDED\",\"object\":null}\n");
    asked_after_failure(1, THINGS "?resourceVersion=12");
    sunk("[ +c ] ");
    end_test();
}

static void each_status_of_an_open_has_its_answer(void **state)
{
    static const struct {
        int status;
        uint32_t retry_after_s;
        uint64_t least_ms, most_ms;
        const char *next;
    } answers[] = {
        {429, 7, 7000, 7000, WATCH("10")},        {429, 0, 800, 1600, WATCH("10")},
        {503, 0, 800, 1600, WATCH("10")},         {500, 0, 800, 1600, WATCH("10")},
        {504, 3, 3000, 3000, WATCH("10")},        {401, 0, 800, 1600, WATCH("10")},
        {403, 0, 800, 1600, WATCH("10")},         {400, 0, 800, 1600, THINGS "?limit=500"},
        {422, 0, 800, 1600, THINGS "?limit=500"}, {302, 0, 800, 1600, THINGS "?limit=500"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        begin_watched();
        answer_end(KUBE_ANSWERED, answers[i].status, answers[i].retry_after_s, "no");
        assert_string_equal(kube_reflect_trouble(r), "watch things: no");
        asked_after(answers[i].least_ms, answers[i].most_ms, answers[i].next);
        assert_int_equal(restarts(KUBE_CAUSE_ERROR), 1);
        assert_int_equal(kube_reflect_state(r), KUBE_REFLECT_SYNCED);
        sunk("");
        end_test();
    }
    begin_watched();
    answer_end(KUBE_ANSWERED, 410, 0, "old");
    asked(THINGS "?resourceVersion=10");
    assert_int_equal(restarts(KUBE_CAUSE_EXPIRED), 1);
    end_test();
}

static void each_kind_goes_its_own_way(void **state)
{
    const struct kube_kind other = {.group = "", .version = "v1", .plural = "secrets"};
    const struct kube_sink sink = {on_begin, on_put, on_drop, on_end, on_state, sunk_text};
    struct kube_reflect *second;

    (void)state;
    begin_test();
    second = kube_reflect_new(NULL, &stub_loop, &other, NULL, &sink);
    stub_turn();
    assert_int_equal(stub_open_count(), 2);
    answer_page("10", NULL, "a");
    sunk("[ +a ] synced ");
    assert_int_equal(kube_reflect_state(second), KUBE_REFLECT_WAITING);
    answer_end(KUBE_CUT, 0, 0, "refused");
    assert_int_equal(kube_reflect_state(r), KUBE_REFLECT_SYNCED);
    assert_string_equal(kube_reflect_trouble(r), "");
    asked(WATCH("10"));
    kube_reflect_free(second);
    end_test();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_events_to_the_sink_and_goes_on_from_the_last_version),
        cmocka_unit_test(puts_whatever_is_still_there),
        cmocka_unit_test(tells_an_object_from_its_successor_of_the_same_name),
        cmocka_unit_test(skips_and_counts_what_it_does_not_know),
        cmocka_unit_test(watches_again_at_once_after_a_clean_end),
        cmocka_unit_test(a_watch_that_ends_at_once_each_time_is_waited_for_longer_each_time),
        cmocka_unit_test(goes_on_after_a_cut_without_a_list),
        cmocka_unit_test(a_watch_that_was_open_and_is_closed_on_our_side_is_no_trouble),
        cmocka_unit_test(a_watch_that_is_open_is_no_trouble_before_its_first_event),
        cmocka_unit_test(forgets_its_failures_after_two_good_minutes),
        cmocka_unit_test(a_stall_is_an_end_like_another),
        cmocka_unit_test(an_error_in_the_stream_is_obeyed),
        cmocka_unit_test(a_version_that_a_watch_stood_on_was_good),
        cmocka_unit_test(what_is_broken_is_not_quoted),
        cmocka_unit_test(a_line_that_is_no_event_is_followed_by_a_list),
        cmocka_unit_test(each_status_of_an_open_has_its_answer),
        cmocka_unit_test(each_kind_goes_its_own_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
