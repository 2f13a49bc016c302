#include "test_render.h"

#include "options.h"

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

static const struct options_namespaces only_a = {{"a"}, 1}, only_c = {{"c"}, 1}, both = {{"a", "c"}, 2};

#define TLS_OF(secret) "'port':1,'https':true,'backend':'ws://h.x','tls':{'secretRef':{" secret "}}"

/* A grant would not help: that namespace is not watched, and neither are its grants. */
static void a_reference_into_a_namespace_that_is_not_watched_says_so(void **state)
{
    struct bench b =
        bench_new(&(struct render_rules){.gateway = "tidegate", .watched = &only_a, .secrets = &only_a});

    (void)state;
    PUT(b.s, STORE_WSS, WSS_OF("a", "x", 1, T1, "'port':2,'backend':'ws://far.c.svc:3001'"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "y", 1, T1, TLS_OF("'name':'s','namespace':'c'")));
    render_run(b.r, b.s);
    assert_text(&b, "");
    assert_resolved(
        &b, "x",
        "False/RefNotPermitted: spec.backend: Service c/far is in a namespace that the controller "
        "does not watch; add c to its --namespace (watchNamespaces of the chart), or use one of "
        "namespace a");
    assert_resolved(&b, "y",
                    "False/RefNotPermitted: spec.tls.secretRef: Secret c/s is in a namespace that the "
                    "controller does not watch; add c to its --namespace (watchNamespaces of the chart), or "
                    "use one of namespace a");
    /* Once it is, the grant is what is missing. */
    render_set_rules(b.r, &(struct render_rules){.gateway = "tidegate", .watched = &both, .secrets = &both},
                     b.s);
    render_run(b.r, b.s);
    assert_resolved(&b, "x",
                    "False/RefNotPermitted: spec.backend: Service c/far is in another namespace; create a "
                    "ReferenceGrant in namespace c");
    bench_free(&b);
}

static void a_secret_where_none_are_read_says_so(void **state)
{
    struct bench b =
        bench_new(&(struct render_rules){.gateway = "tidegate", .watched = &both, .secrets = &only_c});
    struct made_pair p = make_pair("p");

    (void)state;
    PUT(b.s, STORE_WSS, WSS_OF("a", "x", 1, T1, TLS_OF("'name':'s'")));
    PUT(b.s, STORE_WSS, WSS_OF("a", "side", 1, T1, "'workloadSelector':{}," TLS_OF("'name':'s'")));
    PUT(b.s, STORE_WSS,
        WSS_OF("c", "y", 1, T1,
               "'https':true,'port':2,'backend':'ws://h.x','tls':{'secretRef':{'name':'s'}}"));
    put_pair(&b, "c", "s", p.cert64, p.key64);
    render_run(b.r, b.s);
    assert_resolved(&b, "x",
                    "False/InvalidCertificateRef: spec.tls.secretRef: Secret a/s is in a namespace of which "
                    "the controller reads no Secrets; add a to its --secret-namespace (rbac.secretNamespaces "
                    "of the chart)");
    assert_has(&b, "a/x", false);
    assert_has(&b, "name: \"c/y\"\n", true);
    /* A sidecar has its Secrets mounted, and what is mounted is not ours to know. */
    assert_resolved(&b, "side", "True/ResolvedRefs");
    made_pair_free(&p);
    bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_share_by_their_weights_and_not_by_their_endpoints),
        cmocka_unit_test(a_service_that_does_not_fit_keeps_its_share),
        cmocka_unit_test(a_reference_into_a_namespace_that_is_not_watched_says_so),
        cmocka_unit_test(a_secret_where_none_are_read_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
