/* test_kube_reflect.c - LIST and WATCH against a server that goes wrong in every way: what is asked for, and when */
#include "test_kube_reflect.h"

static void lists_page_by_page_and_watches_from_the_lists_version(void **state)
{
    (void)state;
    begin_test();
    asked(THINGS "?limit=500");
    answer_page("18446744073709551617", "to/ken=", "a b");
    asked(THINGS "?limit=500&continue=to%2Fken%3D");
    answer_page("18446744073709551617", "next", "c");
    asked(THINGS "?limit=500&continue=next");
    sunk("[ +a +b +c ");
    assert_int_equal(kube_reflect_state(r), KUBE_REFLECT_WAITING);
    answer_page("18446744073709551617", NULL, "d");
    asked(WATCH("18446744073709551617"));
    sunk("+d ] synced ");
    assert_int_equal(kube_reflect_state(r), KUBE_REFLECT_SYNCED);
    assert_string_equal(kube_reflect_trouble(r), "");
    assert_int_equal(kube_reflect_counts(r)->lists, 1);
    assert_int_equal(kube_reflect_counts(r)->relists, 0);
    assert_int_equal(kube_reflect_counts(r)->watches, 1);
    assert_int_equal(kube_reflect_counts(r)->last_ms, stub_loop.now_ms);
    end_test();
}

static void keeps_namespace_and_selector_in_every_request(void **state)
{
    const struct kube_kind kind = {.group = "", .plural = "secrets", .field_selector = "type!=x,a=b"};

    (void)state;
    begin_kind(&kind, "default");
    asked("/api/v1/namespaces/default/secrets?limit=500&fieldSelector=type%21%3Dx%2Ca%3Db");
    answer_page("7", "t", "a");
    asked("/api/v1/namespaces/default/secrets?limit=500&continue=t&fieldSelector=type%21%3Dx%2Ca%3Db");
    answer_page("7", NULL, "");
    asked("/api/v1/namespaces/default/secrets?watch=1&resourceVersion=7&allowWatchBookmarks=true"
          "&timeoutSeconds=T&fieldSelector=type%21%3Dx%2Ca%3Db");
    end_test();
}

static void lists_whole_when_a_token_is_too_old(void **state)
{
    (void)state;
    begin_test();
    answer_page("10", "t", "a b");
    answer_end(KUBE_ANSWERED, 410, 0, "too old");
    asked(THINGS);
    sunk("[ +a +b ");
    answer_page("12", NULL, "b c");
    asked(WATCH("12"));
    sunk("[ +b +c ] synced ");
    end_test();
}

static void never_ends_a_list_that_failed_half_way(void **state)
{
    static const struct {
        enum kube_end end;
        int status;
    } failures[] = {{KUBE_CUT, 0}, {KUBE_TIMED_OUT, 0}, {KUBE_ANSWERED, 500}, {KUBE_CUT, 200}};

    (void)state;
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        begin_test();
        answer_page("10", "t", "a b");
        asked(THINGS "?limit=500&continue=t");
        answer_end(failures[i].end, failures[i].status, 0, "gone");
        assert_string_equal(kube_reflect_trouble(r), "list things: gone");
        sunk("[ +a +b ");
        asked_after_failure(0, THINGS "?limit=500");
        answer_page("11", NULL, "a");
        sunk("[ +a ] synced ");
        assert_string_equal(kube_reflect_trouble(r), "");
        end_test();
    }
}

static void takes_nothing_but_a_list_for_a_list(void **state)
{
    static const char *const bad[] = {
        "{\"kind\":\"Table\",\"metadata\":{\"resourceVersion\":\"1\"},\"rows\":[],\"items\":[]}",
        "{\"kind\":\"Status\",\"metadata\":{}}",
        "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}",
        "{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":null}",
        "{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"1\"}}",
        "{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[null]}",
        "{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"\"},\"items\":[]}",
        "{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"0\"},\"items\":[]}",
        "{\"kind\":\"ThingList\",\"metadata\":null,\"items\":[]}",
        "<html>",
        "",
    };

    (void)state;
    begin_watched();
    stream(ERROR("\"code\":410"));
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        asked(THINGS "?resourceVersion=10");
        stub_answer(200, bad[i]);
        assert_string_not_equal(kube_reflect_trouble(r), "");
        asked_after_failure(i, THINGS "?resourceVersion=10");
    }
    sunk("");
    end_test();
}

static void an_item_without_a_name_costs_only_itself(void **state)
{
    (void)state;
    begin_test();
    stub_answer(
        200, "{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"5\",\"continue\":null},\"items\":["
             "{\"metadata\":null},{},{\"metadata\":{\"name\":\"a\",\"x\":\"\\u0000\"},\"spec\":null}]}");
    sunk("[ +a ] synced ");
    asked(WATCH("5"));
    assert_int_equal(kube_reflect_counts(r)->unknown, 2);
    end_test();
}

static void lists_not_older_than_what_it_saw_and_without_a_version_when_that_fails(void **state)
{
    static const struct {
        int status;
        const char *body;
        const char *next;
    } answers[] = {
        {410, NULL, THINGS "?limit=500"},
        {400, "{\"kind\":\"Status\",\"reason\":\"Expired\"}", THINGS "?limit=500"},
        {504,
         "{\"kind\":\"Status\",\"reason\":\"Timeout\",\"details\":{\"causes\":[{\"reason\":"
         "\"ResourceVersionTooLarge\"}]}}",
         THINGS "?limit=500"},
        {504, "{\"kind\":\"Status\",\"message\":\"Too large resource version: 9, current: 1\"}",
         THINGS "?limit=500"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        begin_watched();
        stream(EVENT("ADDED", "c", "11") ERROR("\"code\":410,\"message\":\"old\""));
        asked(THINGS "?resourceVersion=11");
        assert_int_equal(restarts(KUBE_CAUSE_EXPIRED), 1);
        stub_answer(answers[i].status, answers[i].body);
        asked(answers[i].next);
        answer_page("2", NULL, "c");
        asked(WATCH("2"));
        sunk("+c [ +c ] ");
        assert_int_equal(kube_reflect_counts(r)->relists, 2);
        stream(BOOKMARK("3") ERROR("\"code\":410"));
        asked(THINGS "?resourceVersion=3");
        end_test();
    }
}

static void a_relist_that_fails_otherwise_is_asked_again_with_its_version(void **state)
{
    (void)state;
    begin_watched();
    stream(ERROR("\"reason\":\"Gone\""));
    asked(THINGS "?resourceVersion=10");
    answer_end(KUBE_ANSWERED, 504, 0, "etcd");
    asked_after_failure(0, THINGS "?resourceVersion=10");
    answer_end(KUBE_CUT, 0, 0, "refused");
    asked_after_failure(1, THINGS "?resourceVersion=10");
    answer_page("12", NULL, "a");
    asked(WATCH("12"));
    end_test();
}

static void a_version_that_the_server_does_not_take_is_dropped(void **state)
{
    static const struct {
        enum kube_end end;
        int status;
    } answers[] = {{KUBE_ANSWERED, 400}, {KUBE_TIMED_OUT, 0}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        begin_watched();
        stream(ERROR("\"code\":410"));
        answer_end(answers[i].end, answers[i].status, 0, "no");
        asked_after_failure(0, THINGS "?limit=500");
        sunk("");
        end_test();
    }
}

static void a_version_that_stays_expired_is_no_hot_loop(void **state)
{
    (void)state;
    begin_watched();
    stream(ERROR("\"reason\":\"Expired\""));
    answer_page("11", NULL, "a");
    asked(WATCH("11"));
    answer_end(KUBE_ANSWERED, 410, 0, "old");
    asked_after_failure(0, THINGS "?resourceVersion=11");
    answer_page("12", NULL, "a");
    stream(BOOKMARK("13") ERROR("\"code\":410"));
    asked(THINGS "?resourceVersion=13");
    end_test();
}

static void asks_for_less_when_a_page_is_too_large(void **state)
{
    (void)state;
    begin_test();
    answer_end(KUBE_TOO_LARGE, 200, 0, "");
    asked(THINGS "?limit=50");
    answer_page("9", "t", "a");
    asked(THINGS "?limit=50&continue=t");
    answer_end(KUBE_TOO_LARGE, 200, 0, "");
    asked(THINGS "?limit=5&continue=t");
    answer_end(KUBE_TOO_LARGE, 200, 0, "");
    asked(THINGS "?limit=1&continue=t");
    answer_end(KUBE_TOO_LARGE, 200, 0, "");
    sunk("[ +a ");
    asked_after_failure(0, THINGS "?limit=1");
    answer_page("9", NULL, "b");
    sunk("[ +b ] synced ");
    /* A relist is whole; too large, it is asked for in pages. */
    stream(ERROR("\"code\":410"));
    asked(THINGS "?resourceVersion=9");
    answer_end(KUBE_TOO_LARGE, 200, 0, "");
    asked(THINGS "?limit=50");
    answer_page("12", "t", "a");
    answer_end(KUBE_ANSWERED, 410, 0, "old");
    asked_after_failure(1, THINGS "?limit=50");
    end_test();
}

static void says_forbidden_and_asks_on_slowly(void **state)
{
    (void)state;
    begin_test();
    answer_end(KUBE_ANSWERED, 403, 0, "no");
    assert_string_equal(kube_reflect_trouble(r), "list things: no");
    asked_much_later(THINGS "?limit=500");
    answer_end(KUBE_ANSWERED, 403, 0, "no");
    sunk("forbidden ");
    asked_much_later(THINGS "?limit=500");
    answer_page("3", NULL, "a");
    sunk("[ +a ] synced ");
    assert_string_equal(kube_reflect_trouble(r), "");
    end_test();
}

static void asks_soon_with_another_token(void **state)
{
    (void)state;
    begin_test();
    answer_end(KUBE_ANSWERED, 401, 0, "no");
    assert_string_equal(kube_reflect_trouble(r), "list things: no");
    asked_after_failure(0, THINGS "?limit=500");
    answer_end(KUBE_ANSWERED, 401, 0, "no");
    sunk("forbidden ");
    asked_after_failure(1, THINGS "?limit=500");
    answer_page("3", NULL, "a");
    sunk("[ +a ] synced ");
    end_test();
}

static void ends_its_call_and_its_wait_when_freed(void **state)
{
    (void)state;
    begin_watched();
    kube_reflect_free(r);
    assert_int_equal(stub_cancelled, 1);
    stub_done();
    begin_test();
    answer_end(KUBE_CUT, 0, 0, "refused");
    kube_reflect_free(r);
    stub_pass(70000);
    assert_int_equal(stub_started, 1);
    stub_done();
    begin_test();
    answer_page("1", "t", "a");
    r = (kube_reflect_free(r), NULL);
    end_test();
}

static void is_freed_before_it_began(void **state)
{
    const struct kube_kind kind = {.group = "g.dev", .plural = "things"};
    const struct kube_sink sink = {0};

    (void)state;
    stub_init();
    kube_reflect_free(kube_reflect_new(NULL, &stub_loop, &kind, NULL, &sink));
    stub_turn();
    assert_int_equal(stub_started, 0);
    stub_done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_page_by_page_and_watches_from_the_lists_version),
        cmocka_unit_test(keeps_namespace_and_selector_in_every_request),
        cmocka_unit_test(lists_whole_when_a_token_is_too_old),
        cmocka_unit_test(never_ends_a_list_that_failed_half_way),
        cmocka_unit_test(takes_nothing_but_a_list_for_a_list),
        cmocka_unit_test(an_item_without_a_name_costs_only_itself),
        cmocka_unit_test(lists_not_older_than_what_it_saw_and_without_a_version_when_that_fails),
        cmocka_unit_test(a_relist_that_fails_otherwise_is_asked_again_with_its_version),
        cmocka_unit_test(a_version_that_the_server_does_not_take_is_dropped),
        cmocka_unit_test(a_version_that_stays_expired_is_no_hot_loop),
        cmocka_unit_test(asks_for_less_when_a_page_is_too_large),
        cmocka_unit_test(says_forbidden_and_asks_on_slowly),
        cmocka_unit_test(asks_soon_with_another_token),
        cmocka_unit_test(ends_its_call_and_its_wait_when_freed),
        cmocka_unit_test(is_freed_before_it_began),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
