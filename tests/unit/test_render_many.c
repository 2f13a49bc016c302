#include "render.h"

#include "test_objects.h"

#include <time.h>

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static long rss_kb(void)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &pages, &resident), 2);
    fclose(f);
    return resident * 4;
}

/* TIDEGATE_BENCH=N: how long N objects with Secrets take, printed and not judged. */
static void many_objects_with_secrets_of_their_own_are_all_served(void **state)
{
    const char *n = getenv("TIDEGATE_BENCH");
    int count = n ? (int)strtol(n, NULL, 10) : 20;
    const struct render_rules gateway = {.gateway = "tidegate"};
    struct store *s = store_new();
    struct render *r = render_new(&gateway);
    long before = rss_kb(), stored;
    double t0 = seconds(), t1, t2, t3;

    (void)state;
    for (int i = 0; i < count; i++) {
        struct made_pair p = make_pair("p");
        char name[16];

        snprintf(name, sizeof name, "s%05d", i);
        PUT(s, STORE_SECRETS,
            "{'metadata':{'namespace':'a','name':'%s'},'data':{'tls.crt':'%s','tls.key':'%s'}}", name,
            p.cert64, p.key64);
        PUT(s, STORE_WSS,
            WSS_OF("a", "w%05d", 1, "2026-01-01T00:00:00Z",
                   "'port':%d,'https':true,'backend':'ws://h.x','tls':{'secretRef':{'name':'s%05d'}}"),
            i, i, 10000 + i, i);
        made_pair_free(&p);
    }
    stored = rss_kb();
    t1 = seconds();
    assert_true(render_run(r, s));
    t2 = seconds();
    store_at(s, 0)->dirty = true;
    assert_false(render_run(r, s));
    t3 = seconds();
    if (n)
        print_message("%d objects: made and stored %.3f s, run %.3f s, one dirty %.6f s; RSS %ld, stored "
                      "%ld, rendered %ld KB\n",
                      count, t1 - t0, t2 - t1, t3 - t2, before, stored, rss_kb());
    for (int i = 0; i < count; i++)
        assert_true(render_at(r, (size_t)i)->served);
    render_free(r);
    store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_objects_with_secrets_of_their_own_are_all_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
