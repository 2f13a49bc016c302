/* test_ports.c - the managed Service's ports follow what is wanted, and nobody else's port is touched */
#include "test_kube_stub.h"

#include "kube/kube_reflect.h"
#include "ports.h"

static struct ports *ports;
static bool leads_now;
static int calls_of_changed;
static struct kube_sink sink;
static char selector[128];

/* In place of kube_reflect.c: the test gives the Service itself. */
struct kube_reflect *kube_reflect_new(struct kube_http *h, struct loop *l, const struct kube_kind *kind,
                                      const char *ns, const struct kube_sink *s)
{
    (void)h;
    (void)l;
    snprintf(selector, sizeof selector, "%s %s %s %s", kind->version, kind->plural, ns, kind->field_selector);
    sink = *s;
    return NULL;
}

void kube_reflect_free(struct kube_reflect *r)
{
    (void)r;
}

const char *kube_reflect_trouble(const struct kube_reflect *r)
{
    (void)r;
    return "";
}

static bool leads(void *arg)
{
    (void)arg;
    return leads_now;
}

static void changed(void *arg)
{
    (void)arg;
    calls_of_changed++;
}

static int setup(void **state)
{
    (void)state;
    stub_init();
    leads_now = true;
    calls_of_changed = 0;
    ports = ports_new(NULL, &stub_loop, "tidegate", "gateway", leads, changed, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ports_free(ports);
    stub_done();
    return 0;
}

static void want(const uint16_t *wanted, size_t count)
{
    ports_want(ports, wanted, count);
    stub_turn();
}
#define WANT(...) want((const uint16_t[]){__VA_ARGS__}, sizeof((uint16_t[]){__VA_ARGS__}) / sizeof(uint16_t))

/* One port of the Service: "10020 p-10020 10020 us" is number, name, target, and who has all of it. A fifth word has its target. */
static void add_port(json_t *service, const char *text)
{
    char name[64], by[64], target_by[64] = "", key[80];
    int port, target;
    json_t *meta = json_object_get(service, "metadata"),
           *list = json_object_get(json_object_get(service, "spec"), "ports"), *fields;

    assert_true(sscanf(text, "%d %63s %d %63s %63s", &port, name, &target, by, target_by) >= 4);
    json_array_append_new(list, json_pack("{s:s, s:i, s:s, s:i}", "name", name, "port", port, "protocol",
                                          strstr(name, "udp") ? "UDP" : "TCP", "targetPort", target));
    snprintf(key, sizeof key, "k:{\"port\":%d,\"protocol\":\"%s\"}", port,
             strstr(name, "udp") ? "UDP" : "TCP");
    fields = json_pack("{s:{}, s:{}, s:{}, s:{}}", ".", "f:name", "f:port", "f:protocol");
    if (!*target_by)
        json_object_set_new(fields, "f:targetPort", json_object());
    json_array_append_new(json_object_get(meta, "managedFields"),
                          json_pack("{s:s, s:s, s:{s:{s:{s:o}}}}", "manager",
                                    strcmp(by, "us") ? by : PORTS_MANAGER, "operation",
                                    strcmp(by, "us") ? "Update" : "Apply", "fieldsV1", "f:spec", "f:ports",
                                    key, fields));
    if (*target_by)
        json_array_append_new(json_object_get(meta, "managedFields"),
                              json_pack("{s:s, s:s, s:{s:{s:{s:{s:{}}}}}}", "manager", target_by, "operation",
                                        "Update", "fieldsV1", "f:spec", "f:ports", key, "f:targetPort"));
}

/* The Service with these ports, ended by NULL. */
static json_t *service(const char *version, const char *const *list)
{
    json_t *s = json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:[]}, s:{s:[]}}", "kind", "Service", "metadata",
                          "name", "gateway", "namespace", "tidegate", "uid", "u1", "resourceVersion", version,
                          "managedFields", "spec", "ports");

    for (; *list; list++)
        add_port(s, *list);
    return s;
}

static void seen(const char *version, const char *const *list)
{
    json_t *s = service(version, list);

    sink.put(sink.arg, s);
    json_decref(s);
    stub_turn();
}
#define SEEN(version, ...) seen(version, (const char *const[]){__VA_ARGS__, NULL})

/* The write under way succeeds, and the Service is as given. */
static void applied(const char *version, const char *const *list)
{
    json_t *s = service(version, list);
    char *text = json_dumps(s, 0);

    stub_answer(200, text);
    free(text);
    json_decref(s);
    stub_turn();
}
#define APPLIED(version, ...) applied(version, (const char *const[]){__VA_ARGS__, NULL})

static const char *asked(void)
{
    static char text[512];
    size_t i;
    json_t *p;

    text[0] = '\0';
    assert_non_null(stub_open(0));
    json_array_foreach(json_object_get(json_object_get(stub_open(0)->body, "spec"), "ports"), i, p)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "", stub_str(p, "name"));
    return text;
}

static void assert_state(uint16_t port, enum ports_state state, const char *says)
{
    const char *why;

    assert_int_equal(ports_state(ports, port, &why), state);
    if (says) {
        assert_non_null(why);
        if (!strstr(why, says))
            fail_msg("\"%s\" does not say \"%s\"", why, says);
    } else {
        assert_null(why);
    }
}

static void our_ports_are_applied_without_force_and_others_stay(void **state)
{
    json_t *body, *p;

    (void)state;
    assert_string_equal(selector, "v1 services tidegate metadata.name=gateway");
    WANT(10020, 10021);
    assert_null(stub_open(0)); /* nothing before the Service is known */
    assert_state(10020, PORTS_PENDING, "not known yet");
    SEEN("1", "8443 static 8443 helm");
    assert_string_equal(stub_open(0)->method, "PATCH");
    assert_string_equal(
        stub_open(0)->path,
        "/api/v1/namespaces/tidegate/services/gateway?fieldManager=tidegate-controller-ports");
    assert_string_equal(stub_open(0)->type, "application/apply-patch+yaml");
    body = stub_open(0)->body;
    assert_string_equal(stub_str(body, "apiVersion"), "v1");
    assert_string_equal(stub_str(body, "kind"), "Service");
    assert_string_equal(stub_str(json_object_get(body, "metadata"), "name"), "gateway");
    assert_string_equal(stub_str(json_object_get(body, "metadata"), "uid"), "u1");
    assert_string_equal(asked(), "p-10020 p-10021");
    p = json_array_get(json_object_get(json_object_get(body, "spec"), "ports"), 0);
    assert_int_equal(json_integer_value(json_object_get(p, "port")), 10020);
    assert_int_equal(json_integer_value(json_object_get(p, "targetPort")), 10020);
    assert_string_equal(stub_str(p, "protocol"), "TCP");
    assert_state(10020, PORTS_PENDING, "has it not yet");
    calls_of_changed = 0;
    APPLIED("2", "8443 static 8443 helm", "10020 p-10020 10020 us", "10021 p-10021 10021 us");
    assert_state(10020, PORTS_PRESENT, NULL);
    assert_state(10021, PORTS_PRESENT, NULL);
    assert_int_equal(calls_of_changed, 1);
    assert_null(stub_open(0));
    assert_string_equal(ports_trouble(ports), "");
}

static void nothing_is_written_when_nothing_differs(void **state)
{
    (void)state;
    WANT(10020);
    SEEN("1", "8443 static 8443 helm", "10020 p-10020 10020 us");
    WANT(10020);
    SEEN("2", "8443 static 8443 helm", "10020 p-10020 10020 us", "443 more 443 helm");
    stub_pass(60000);
    assert_int_equal(stub_started, 0);
}

static void another_managers_port_or_name_is_taken_and_the_rest_goes_on(void **state)
{
    (void)state;
    WANT(443, 9000, 9001, 10020);
    SEEN("1", "443 https 8443 helm", "7 p-9000 7 somebody", "9001 dns-udp 9001 helm");
    assert_string_equal(asked(), "p-9001 p-10020"); /* the same number on UDP is another port */
    assert_state(443, PORTS_TAKEN, "belongs to helm");
    assert_state(9000, PORTS_TAKEN, "the name p-9000 belongs to port 7 of this Service, of somebody");
    APPLIED("2", "443 https 8443 helm", "7 p-9000 7 somebody", "9001 dns-udp 9001 helm",
            "9001 p-9001 9001 us", "10020 p-10020 10020 us");
    assert_null(stub_open(0));
    /* Given free, it is taken at once. */
    SEEN("3", "7 p-9000 7 somebody", "9001 dns-udp 9001 helm", "9001 p-9001 9001 us",
         "10020 p-10020 10020 us");
    assert_string_equal(asked(), "p-443 p-9001 p-10020");
}

#define CLASH                                                                                                \
    "{\"reason\":\"Conflict\",\"details\":{\"causes\":[{\"reason\":\"FieldManagerConflict\",\"message\":"    \
    "\"conflict with \\\"chart\\\" using v1\",\"field\":\".spec.ports[port=10020,protocol=\\\"TCP\\\"].name" \
    "\"}]}}"
#define TWICE                                                                                                \
    "{\"reason\":\"Invalid\",\"details\":{\"causes\":[{\"reason\":\"FieldValueDuplicate\",\"message\":"      \
    "\"Duplicate value: \\\"p-10020\\\"\",\"field\":\"spec.ports[2].name\"}]}}"

static void a_clash_that_only_the_server_knew_of_costs_that_port_alone(void **state)
{
    static const struct {
        int status;
        const char *body;
    } answers[] = {{409, CLASH}, {422, TWICE}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char version[8];

        snprintf(version, sizeof version, "%zu", i);
        WANT(10020, 10021);
        SEEN(version, "8443 static 8443 helm");
        assert_string_equal(asked(), "p-10020 p-10021");
        stub_answer(answers[i].status, answers[i].body);
        stub_turn();
        assert_state(10020, PORTS_TAKEN, i ? "Duplicate value" : "conflict with \"chart\"");
        assert_string_equal(asked(), "p-10021");
        calls_of_changed = 0;
        APPLIED("9", "8443 static 8443 helm", "10021 p-10021 10021 us");
        assert_state(10020, PORTS_TAKEN, i ? "Duplicate" : "conflict"); /* until the server says otherwise */
        if (stub_open(0)) { /* another version of the Service: worth another try */
            assert_string_equal(asked(), "p-10020 p-10021");
            stub_answer(answers[i].status, answers[i].body);
            stub_turn();
        }
        assert_null(stub_open(0));
        assert_state(10020, PORTS_TAKEN, i ? "Duplicate" : "conflict");
        assert_state(10021, PORTS_PRESENT, NULL);
        assert_int_equal(calls_of_changed, 1);
    }
}

static void what_somebody_took_from_us_is_put_back(void **state)
{
    (void)state;
    WANT(10020);
    SEEN("1", "8443 static 8443 helm", "10020 p-10020 10020 us");
    SEEN("2", "8443 static 8443 helm");
    assert_string_equal(asked(), "p-10020");
}

static void an_entry_of_ours_that_somebody_edited_is_made_anew(void **state)
{
    (void)state;
    WANT(10020, 10021);
    SEEN("1", "10020 p-10020 7777 us kubectl-edit", "10021 p-10021 10021 us");
    assert_state(10020, PORTS_PENDING, "kubectl-edit has changed port 10020");
    assert_string_equal(asked(), "p-10021"); /* away with it */
    APPLIED("2", "10021 p-10021 10021 us");
    assert_string_equal(asked(), "p-10020 p-10021");
    APPLIED("3", "10020 p-10020 10020 us", "10021 p-10021 10021 us");
    assert_state(10020, PORTS_PRESENT, NULL);
    assert_null(stub_open(0));
}

static void the_only_port_cannot_be_taken_away_to_be_made_anew(void **state)
{
    (void)state;
    WANT(10020);
    SEEN("1", "10020 p-10020 7777 us kubectl-edit");
    stub_pass(5000);
    assert_int_equal(stub_started, 0);
    assert_state(10020, PORTS_PENDING, "kubectl-edit");
    assert_non_null(strstr(ports_trouble(ports), "no port would be left"));
}

static void what_is_wanted_no_more_goes(void **state)
{
    (void)state;
    WANT(10020, 10021);
    SEEN("1", "8443 static 8443 helm", "10020 p-10020 10020 us", "10021 p-10021 10021 us");
    WANT(10021);
    assert_string_equal(asked(), "p-10021");
    APPLIED("2", "8443 static 8443 helm", "10021 p-10021 10021 us");
    want(NULL, 0);
    assert_string_equal(asked(), "");
    APPLIED("3", "8443 static 8443 helm");
    assert_null(stub_open(0));
}

static void the_last_ports_of_a_service_stay(void **state)
{
    (void)state;
    WANT(10020);
    SEEN("1", "10020 p-10020 10020 us");
    assert_string_equal(ports_trouble(ports), "");
    calls_of_changed = 0;
    want(NULL, 0);
    stub_pass(60000);
    assert_int_equal(stub_started, 0);
    assert_non_null(strstr(ports_trouble(ports), "invalid"));
    assert_int_equal(calls_of_changed, 1);
    WANT(10021);
    assert_string_equal(asked(), "p-10021");
}

static void a_failed_write_is_tried_again_and_said(void **state)
{
    (void)state;
    WANT(10020);
    SEEN("1", "8443 static 8443 helm");
    calls_of_changed = 0;
    stub_answer(503, NULL);
    stub_turn();
    assert_null(stub_open(0));
    assert_state(10020, PORTS_PENDING, "could not be written: as the test says");
    assert_string_equal(ports_trouble(ports), "as the test says");
    assert_int_equal(calls_of_changed, 1);
    stub_pass(2000);
    assert_int_equal(stub_started, 2);
    APPLIED("2", "8443 static 8443 helm", "10020 p-10020 10020 us");
    assert_state(10020, PORTS_PRESENT, NULL);
    assert_string_equal(ports_trouble(ports), "");
}

static void a_server_that_keeps_nothing_is_not_asked_in_a_loop(void **state)
{
    (void)state;
    WANT(10020);
    SEEN("1", "8443 static 8443 helm");
    for (int i = 0; i < 4; i++) {
        APPLIED("1", "8443 static 8443 helm");
        assert_null(stub_open(0));
        stub_pass(60000);
    }
    assert_in_range(stub_started, 4, 5);
}

static void somebody_who_undoes_each_write_is_answered_once_a_second(void **state)
{
    char version[16];
    int before = 0;

    (void)state;
    WANT(10020);
    for (int i = 0; i < 60; i++) {
        snprintf(version, sizeof version, "%d", 100 + 2 * i);
        SEEN(version, "8443 static 8443 helm");
        if (i == 10)
            before = stub_started;
        if (i < 10)
            assert_string_equal(asked(), "p-10020");
        if (stub_open(0)) {
            snprintf(version, sizeof version, "%d", 101 + 2 * i);
            APPLIED(version, "8443 static 8443 helm", "10020 p-10020 10020 us");
        }
        if (i >= 10)
            stub_pass(100);
    }
    assert_in_range(stub_started - before, 3, 6);
}

static void an_answer_older_than_what_the_watch_told_is_not_believed(void **state)
{
    (void)state;
    WANT(10020);
    SEEN("1", "8443 static 8443 helm");
    assert_string_equal(asked(), "p-10020");
    SEEN("3", "8443 static 8443 helm", "10020 other 10020 kubectl-edit");
    APPLIED("2", "8443 static 8443 helm", "10020 p-10020 10020 us");
    assert_state(10020, PORTS_TAKEN, "kubectl-edit");
}

static void without_the_lead_nothing_is_written_and_with_it_what_is_missing(void **state)
{
    (void)state;
    leads_now = false;
    WANT(10020, 10021);
    SEEN("1", "8443 static 8443 helm", "10020 p-10020 10020 us");
    stub_pass(5000);
    assert_int_equal(stub_started, 0);
    assert_state(10020, PORTS_PRESENT, NULL); /* what others wrote is seen */
    leads_now = true;
    stub_pass(1100);
    assert_string_equal(asked(), "p-10020 p-10021");
}

static void a_service_that_is_not_there_is_not_made(void **state)
{
    json_t *s = service("1", (const char *const[]){"8443 static 8443 helm", NULL});

    (void)state;
    WANT(10020);
    sink.begin(sink.arg);
    sink.end(sink.arg);
    stub_pass(5000);
    assert_int_equal(stub_started, 0);
    assert_state(10020, PORTS_PENDING, "there is no Service tidegate/gateway");
    assert_string_not_equal(ports_trouble(ports), "");
    sink.put(sink.arg, s);
    stub_turn();
    assert_int_equal(stub_started, 1);
    stub_answer(409, "{}");
    sink.drop(sink.arg, s);
    stub_pass(90000);
    assert_int_equal(stub_started, 1);
    assert_state(10020, PORTS_PENDING, "there is no Service");
    /* A list without it says the same as a drop. */
    sink.put(sink.arg, s);
    sink.begin(sink.arg);
    sink.end(sink.arg);
    stub_turn();
    assert_state(10020, PORTS_PENDING, "there is no Service");
    json_decref(s);
}

static void nonsense_for_a_service_harms_nothing(void **state)
{
    static const char *const texts[] = {
        "{}", "{\"metadata\":7}",
        "{\"metadata\":{\"name\":\"gateway\",\"namespace\":\"tidegate\",\"resourceVersion\":\"5\"}}",
        "{\"metadata\":{\"name\":\"gateway\",\"namespace\":\"tidegate\",\"resourceVersion\":\"6\","
        "\"managedFields\":[7,{}"
        ",{\"manager\":7,\"fieldsV1\":{\"f:spec\":{\"f:ports\":{\"k:{\":{},\"x\":7,\"k:{\\\"port\\\":1}\":{}}"
        "}}}]},"
        "\"spec\":{\"ports\":[7,{},{\"port\":\"x\"}]}}",
        "{\"metadata\":{\"name\":\"other\",\"namespace\":\"tidegate\",\"resourceVersion\":\"7\"}}"};

    (void)state;
    WANT(10020);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *s = json_loads(texts[i], 0, NULL);

        assert_non_null(s);
        sink.put(sink.arg, s);
        json_decref(s);
        stub_turn();
    }
    assert_state(1, PORTS_PENDING, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(our_ports_are_applied_without_force_and_others_stay),
        TEST(nothing_is_written_when_nothing_differs),
        TEST(another_managers_port_or_name_is_taken_and_the_rest_goes_on),
        TEST(a_clash_that_only_the_server_knew_of_costs_that_port_alone),
        TEST(what_somebody_took_from_us_is_put_back),
        TEST(an_entry_of_ours_that_somebody_edited_is_made_anew),
        TEST(the_only_port_cannot_be_taken_away_to_be_made_anew),
        TEST(what_is_wanted_no_more_goes),
        TEST(the_last_ports_of_a_service_stay),
        TEST(a_failed_write_is_tried_again_and_said),
        TEST(a_server_that_keeps_nothing_is_not_asked_in_a_loop),
        TEST(somebody_who_undoes_each_write_is_answered_once_a_second),
        TEST(an_answer_older_than_what_the_watch_told_is_not_believed),
        TEST(without_the_lead_nothing_is_written_and_with_it_what_is_missing),
        TEST(a_service_that_is_not_there_is_not_made),
        TEST(nonsense_for_a_service_harms_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
