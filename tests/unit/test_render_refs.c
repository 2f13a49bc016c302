#include "test_render.h"

static void services_share_by_their_weights_and_not_by_their_endpoints(void **state)
{
    struct bench b = bench_new(&gateway);

    (void)state;
    put_service(&b, "a", "big",
                "{'addresses':['10.0.0.1']},{'addresses':['10.0.0.2']},{'addresses':['10.0.0.3']}");
    put_service(&b, "a", "small", "{'addresses':['10.0.1.1']}");
    put_service(&b, "a", "none", "");
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "x", 1, T1,
               "'port':1,'backends':[{'url':'ws://big:3001'},{'url':'ws://small:3001'},{'url':'ws://"
               "none:3001','weight':9}]"));
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "y", 1, T1, "'port':2,'backends':[{'url':'ws://big:3001','weight':700}]"));
    render_run(b.r, b.s);
    assert_text(&b, "---\nkind: \"WebSocketServer\"\nname: \"a/x\"\nport: 1\nbackends:\n"
                    "  - url: \"ws://10.0.0.1:8080\"\n    host: \"big\"\n"
                    "  - url: \"ws://10.0.0.2:8080\"\n    host: \"big\"\n"
                    "  - url: \"ws://10.0.0.3:8080\"\n    host: \"big\"\n"
                    "  - url: \"ws://10.0.1.1:8080\"\n    weight: 3\n    host: \"small\"\n"
                    "---\nkind: \"WebSocketServer\"\nname: \"a/y\"\nport: 2\nbackends:\n"
                    "  - url: \"ws://10.0.0.1:8080\"\n    host: \"big\"\n"
                    "  - url: \"ws://10.0.0.2:8080\"\n    host: \"big\"\n"
                    "  - url: \"ws://10.0.0.3:8080\"\n    host: \"big\"\n");
    /* One endpoint less is another share for those that are left, and the same for the Service. */
    put_service(&b, "a", "big", "{'addresses':['10.0.0.1']},{'addresses':['10.0.0.3']}");
    assert_true(render_run(b.r, b.s));
    assert_has(&b, "10.0.0.2", false);
    assert_has(&b, "ws://10.0.1.1:8080\"\n    weight: 2\n", true);
    bench_free(&b);
}

/* Of more endpoints than a list holds, those that are in it share the weight. */
static void a_service_that_does_not_fit_keeps_its_share(void **state)
{
    struct bench b = bench_new(&gateway);
    struct buf endpoints;

    (void)state;
    buf_init(&endpoints, 64 * 1024);
    for (int i = 0; i < 300; i++)
        assert_int_equal(
            buf_addf(&endpoints, "%s{'addresses':['10.0.%d.%d']}", i ? "," : "", i / 100, i % 100), 0);
    assert_int_equal(buf_add(&endpoints, "", 1), 0);
    put_service(&b, "a", "big", (char *)endpoints.data);
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "x", 1, T1, "'port':1,'backends':[{'url':'ws://o.x'},{'url':'ws://big:3001'}]"));
    render_run(b.r, b.s);
    assert_has(&b, "ws://o.x\"\n    weight: 255\n", true);
    assert_resolved(&b, "x", "True/ResolvedRefs: only the first 256 endpoints are used");
    buf_free(&endpoints);
    bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_share_by_their_weights_and_not_by_their_endpoints),
        cmocka_unit_test(a_service_that_does_not_fit_keeps_its_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
