/* test_wss_status.c - what an object's conditions say, and when they are written */
#include "test_kube_stub.h"

#include "status.h"

static bool leads_now;
static struct status_writer *writer;

static bool leads(void *arg)
{
    (void)arg;
    return leads_now;
}

static int setup(void **state)
{
    (void)state;
    stub_init();
    leads_now = true;
    writer = status_new(NULL, &stub_loop, leads, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    status_free(writer);
    stub_done();
    return 0;
}

/* ---- status_judge ---- */

#define YES(r)                                                                                               \
    {                                                                                                        \
        WSS_TRUE, r, (char *)"fine"                                                                          \
    }
#define NO(r)                                                                                                \
    {                                                                                                        \
        WSS_FALSE, r, (char *)"port 70000 is out of range"                                                   \
    }
#define WHO(r)                                                                                               \
    {                                                                                                        \
        WSS_UNKNOWN, r, NULL                                                                                 \
    }

static const struct judge_case {
    const char *what;
    struct render_verdict verdict;
    enum status_programmed programmed;
    const char *programmed_message;
    bool managed;
    enum ports_state port;
    enum wss_condition_status programmed_is, ready_is;
    const char *programmed_reason, *ready_reason, *says; /* says: stands in one of both messages */
} judge_cases[] = {
    {.what = "all is well",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = YES("ResolvedRefs"), .served = true, .newest = true},
     .programmed = STATUS_PROG_ACTIVE,
     .programmed_is = WSS_TRUE,
     .programmed_reason = "Programmed",
     .ready_is = WSS_TRUE,
     .ready_reason = "Ready"},
    {.what = "the proxy has not said yet",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = YES("ResolvedRefs"), .served = true, .newest = true},
     .programmed = STATUS_PROG_PENDING,
     .programmed_is = WSS_UNKNOWN,
     .programmed_reason = "Pending",
     .ready_is = WSS_UNKNOWN,
     .ready_reason = "NotProgrammed"},
    {.what = "the proxy keeps an older version",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = YES("ResolvedRefs"), .served = true, .newest = true},
     .programmed = STATUS_PROG_STALE,
     .programmed_message = "key and certificate do not match",
     .programmed_is = WSS_FALSE,
     .programmed_reason = "ReloadFailed",
     .ready_is = WSS_FALSE,
     .ready_reason = "NotProgrammed",
     .says =
         "The last good version keeps serving, because the proxy did not take this one: key and certificate"},
    {.what = "the proxy serves nothing of it",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = YES("ResolvedRefs"), .served = true, .newest = true},
     .programmed = STATUS_PROG_FAILED,
     .programmed_message = "port 80: permission denied",
     .programmed_is = WSS_FALSE,
     .programmed_reason = "ReloadFailed",
     .ready_is = WSS_FALSE,
     .ready_reason = "NotProgrammed",
     .says = "port 80: permission denied"},
    {.what = "never accepted",
     .verdict = {.accepted = NO("Invalid"), .resolved = WHO("Pending")},
     .programmed_is = WSS_FALSE,
     .programmed_reason = "Invalid",
     .ready_is = WSS_FALSE,
     .ready_reason = "NotAccepted",
     .says = "port 70000 is out of range"},
    {.what = "a bad edit of a served object",
     .verdict = {.accepted = NO("Invalid"), .resolved = YES("ResolvedRefs"), .served = true},
     .programmed = STATUS_PROG_ACTIVE,
     .programmed_is = WSS_FALSE,
     .programmed_reason = "Invalid",
     .ready_is = WSS_FALSE,
     .ready_reason = "NotAccepted",
     .says = "The last good version keeps serving"},
    {.what = "a Secret that turned to garbage",
     .verdict = {.accepted = YES("Accepted"), .resolved = NO("InvalidCertificateRef"), .served = true},
     .programmed = STATUS_PROG_ACTIVE,
     .programmed_is = WSS_FALSE,
     .programmed_reason = "Invalid",
     .ready_is = WSS_FALSE,
     .ready_reason = "RefsNotResolved",
     .says = "ResolvedRefs says what to correct"},
    {.what = "a backend that is not there is served as 503",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = NO("BackendNotFound"), .served = true, .newest = true},
     .programmed = STATUS_PROG_ACTIVE,
     .programmed_is = WSS_TRUE,
     .programmed_reason = "Programmed",
     .ready_is = WSS_FALSE,
     .ready_reason = "RefsNotResolved"},
    {.what = "lists that are not in yet",
     .verdict = {.accepted = WHO("Pending"), .resolved = WHO("Pending")},
     .programmed_is = WSS_UNKNOWN,
     .programmed_reason = "Pending",
     .ready_is = WSS_UNKNOWN,
     .ready_reason = "NotAccepted"},
    {.what = "its port belongs to someone else in the Service",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = YES("ResolvedRefs"), .served = true, .newest = true},
     .programmed = STATUS_PROG_ACTIVE,
     .managed = true,
     .port = PORTS_TAKEN,
     .programmed_is = WSS_TRUE,
     .programmed_reason = "Programmed",
     .ready_is = WSS_FALSE,
     .ready_reason = "ServicePortTaken",
     .says = "Its port is not in the gateway's Service"},
    {.what = "its port is not in the Service yet",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = YES("ResolvedRefs"), .served = true, .newest = true},
     .programmed = STATUS_PROG_ACTIVE,
     .managed = true,
     .port = PORTS_PENDING,
     .programmed_is = WSS_TRUE,
     .programmed_reason = "Programmed",
     .ready_is = WSS_FALSE,
     .ready_reason = "ServicePortPending"},
    {.what = "its port is in the Service",
     .verdict =
         {.accepted = YES("Accepted"), .resolved = YES("ResolvedRefs"), .served = true, .newest = true},
     .programmed = STATUS_PROG_ACTIVE,
     .managed = true,
     .port = PORTS_PRESENT,
     .programmed_is = WSS_TRUE,
     .programmed_reason = "Programmed",
     .ready_is = WSS_TRUE,
     .ready_reason = "Ready"},
    {.what = "sidecars serve it",
     .verdict = {.part = RENDER_SIDECARS, .accepted = YES("Accepted"), .resolved = NO("RefNotPermitted")},
     .managed = true,
     .programmed_is = WSS_TRUE,
     .programmed_reason = "Sidecar",
     .ready_is = WSS_TRUE,
     .ready_reason = "Ready",
     .says = "see pod readiness"},
    {.what = "sidecars would serve it if it were accepted",
     .verdict = {.part = RENDER_SIDECARS, .accepted = NO("Invalid"), .resolved = YES("ResolvedRefs")},
     .programmed_is = WSS_TRUE,
     .programmed_reason = "Sidecar",
     .ready_is = WSS_FALSE,
     .ready_reason = "NotAccepted"},
};

static void all_four_conditions_follow_from_the_facts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof judge_cases / sizeof *judge_cases; i++) {
        const struct judge_case *t = &judge_cases[i];
        struct status_facts facts = {.verdict = &t->verdict,
                                     .programmed = t->programmed,
                                     .programmed_message = t->programmed_message,
                                     .service_managed = t->managed,
                                     .service_port = t->port};
        struct status_wanted got;
        const struct render_condition *c = got.conditions;

        print_message("%s\n", t->what);
        assert_true(status_judge(&facts, &got));
        for (int k = 0; k < WSS_CONDITIONS; k++) {
            assert_non_null(c[k].reason);
            assert_non_null(c[k].message);
        }
        assert_int_equal(c[WSS_ACCEPTED].status, t->verdict.accepted.status);
        assert_string_equal(c[WSS_ACCEPTED].reason, t->verdict.accepted.reason);
        assert_int_equal(c[WSS_RESOLVED_REFS].status, t->verdict.resolved.status);
        assert_int_equal(c[WSS_PROGRAMMED].status, t->programmed_is);
        assert_string_equal(c[WSS_PROGRAMMED].reason, t->programmed_reason);
        assert_int_equal(c[WSS_READY].status, t->ready_is);
        assert_string_equal(c[WSS_READY].reason, t->ready_reason);
        if (t->says)
            assert_true(strstr(c[WSS_PROGRAMMED].message, t->says) || strstr(c[WSS_READY].message, t->says));
        status_wanted_free(&got);
    }
}

static void nothing_is_said_of_another_gateways_object(void **state)
{
    struct render_verdict v = {.part = RENDER_NOT_OURS};
    struct status_wanted got;

    (void)state;
    assert_false(status_judge(&(struct status_facts){.verdict = &v}, &got));
    status_wanted_free(&got);
}

static void a_long_message_is_cut_between_characters_and_is_always_utf8(void **state)
{
    char text[3 * STATUS_MESSAGE_BYTES];
    struct render_verdict v = {.accepted = {WSS_FALSE, "Invalid", text}, .resolved = YES("ResolvedRefs")};
    struct status_wanted got;

    (void)state;
    strcpy(text, "\xff");
    while (strlen(text) < sizeof text - 4)
        strcat(text, "\u20ac");
    assert_true(status_judge(&(struct status_facts){.verdict = &v}, &got));
    assert_int_equal(got.conditions[WSS_ACCEPTED].message[0], '?');
    assert_int_equal(strlen(got.conditions[WSS_ACCEPTED].message), 1 + STATUS_MESSAGE_BYTES / 3 * 3);
    assert_true(strlen(got.conditions[WSS_READY].message) <= STATUS_MESSAGE_BYTES);
    status_wanted_free(&got);
}

/* ---- the writer ---- */

/* An object as the API server would give it, with the conditions of `says` at `generation`. */
static struct wss object(const char *name, const char *version, int64_t generation,
                         const struct status_wanted *says)
{
    struct wss w = {.ns = (char *)"shop",
                    .name = (char *)name,
                    .uid = (char *)"u1",
                    .resource_version = (char *)version,
                    .generation = generation};

    if (says) {
        w.observed_generation = generation;
        for (int c = 0; c < WSS_CONDITIONS; c++)
            w.conditions[c] = (struct wss_condition){.status = says->conditions[c].status,
                                                     .present = true,
                                                     .observed_generation = generation,
                                                     .reason = (char *)says->conditions[c].reason,
                                                     .message = says->conditions[c].message,
                                                     .since = (char *)"2025-05-05T05:05:05Z"};
    }
    return w;
}

static struct status_wanted wanted(enum wss_condition_status programmed)
{
    struct status_wanted w;

    for (int c = 0; c < WSS_CONDITIONS; c++)
        w.conditions[c] = (struct render_condition){WSS_TRUE, "Fine", (char *)"as it \"shall\" be"};
    w.conditions[WSS_PROGRAMMED].status = programmed;
    return w;
}

static void want(const struct wss *w, const struct status_wanted *say)
{
    status_want(writer, w, say);
}

static void one_apply_carries_all_conditions_at_the_current_generation(void **state)
{
    struct status_wanted say = wanted(WSS_FALSE), was = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 3, &was);
    json_t *status, *conditions, *c;
    size_t i;

    (void)state;
    w.generation = 4;
    want(&w, &say);
    assert_string_equal(stub_open(0)->method, "PATCH");
    assert_string_equal(stub_open(0)->path,
                        "/apis/tidegate.dev/v1alpha1/namespaces/shop/websocketservers/chat/status"
                        "?fieldManager=tidegate-controller&force=true");
    assert_string_equal(stub_open(0)->type, "application/apply-patch+yaml");
    assert_string_equal(stub_str(stub_open(0)->body, "apiVersion"), "tidegate.dev/v1alpha1");
    assert_string_equal(stub_str(stub_open(0)->body, "kind"), "WebSocketServer");
    c = json_object_get(stub_open(0)->body, "metadata");
    assert_string_equal(stub_str(c, "name"), "chat");
    assert_string_equal(stub_str(c, "namespace"), "shop");
    assert_int_equal(json_object_size(c), 2);
    status = json_object_get(stub_open(0)->body, "status");
    assert_int_equal(json_integer_value(json_object_get(status, "observedGeneration")), 4);
    conditions = json_object_get(status, "conditions");
    assert_int_equal(json_array_size(conditions), 4);
    json_array_foreach(conditions, i, c)
    {
        static const char *const types[] = {"Accepted", "ResolvedRefs", "Programmed", "Ready"};

        assert_string_equal(stub_str(c, "type"), types[i]);
        assert_string_equal(stub_str(c, "reason"), "Fine");
        assert_string_equal(stub_str(c, "message"), "as it \"shall\" be");
        assert_int_equal(json_integer_value(json_object_get(c, "observedGeneration")), 4);
        /* The time moves with the status and with nothing else. */
        assert_string_equal(stub_str(c, "lastTransitionTime"),
                            i == WSS_PROGRAMMED ? "2026-01-02T03:04:05Z" : "2025-05-05T05:05:05Z");
        assert_string_equal(stub_str(c, "status"), i == WSS_PROGRAMMED ? "False" : "True");
    }
    stub_answer(200, "{}");
    assert_int_equal(status_counts(writer).writes, 1);
    assert_int_equal(status_counts(writer).waiting, 0);
}

static void the_schemas_default_time_does_not_stand(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 1, &say);
    json_t *conditions;

    (void)state;
    for (int c = 0; c < WSS_CONDITIONS; c++)
        w.conditions[c].since = (char *)"1970-01-01T00:00:00Z";
    w.conditions[WSS_READY].reason = (char *)"Other";
    want(&w, &say);
    conditions = json_object_get(json_object_get(stub_open(0)->body, "status"), "conditions");
    assert_string_equal(stub_str(json_array_get(conditions, 0), "lastTransitionTime"),
                        "2026-01-02T03:04:05Z");
}

static void nothing_is_written_that_the_object_says_already(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 3, &say);

    (void)state;
    want(&w, &say);
    assert_int_equal(stub_started, 0);
    /* Any one of what is compared makes a write; the generation alone does. */
    w.conditions[WSS_READY].observed_generation = 2;
    want(&w, &say);
    assert_int_equal(stub_started, 1);
    stub_answer(200, "{}");
    w.conditions[WSS_READY].observed_generation = 3;
    w.resource_version = (char *)"8";
    want(&w, &say);
    w.observed_generation = 2;
    want(&w, &say);
    assert_int_equal(stub_started, 2);
}

static void what_was_written_is_not_written_again_before_the_object_comes_back(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss before = object("chat", "7", 1, NULL), after = object("chat", "8", 1, &say);

    (void)state;
    want(&before, &say);
    want(&before, &say); /* on its way */
    stub_answer(200, "{}");
    want(&before, &say); /* written, not seen yet */
    want(&after, &say);
    assert_int_equal(stub_started, 1);
    /* Somebody else writes over it. */
    after = object("chat", "9", 1, NULL);
    want(&after, &say);
    assert_int_equal(stub_started, 2);
}

static void one_write_an_object_at_a_time_and_the_newest_wins(void **state)
{
    struct status_wanted first = wanted(WSS_UNKNOWN), second = wanted(WSS_FALSE), third = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 1, NULL);
    json_t *conditions;

    (void)state;
    want(&w, &first);
    want(&w, &second);
    want(&w, &third);
    assert_int_equal(stub_started, 1);
    stub_answer(200, "{}");
    assert_int_equal(stub_started, 2);
    conditions = json_object_get(json_object_get(stub_open(0)->body, "status"), "conditions");
    assert_string_equal(stub_str(json_array_get(conditions, WSS_PROGRAMMED), "status"), "True");
    stub_answer(200, "{}");
    assert_int_equal(stub_open_count(), 0);
}

static void a_thousand_objects_go_out_eight_at_a_time(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    char name[32];

    (void)state;
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "w%d", i);
        struct wss w = object(name, "1", 1, NULL);
        want(&w, &say);
    }
    assert_int_equal(stub_open_count(), 8);
    assert_int_equal(status_counts(writer).waiting, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_true(stub_open_count() <= 8);
        stub_answer(200, "{}");
    }
    assert_int_equal(status_counts(writer).waiting, 0);
    assert_int_equal(status_counts(writer).writes, 1000);
}

static void without_the_lead_it_waits_and_what_was_settled_meanwhile_is_not_written(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE), old = wanted(WSS_FALSE);
    struct wss a = object("a", "1", 1, NULL), b = object("b", "1", 1, NULL);

    (void)state;
    leads_now = false;
    want(&a, &old);
    want(&a, &say);
    want(&b, &say);
    assert_int_equal(stub_started, 0);
    b = object("b", "2", 1, &say); /* the leader wrote it */
    want(&b, &say);
    leads_now = true;
    status_flush(writer);
    assert_int_equal(stub_started, 1);
    assert_non_null(strstr(stub_open(0)->path, "/a/status"));
    /* It asks again before each write, not once. */
    leads_now = false;
    b = object("b", "3", 1, NULL);
    want(&b, &say);
    assert_int_equal(stub_started, 1);
    assert_int_equal(status_counts(writer).waiting, 2);
}

static void a_failed_write_is_tried_again_with_a_growing_wait(void **state)
{
    static const int failures[] = {503, 409, 429, 0, 500, 403};
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 1, NULL);
    uint64_t wait_ms = 5;

    (void)state;
    want(&w, &say);
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++, wait_ms *= 2) {
        stub_answer(failures[i], NULL);
        assert_int_equal(stub_open_count(), 0);
        stub_clock_ms += wait_ms - 1;
        stub_turn();
        assert_int_equal(stub_open_count(), 0);
        stub_pass(1 + LOOP_TICK_MS);
        assert_int_equal(stub_open_count(), 1);
    }
    for (int i = 0; i < 30; i++) {
        stub_answer(503, NULL);
        stub_pass(1000000 + LOOP_TICK_MS);
        assert_int_equal(stub_open_count(), 1);
    }
    stub_answer(503, NULL);
    stub_pass(999000);
    assert_int_equal(stub_open_count(), 0);
    /* News goes at once. */
    say = wanted(WSS_FALSE);
    want(&w, &say);
    stub_answer(200, "{}");
    assert_int_equal(status_counts(writer).waiting, 0);
}

static void after_an_outage_it_is_written_within_half_a_minute(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 1, NULL);

    (void)state;
    want(&w, &say);
    for (int i = 0; i < 40; i++) {
        stub_answer(0, NULL);
        stub_pass(30000 + LOOP_TICK_MS);
        assert_int_equal(stub_open_count(), 1);
    }
    stub_answer(200, "{}");
    assert_int_equal(status_counts(writer).waiting, 0);
}

static void the_servers_own_wait_counts_when_it_is_longer(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 1, NULL);

    (void)state;
    want(&w, &say);
    stub_reply(stub_open(0), &(struct kube_reply){.status = 429, .retry_after_s = 7});
    stub_pass(6900);
    assert_int_equal(stub_open_count(), 0);
    stub_pass(200);
    assert_int_equal(stub_open_count(), 1);
}

static void an_object_that_is_gone_is_success(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 1, NULL);

    (void)state;
    want(&w, &say);
    stub_answer(404, NULL);
    stub_pass(5000);
    assert_int_equal(stub_started, 1);
    assert_int_equal(status_counts(writer).failures, 0);
}

static void a_refused_write_is_left_until_what_is_wanted_changes(void **state)
{
    static const int refusals[] = {422, 400};
    struct status_wanted say = wanted(WSS_TRUE);

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct wss w = object("chat", "7", 1 + i, NULL);

        stub_started = 0;
        want(&w, &say);
        stub_answer(refusals[i], NULL);
        stub_pass(5000);
        w.resource_version = (char *)"8";
        want(&w, &say);
        assert_int_equal(stub_started, 1);
    }
    struct wss w = object("chat", "9", 2, NULL);
    say = wanted(WSS_FALSE);
    want(&w, &say);
    assert_int_equal(stub_started, 2);
}

static void a_forgotten_object_is_not_written_and_a_new_one_of_that_name_starts_afresh(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("chat", "7", 1, NULL);

    (void)state;
    want(&w, &say);
    status_forget(writer, "shop", "chat");
    assert_int_equal(stub_cancelled, 1);
    assert_int_equal(status_counts(writer).waiting, 0);
    want(&w, &say);
    w.uid = (char *)"u2";
    want(&w, &say);
    assert_int_equal(stub_cancelled, 2);
    assert_int_equal(stub_open_count(), 1);
}

static void a_name_that_is_none_goes_into_no_url(void **state)
{
    struct status_wanted say = wanted(WSS_TRUE);
    struct wss w = object("../secrets", "7", 1, NULL);

    (void)state;
    want(&w, &say);
    assert_int_equal(stub_started, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_four_conditions_follow_from_the_facts),
        cmocka_unit_test(nothing_is_said_of_another_gateways_object),
        cmocka_unit_test(a_long_message_is_cut_between_characters_and_is_always_utf8),
        cmocka_unit_test_setup_teardown(one_apply_carries_all_conditions_at_the_current_generation, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_schemas_default_time_does_not_stand, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_written_that_the_object_says_already, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_written_is_not_written_again_before_the_object_comes_back,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(one_write_an_object_at_a_time_and_the_newest_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(a_thousand_objects_go_out_eight_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(
            without_the_lead_it_waits_and_what_was_settled_meanwhile_is_not_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_write_is_tried_again_with_a_growing_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(after_an_outage_it_is_written_within_half_a_minute, setup, teardown),
        cmocka_unit_test_setup_teardown(the_servers_own_wait_counts_when_it_is_longer, setup, teardown),
        cmocka_unit_test_setup_teardown(an_object_that_is_gone_is_success, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_write_is_left_until_what_is_wanted_changes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_forgotten_object_is_not_written_and_a_new_one_of_that_name_starts_afresh, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_that_is_none_goes_into_no_url, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
