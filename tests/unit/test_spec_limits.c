#include "spec/spec.h"

#include "test_spec_text.h"

#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLOWDOWN 20
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLOWDOWN 20
#endif
#endif
#ifndef SLOWDOWN
#define SLOWDOWN 1
#endif

static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* The highest resident size since the last begin_peak. getrusage would remember the texts of earlier tests. */
static long peak_kib(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    long kib = -1;

    assert_non_null(f);
    while (kib < 0 && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6))
            kib = strtol(line + 6, NULL, 10);
    fclose(f);
    assert_true(kib > 0);
    return kib;
}

static long begin_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "we");

    assert_non_null(f);
    fputs("5", f);
    assert_int_equal(fclose(f), 0);
    return peak_kib();
}

/* S52: refused within 100 ms and 16 MiB. */
static void assert_refused_cheaply(const char *what, const char *text, size_t len, const char *because)
{
    struct spec_problems p = {0};
    struct spec s;
    double begin = cpu_ms();
    long before = begin_peak();

    assert_int_equal(spec_parse((const uint8_t *)text, len, &s, &p), -1);
    if (cpu_ms() - begin > 100 * SLOWDOWN)
        fail_msg("%s took %.0f ms", what, cpu_ms() - begin);
    if (peak_kib() - before > 16 * 1024 * (SLOWDOWN > 1 ? 4 : 1))
        fail_msg("%s took %ld KiB", what, peak_kib() - before);
    assert_true(p.count >= 1);
    if (!strstr(p.items[p.count - 1].text, because))
        fail_msg("%s: %s", what, p.items[p.count - 1].text);
    spec_problems_free(&p);
}

static char *repeated(const char *head, const char *text, size_t times, size_t *len)
{
    size_t n = strlen(text), h = strlen(head);
    char *all = malloc(h + n * times + 1);

    assert_non_null(all);
    memcpy(all, head, h);
    for (size_t i = 0; i < times; i++)
        memcpy(all + h + i * n, text, n);
    *len = h + n * times;
    all[*len] = '\0';
    return all;
}

static void refuses_bombs_cheaply(void **state)
{
    static const struct {
        const char *what, *head, *text;
        size_t times;
        const char *because;
    } bombs[] = {
        {"100 MiB", "", "0123456789abcde\n", 100u * 65536, "too many"},
        {"depth in flow", "a: ", "[", 100000, "nested deeper than 8"},
        {"depth in mappings", "a: ", "{a: ", 100000, "nested deeper than 8"},
        {"depth in blocks", "a:\n ", "- ", 100000, "nested deeper than 8"},
        {"depth in keys", "", "? ", 100000, "nested deeper than 8"},
        {"one long scalar", "a: ", "0123456789abcdef", 60u * 65536, "more than 2097152 bytes"},
        {"one long quoted scalar", "a: \"", "0123456789 \\u0041", 60u * 65536, "more than 2097152 bytes"},
        {"one long comment", "# ", "0123456789abcdef", 60u * 65536, "more than 2097152 bytes"},
        {"many blank lines", "", "\n", 60u * 1024 * 1024, "more than 2097152 bytes"},
        {"a long list", BASE "allowedOrigins:\n", "- https://a\n", 1000000, "more than 256 items"},
        {"a long unknown list", BASE "x:\n", "- a\n", 1000000, "more than 8192 values"},
        {"many unknown keys", BASE, "x: y\n", 1000000, "unknown key"},
        {"many headers", BASE "headers:\n  set:\n", "    X: y\n", 1000000, "more than 256 headers"},
        {"many documents", "", "---\n", 1000000, "more than 4096 documents"},
        {"many aliases", BASE "headers: &a {set: {X: y}}\nx: [", "*a,", 1000000, "more than 8192 values"},
        {"many anchors", BASE "allowedOrigins: [", "&a b,", 1000000, "more than 256 items"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(bombs); i++) {
        size_t len;
        char *text = repeated(bombs[i].head, bombs[i].text, bombs[i].times, &len);

        assert_refused_cheaply(bombs[i].what, text, len, bombs[i].because);
        free(text);
    }
}

/* The classic of nine levels; none of it is expanded. */
static void refuses_the_alias_bomb(void **state)
{
    char *text = join("a0: &a0 [x,x,x,x,x,x,x,x,x]\n", "");

    (void)state;
    for (int i = 1; i < 20; i++) {
        char *line = text_of("a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1, i - 1,
                             i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
        char *longer = join(text, line);

        free(line);
        free(text);
        text = longer;
    }
    assert_refused_cheaply("alias bomb", text, strlen(text), "kind: missing");
    free(text);
}

static void does_not_read_a_file_above_the_limit(void **state)
{
    char *path = temp_file("kind: WebSocketServer\n");
    struct spec_problems p = {0};
    struct spec s;
    double begin = cpu_ms();
    long before = begin_peak();

    (void)state;
    assert_int_equal(truncate(path, 100 * 1024 * 1024), 0);
    assert_int_equal(spec_load(path, &s, &p), -1);
    assert_true(cpu_ms() - begin < 100);
    assert_true(peak_kib() - before < 16 * 1024);
    assert_string_equal(p.items[0].text, "cannot read it: larger than 67108864 bytes");
    spec_problems_free(&p);
    unlink(path);
    free(path);
}

static void cuts_a_flood_of_problems(void **state)
{
    size_t len;
    char *text = repeated(BASE, "x: y\n", 5000, &len), *printed = problems_of(text, len, NULL);

    (void)state;
    assert_non_null(strstr(printed, "F: more than 1000 problems; the rest is not shown\n"));
    free(printed);
    free(text);
}

static void takes_as_many_servers_as_promised_and_no_more(void **state)
{
    for (unsigned n = SPEC_MAX_SERVERS; n <= SPEC_MAX_SERVERS + 1; n++) {
        char *text = NULL, *printed;
        size_t size;
        FILE *to = open_memstream(&text, &size);

        (void)state;
        for (unsigned i = 0; i < n; i++)
            fprintf(to, "---\nkind: WebSocketServer\nname: ns/s%u\nport: %u\nbackend: ws://b\n", i, i + 1);
        fclose(to);
        printed = problems_of(text, size, NULL);
        if (n > SPEC_MAX_SERVERS)
            assert_non_null(strstr(printed, "more than 4096 documents"));
        else
            assert_string_equal(printed, "");
        free(printed);
        free(text);
    }
}

static void loads_a_thousand_servers_with_certificates_within_a_second(void **state)
{
    struct made_pair a = make_pair("a");
    char *text = NULL, *printed;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    struct spec s;
    double begin;

    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        fprintf(to,
                "---\nkind: WebSocketServer\nname: ns/s%u\nport: %u\nbackend: ws://b\nhttps: "
                "true\ncertBase64: %s\n"
                "keyBase64: %s\n",
                i, i + 1, a.cert64, a.key64);
    fclose(to);
    begin = cpu_ms();
    printed = loaded(text, &s);
    print_message("1,000 servers: %.0f ms of CPU\n", cpu_ms() - begin);
    assert_true(cpu_ms() - begin < 1000 * SLOWDOWN);
    assert_string_equal(printed, "");
    assert_int_equal(s.count, 1000);
    spec_free(&s);
    free(printed);
    free(text);
    made_pair_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bombs_cheaply),
        cmocka_unit_test(refuses_the_alias_bomb),
        cmocka_unit_test(does_not_read_a_file_above_the_limit),
        cmocka_unit_test(cuts_a_flood_of_problems),
        cmocka_unit_test(takes_as_many_servers_as_promised_and_no_more),
        cmocka_unit_test(loads_a_thousand_servers_with_certificates_within_a_second),
    };

    return cmocka_run_group_tests_name("spec_limits", tests, NULL, NULL);
}
