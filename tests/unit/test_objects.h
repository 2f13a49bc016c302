/* test_objects.h - objects of the API server for the tests of the controller, from short texts
 * Shape:   JSON with ' for " -> json_t; store_put of it
 * Owner:   the caller decrefs what object_of gives
 * Errors:  cmocka's asserts
 * Threads: one */
#ifndef TESTS_UNIT_TEST_OBJECTS_H
#define TESTS_UNIT_TEST_OBJECTS_H

#include "store.h"

#include "test_spec_pem.h"

#include <stdio.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

__attribute__((format(printf, 1, 2))) static inline json_t *object_of(const char *fmt, ...)
{
    json_error_t error;
    json_t *object;
    char *text;
    va_list ap;

    va_start(ap, fmt);
    assert_true(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    for (char *p = text; *p; p++)
        if (*p == '\'')
            *p = '"';
    object = json_loads(text, 0, &error);
    if (!object)
        fail_msg("%s: %s", error.text, text);
    free(text);
    return object;
}

static inline bool put_json(struct store *s, enum store_kind kind, json_t *object)
{
    bool changed = store_put(s, kind, object);

    json_decref(object);
    return changed;
}
#define PUT(s, kind, ...) put_json((s), (kind), object_of(__VA_ARGS__))

static inline bool drop(struct store *s, enum store_kind kind, const char *ns, const char *name)
{
    json_t *object = object_of("{'metadata':{'namespace':'%s','name':'%s'}}", ns, name);
    bool changed = store_drop(s, kind, object);

    json_decref(object);
    return changed;
}

/* spec without its braces */
#define WSS_OF(ns, name, generation, created, spec)                                                          \
    "{'metadata':{'namespace':'" ns "','name':'" name "','uid':'u-" name "','resourceVersion':'1',"          \
    "'creationTimestamp':'" created "','generation':" #generation "},'spec':{" spec "}}"

#endif
