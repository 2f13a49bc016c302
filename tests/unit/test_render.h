/* test_render.h - a store and what is rendered of it, for the tests of the renderer
 * Shape:   objects put into `s` -> render_run -> the text and the conditions of namespace a
 * Owner:   bench_new ... bench_free; the caller frees what text_of gives
 * Errors:  cmocka's asserts
 * Threads: one */
#ifndef TESTS_UNIT_TEST_RENDER_H
#define TESTS_UNIT_TEST_RENDER_H

#include "render.h"

#include "test_objects.h"

#define T1 "2026-01-01T00:00:00Z"
#define T2 "2026-01-02T00:00:00Z"

static const struct render_rules gateway = {.gateway = "tidegate"};

struct bench {
    struct store *s;
    struct render *r;
};

static inline struct bench bench_new(const struct render_rules *rules)
{
    struct bench b = {store_new(), render_new(rules)};

    for (int kind = 0; kind < STORE_KINDS; kind++)
        store_set_sync(b.s, (enum store_kind)kind, STORE_SYNCED, "");
    return b;
}

static inline void bench_free(struct bench *b)
{
    render_free(b->r);
    store_free(b->s);
}

/* The text without its comments: that it is the controller's, and whose each document is. */
static inline char *text_of(const struct render *r)
{
    struct buf b;
    struct err err;
    char *whole, *rest, *line, *text;
    size_t len = 0;

    buf_init(&b, SPEC_MAX_BYTES);
    assert_int_equal(render_text(r, &b, &err), 0);
    assert_int_equal(b.data[0], '#');
    rest = whole = strndup((char *)b.data, b.len);
    text = calloc(1, b.len + 1);
    while ((line = strsep(&rest, "\n")))
        if (*line && *line != '#')
            len += (size_t)snprintf(text + len, b.len + 1 - len, "%s\n", line);
    free(whole);
    buf_free(&b);
    return text;
}

static inline void assert_text(const struct bench *b, const char *expected)
{
    char *text = text_of(b->r);

    assert_string_equal(text, expected);
    free(text);
}

static inline void assert_has(const struct bench *b, const char *part, bool there)
{
    char *text = text_of(b->r);

    if (!strstr(text, part) == there)
        fail_msg("%s %s: %s", there ? "no" : "there is", part, text);
    free(text);
}

/* "True/Accepted", "False/Invalid: MESSAGE" */
static inline void assert_accepted(const struct bench *b, const char *name, const char *expected)
{
    const struct render_condition *c = &render_find(b->r, "a", name)->accepted;
    char got[1024];

    snprintf(got, sizeof got, c->status == WSS_TRUE ? "%s/%s" : "%s/%s: %s", wss_status_label(c->status),
             c->reason, c->message);
    assert_string_equal(got, expected);
}

static inline void assert_resolved(const struct bench *b, const char *name, const char *expected)
{
    const struct render_condition *c = &render_find(b->r, "a", name)->resolved;
    char got[1024];

    snprintf(got, sizeof got, "%s/%s: %s", wss_status_label(c->status), c->reason, c->message);
    if (strncmp(got, expected, strlen(expected)) != 0)
        assert_string_equal(got, expected);
}

static inline void put_pair(struct bench *b, const char *ns, const char *name, const char *cert64,
                            const char *key64)
{
    PUT(b->s, STORE_SECRETS,
        "{'metadata':{'namespace':'%s','name':'%s'},'type':'kubernetes.io/"
        "tls','data':{'tls.crt':'%s','tls.key':'%s'}}",
        ns, name, cert64, key64);
}

static inline void put_service(struct bench *b, const char *ns, const char *name, const char *endpoints)
{
    PUT(b->s, STORE_SERVICES,
        "{'metadata':{'namespace':'%s','name':'%s'},'spec':{'ports':[{'name':'web','port':3001},{'name':'u','"
        "port':53,"
        "'protocol':'UDP'}]}}",
        ns, name);
    PUT(b->s, STORE_SLICES,
        "{'metadata':{'namespace':'%s','name':'%s-1','labels':{'kubernetes.io/"
        "service-name':'%s'}},'addressType':"
        "'IPv4','ports':[{'name':'other','port':1},{'name':'web','port':8080}],'endpoints':[%s]}",
        ns, name, name, endpoints);
}

#endif
