/* test_kube_find.c - which version of a group has the kind, and when a kind is believed to be gone */
#include "test_kube_reflect.h"

#define GROUP                                                                                                \
    "{\"kind\":\"APIGroup\",\"name\":\"g.dev\",\"versions\":[{\"version\":\"v1beta1\"},{\"version\":\"v1\"}" \
    ","                                                                                                      \
    "{\"version\":\"../x\"},{\"version\":\"v1alpha1\"}],\"preferredVersion\":{\"version\":\"v1\"}}"
#define WITH_THINGS                                                                                          \
    "{\"kind\":\"APIResourceList\",\"resources\":[{\"name\":\"others\"},{\"name\":\"things/status\"},"       \
    "{\"name\":\"things\"}]}"
#define WITHOUT                                                                                              \
    "{\"kind\":\"APIResourceList\",\"resources\":[{\"name\":\"others\"},{\"name\":\"things/status\"}]}"
#define GROUPS(name)                                                                                         \
    "{\"kind\":\"APIGroupList\",\"groups\":[{\"name\":\"a\"},{\"name\":\"" name                              \
    "\",\"versions\":[{\"version\":\"v1\"}]}]}"

static void begin_unversioned(void)
{
    begin_kind(&(struct kube_kind){.group = "g.dev", .plural = "things"}, NULL);
    asked("/apis/g.dev");
}

static void answer_404(void)
{
    answer_end(KUBE_ANSWERED, 404, 0, "not found");
}

static void takes_the_preferred_version(void **state)
{
    (void)state;
    begin_unversioned();
    stub_answer(200, GROUP);
    asked("/apis/g.dev/v1");
    stub_answer(200, WITH_THINGS);
    asked(THINGS "?limit=500");
    answer_page("10", NULL, "a");
    asked(WATCH("10"));
    sunk("[ +a ] synced ");
    end_test();
}

static void takes_another_version_that_has_the_kind(void **state)
{
    (void)state;
    begin_unversioned();
    stub_answer(200, GROUP);
    asked("/apis/g.dev/v1");
    stub_answer(200, WITHOUT);
    asked("/apis/g.dev/v1beta1");
    answer_404();
    asked("/apis/g.dev/v1alpha1");
    stub_answer(200, WITH_THINGS);
    asked("/apis/g.dev/v1alpha1/things?limit=500");
    end_test();
}

static void says_absent_and_asks_on_slowly(void **state)
{
    (void)state;
    begin_unversioned();
    answer_404();
    assert_string_equal(kube_reflect_trouble(r), "find things: the API does not know this kind");
    asked_much_later("/apis/g.dev");
    stub_answer(200, GROUP);
    stub_answer(200, WITHOUT);
    stub_answer(200, WITHOUT);
    stub_answer(200, WITHOUT);
    sunk("absent ");
    asked_much_later("/apis/g.dev");
    stub_answer(200, GROUP);
    stub_answer(200, WITH_THINGS);
    asked(THINGS "?limit=500");
    answer_404();
    asked_much_later("/apis/g.dev");
    stub_answer(200, GROUP);
    stub_answer(200, WITH_THINGS);
    answer_page("10", NULL, "a");
    sunk("[ +a ] synced ");
    assert_string_equal(kube_reflect_trouble(r), "");
    end_test();
}

static void a_known_version_needs_no_discovery(void **state)
{
    (void)state;
    begin_test();
    answer_404();
    sunk("absent ");
    asked_much_later(THINGS "?limit=500");
    answer_page("10", NULL, "a");
    sunk("[ +a ] synced ");
    end_test();
}

static void a_discovery_that_fails_is_no_absence(void **state)
{
    (void)state;
    begin_unversioned();
    answer_end(KUBE_ANSWERED, 503, 0, "starting");
    assert_string_equal(kube_reflect_trouble(r), "find things: starting");
    asked_after_failure(0, "/apis/g.dev");
    stub_answer(200, "<html>");
    asked_after_failure(1, "/apis/g.dev");
    stub_answer(200, GROUP);
    answer_end(KUBE_CUT, 0, 0, "reset");
    asked_after_failure(2, "/apis/g.dev");
    sunk("");
    answer_end(KUBE_ANSWERED, 403, 0, "no");
    sunk("forbidden ");
    asked_much_later("/apis/g.dev");
    end_test();
}

/* A watch that went well for a while, then its path is gone. */
static void begin_vanished(void)
{
    begin_watched();
    stream(BOOKMARK("11"));
    answer_end(KUBE_ANSWERED, 200, 0, "");
    asked(WATCH("11"));
    answer_404();
    asked("/apis/g.dev/v1");
}

static void a_kind_that_is_gone_for_certain_takes_its_objects_along(void **state)
{
    (void)state;
    begin_vanished();
    sunk("");
    stub_answer(200, WITHOUT);
    sunk("[ ] ");
    assert_int_equal(kube_reflect_state(r), KUBE_REFLECT_SYNCED);
    asked_much_later(THINGS "?limit=500");
    answer_404();
    sunk("");
    asked_much_later(THINGS "?limit=500");
    answer_page("20", NULL, "z");
    asked(WATCH("20"));
    sunk("[ +z ] ");
    assert_string_equal(kube_reflect_trouble(r), "");
    end_test();
    begin_vanished();
    answer_404();
    asked("/apis");
    stub_answer(200, GROUPS("other.dev"));
    sunk("[ ] ");
    assert_string_not_equal(kube_reflect_trouble(r), "");
    end_test();
}

static void a_404_that_the_api_server_does_not_stand_by_costs_nothing(void **state)
{
    static const struct {
        int status;
        const char *body;
    } answers[] = {
        {404, "default backend"},
        {403, NULL},
        {500, NULL},
        {0, NULL},
        {200, "<html>"},
        {200, "{\"kind\":\"APIGroupList\",\"groups\":null}"},
        {200, GROUPS("g.dev")},
    };

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        begin_vanished();
        answer_404();
        asked("/apis");
        stub_answer(answers[i].status, answers[i].body);
        assert_string_not_equal(kube_reflect_trouble(r), "");
        asked_after(800, 60000, THINGS "?resourceVersion=11");
        sunk("");
        end_test();
    }
    for (size_t i = 1; i < 5; i++) {
        begin_vanished();
        stub_answer(answers[i].status, answers[i].body);
        asked_after(800, 60000, THINGS "?resourceVersion=11");
        sunk("");
        end_test();
    }
}

static void a_path_that_comes_and_goes_is_no_hot_loop(void **state)
{
    (void)state;
    begin_vanished();
    stub_answer(200, WITH_THINGS);
    asked(THINGS "?resourceVersion=11");
    answer_404();
    asked("/apis/g.dev/v1");
    stub_answer(200, WITH_THINGS);
    asked_much_later(THINGS "?resourceVersion=11");
    answer_page("12", NULL, "a");
    asked(WATCH("12"));
    answer_404();
    asked("/apis/g.dev/v1");
    stub_answer(200, WITH_THINGS);
    asked_much_later(THINGS "?resourceVersion=12");
    sunk("[ +a ] ");
    end_test();
    /* An event is enough to call it well, an end that is clean is not needed. */
    begin_watched();
    stream(BOOKMARK("11"));
    answer_end(KUBE_CUT, 200, 0, "reset");
    asked_after_failure(0, WATCH("11"));
    answer_404();
    stub_answer(200, WITH_THINGS);
    asked(THINGS "?resourceVersion=11");
    end_test();
}

static void looks_for_the_version_again_when_the_kind_vanishes(void **state)
{
    (void)state;
    begin_unversioned();
    stub_answer(200, GROUP);
    stub_answer(200, WITH_THINGS);
    answer_page("10", NULL, "a");
    stream(BOOKMARK("11"));
    answer_end(KUBE_ANSWERED, 200, 0, "");
    answer_404();
    asked("/apis/g.dev");
    stub_answer(200, GROUP);
    stub_answer(200, WITHOUT);
    stub_answer(200, WITH_THINGS);
    asked("/apis/g.dev/v1beta1/things?resourceVersion=11");
    sunk("[ +a ] synced ");
    end_test();
    /* A group that is no more, by the list of groups. */
    begin_unversioned();
    stub_answer(200, GROUP);
    stub_answer(200, WITH_THINGS);
    answer_page("10", NULL, "a");
    stream(BOOKMARK("11"));
    answer_end(KUBE_ANSWERED, 200, 0, "");
    answer_404();
    asked("/apis/g.dev");
    answer_404();
    asked("/apis");
    stub_answer(200, GROUPS("other.dev"));
    sunk("[ +a ] synced [ ] ");
    asked_much_later("/apis/g.dev");
    end_test();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_the_preferred_version),
        cmocka_unit_test(takes_another_version_that_has_the_kind),
        cmocka_unit_test(says_absent_and_asks_on_slowly),
        cmocka_unit_test(a_known_version_needs_no_discovery),
        cmocka_unit_test(a_discovery_that_fails_is_no_absence),
        cmocka_unit_test(a_kind_that_is_gone_for_certain_takes_its_objects_along),
        cmocka_unit_test(a_404_that_the_api_server_does_not_stand_by_costs_nothing),
        cmocka_unit_test(a_path_that_comes_and_goes_is_no_hot_loop),
        cmocka_unit_test(looks_for_the_version_again_when_the_kind_vanishes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
