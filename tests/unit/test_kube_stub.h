/* test_kube_stub.h - an API server that does what the test says, in place of kube_http.c
 * Shape:   kube_http_start keeps the request; stub_open(n) shows those without an answer; stub_answer gives one. The clock is
 *          the test's too: stub_pass moves it and turns the loop
 * Owner:   everything is freed by stub_done
 * Threads: one */
#ifndef TESTS_UNIT_TEST_KUBE_STUB_H
#define TESTS_UNIT_TEST_KUBE_STUB_H

#include "base/loop.h"
#include "base/need.h"
#include "kube/kube_http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

struct kube_call {
    TAILQ_ENTRY(kube_call) link;
    struct kube_request r;
    char *method, *path, *type, *text;
    json_t *body;
};
TAILQ_HEAD(kube_call_list, kube_call);

static struct kube_call_list stub_calls = TAILQ_HEAD_INITIALIZER(stub_calls);
static int stub_started, stub_cancelled;
static struct loop stub_loop;
static uint64_t stub_clock_ms = 5000000;

#define STUB_EPOCH_S 1767323045 /* 2026-01-02T03:04:05Z */

/* Takes libc's place. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
    uint64_t ms = stub_clock_ms;

    if (id == CLOCK_REALTIME)
        ms = stub_clock_ms - 5000000 + UINT64_C(1000) * STUB_EPOCH_S;
    ts->tv_sec = (time_t)(ms / 1000);
    ts->tv_nsec = (long)(ms % 1000) * 1000000;
    return 0;
}

static inline char *stub_copy(const void *text, size_t len)
{
    return text ? need(strndup(text, len)) : NULL;
}

struct kube_call *kube_http_start(struct kube_http *h, const struct kube_request *r)
{
    struct kube_call *c = need(calloc(1, sizeof *c));

    (void)h;
    c->r = *r;
    c->method = stub_copy(r->method, SIZE_MAX);
    c->path = stub_copy(r->path, SIZE_MAX);
    c->type = stub_copy(r->content_type, SIZE_MAX);
    c->text = stub_copy(r->body, r->body_len);
    if (r->body) {
        c->body = json_loadb(r->body, r->body_len, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(c->body);
    }
    TAILQ_INSERT_TAIL(&stub_calls, c, link);
    stub_started++;
    return c;
}

static inline void stub_free(struct kube_call *c)
{
    TAILQ_REMOVE(&stub_calls, c, link);
    json_decref(c->body);
    free(c->method);
    free(c->path);
    free(c->type);
    free(c->text);
    free(c);
}

void kube_http_cancel(struct kube_call *call)
{
    stub_cancelled++;
    stub_free(call);
}

/* The n-th call without an answer, the oldest first; NULL: no such. */
static inline struct kube_call *stub_open(int n)
{
    struct kube_call *c;

    TAILQ_FOREACH(c, &stub_calls, link)
    if (!n--)
        return c;
    return NULL;
}

static inline int stub_open_count(void)
{
    int n = 0;

    while (stub_open(n))
        n++;
    return n;
}

static inline void stub_reply(struct kube_call *c, const struct kube_reply *reply)
{
    struct kube_request r = c->r;

    stub_free(c);
    r.done(r.arg, reply);
}

/* The oldest call gets this answer. */
static inline void stub_answer(int status, const char *body)
{
    struct kube_reply reply = {.status = status, .why = "as the test says"};

    assert_non_null(stub_open(0));
    reply.end = status ? KUBE_ANSWERED : KUBE_CUT;
    reply.body = (const uint8_t *)body;
    reply.body_len = body ? strlen(body) : 0;
    stub_reply(stub_open(0), &reply);
}

/* Whoever is waited for gets a turn; nothing but tasks and what is due runs. */
static inline void stub_turn(void)
{
    for (int i = 0; i < 3; i++)
        loop_turn(&stub_loop, 0);
}

/* Time passes, a little at a time, as it does when nobody stops the process. */
static inline void stub_pass(uint64_t ms)
{
    while (ms) {
        uint64_t step = ms < 100 ? ms : 100;

        stub_clock_ms += step;
        ms -= step;
        loop_turn(&stub_loop, 0);
    }
    stub_turn();
}

static inline const char *stub_str(json_t *in, const char *key)
{
    return json_string_value(json_object_get(in, key));
}

static inline void stub_init(void)
{
    struct err err;

    assert_int_equal(loop_init(&stub_loop, &err), 0);
    stub_started = stub_cancelled = 0;
}

static inline void stub_done(void)
{
    struct kube_call *c;

    while ((c = TAILQ_FIRST(&stub_calls)))
        stub_free(c);
    loop_done(&stub_loop);
}

#endif
