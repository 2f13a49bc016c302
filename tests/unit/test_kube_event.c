/* test_kube_event.c - what is said of an object reaches the server once, then as a series, and never in floods */
#include "test_kube_stub.h"

#include "kube/kube_event.h"

static struct kube_events *events;

static const struct kube_ref chat = {.api_version = "tidegate.dev/v1alpha1",
                                     .kind = "WebSocketServer",
                                     .ns = "shop",
                                     .name = "chat",
                                     .uid = "u1",
                                     .resource_version = "17"};

static int setup(void **state)
{
    (void)state;
    stub_init();
    events = kube_events_new(NULL, &stub_loop, "tidegate.dev/controller", "tidegate-0");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kube_events_free(events);
    stub_done();
    return 0;
}

static void say(const char *note)
{
    kube_event(events, &chat, true, "PortConflict", "Reconcile", note);
}

static json_int_t series_count(void)
{
    return json_integer_value(json_object_get(json_object_get(stub_open(0)->body, "series"), "count"));
}

static void an_event_has_every_field_that_the_api_requires(void **state)
{
    json_t *b, *in;

    (void)state;
    say("port 10020 belongs to shop/older");
    assert_string_equal(stub_open(0)->method, "POST");
    assert_string_equal(stub_open(0)->path, "/apis/events.k8s.io/v1/namespaces/shop/events");
    assert_string_equal(stub_open(0)->type, "application/json");
    b = stub_open(0)->body;
    assert_string_equal(stub_str(b, "apiVersion"), "events.k8s.io/v1");
    assert_string_equal(stub_str(b, "kind"), "Event");
    assert_string_equal(stub_str(b, "eventTime"), "2026-01-02T03:04:05.000000Z");
    assert_string_equal(stub_str(b, "reportingController"), "tidegate.dev/controller");
    assert_string_equal(stub_str(b, "reportingInstance"), "tidegate-0");
    assert_string_equal(stub_str(b, "type"), "Warning");
    assert_string_equal(stub_str(b, "reason"), "PortConflict");
    assert_string_equal(stub_str(b, "action"), "Reconcile");
    assert_string_equal(stub_str(b, "note"), "port 10020 belongs to shop/older");
    in = json_object_get(b, "metadata");
    assert_string_equal(stub_str(in, "name"), "chat.1886caf21c963200");
    assert_string_equal(stub_str(in, "namespace"), "shop");
    in = json_object_get(b, "regarding");
    assert_string_equal(stub_str(in, "apiVersion"), "tidegate.dev/v1alpha1");
    assert_string_equal(stub_str(in, "kind"), "WebSocketServer");
    assert_string_equal(stub_str(in, "namespace"), "shop");
    assert_string_equal(stub_str(in, "name"), "chat");
    assert_string_equal(stub_str(in, "uid"), "u1");
    assert_string_equal(stub_str(in, "resourceVersion"), "17");
    for (const char *const *no =
             (const char *const[]){"firstTimestamp", "lastTimestamp", "count", "source", "series", NULL};
         *no; no++)
        assert_null(json_object_get(b, *no));
}

static void a_note_is_cut_between_characters(void **state)
{
    char note[3000] = "";

    (void)state;
    for (int i = 0; i < 900; i++)
        strcat(note, "\u20ac");
    say(note);
    assert_int_equal(strlen(stub_str(stub_open(0)->body, "note")), KUBE_EVENT_NOTE / 3 * 3);
}

static void the_second_makes_a_series_and_the_others_are_counted_and_flushed(void **state)
{
    char path[256];

    (void)state;
    say("a");
    snprintf(path, sizeof path, "%s/%s", stub_open(0)->path,
             stub_str(json_object_get(stub_open(0)->body, "metadata"), "name"));
    stub_answer(201, "{}");
    stub_pass(1000);
    say("a");
    assert_string_equal(stub_open(0)->method, "PATCH");
    assert_string_equal(stub_open(0)->path, path);
    assert_string_equal(stub_open(0)->type, "application/merge-patch+json");
    assert_int_equal(json_object_size(stub_open(0)->body), 1);
    assert_int_equal(series_count(), 2);
    stub_answer(200, "{}");
    /* Once a minute for 29 minutes: nothing is sent. */
    for (int i = 0; i < 29; i++) {
        say("a");
        stub_pass(60000);
    }
    assert_int_equal(stub_started, 2);
    say("a");
    stub_pass(60100);
    assert_int_equal(stub_started, 3);
    assert_int_equal(series_count(), 32);
    stub_answer(200, "{}");
    /* Quiet: the rest is told, and then it is forgotten. */
    say("a");
    stub_pass(361000);
    assert_int_equal(series_count(), 33);
    stub_answer(200, "{}");
    say("a");
    assert_string_equal(stub_open(0)->method, "POST");
}

static void one_that_stays_alone_is_forgotten_without_a_word(void **state)
{
    (void)state;
    say("a");
    stub_answer(201, "{}");
    stub_pass(361000);
    assert_int_equal(stub_started, 1);
    say("a");
    assert_string_equal(stub_open(0)->method, "POST");
}

static void another_note_reason_or_object_is_another_event(void **state)
{
    struct kube_ref other = chat;

    (void)state;
    say("a");
    say("b");
    kube_event(events, &chat, false, "PortConflict", "Reconcile", "a");
    other.uid = "u2";
    kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
    assert_int_equal(stub_open_count(), 4);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(stub_str(json_object_get(stub_open(i)->body, "metadata"), "name"),
                                    stub_str(json_object_get(stub_open(k)->body, "metadata"), "name"));
}

static void one_that_the_server_has_forgotten_is_made_again(void **state)
{
    (void)state;
    say("a");
    stub_answer(201, "{}");
    say("a");
    stub_answer(404, NULL);
    assert_string_equal(stub_open(0)->method, "POST");
    assert_int_equal(series_count(), 2);
    assert_null(json_object_get(json_object_get(stub_open(0)->body, "metadata"), "resourceVersion"));
    stub_answer(201, "{}");
    assert_int_equal(stub_open_count(), 0);
}

static void what_came_twice_before_it_was_sent_is_a_series_from_the_start(void **state)
{
    (void)state;
    say("a");
    say("a");
    say("a");
    stub_answer(201, "{}");
    assert_string_equal(stub_open(0)->method, "PATCH");
    assert_int_equal(series_count(), 3);
}

static void a_server_in_trouble_is_asked_twelve_times(void **state)
{
    (void)state;
    say("a");
    for (int i = 0; i < 12; i++) {
        assert_int_equal(stub_open_count(), 1);
        stub_answer(i % 2 ? 503 : 0, NULL);
        stub_pass(7400);
        assert_int_equal(stub_open_count(), 0);
        stub_pass(5200);
    }
    assert_int_equal(stub_open_count(), 0);
    assert_int_equal(kube_events_dropped(events), 1);
}

static void a_refused_event_is_dropped_at_once(void **state)
{
    (void)state;
    say("a");
    stub_answer(403, NULL);
    stub_pass(60000);
    assert_int_equal(stub_started, 1);
    assert_int_equal(kube_events_dropped(events), 1);
}

static void one_that_arrived_on_a_lost_connection_is_no_failure(void **state)
{
    (void)state;
    say("a");
    stub_answer(0, NULL);
    stub_pass(13000);
    stub_answer(409, NULL);
    assert_int_equal(kube_events_dropped(events), 0);
    say("a");
    assert_string_equal(stub_open(0)->method, "PATCH");
}

static void an_object_has_a_burst_of_25_and_then_one_in_five_minutes(void **state)
{
    char note[32];
    struct kube_ref other = chat;

    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(note, sizeof note, "%d", i);
        say(note);
        if (stub_open_count())
            stub_answer(201, "{}");
    }
    assert_int_equal(stub_started, 25);
    assert_int_equal(kube_events_dropped(events), 75);
    other.name = "other";
    kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
    assert_int_equal(stub_started, 26);
    stub_pass(300100);
    say("x");
    say("y");
    assert_int_equal(stub_started, 27);
}

static void a_hanging_server_costs_a_bounded_queue_and_no_wait(void **state)
{
    char name[32];
    struct kube_ref other = chat;

    (void)state;
    other.name = name;
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "w%d", i);
        kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
    }
    assert_int_equal(stub_open_count(), 4);
    assert_int_equal(kube_events_dropped(events), 3000 - KUBE_EVENT_QUEUE);
}

static void what_is_remembered_is_bounded(void **state)
{
    char name[32];
    struct kube_ref other = chat;

    (void)state;
    other.name = name;
    for (int i = 0; i < KUBE_EVENT_KNOWN + 10; i++) {
        snprintf(name, sizeof name, "w%d", i);
        kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
        stub_answer(201, "{}");
    }
    snprintf(name, sizeof name, "w%d", KUBE_EVENT_KNOWN + 9);
    kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
    assert_string_equal(stub_open(0)->method, "PATCH");
    stub_answer(200, "{}");
    strcpy(name, "w0");
    kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
    assert_string_equal(stub_open(0)->method, "POST");
}

static void a_long_name_still_makes_a_name(void **state)
{
    char name[254];
    struct kube_ref other = chat;
    const char *made;

    (void)state;
    memset(name, 'a', sizeof name - 1);
    name[253] = '\0';
    name[235] = '.';
    other.name = name;
    other.ns = NULL;
    kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
    made = stub_str(json_object_get(stub_open(0)->body, "metadata"), "name");
    assert_true(strlen(made) <= 253);
    assert_null(strstr(made, ".."));
    assert_string_equal(stub_str(json_object_get(stub_open(0)->body, "metadata"), "namespace"), "default");
    other.name = "../x";
    kube_event(events, &other, true, "PortConflict", "Reconcile", "a");
    assert_int_equal(stub_started, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_event_has_every_field_that_the_api_requires),
        TEST(a_note_is_cut_between_characters),
        TEST(the_second_makes_a_series_and_the_others_are_counted_and_flushed),
        TEST(one_that_stays_alone_is_forgotten_without_a_word),
        TEST(another_note_reason_or_object_is_another_event),
        TEST(one_that_the_server_has_forgotten_is_made_again),
        TEST(what_came_twice_before_it_was_sent_is_a_series_from_the_start),
        TEST(a_server_in_trouble_is_asked_twelve_times),
        TEST(a_refused_event_is_dropped_at_once),
        TEST(one_that_arrived_on_a_lost_connection_is_no_failure),
        TEST(an_object_has_a_burst_of_25_and_then_one_in_five_minutes),
        TEST(a_hanging_server_costs_a_bounded_queue_and_no_wait),
        TEST(what_is_remembered_is_bounded),
        TEST(a_long_name_still_makes_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
