#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_text(const struct buf *b, const char *text)
{
    assert_int_equal(b->len, strlen(text));
    assert_memory_equal(b->data, text, b->len);
}

static void commas_and_keys_stand_where_they_belong(void **state)
{
    struct buf b;
    struct json j;

    (void)state;
    buf_init(&b, 4096);
    json_init(&j, &b);
    json_open(&j, NULL, '{');
    json_num(&j, "n", UINT64_MAX);
    json_open(&j, "empty", '[');
    json_close(&j, ']');
    json_open(&j, "list", '[');
    json_bool(&j, NULL, true);
    json_bool(&j, NULL, false);
    json_open(&j, NULL, '{');
    json_close(&j, '}');
    json_str(&j, NULL, NULL);
    json_close(&j, ']');
    json_time(&j, "never", 0);
    json_time(&j, "then", 1763964520);
    json_close(&j, '}');
    assert_false(j.failed);
    assert_text(&b, "{\"n\":18446744073709551615,\"empty\":[],\"list\":[true,false,{},null],"
                    "\"never\":null,\"then\":\"2025-11-24T06:08:40Z\"}");
    buf_free(&b);
}

static void untrusted_bytes_are_escaped(void **state)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"", "\"\""},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
        {"\x01\x1f\t\n\x7f", "\"\\u0001\\u001f\\u0009\\u000a\\u007f\""},
        {"gr\xc3\xbc\xe2\x82\xac\xf0\x9f\x8c\x8a", "\"gr\xc3\xbc\xe2\x82\xac\xf0\x9f\x8c\x8a\""},
        /* A C1 control is one character; NEL is one of them, and U+00A0 is none. */
        {"\xc2\x80\xc2\x85\xc2\x9f\xc2\xa0", "\"\\u0080\\u0085\\u009f\xc2\xa0\""},
        /* Not UTF-8: each byte for itself. */
        {"\xff\xc0\x80", "\"\\u00ff\\u00c0\\u0080\""},
        {"\xc2", "\"\\u00c2\""},
        {"\xe2\x82", "\"\\u00e2\\u0082\""},
        {"\xed\xa0\x80", "\"\\u00ed\\u00a0\\u0080\""},
        {"\xf4\x90\x80\x80", "\"\\u00f4\\u0090\\u0080\\u0080\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b;
        struct json j;

        buf_init(&b, 4096);
        json_init(&j, &b);
        json_str(&j, NULL, cases[i].text);
        assert_false(j.failed);
        assert_text(&b, cases[i].json);
        buf_free(&b);
    }
}

static void a_full_buffer_is_remembered(void **state)
{
    struct buf b;
    struct json j;

    (void)state;
    buf_init(&b, 8);
    json_init(&j, &b);
    json_open(&j, NULL, '[');
    json_str(&j, NULL, "too long for it");
    json_num(&j, NULL, 1);
    assert_true(j.failed);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_and_keys_stand_where_they_belong),
        cmocka_unit_test(untrusted_bytes_are_escaped),
        cmocka_unit_test(a_full_buffer_is_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
