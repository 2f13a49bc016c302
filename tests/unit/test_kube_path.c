/* test_kube_path.c - which names may stand in a URL, and the URLs made of them */
#include "kube/kube_path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FILL(text, c, n)                                                                                     \
    do {                                                                                                     \
        memset(text, c, n);                                                                                  \
        (text)[n] = '\0';                                                                                    \
    } while (0)

static void names_of_objects_are_subdomains(void **state)
{
    static const char *const good[] = {"a", "a-b", "0", "a.b", "kube-root-ca.crt", "a.0-1.z", "x--y"};
    static const char *const bad[] = {"",    "-",    "a-",   "-a",   "a..b",      ".a",   "a.",
                                      "A",   "../x", "a/b",  "a%2f", "a b",       "a\nb", "\xc3",
                                      "a_b", "a.-b", "a-.b", "*",    "..",        ".",    "a?",
                                      "a#b", "a\\b", "a\tb", "a:b",  "kube:name", "a\x7f"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!kube_path_name_ok(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (kube_path_name_ok(bad[i]))
            fail_msg("taken: %s", bad[i]);
}

static void lengths_hold_to_the_byte(void **state)
{
    char text[300];

    (void)state;
    FILL(text, 'a', 63);
    assert_true(kube_path_label_ok(text));
    FILL(text, 'a', 64);
    assert_false(kube_path_label_ok(text));
    assert_true(kube_path_name_ok(text));
    FILL(text, 'a', 253);
    assert_true(kube_path_name_ok(text));
    FILL(text, 'a', 254);
    assert_false(kube_path_name_ok(text));
}

static void a_label_has_no_dots(void **state)
{
    (void)state;
    assert_true(kube_path_label_ok("default"));
    assert_false(kube_path_label_ok("a.b"));
    assert_false(kube_path_label_ok(""));
    assert_false(kube_path_label_ok("Default"));
}

static void urls_are_those_of_the_api(void **state)
{
    static const struct {
        const char *group, *version, *ns, *plural, *name, *sub, *path;
    } cases[] = {
        {"", "v1", NULL, "secrets", NULL, NULL, "/api/v1/secrets"},
        {"", "v1", "shop", "services", "web", NULL, "/api/v1/namespaces/shop/services/web"},
        {"tidegate.dev", "v1alpha1", "shop", "websocketservers", "chat", "status",
         "/apis/tidegate.dev/v1alpha1/namespaces/shop/websocketservers/chat/status"},
        {"discovery.k8s.io", "v1", NULL, "endpointslices", NULL, NULL,
         "/apis/discovery.k8s.io/v1/endpointslices"},
        {"a/..", "v?1", NULL, "x y", NULL, NULL, "/apis/a%2F../v%3F1/x%20y"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = kube_path(cases[i].group, cases[i].version, cases[i].ns, cases[i].plural, cases[i].name,
                               cases[i].sub);

        assert_string_equal(path, cases[i].path);
        free(path);
    }
}

static void query_values_are_escaped(void **state)
{
    char *path = kube_path("", "v1", NULL, "secrets", NULL, NULL);

    (void)state;
    kube_path_query(&path, "limit", "500");
    kube_path_query(&path, "continue", "a+b/c==&watch=1");
    kube_path_query(&path, "fieldSelector", "type!=x,metadata.name=\xc3\xa4");
    assert_string_equal(path, "/api/v1/secrets?limit=500&continue=a%2Bb%2Fc%3D%3D%26watch%3D1"
                              "&fieldSelector=type%21%3Dx%2Cmetadata.name%3D%C3%A4");
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_objects_are_subdomains),
        cmocka_unit_test(lengths_hold_to_the_byte),
        cmocka_unit_test(a_label_has_no_dots),
        cmocka_unit_test(urls_are_those_of_the_api),
        cmocka_unit_test(query_values_are_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
