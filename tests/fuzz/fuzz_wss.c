#include "render.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (so)
        return;
    fprintf(stderr, "fuzz_wss: %s\n", what);
    abort();
}

static void render(struct store *s)
{
    const struct render_rules rules = {.gateway = "tidegate"};
    struct render *r = render_new(&rules);
    struct buf text;
    struct err err;
    size_t served = 0;

    buf_init(&text, SPEC_MAX_BYTES);
    (void)render_run(r, s);
    must(render_count(r) == store_count(s), "another number of verdicts");
    must(!render_run(r, s), "the text changed without a change");
    must(!render_text(r, &text, &err), err.msg);
    for (size_t i = 0; i < render_count(r); i++) {
        const struct render_verdict *v = render_at(r, i);

        served += v->served;
        must(v->part == RENDER_NOT_OURS || (v->accepted.message && v->accepted.reason && v->resolved.message),
             "a verdict without words");
    }
    must(!served || text.len > 80, "served and not written");
    buf_free(&text);
    render_free(r);
}

/* Any JSON as an object of any kind, beside a good WebSocketServer. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char good[] = "{\"metadata\":{\"namespace\":\"a\",\"name\":\"good\"},\"spec\":{\"port\":1,"
                               "\"backend\":\"ws://chat:80\"}}";
    json_t *object = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    json_t *beside = json_loads(good, 0, NULL);
    struct store *s = store_new();

    if (!object || !beside) {
        json_decref(object);
        json_decref(beside);
        store_free(s);
        return 0;
    }
    for (int kind = 0; kind < STORE_KINDS; kind++) {
        store_set_sync(s, (enum store_kind)kind, STORE_SYNCED, "");
        (void)store_put(s, (enum store_kind)kind, object);
        must(!store_put(s, (enum store_kind)kind, object) || kind == STORE_WSS,
             "the same object is a change");
    }
    (void)store_put(s, STORE_WSS, beside);
    render(s);
    for (int kind = 0; kind < STORE_KINDS; kind++)
        (void)store_drop(s, (enum store_kind)kind, object);
    render(s);
    json_decref(object);
    json_decref(beside);
    store_free(s);
    return 0;
}
