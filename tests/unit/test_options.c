#include "options.h"

#include <getopt.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h> /* cmocka.h needs these before it */

#include <cmocka.h>

#define COUNT(a)  (sizeof(a) / sizeof *(a))
#define MAX_WORDS 140
#define LONGEST   "a23456789-123456789-123456789-123456789-123456789-123456789-123"

/* What the command line comes to; *said is what stderr was told, and the caller's to free. */
static struct options parse_all(const char *const *words, size_t count, char **said)
{
    char *argv[MAX_WORDS + 2] = {(char *)(uintptr_t) "tidegate-controller"};
    FILE *before = stderr;
    struct options o;
    size_t size;

    assert_true(count <= MAX_WORDS);
    for (size_t i = 0; i < count; i++)
        argv[i + 1] = (char *)(uintptr_t)words[i];
    optind = 0; /* glibc: from the first argument */
    *said = NULL;
    stderr = open_memstream(said, &size);
    assert_non_null(stderr);
    o = options_parse((int)count + 1, argv);
    fclose(stderr);
    stderr = before;
    return o;
}
#define PARSE(said, ...)                                                                                     \
    parse_all((const char *const[]){__VA_ARGS__}, COUNT(((const char *const[]){__VA_ARGS__})), (said))

static void assert_names(const struct options_namespaces *n, const char *expected)
{
    char got[256] = "";

    for (size_t i = 0; i < n->count; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i ? " " : "", n->names[i]);
    assert_string_equal(got, expected);
}

static void assert_taken(const struct options *o, char *said, const char *namespaces, const char *secrets)
{
    if (o->exit || *said)
        fail_msg("exit %d, code %d: %s", o->exit, o->exit_code, said);
    free(said);
    assert_names(&o->namespaces, namespaces);
    assert_names(options_secrets(o), secrets);
}

static void secrets_are_read_where_objects_are_unless_their_namespaces_are_named(void **state)
{
    char *said;
    struct options o = PARSE(&said, "--log-level", "info");

    (void)state;
    assert_taken(&o, said, "", "");
    o = PARSE(&said, "--namespace", "shop", "--namespace=chat");
    assert_taken(&o, said, "shop chat", "shop chat");
    o = PARSE(&said, "--secret-namespace", "vault");
    assert_taken(&o, said, "", "vault");
    o = PARSE(&said, "--secret-namespace", "vault", "--namespace", "shop", "--secret-namespace=shop");
    assert_taken(&o, said, "shop", "vault shop");
    o = PARSE(&said, "--namespace", "shop", "--secret-namespace", LONGEST, "--mode", "gateway");
    assert_taken(&o, said, "shop", LONGEST);
}

static void a_namespace_that_is_named_twice_is_one(void **state)
{
    char *said;
    struct options o = PARSE(&said, "--secret-namespace", "vault", "--secret-namespace", "v", "--namespace",
                             "vault", "--secret-namespace", "vault", "--namespace", "vault");

    (void)state;
    assert_taken(&o, said, "vault", "vault v");
}

static void all_are_included_where_none_is_named(void **state)
{
    struct options_namespaces in = {{"shop", "chat"}, 2};

    (void)state;
    assert_true(options_includes(NULL, "any"));
    assert_true(options_includes(&(struct options_namespaces){{NULL}, 0}, "any"));
    assert_true(options_includes(&in, "shop"));
    assert_true(options_includes(&in, "chat"));
    assert_false(options_includes(&in, "cha"));
    assert_false(options_includes(&in, "chats"));
}

#define NO_NAMESPACE ": no name of a namespace; use lower case letters, digits and '-'\n"

static void what_is_no_namespace_is_refused_in_words(void **state)
{
    static const char *const flags[] = {"--namespace", "--secret-namespace"};
    static const char *const wrong[] = {"",        "Vault",  "a.b",  "a,b",        "*",    "-a",
                                        "a-",      "a b",    "a/b",  LONGEST "4",  "\303", "vault\n",
                                        "--vault", "*vault", "a\tb", "kube_system"};

    (void)state;
    for (size_t i = 0; i < COUNT(flags); i++)
        for (size_t j = 0; j < COUNT(wrong); j++) {
            char *said, *expected;
            struct options o = PARSE(&said, flags[i], wrong[j]);

            assert_true(o.exit);
            assert_int_equal(o.exit_code, 2);
            assert_true(asprintf(&expected, "tidegate-controller: %s %s" NO_NAMESPACE, flags[i], wrong[j]) >
                        0);
            assert_string_equal(said, expected);
            free(expected);
            free(said);
        }
}

static void flags_that_do_not_go_together_are_refused_in_words(void **state)
{
    static const struct {
        const char *words[8], *said;
    } cases[] = {
        {{"--secret-namespace"},
         "tidegate-controller: option '--secret-namespace' requires an argument\n"
         "Try `tidegate-controller --help`.\n"},
        {{"--secret-namespace", "vault", "shop"},
         "tidegate-controller: shop: unexpected; every argument is a flag, see --help\n"},
        {{"--mode", "sidecar", "--pod-labels", "f", "--secret-namespace", "vault"},
         "tidegate-controller: --secret-namespace: a sidecar reads no Secrets; mount them, see "
         "--secrets-dir\n"},
        {{"--mode", "sidecar", "--pod-labels", "f", "--namespace", "a", "--namespace", "b"},
         "tidegate-controller: --namespace: a sidecar watches one, that of its pod\n"},
        /* The first that is wrong is the one that is said. */
        {{"--namespace", "shop", "--secret-namespace", "Vault", "--namespace", "Shop"},
         "tidegate-controller: --secret-namespace Vault" NO_NAMESPACE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t count = 0;
        struct options o;
        char *said;

        while (count < COUNT(cases[i].words) && cases[i].words[count])
            count++;
        o = parse_all(cases[i].words, count, &said);
        assert_true(o.exit);
        assert_int_equal(o.exit_code, 2);
        assert_string_equal(said, cases[i].said);
        free(said);
    }
}

static void there_may_be_64_namespaces(void **state)
{
    char names[OPTIONS_MAX_NAMESPACES + 1][8], *said;
    const char *words[2 * COUNT(names) + 2];
    struct options o;

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(names[i], sizeof names[i], "n%zu", i);
        words[2 * i] = "--secret-namespace";
        words[2 * i + 1] = names[i];
    }
    words[2 * COUNT(names)] = "--secret-namespace";
    words[2 * COUNT(names) + 1] = names[0];
    o = parse_all(words, COUNT(words), &said);
    assert_int_equal(o.exit_code, 2);
    assert_string_equal(
        said, "tidegate-controller: --secret-namespace: more than 64; leave the flag out instead\n");
    free(said);
    words[2 * COUNT(names) - 1] = names[0]; /* the last is the first again */
    o = parse_all(words, COUNT(words), &said);
    if (o.exit)
        fail_msg("%s", said);
    free(said);
    assert_int_equal(options_secrets(&o)->count, 64);
}

static int no_pod(void **state)
{
    (void)state;
    return unsetenv("POD_NAMESPACE") || unsetenv("POD_NAME");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_read_where_objects_are_unless_their_namespaces_are_named),
        cmocka_unit_test(a_namespace_that_is_named_twice_is_one),
        cmocka_unit_test(all_are_included_where_none_is_named),
        cmocka_unit_test(what_is_no_namespace_is_refused_in_words),
        cmocka_unit_test(flags_that_do_not_go_together_are_refused_in_words),
        cmocka_unit_test(there_may_be_64_namespaces),
    };

    return cmocka_run_group_tests(tests, no_pod, NULL);
}
