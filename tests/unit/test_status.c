#include "admin/feed.h"
#include "admin/http.h"
#include "admin/metrics.h"
#include "admin/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define REVISION "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

struct fixture {
    struct shared shared;
    int fd;
    struct status_server servers[3];
    struct status_worker workers[2];
    char *errors[2];
    struct status status;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err;

    assert_int_equal(shared_new(&f->shared, 2, 1024, &f->fd, &err), 0);
    f->servers[0] =
        (struct status_server){.name = "ns/chat", .port = 10020, .tls = true, .backend = "ws://a:1"};
    snprintf(f->servers[0].cert_sha256, STATUS_HEX_BYTES, "%s", REVISION);
    f->servers[0].not_after = 1800000000;
    f->servers[1] = (struct status_server){.name = "ns/feed",
                                           .state = STATUS_DRAINING,
                                           .message = "it is gone from the file",
                                           .port = 0,
                                           .backend = "ws://b:2"};
    f->servers[2] = (struct status_server){
        .name = "broken", .state = STATUS_FAILED, .message = "\"port\": \x1b[31m\xff\nwrong", .slot = -1};
    f->servers[0].slot = shared_slot_take(&f->shared, "ns/chat");
    f->servers[1].slot = shared_slot_take(&f->shared, "ns/feed");
    f->workers[0] = (struct status_worker){.pid = 4242, .restarts = 1, .current = true};
    f->errors[0] = "12:7: server \"broken\": port: wrong";
    f->errors[1] = "14:1: another";
    f->status = (struct status){
        .pid = 4240,
        .started_at = 1763964500,
        .ready = true,
        .revision = REVISION,
        .applied_at = 1763964520,
        .seen = {.revision = REVISION, .result = STATUS_PARTIAL, .errors = f->errors, .error_count = 2},
        .servers = f->servers,
        .server_count = 3,
        .workers = f->workers,
        .worker_count = 2,
        .reloads = {0, 3, 2, 1},
        .shared = &f->shared};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    shared_done(&f->shared);
    close(f->fd);
    free(f);
    return 0;
}

/* Something of everything, by both workers. */
static void fill(struct fixture *f)
{
    for (unsigned w = 0; w < 2; w++) {
        struct stats_cell *c = shared_cell(&f->shared, w, (unsigned)f->servers[0].slot);

        stats_add(&c->connections, 5 + w);
        stats_add(&c->handshakes, 1);
        stats_add(&c->connections_total, 100);
        stats_add(&c->bytes[STATS_BACKEND], 1000);
        for (size_t i = 0; i < STATS_STATUSES; i++)
            stats_add(&c->handshakes_total[i], 1 + i);
        for (int who = 0; who < STATS_WHOS; who++)
            for (unsigned code = 1000; code < 1015; code++)
                stats_add(&c->closes[who][stats_close_index(code)], 1);
        stats_add(&c->closes[STATS_GATEWAY][stats_close_index(4001)], 7);
        for (int kind = 0; kind < FRAME_KINDS; kind++)
            stats_add(&c->messages[STATS_CLIENT][kind], 3);
        stats_handshake_took(c, 700);
        stats_handshake_took(c, 40000);
        stats_handshake_took(c, 99000000);
        for (int i = 0; i < STATS_LIMITS; i++)
            stats_add(&c->limited[i], 1);
        stats_add(&c->drained, 2);
        stats_add(&c->cut, 1);
        stats_add(&shared_worker(&f->shared, w)->log_dropped, 4);
        stats_add(&shared_worker(&f->shared, w)->pairs, 6);
    }
}

static char *text_of(int (*make)(const struct status *, struct buf *, struct err *), const struct status *s)
{
    struct err err;
    struct buf b;

    buf_init(&b, 1 << 20);
    assert_int_equal(make(s, &b, &err), 0);
    assert_int_equal(buf_add(&b, "", 1), 0);
    return (char *)b.data;
}

static size_t count_of(const char *text, const char *what)
{
    size_t n = 0;

    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

static void status_is_one_line_with_keys_in_order(void **state)
{
    struct fixture *f = *state;
    char *text;

    fill(f);
    text = text_of(status_json, &f->status);
    assert_string_equal(
        text,
        "{\"pid\":4240,\"revision\":\"" REVISION "\",\"applied_at\":\"2025-11-24T06:08:40Z\","
        "\"seen\":{\"revision\":\"" REVISION "\",\"result\":\"partial\",\"errors\":["
        "\"12:7: server \\\"broken\\\": port: wrong\",\"14:1: another\"]},\"servers\":["
        "{\"name\":\"ns/chat\",\"state\":\"active\",\"message\":null,\"port\":10020,\"connections\":11,"
        "\"cert_sha256\":\"" REVISION "\",\"not_after\":\"2027-01-15T08:00:00Z\"},"
        "{\"name\":\"ns/feed\",\"state\":\"draining\",\"message\":\"it is gone from the file\",\"port\":null,"
        "\"connections\":0,\"cert_sha256\":null,\"not_after\":null},"
        "{\"name\":\"broken\",\"state\":\"failed\",\"message\":\"\\\"port\\\": "
        "\\u001b[31m\\u00ff\\u000awrong\","
        "\"port\":null,\"connections\":0,\"cert_sha256\":null,\"not_after\":null}],\"workers\":["
        "{\"pid\":4242,\"restarts\":1,\"current\":true,\"connections\":6},"
        "{\"pid\":null,\"restarts\":0,\"current\":false,\"connections\":6}]}\n");
    free(text);
    assert_int_equal(status_connections(&f->status, f->servers[0].slot), 11);
    assert_int_equal(status_in_use(&f->status, f->servers[0].slot), 13);
    assert_int_equal(status_in_use(&f->status, -1), 0);
}

static void nothing_yet_is_null(void **state)
{
    struct fixture *f = *state;
    char *text;

    f->status = (struct status){.pid = 7, .shared = &f->shared};
    text = text_of(status_json, &f->status);
    assert_string_equal(text, "{\"pid\":7,\"revision\":null,\"applied_at\":null,\"seen\":{\"revision\":null,"
                              "\"result\":null,\"errors\":[]},\"servers\":[],\"workers\":[]}\n");
    free(text);
}

static void what_does_not_fit_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct err err;

    for (size_t max = 1; max < 700; max += 7) {
        struct buf b;

        buf_init(&b, max);
        assert_int_equal(status_json(&f->status, &b, &err), -1);
        assert_int_equal(err.code, ERR_LIMIT);
        b.len = 0;
        assert_int_equal(metrics_text(&f->status, &b, &err), -1);
        b.len = 0;
        assert_int_equal(feed_text(&f->status, &b, &err), -1);
        buf_free(&b);
    }
}

static void metrics_add_up_and_count_on(void **state)
{
    static const char *const lines[] = {
        "\ntidegate_connections{server=\"ns/chat\"} 11\n",
        "\ntidegate_connections{server=\"ns/feed\"} 0\n",
        "\ntidegate_handshakes_total{server=\"ns/chat\",code=\"101\"} 2\n",
        "\ntidegate_handshakes_total{server=\"ns/chat\",code=\"none\"} 62\n",
        "\ntidegate_handshakes_total{server=\"ns/chat\",code=\"other\"} 64\n",
        "\ntidegate_messages_total{server=\"ns/chat\",direction=\"from_client\",type=\"text\"} 6\n",
        "\ntidegate_bytes_total{server=\"ns/chat\",direction=\"from_backend\"} 2000\n",
        "\ntidegate_closes_total{server=\"ns/chat\",code=\"1001\",initiator=\"gateway\"} 2\n",
        "\ntidegate_closes_total{server=\"ns/chat\",code=\"4xxx\",initiator=\"gateway\"} 14\n",
        "\ntidegate_handshake_seconds_bucket{server=\"ns/chat\",le=\"0.001\"} 2\n",
        "\ntidegate_handshake_seconds_bucket{server=\"ns/chat\",le=\"0.025\"} 2\n",
        "\ntidegate_handshake_seconds_bucket{server=\"ns/chat\",le=\"0.05\"} 4\n",
        "\ntidegate_handshake_seconds_bucket{server=\"ns/chat\",le=\"10\"} 4\n",
        "\ntidegate_handshake_seconds_bucket{server=\"ns/chat\",le=\"+Inf\"} 6\n",
        "\ntidegate_handshake_seconds_sum{server=\"ns/chat\"} 198.081400\n",
        "\ntidegate_handshake_seconds_count{server=\"ns/chat\"} 6\n",
        "\ntidegate_limited_total{server=\"ns/chat\",limit=\"max_connections\"} 2\n",
        "\ntidegate_drained_total{server=\"ns/chat\"} 4\n",
        "\ntidegate_drain_cut_total{server=\"ns/chat\"} 2\n",
        "\ntidegate_server_state{server=\"ns/feed\",state=\"draining\"} 1\n",
        "\ntidegate_server_state{server=\"broken\",state=\"failed\"} 1\n",
        "\ntidegate_servers{state=\"failed\"} 1\n",
        "\ntidegate_certificate_not_after_timestamp_seconds{server=\"ns/chat\"} 1800000000\n",
        "\ntidegate_reloads_total{result=\"applied\"} 3\n",
        "\ntidegate_reloads_total{result=\"refused\"} 1\n",
        "\ntidegate_config_revision_info{revision=\"" REVISION "\"} 1\n",
        "\ntidegate_config_applied_timestamp_seconds 1763964520\n",
        "\ntidegate_ready 1\n",
        "\ntidegate_workers 1\n",
        "\ntidegate_worker_restarts_total 1\n",
        "\ntidegate_log_lines_dropped_total 8\n",
        "\ntidegate_memory_pressure 0\n",
        "\nprocess_start_time_seconds 1763964500\n",
    };
    struct fixture *f = *state;
    char *text;

    fill(f);
    text = text_of(metrics_text, &f->status);
    for (size_t i = 0; i < COUNT(lines); i++)
        if (count_of(text, lines[i]) != 1)
            fail_msg("not once in it:%s\n%s", lines[i], text);
    free(text);
}

static void label_values_are_escaped(void **state)
{
    struct fixture *f = *state;
    char *text;

    f->servers[0].name = "a\"b\\c\nd";
    text = text_of(metrics_text, &f->status);
    assert_int_equal(count_of(text, "\ntidegate_connections{server=\"a\\\"b\\\\c\\nd\"} 0\n"), 1);
    free(text);
}

/* 4,096 servers must stay bounded: what never happened has no series, and nothing has more than the header says. */
static void quiet_servers_have_few_series(void **state)
{
    struct fixture *f = *state;
    char *text = text_of(metrics_text, &f->status);

    assert_int_equal(count_of(text, "server=\"ns/feed\""), 6);
    assert_int_equal(count_of(text, "server=\"ns/chat\""), 7);
    assert_int_equal(count_of(text, "server=\"broken\""), 1);
    free(text);
    fill(f);
    text = text_of(metrics_text, &f->status);
    assert_in_range(count_of(text, "server=\"ns/chat\""), 100, 127);
    free(text);
}

static void promtool_is_content(void **state)
{
    struct fixture *f = *state;
    char *text;
    FILE *p;

    if (system("command -v promtool >/dev/null")) {
        if (getenv("CI"))
            fail_msg("promtool is missing (Debian: prometheus)");
        print_message("promtool is missing (Debian: prometheus)\n");
        skip();
    }
    fill(f);
    text = text_of(metrics_text, &f->status);
    p = popen("promtool check metrics", "w");
    assert_non_null(p);
    assert_true(fputs(text, p) >= 0);
    assert_int_equal(pclose(p), 0);
    free(text);
}

static void feed_says_it_as_json(void **state)
{
    struct fixture *f = *state;
    char *text;

    fill(f);
    text = text_of(feed_text, &f->status);
    assert_int_equal(count_of(text, "\"name\":\"ns/chat\",\"state\":\"active\",\"port\":10020,\"tls\":true"),
                     1);
    assert_int_equal(
        count_of(text,
                 "\"connections\":11,\"opening\":2,\"opened\":200,\"messages\":[30,0],\"bytes\":[0,2000]"),
        1);
    assert_int_equal(count_of(text, "\"took\":[2,0,0,0,0,2,0,0,0,0,0,0,2]"), 1);
    assert_int_equal(count_of(text, "\"gateway\":{\"1000\":2,\"1001\":2"), 1);
    free(text);
}

static void addresses_are_an_ip_and_a_port(void **state)
{
    static const char *const good[] = {"127.0.0.1:9901", "[::1]:9901", ":9900", "0.0.0.0:1", "[::]:65535"};
    static const char *const bad[] = {
        "",       "9901", ":0",          "127.0.0.1:0", "127.0.0.1", "::1:9901", "[::1]",  "[1.2.3.4]:1",
        ":65536", ":99 ", "localhost:1", "127.0.0.1:a", "[]:1",      "[::1]x:1", "[::1:1", "1.2.3.4]:1"};
    struct err err;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++)
        if (http_check_address(good[i], &err))
            fail_msg("%s: %s", good[i], err.msg);
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (!http_check_address(bad[i], &err))
            fail_msg("\"%s\" was taken", bad[i]);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.msg, "127.0.0.1:9901"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(status_is_one_line_with_keys_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_yet_is_null, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(metrics_add_up_and_count_on, setup, teardown),
        cmocka_unit_test_setup_teardown(label_values_are_escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(quiet_servers_have_few_series, setup, teardown),
        cmocka_unit_test_setup_teardown(promtool_is_content, setup, teardown),
        cmocka_unit_test_setup_teardown(feed_says_it_as_json, setup, teardown),
        cmocka_unit_test(addresses_are_an_ip_and_a_port),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
