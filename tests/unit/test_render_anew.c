#include "render.h"

#include "test_objects.h"

static const struct render_rules gateway = {.gateway = "tidegate"};

static void put(struct store *s, const char *uid, const char *backend)
{
    PUT(s, STORE_WSS,
        "{'metadata':{'namespace':'a','name':'x','uid':'%s','generation':1,"
        "'creationTimestamp':'2026-01-01T00:00:00Z'},'spec':{'port':10020,'backend':'%s'}}",
        uid, backend);
}

/* DELETED and ADDED may come within one pass: it must not depend on their pace what is served. */
static void an_object_made_anew_inherits_nothing_from_the_deleted_one(void **state)
{
    struct store *s = store_new();
    struct render *r = render_new(&gateway);

    (void)state;
    for (int kind = 0; kind < STORE_KINDS; kind++)
        store_set_sync(s, (enum store_kind)kind, STORE_SYNCED, "");
    put(s, "u-1", "ws://h.x:1");
    assert_true(render_run(r, s));
    assert_true(render_at(r, 0)->served);

    drop(s, STORE_WSS, "a", "x");
    put(s, "u-2", "ws://nosuch:1");
    assert_true(render_run(r, s));
    assert_false(render_at(r, 0)->served);

    put(s, "u-3", "ws://h.x:1"); /* the DELETED was missed: a list after an outage */
    assert_true(render_run(r, s));
    assert_true(render_at(r, 0)->served && render_at(r, 0)->newest);
    put(s, "u-3", "ws://h.x:1");
    put(s, "u-4", "ftp://h.x:1");
    assert_true(render_run(r, s));
    assert_false(render_at(r, 0)->served);
    render_free(r);
    store_free(s);
}

static struct store *synced(void)
{
    struct store *s = store_new();

    for (int kind = 0; kind < STORE_KINDS; kind++)
        store_set_sync(s, (enum store_kind)kind, STORE_SYNCED, "");
    return s;
}

/* What a process with this object left behind, for the next one. */
static void leave(const char *uid, struct buf *text)
{
    struct store *s = synced();
    struct render *r = render_new(&gateway);
    struct err err;

    put(s, uid, "ws://h.x:1");
    assert_true(render_run(r, s));
    buf_init(text, SPEC_MAX_BYTES);
    assert_int_equal(render_text(r, text, &err), 0);
    render_free(r);
    store_free(s);
}

static void assert_recalled(const struct buf *text, const char *uid, bool served)
{
    struct store *s = synced();
    struct render *r = render_new(&gateway);
    struct err err;

    assert_int_equal(render_recall(r, text->data, text->len, &err), 0);
    put(s, uid, "ws://nosuch:1");
    assert_true(render_run(r, s));
    assert_int_equal(render_at(r, 0)->served, served);
    assert_false(render_at(r, 0)->newest);
    render_free(r);
    store_free(s);
}

/* Deleted and made again while no controller ran: what the file holds is not the new object's. */
static void a_recalled_document_is_the_same_objects_only(void **state)
{
    struct buf text;

    (void)state;
    leave("5f0c-1", &text);
    assert_recalled(&text, "5f0c-1", true);
    assert_recalled(&text, "5f0c-2", false);
    buf_free(&text);
}

/* S45: nothing of a UID that the API server would never give gets into the file. */
static void a_uid_that_is_none_is_not_written_down(void **state)
{
    struct buf text;

    (void)state;
    leave("u\\n---\\nkind", &text);
    assert_null(memmem(text.data, text.len, "# uid", 5));
    assert_null(memmem(text.data, text.len, "\n---\nkind\n", 10));
    buf_free(&text);
}

/* A file of somebody who wrote no UIDs. */
static void a_recalled_document_without_a_uid_is_the_objects_of_its_name(void **state)
{
    static const char text[] =
        "---\nkind: WebSocketServer\nname: \"a/x\"\nport: 10020\nbackend: \"ws://h.x:1\"\n";
    struct store *s = store_new();
    struct render *r = render_new(&gateway);
    struct err err;

    (void)state;
    for (int kind = 0; kind < STORE_KINDS; kind++)
        store_set_sync(s, (enum store_kind)kind, STORE_SYNCED, "");
    assert_int_equal(render_recall(r, (const uint8_t *)text, sizeof text - 1, &err), 0);
    put(s, "u-1", "ws://nosuch:1");
    assert_true(render_run(r, s));
    assert_true(render_at(r, 0)->served);
    assert_false(render_at(r, 0)->newest);
    render_free(r);
    store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_object_made_anew_inherits_nothing_from_the_deleted_one),
        cmocka_unit_test(a_recalled_document_is_the_same_objects_only),
        cmocka_unit_test(a_uid_that_is_none_is_not_written_down),
        cmocka_unit_test(a_recalled_document_without_a_uid_is_the_objects_of_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
