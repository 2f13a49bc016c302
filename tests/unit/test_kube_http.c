/* test_kube_http.c - requests against an HTTPS server of the test's own: what is sent, what is sent again, and how it ends */
#include "test_kube_call.h"

static void the_request_says_who_asks_and_what_for(void **state)
{
    struct got g = {0}, p = {0};

    (void)state;
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g, get("/api/v1/secrets?limit=500", &g));
    assert_int_equal(g.done, 0);
    turn_until(&g.done, 1);
    start(&p, patch(&p));
    turn_until(&p.done, 1);
    assert_int_equal(g.end, KUBE_ANSWERED);
    assert_int_equal(g.status, 200);
    assert_string_equal(g.body, "{}");
    assert_string_equal(g.why, "");
    assert_ptr_equal(strstr(peer.seen[0].text, "GET /api/v1/secrets?limit=500 HTTP/1.1\r\n"),
                     peer.seen[0].text);
    assert_non_null(strstr(peer.seen[0].text, "\r\nAuthorization: Bearer secret-1\r\n"));
    assert_non_null(strstr(peer.seen[0].text, "\r\nAccept: application/json\r\n"));
    assert_non_null(strstr(peer.seen[0].text, "\r\nUser-Agent: tidegate-controller/"));
    assert_non_null(strstr(peer.seen[0].text, " (linux/"));
    assert_null(strstr(peer.seen[0].text, "Accept-Encoding"));
    assert_null(strstr(peer.seen[0].text, "Content-Type"));
    assert_ptr_equal(strstr(peer.seen[1].text, "PATCH /p HTTP/1.1\r\n"), peer.seen[1].text);
    assert_non_null(strstr(peer.seen[1].text, "\r\nContent-Type: application/apply-patch+yaml\r\n"));
    assert_non_null(strstr(peer.seen[1].text, "\r\n\r\n{\"a\":1}"));
    assert_null(strstr(peer.seen[1].text, "Expect"));
    assert_int_equal(peer.connection_count, 1); /* kept, and used again */
}

static void a_status_is_read(void **state)
{
    struct got g = {0};

    (void)state;
    peer_next(&peer,
              "HTTP/1.1 409 Conflict\r\nContent-Length: 135\r\n\r\n"
              "{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"AlreadyExists\",\"message\":\"it is "
              "there\","
              "\"details\":{\"retryAfterSeconds\":3},\"code\":409}     ",
              PEER_KEEP);
    start(&g, patch(&g));
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_ANSWERED);
    assert_int_equal(g.status, 409);
    assert_string_equal(g.reason, "AlreadyExists");
    assert_string_equal(g.why, "it is there");
    assert_int_equal(g.retry_after_s, 3);
    assert_int_equal(peer_seen(&peer), 1);
}

static void an_answer_that_is_no_status_is_told_by_its_code(void **state)
{
    static const char *const replies[] = {
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 17\r\n\r\n{\"message\":[null]",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n[]",
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 52\r\n\r\n"
         "{\"kind\":\"Status\",\"message\":null,\"details\":null}     "),
    };

    (void)state;
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        struct got g = {0};

        peer_next(&peer, replies[i], PEER_KEEP);
        start(&g, get("/", &g));
        turn_until(&g.done, 1);
        assert_int_equal(g.status, 502);
        assert_string_equal(g.why, "the server said 502");
        assert_string_equal(g.reason, "");
    }
}

static void a_get_that_was_cut_is_sent_once_more_after_a_second(void **state)
{
    struct got g = {0}, h = {0};
    uint64_t from_ms = loop_clock_ms();

    (void)state;
    peer_next(&peer, NULL, PEER_RESET);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 200);
    assert_true(g.at_ms - from_ms >= 1000);
    peer_next(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", PEER_EOF);
    peer_next(&peer, NULL, PEER_EOF);
    start(&h, get("/", &h));
    turn_until(&h.done, 1);
    assert_int_equal(h.end, KUBE_CUT);
    assert_string_equal(h.body, "");
    assert_true(strlen(h.why) > 0);
    assert_int_equal(peer_seen(&peer), 4);
}

static void a_write_that_was_cut_is_not_sent_again(void **state)
{
    struct got g = {0}, h = {0}, i = {0};

    (void)state;
    peer_next(&peer, NULL, PEER_RESET);
    start(&g, patch(&g));
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_CUT);
    /* Nor by curl itself, on a kept connection that ends without an answer. */
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    peer_next(&peer, NULL, PEER_EOF);
    start(&h, patch(&h));
    turn_until(&h.done, 1);
    start(&i, patch(&i));
    turn_until(&i.done, 1);
    assert_int_equal(i.end, KUBE_CUT);
    turn_for(100);
    assert_int_equal(peer_seen(&peer), 3);
    assert_int_equal(peer.seen[2].connection, peer.seen[1].connection);
}

static void busy_servers_are_asked_again_when_they_say(void **state)
{
    struct got g = {0}, h = {0}, i = {0};
    uint64_t from_ms = loop_clock_ms();

    (void)state;
    peer_next(&peer, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
              PEER_KEEP);
    peer_next(&peer, "HTTP/1.1 503 Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", PEER_KEEP);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g, patch(&g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 200);
    assert_true(g.at_ms - from_ms >= 2000);
    /* Without a time it is the caller's matter; so is it when the time lies behind the deadline, and for streams. */
    peer_next(&peer, "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n", PEER_KEEP);
    start(&h, get("/", &h));
    turn_until(&h.done, 1);
    assert_int_equal(h.status, 503);
    peer_next(&peer, "HTTP/1.1 503 Unavailable\r\nRetry-After: 31\r\nContent-Length: 0\r\n\r\n", PEER_KEEP);
    h.done = 0;
    start(&h, get("/", &h));
    turn_until(&h.done, 1);
    assert_int_equal(h.retry_after_s, 31);
    peer_next(&peer, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
              PEER_KEEP);
    start(&i, stream(&i));
    turn_until(&i.done, 1);
    assert_int_equal(i.status, 429);
    assert_int_equal(i.retry_after_s, 1);
    assert_int_equal(peer_seen(&peer), 6);
}

static void a_server_that_stays_busy_is_asked_ten_times(void **state)
{
    struct got g = {0};

    (void)state;
    for (int i = 0; i < 12; i++)
        peer_next(&peer, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
                  PEER_KEEP);
    fast_since_ns = (int64_t)loop_clock_ms() * 1000000;
    speed = 20;
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 429);
    assert_int_equal(peer_seen(&peer), 10);
}

static void a_stream_comes_as_it_arrives(void **state)
{
    struct got g = {0};

    (void)state;
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    start(&g, stream(&g));
    turn_until(&g.chunks, 1);
    assert_string_equal(g.streamed_text, "one");
    assert_int_equal(g.done, 0);
    kube_http_cancel(g.call);
    turn_for(50);
    assert_int_equal(g.done, 0);
}

static void a_stream_is_open_before_its_first_byte(void **state)
{
    struct got silent = {0}, cancelled = {.cancel_at_opened = true}, refused = {0};

    (void)state;
    peer_next(&peer, HEAD_OF_STREAM, PEER_HOLD);
    start(&silent, stream(&silent));
    turn_until(&silent.opened, 1);
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n0\r\n\r\n", PEER_KEEP);
    start(&cancelled, stream(&cancelled));
    turn_until(&cancelled.opened, 1);
    peer_next(&peer, "HTTP/1.1 429 Wait\r\nContent-Length: 0\r\n\r\n", PEER_KEEP);
    start(&refused, stream(&refused));
    turn_until(&refused.done, 1);
    turn_for(50);
    assert_int_equal(silent.opened, 1);
    assert_int_equal(silent.chunks + silent.done, 0);
    assert_int_equal(cancelled.opened, 1);
    assert_int_equal(cancelled.chunks + cancelled.done, 0);
    assert_int_equal(refused.opened, 0);
}

static void the_end_of_a_stream_says_how_it_ended(void **state)
{
    struct got clean = {0}, cut = {0}, stopped = {0};

    (void)state;
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n0\r\n\r\n", PEER_KEEP);
    start(&clean, stream(&clean));
    turn_until(&clean.done, 1);
    assert_int_equal(clean.end, KUBE_ANSWERED);
    assert_int_equal(clean.status, 200);
    assert_true(clean.streamed);
    assert_string_equal(clean.body, "");
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n5\r\ntw", PEER_EOF);
    start(&cut, stream(&cut));
    turn_until(&cut.done, 1);
    assert_int_equal(cut.end, KUBE_CUT);
    assert_string_equal(cut.streamed_text, "onetw");
    stopped.stop_at_chunk = true;
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    start(&stopped, stream(&stopped));
    turn_until(&stopped.done, 1);
    assert_int_equal(stopped.end, KUBE_TOO_LARGE);
    turn_for(1200); /* none of them is sent again */
    assert_int_equal(peer_seen(&peer), 3);
}

static void an_error_to_a_stream_is_collected(void **state)
{
    struct got g = {0};

    (void)state;
    peer_next(&peer,
              "HTTP/1.1 410 Gone\r\nContent-Length: 56\r\n\r\n"
              "{\"kind\":\"Status\",\"reason\":\"Expired\",\"message\":\"too old\"}",
              PEER_KEEP);
    start(&g, stream(&g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 410);
    assert_string_equal(g.reason, "Expired");
    assert_int_equal(g.chunks, 0);
}

static void silence_ends_a_stream(void **state)
{
    struct got g = {0};
    struct kube_request r = stream(&g);
    uint64_t from_ms = loop_clock_ms();

    (void)state;
    r.idle_ms = 300;
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    start(&g, r);
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_TIMED_OUT);
    assert_true(g.streamed);
    assert_in_range(g.at_ms - from_ms, 300, 2000);
}

static void every_call_has_a_deadline(void **state)
{
    struct got g = {0}, h = {0};
    struct kube_request r = get("/", &g);
    uint64_t from_ms = loop.now_ms; /* a deadline counts from its turn */

    (void)state;
    r.timeout_ms = 200;
    peer_next(&peer, "HTTP/1.1 200 OK\r\nContent-", PEER_HOLD);
    start(&g, r);
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_TIMED_OUT);
    assert_in_range(g.at_ms - from_ms, 200, 2000);
    config.not_ready = true; /* also where it was never sent */
    r.arg = &h;
    start(&h, r);
    turn_until(&h.done, 1);
    assert_int_equal(h.end, KUBE_TIMED_OUT);
    assert_int_equal(peer_seen(&peer), 1);
}

/* Behind a load balancer that has lost its table each kept connection would cost a deadline. */
static void after_silence_no_kept_connection_is_used(void **state)
{
    struct got one = {0}, two = {0}, silent = {0}, after = {0};
    struct kube_request r = get("/", &silent);

    (void)state;
    r.timeout_ms = 200;
    peer_next(&peer, OK_REPLY("1", "1"), PEER_KEEP);
    peer_next(&peer, OK_REPLY("1", "2"), PEER_KEEP);
    start(&one, get("/", &one));
    start(&two, get("/", &two));
    turn_until(&one.done, 1);
    turn_until(&two.done, 1);
    assert_int_equal(peer.connection_count, 2);
    peer_next(&peer, NULL, PEER_HOLD);
    start(&silent, r);
    turn_until(&silent.done, 1);
    assert_int_equal(silent.end, KUBE_TIMED_OUT);
    peer_next(&peer, OK_REPLY("1", "4"), PEER_KEEP);
    start(&after, get("/", &after));
    turn_until(&after.done, 1);
    assert_string_equal(after.body, "4");
    assert_int_equal(peer.seen[3].connection, 2);
}

static void an_answer_is_bounded(void **state)
{
    struct got g = {0}, h = {0};
    struct kube_request r = get("/", &g);

    (void)state;
    r.max_bytes = 8;
    peer_next(&peer, OK_REPLY("8", "12345678"), PEER_KEEP);
    start(&g, r);
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_ANSWERED);
    r.arg = &h;
    peer_next(&peer, OK_REPLY("9", "123456789"), PEER_KEEP);
    start(&h, r);
    turn_until(&h.done, 1);
    assert_int_equal(h.end, KUBE_TOO_LARGE);
}

static void callbacks_may_cancel_and_free_all(void **state)
{
    struct got a = {0}, b = {0}, c = {0}, d = {.free_at_done = true};
    struct err err;

    (void)state;
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    start(&a, stream(&a));
    a.cancel_at_chunk = a.call;
    turn_until(&a.chunks, 1);
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    start(&c, get("/", &c));
    while (peer_seen(&peer) < 2)
        turn_for(5);
    b.free_at_chunk = true;
    start(&b, stream(&b));
    turn_until(&b.chunks, 1);
    assert_string_equal(b.streamed_text, "one");
    turn_for(50);
    assert_int_equal(a.done + b.done + c.done, 0);
    http = kube_http_new(&loop, (struct kube_config *)&config, 1000, 1000, &err);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&d, get("/", &d));
    turn_until(&d.done, 1);
    assert_null(http);
}

static void so_many_at_once_and_the_urgent_beside_them(void **state)
{
    struct got g[KUBE_HTTP_CALLS + 8] = {{0}}, lease = {0};
    struct kube_request r = get("/lease", &lease);

    (void)state;
    for (int i = 0; i < KUBE_HTTP_CALLS; i++)
        peer_next(&peer, NULL, PEER_HOLD);
    for (int i = 0; i < KUBE_HTTP_CALLS + 8; i++)
        start(&g[i], get("/", &g[i]));
    while (peer_seen(&peer) < KUBE_HTTP_CALLS)
        turn_for(5);
    turn_for(100);
    assert_int_equal(peer_seen(&peer), KUBE_HTTP_CALLS);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    r.urgent = true;
    start(&lease, r);
    turn_until(&lease.done, 1);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    kube_http_cancel(g[0].call); /* a place: the next in the queue has it */
    turn_until(&g[KUBE_HTTP_CALLS].done, 1);
    assert_int_equal(g[KUBE_HTTP_CALLS + 1].done, 0);
}

static void the_bucket_paces_all_but_the_urgent(void **state)
{
    struct got g[4] = {{0}}, lease = {0};
    struct kube_request r = get("/lease", &lease);
    struct err err;
    uint64_t from_ms = loop_clock_ms();

    (void)state;
    kube_http_free(http);
    http = kube_http_new(&loop, (struct kube_config *)&config, 5, 2, &err);
    for (int i = 0; i < 5; i++)
        peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    for (int i = 0; i < 4; i++)
        start(&g[i], get("/", &g[i]));
    r.urgent = true;
    start(&lease, r);
    for (int i = 0; i < 4; i++)
        turn_until(&g[i].done, 1);
    assert_true(g[1].at_ms - from_ms < 200);
    assert_true(lease.at_ms < g[2].at_ms);
    assert_true(g[2].at_ms - from_ms >= 200);
    assert_true(g[3].at_ms - from_ms >= 400);
}

static void a_proxy_that_is_no_url_is_not_quoted(void **state)
{
    static const char *const urls[] = {"http://user:hush@proxy:99999", "socks9://user:hush@proxy"};

    (void)state;
    unsetenv("no_proxy"); /* it may be said that the peer is reached without one */
    unsetenv("NO_PROXY");
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct got g = {0};

        config.auth.proxy_url = urls[i];
        config.auth.generation++;
        start(&g, get("/", &g));
        turn_until(&g.done, 1);
        assert_int_equal(g.status, 0);
        assert_non_null(strstr(g.why, "proxy"));
        assert_null(strstr(g.why, "hush"));
    }
}

static char counted[256];

static void on_count(void *arg, const char *method, int code, uint64_t n)
{
    size_t at = strlen(counted);

    (void)arg;
    snprintf(counted + at, sizeof counted - at, "%s %d %d;", method, code, (int)n);
}

static void answers_are_counted_by_method_and_code(void **state)
{
    struct got g[4] = {{0}};

    (void)state;
    peer_next(&peer, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", PEER_KEEP);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    peer_next(&peer, NULL, PEER_EOF);
    for (int i = 0; i < 4; i++) {
        start(&g[i], i == 3 ? patch(&g[i]) : get("/", &g[i]));
        turn_until(&g[i].done, 1);
    }
    counted[0] = '\0';
    kube_http_counts(http, on_count, NULL);
    assert_string_equal(counted, "GET 200 2;GET 404 1;PATCH 0 1;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_request_says_who_asks_and_what_for),
        TEST(a_status_is_read),
        TEST(an_answer_that_is_no_status_is_told_by_its_code),
        TEST(a_get_that_was_cut_is_sent_once_more_after_a_second),
        TEST(a_write_that_was_cut_is_not_sent_again),
        TEST(busy_servers_are_asked_again_when_they_say),
        TEST(a_server_that_stays_busy_is_asked_ten_times),
        TEST(a_stream_comes_as_it_arrives),
        TEST(a_stream_is_open_before_its_first_byte),
        TEST(the_end_of_a_stream_says_how_it_ended),
        TEST(an_error_to_a_stream_is_collected),
        TEST(silence_ends_a_stream),
        TEST(every_call_has_a_deadline),
        TEST(after_silence_no_kept_connection_is_used),
        TEST(an_answer_is_bounded),
        TEST(callbacks_may_cancel_and_free_all),
        TEST(so_many_at_once_and_the_urgent_beside_them),
        TEST(the_bucket_paces_all_but_the_urgent),
        TEST(a_proxy_that_is_no_url_is_not_quoted),
        TEST(answers_are_counted_by_method_and_code),
    };

    return run_calls(tests, sizeof tests / sizeof *tests);
}
