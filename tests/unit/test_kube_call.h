/* test_kube_call.h - requests of ours at an HTTPS server of the test's own, on a loop that the test turns
 * Shape:   setup -> peer_next(...), start(&got, get("/", &got)), turn_until(&got.done, 1) -> struct got; `config` is what kube_config.h
 *          promises, as the test wants it
 * Units:   *_ms of CLOCK_MONOTONIC, which runs `speed` times as fast as libc's
 * Owner:   setup ... teardown, round each test; one program includes it once
 * Errors:  cmocka's asserts; nothing is waited for longer than 10 s
 * Threads: the test's and those of the peer */
#ifndef TESTS_UNIT_TEST_KUBE_CALL_H
#define TESTS_UNIT_TEST_KUBE_CALL_H

#include "kube/kube_http.h"
#include "test_kube_peer.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

static struct loop loop;
static struct peer peer;
static struct made_pair pair, other;

/* What kube_config.h promises, as the tests want it. */
static struct {
    struct kube_auth auth;
    char server[64];
    bool not_ready;
    const char *token_after_reject; /* NULL: a refusal changes nothing */
    const char *ca_after_reject;
    int rejects;
    void (*ready)(void *arg);
    void *arg;
} config;

bool kube_config_auth(struct kube_config *c, struct kube_auth *out)
{
    (void)c;
    *out = config.auth;
    return !config.not_ready;
}

void kube_config_on_ready(struct kube_config *c, void (*ready)(void *arg), void *arg)
{
    (void)c;
    config.ready = ready;
    config.arg = arg;
}

bool kube_config_reject(struct kube_config *c)
{
    (void)c;
    config.rejects++;
    if (config.token_after_reject) {
        config.auth.token = config.token_after_reject;
        config.token_after_reject = NULL;
        return true;
    }
    if (config.ca_after_reject) {
        config.auth.ca_pem = config.ca_after_reject;
        config.auth.ca_len = strlen(config.ca_after_reject);
        config.auth.generation++;
        config.ca_after_reject = NULL;
        return true;
    }
    return false;
}

static struct kube_http *http;

/* In front of libc's: time runs so many times as fast, from a moment on. */
static int speed = 1;
static int64_t fast_since_ns;

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int r = (int)syscall(SYS_clock_gettime, clock, t);
    int64_t ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;

    if (r || speed == 1 || clock != CLOCK_MONOTONIC)
        return r;
    ns = fast_since_ns + (ns - fast_since_ns) * speed;
    t->tv_sec = ns / 1000000000;
    t->tv_nsec = ns % 1000000000;
    return 0;
}

/* What came of one request. */
struct got {
    int done, status, opened, chunks;
    enum kube_end end;
    char body[4096], why[KUBE_HTTP_WHY_BYTES], reason[64], streamed_text[4096];
    uint32_t retry_after_s;
    bool streamed, stop_at_chunk, free_at_chunk, free_at_done, cancel_at_opened;
    struct kube_call *call, *cancel_at_chunk;
    uint64_t at_ms;
};

static inline void on_done(void *arg, const struct kube_reply *r)
{
    struct got *g = arg;

    g->done++;
    g->at_ms = loop_clock_ms();
    g->status = r->status;
    g->end = r->end;
    g->retry_after_s = r->retry_after_s;
    g->streamed = r->streamed;
    snprintf(g->body, sizeof g->body, "%.*s", (int)r->body_len, r->body ? (const char *)r->body : "");
    snprintf(g->why, sizeof g->why, "%s", r->why);
    snprintf(g->reason, sizeof g->reason, "%s", r->reason);
    if (g->free_at_done) {
        kube_http_free(http);
        http = NULL;
    }
}

static inline void on_opened(void *arg)
{
    struct got *g = arg;

    assert_int_equal(g->chunks, 0);
    g->opened++;
    if (g->cancel_at_opened)
        kube_http_cancel(g->call);
}

static inline bool on_chunk(void *arg, const uint8_t *bytes, size_t len)
{
    struct got *g = arg;
    size_t at = strlen(g->streamed_text);

    g->chunks++;
    if (g->cancel_at_chunk)
        kube_http_cancel(g->cancel_at_chunk);
    if (g->free_at_chunk) {
        kube_http_free(http);
        http = NULL;
    }
    snprintf(g->streamed_text + at, sizeof g->streamed_text - at, "%.*s", (int)len, (const char *)bytes);
    return !g->stop_at_chunk;
}

static inline int setup(void **state)
{
    struct err err;

    (void)state;
    memset(&config, 0, sizeof config);
    speed = 1;
    assert_int_equal(loop_init(&loop, &err), 0);
    peer_open(&peer, &pair);
    snprintf(config.server, sizeof config.server, "https://127.0.0.1:%d", peer.port);
    config.auth = (struct kube_auth){.server = config.server,
                                     .ca_pem = pair.cert,
                                     .ca_len = strlen(pair.cert),
                                     .token = "secret-1",
                                     .generation = 1};
    http = kube_http_new(&loop, (struct kube_config *)&config, 1000, 1000, &err);
    assert_non_null(http);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    kube_http_free(http);
    loop_done(&loop);
    peer_close(&peer);
    return 0;
}

static inline struct kube_request get(const char *path, struct got *g)
{
    return (struct kube_request){.method = "GET", .path = path, .done = on_done, .arg = g};
}

static inline struct kube_request patch(struct got *g)
{
    return (struct kube_request){.method = "PATCH",
                                 .path = "/p",
                                 .content_type = "application/apply-patch+yaml",
                                 .body = "{\"a\":1}",
                                 .body_len = 7,
                                 .done = on_done,
                                 .arg = g};
}

static inline struct kube_request stream(struct got *g)
{
    struct kube_request r = get("/watch", g);

    r.opened = on_opened;
    r.chunk = on_chunk;
    r.urgent = true;
    return r;
}

static inline void start(struct got *g, struct kube_request r)
{
    g->call = kube_http_start(http, &r);
}

/* Turns until *value is at least `least`; fails after 10 s. */
static inline void turn_until(const int *value, int least)
{
    uint64_t end_ms = loop_clock_ms() + 10000 * (uint64_t)speed;

    while (*value < least) {
        int wait = loop_wait_ms(&loop);

        loop_turn(&loop, wait < 0 || wait > 20 ? 20 : wait);
        if (loop_clock_ms() > end_ms)
            fail_msg("nothing came of it within 10 s");
    }
}

static inline void turn_for(uint64_t ms)
{
    uint64_t end_ms = loop_clock_ms() + ms;

    while (loop_clock_ms() < end_ms)
        loop_turn(&loop, 5);
}

#define OK_REPLY(body_len, body) "HTTP/1.1 200 OK\r\nContent-Length: " body_len "\r\n\r\n" body
#define HEAD_OF_STREAM           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static inline int run_calls(const struct CMUnitTest *tests, size_t count)
{
    int failed;

    signal(SIGPIPE, SIG_IGN);
    pair = make_pair("127.0.0.1");
    other = make_pair("somebody else");
    failed = _cmocka_run_group_tests("calls", tests, count, NULL, NULL);
    made_pair_free(&pair);
    made_pair_free(&other);
    return failed;
}

#endif
