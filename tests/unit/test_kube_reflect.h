/* test_kube_reflect.h - a reflector of "things" with a scripted server before it and a sink that writes down behind it
 * Shape:   asked_*(path) says what must be asked for next, answer_*() what comes back, sunk(text) what the sink was told since:
 *          "[" begin, "+name" put, "-name" drop, "]" end, a state by its name
 * Units:   *_ms of the stub's clock
 * Owner:   begin_test ... end_test
 * Threads: one */
#ifndef TESTS_UNIT_TEST_KUBE_REFLECT_H
#define TESTS_UNIT_TEST_KUBE_REFLECT_H

#include "base/cleanup.h"
#include "test_kube_stub.h"

#include "kube/kube_reflect.h"

#define THINGS "/apis/g.dev/v1/things"
/* timeoutSeconds is checked apart and stands as T. */
#define WATCH(rv) THINGS "?watch=1&resourceVersion=" rv "&allowWatchBookmarks=true&timeoutSeconds=T"

static struct kube_reflect *r;
static char sunk_text[8192];
static size_t sunk_len;
static unsigned watch_seconds;

__attribute__((format(printf, 1, 2))) static inline void sink_note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    sunk_len += (size_t)vsnprintf(sunk_text + sunk_len, sizeof sunk_text - sunk_len, fmt, ap);
    va_end(ap);
    assert_true(sunk_len < sizeof sunk_text);
}

static inline void on_begin(void *arg)
{
    assert_ptr_equal(arg, sunk_text);
    sink_note("[ ");
}

static inline void on_put(void *arg, json_t *object)
{
    json_t *meta = json_object_get(object, "metadata");
    const char *uid = stub_str(meta, "uid");

    assert_ptr_equal(arg, sunk_text);
    sink_note("+%s%s%s ", stub_str(meta, "name"), uid ? "/" : "", uid ? uid : "");
}

static inline void on_drop(void *arg, json_t *object)
{
    json_t *meta = json_object_get(object, "metadata");
    const char *uid = stub_str(meta, "uid");

    (void)arg;
    sink_note("-%s%s%s ", stub_str(meta, "name"), uid ? "/" : "", uid ? uid : "");
}

static inline void on_end(void *arg)
{
    (void)arg;
    sink_note("] ");
}

static inline void on_state(void *arg, enum kube_reflect_state state, const char *why)
{
    static const char *const names[] = {"waiting", "synced", "forbidden", "absent"};

    (void)arg;
    assert_true((state == KUBE_REFLECT_SYNCED) == !*why);
    sink_note("%s ", names[state]);
}

static inline void begin_kind(const struct kube_kind *kind, const char *ns)
{
    const struct kube_sink sink = {on_begin, on_put, on_drop, on_end, on_state, sunk_text};

    stub_init();
    sunk_text[0] = '\0';
    sunk_len = 0;
    r = kube_reflect_new(NULL, &stub_loop, kind, ns, &sink);
    assert_int_equal(stub_open_count(), 0);
    stub_turn();
}

static inline void begin_test(void)
{
    begin_kind(&(struct kube_kind){.group = "g.dev", .version = "v1", .plural = "things"}, NULL);
}

static inline void end_test(void)
{
    kube_reflect_free(r);
    assert_int_equal(stub_open_count(), 0);
    stub_turn();
    stub_done();
}

/* What the sink was told since it was asked last. */
static inline void sunk(const char *wanted)
{
    assert_string_equal(sunk_text, wanted);
    sunk_text[0] = '\0';
    sunk_len = 0;
}

static inline void check_watch(const struct kube_request *request, char *path)
{
    char *seconds = strstr(path, "timeoutSeconds=");

    assert_non_null(seconds);
    seconds += strlen("timeoutSeconds=");
    watch_seconds = (unsigned)strtoul(seconds, NULL, 10);
    assert_in_range(watch_seconds, 300, 600);
    memmove(seconds + 1, seconds + 3, strlen(seconds + 3) + 1);
    *seconds = 'T';
    assert_int_equal(request->timeout_ms, (watch_seconds + 30) * 1000);
    assert_int_equal(request->idle_ms, KUBE_REFLECT_IDLE_MS);
    assert_true(request->urgent);
}

/* Right now, without time passing: one request, this one. */
static inline void asked(const char *path)
{
    struct kube_call *c = stub_open(0);
    char *seen;

    assert_non_null(c);
    assert_int_equal(stub_open_count(), 1);
    assert_string_equal(c->method, "GET");
    seen = need(strdup(c->path));
    if (c->r.chunk)
        check_watch(&c->r, seen);
    else
        assert_int_equal(c->r.max_bytes, KUBE_REFLECT_PAGE_BYTES);
    assert_string_equal(seen, path);
    free(seen);
}

/* After a wait of least_ms to most_ms (and a tick of the loop). */
static inline void asked_after(uint64_t least_ms, uint64_t most_ms, const char *path)
{
    uint64_t from_ms = stub_clock_ms;

    assert_null(stub_open(0));
    while (!stub_open(0) && stub_clock_ms - from_ms < most_ms + 2 * LOOP_TICK_MS) {
        stub_clock_ms += 8;
        loop_turn(&stub_loop, 0);
    }
    assert_non_null(stub_open(0));
    assert_in_range(stub_clock_ms - from_ms, least_ms, most_ms + 2 * LOOP_TICK_MS);
    asked(path);
}

/* The wait after the n-th failure in a row, from 0. */
static inline void asked_after_failure(unsigned n, const char *path)
{
    uint64_t base = n < 6 ? UINT64_C(800) << n : 30000;

    asked_after(base, 2 * base, path);
}

static inline void asked_much_later(const char *path)
{
    asked_after(30000, 60000, path);
}

/* "a b" at `rv`; more NULL: the last page. */
static inline void answer_page(const char *rv, const char *more, const char *names)
{
    cleanup_free char *left = need(strdup(names)), *body = NULL;
    char *rest = left, *name;
    json_t *list = json_pack("{s:s, s:{s:s, s:s*}, s:[]}", "kind", "ThingList", "metadata", "resourceVersion",
                             rv, "continue", more, "items");

    while ((name = strsep(&rest, " ")))
        if (*name)
            json_array_append_new(
                json_object_get(list, "items"),
                json_pack("{s:{s:s, s:s}}", "metadata", "name", name, "resourceVersion", "1"));
    body = json_dumps(list, 0);
    json_decref(list);
    stub_answer(200, body);
}

static inline void answer_end(enum kube_end end, int status, uint32_t retry_after_s, const char *why)
{
    struct kube_reply reply = {.end = end, .status = status, .retry_after_s = retry_after_s};

    snprintf(reply.why, sizeof reply.why, "%s", why);
    assert_non_null(stub_open(0));
    stub_reply(stub_open(0), &reply);
}

/* The server has begun to answer the watch. */
static inline void opened(void)
{
    struct kube_call *c = stub_open(0);

    assert_non_null(c);
    assert_non_null(c->r.opened);
    c->r.opened(c->r.arg);
}

/* Bytes of the watch; the server's side ends when the receiver says so, as kube_http does. */
static inline void stream(const char *text)
{
    struct kube_call *c = stub_open(0);

    assert_non_null(c);
    assert_non_null(c->r.chunk);
    if (!c->r.chunk(c->r.arg, (const uint8_t *)text, strlen(text)))
        answer_end(KUBE_TOO_LARGE, 200, 0, "enough");
}

#define EVENT(type, name, rv)                                                                                \
    "{\"type\":\"" type "\",\"object\":{\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"" rv       \
    "\"}}}\n"
#define BOOKMARK(rv)                                                                                         \
    "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Thing\",\"apiVersion\":\"g.dev/v1\",\"metadata\":{"       \
    "\"resourceVersion\":\"" rv "\"}}}\n"
#define ERROR(fields)                                                                                        \
    "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"metadata\":{},\"status\":\"Failure\"," fields     \
    "}}\n"

/* Up to a watch from version 10 with a and b known. */
static inline void begin_watched(void)
{
    begin_test();
    asked(THINGS "?limit=500");
    answer_page("10", NULL, "a b");
    asked(WATCH("10"));
    sunk("[ +a +b ] synced ");
}

static inline uint64_t restarts(enum kube_reflect_cause cause)
{
    return kube_reflect_counts(r)->restarts[cause];
}

#endif
