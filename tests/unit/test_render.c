#include "test_render.h"

#include <sys/stat.h>
#include <unistd.h>

static void documents_are_sorted_and_the_same_each_time(void **state)
{
    static const char expected[] =
        "---\nkind: \"WebSocketServer\"\nname: \"a/x\"\nport: 10021\nbackend: \"ws://h.x:1\"\n"
        "---\nkind: \"WebSocketServer\"\nname: \"a/y\"\nport: 10020\nbackend: \"wss://10.0.0.1\"\n"
        "allowedOrigins:\n  - \"https://o.example\"\n";
    struct bench b = bench_new(&gateway), c = bench_new(&gateway);

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bench *one = i ? &c : &b;

        if (i)
            PUT(one->s, STORE_WSS, WSS_OF("a", "x", 1, T1, "'port':10021,'backend':'ws://h.x:1'"));
        PUT(one->s, STORE_WSS,
            WSS_OF("a", "y", 1, T1,
                   "'allowedOrigins':['https://o.example'],'port':10020,'backend':'wss://10.0.0.1'"));
        if (!i)
            PUT(one->s, STORE_WSS, WSS_OF("a", "x", 1, T1, "'port':10021,'backend':'ws://h.x:1'"));
        assert_true(render_run(one->r, one->s));
        assert_text(one, expected);
        assert_false(render_run(one->r, one->s));
        store_mark_all(one->s);
        assert_false(render_run(one->r, one->s));
        assert_text(one, expected);
    }
    assert_accepted(&b, "x", "True/Accepted");
    assert_non_null(strstr(render_find(b.r, "a", "x")->accepted.message, "every web page may connect"));
    assert_string_equal(render_find(b.r, "a", "y")->accepted.message, "Accepted");
    bench_free(&b);
    bench_free(&c);
}

static void endpoints_become_backends_by_address(void **state)
{
    struct bench b = bench_new(&gateway);

    (void)state;
    put_service(&b, "a", "chat",
                "{'addresses':['10.0.0.2']},{'addresses':['10.0.0.1'],'conditions':{'ready':true}},"
                "{'addresses':['10.0.0.9'],'conditions':{'ready':false,'serving':true}},"
                "{'addresses':['169.254.169.254']},{'addresses':['x']}");
    PUT(b.s, STORE_SLICES,
        "{'metadata':{'namespace':'a','name':'chat-2','labels':{'kubernetes.io/"
        "service-name':'chat'}},'addressType':"
        "'IPv6','ports':[{'name':'web','port':8080}],'endpoints':[{'addresses':['FD00::1']},{'addresses':['"
        "10.0.0.2']}]}");
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "ref", 1, T1, "'port':1,'backendRef':{'name':'chat','port':3001,'scheme':'wss'}"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "url", 1, T1, "'port':2,'backend':'ws://chat:3001'"));
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "list", 1, T1,
               "'port':3,'backends':[{'url':'ws://other.x','weight':2},{'url':'ws://"
               "chat.a.svc:3001','weight':3,'host':'h'}]"));
    render_run(b.r, b.s);
    assert_text(&b, "---\nkind: \"WebSocketServer\"\nname: \"a/list\"\nport: 3\nbackends:\n"
                    "  - url: \"ws://other.x\"\n    weight: 2\n"
                    "  - url: \"ws://10.0.0.1:8080\"\n    host: \"h\"\n"
                    "  - url: \"ws://10.0.0.2:8080\"\n    host: \"h\"\n"
                    "  - url: \"ws://[fd00::1]:8080\"\n    host: \"h\"\n"
                    "---\nkind: \"WebSocketServer\"\nname: \"a/ref\"\nport: 1\nbackends:\n"
                    "  - url: \"wss://10.0.0.1:8080\"\n    host: \"chat.a.svc\"\n"
                    "  - url: \"wss://10.0.0.2:8080\"\n    host: \"chat.a.svc\"\n"
                    "  - url: \"wss://[fd00::1]:8080\"\n    host: \"chat.a.svc\"\n"
                    "backendTLS:\n  serverName: \"chat.a.svc\"\n"
                    "---\nkind: \"WebSocketServer\"\nname: \"a/url\"\nport: 2\nbackends:\n"
                    "  - url: \"ws://10.0.0.1:8080\"\n    host: \"chat\"\n"
                    "  - url: \"ws://10.0.0.2:8080\"\n    host: \"chat\"\n"
                    "  - url: \"ws://[fd00::1]:8080\"\n    host: \"chat\"\n");
    bench_free(&b);
}

static void without_ready_endpoints_the_list_is_empty_or_of_those_that_still_serve(void **state)
{
    struct bench b = bench_new(&gateway);

    (void)state;
    put_service(&b, "a", "chat", "{'addresses':['10.0.0.9'],'conditions':{'ready':false}}");
    PUT(b.s, STORE_WSS, WSS_OF("a", "x", 1, T1, "'port':1,'backend':'ws://chat:3001'"));
    render_run(b.r, b.s);
    assert_has(&b, "backends: []\n", true);
    assert_resolved(&b, "x", "True/ResolvedRefs: spec.backend: Service a/chat has no ready endpoints");
    put_service(&b, "a", "chat",
                "{'addresses':['10.0.0.9'],'conditions':{'ready':false,'serving':true,'terminating':true}}");
    assert_true(render_run(b.r, b.s));
    assert_has(&b, "ws://10.0.0.9:8080", true);
    bench_free(&b);
}

static void says_which_service_or_port_is_not_there(void **state)
{
    struct bench b = bench_new(&gateway);

    (void)state;
    put_service(&b, "a", "chat", "");
    put_service(&b, "c", "far", "{'addresses':['10.0.0.1']}");
    PUT(b.s, STORE_SERVICES, "{'metadata':{'namespace':'a','name':'ext'},'spec':{'type':'ExternalName'}}");
    PUT(b.s, STORE_WSS, WSS_OF("a", "none", 1, T1, "'port':1,'backend':'ws://nobody'"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "port", 1, T1, "'port':2,'backendRef':{'name':'chat','port':53}"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "ext", 1, T1, "'port':3,'backend':'ws://ext:80'"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "far", 1, T1, "'port':4,'backend':'ws://far.c.svc:3001'"));
    render_run(b.r, b.s);
    assert_text(&b, "");
    assert_resolved(
        &b, "none",
        "False/BackendNotFound: spec.backend: there is no Service a/nobody; create it, or name another");
    assert_resolved(&b, "port",
                    "False/BackendNotFound: spec.backendRef: Service a/chat has no TCP port 53; it has 3001");
    assert_resolved(&b, "ext", "False/BackendNotFound: spec.backend: Service a/ext is of type ExternalName");
    assert_resolved(&b, "far",
                    "False/RefNotPermitted: spec.backend: Service c/far is in another namespace; create a "
                    "ReferenceGrant in namespace c");
    assert_accepted(&b, "none", "True/Accepted");
    PUT(b.s, STORE_GRANTS,
        "{'metadata':{'namespace':'c','name':'g'},'spec':{'from':[{'group':'tidegate.dev','kind':"
        "'WebSocketServer','namespace':'a'}],'to':[{'group':'','kind':'Service'}]}}");
    assert_true(render_run(b.r, b.s));
    assert_has(&b, "ws://10.0.0.1:8080", true);
    assert_true(drop(b.s, STORE_GRANTS, "c", "g"));
    assert_true(render_run(b.r, b.s));
    assert_text(&b, "");
    store_set_sync(b.s, STORE_SERVICES, STORE_FORBIDDEN, "HTTP 403");
    render_run(b.r, b.s);
    assert_resolved(&b, "none",
                    "False/Forbidden: spec.backend: Service a/nobody cannot be read; give the controller's "
                    "ServiceAccount the right to get, list and watch services: HTTP 403");
    bench_free(&b);
}

static void a_secret_turned_to_garbage_leaves_the_last_good_pair(void **state)
{
    struct bench b = bench_new(&gateway);
    struct made_pair one = make_pair("one"), two = make_pair("two");
    uint64_t version;
    char *good;

    (void)state;
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "x", 1, T1,
               "'port':1,'https':true,'backend':'ws://"
               "h.x','tls':{'secretRef':{'name':'s'},'minVersion':'TLSv1.3'}"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "other", 1, T1, "'port':2,'backend':'ws://h.x'"));
    render_run(b.r, b.s);
    assert_resolved(&b, "x", "False/InvalidCertificateRef: spec.tls.secretRef: there is no Secret a/s");
    assert_has(&b, "a/other", true);
    put_pair(&b, "a", "s", one.cert64, one.key64);
    assert_true(render_run(b.r, b.s));
    assert_has(&b, one.cert64, true);
    assert_has(&b, one.key64, true);
    assert_has(&b, "TLSv1.3", true);
    good = text_of(b.r);
    version = render_find(b.r, "a", "x")->version;
    put_pair(&b, "a", "s", one.cert64, two.key64);
    assert_false(render_run(b.r, b.s));
    assert_text(&b, good);
    assert_resolved(&b, "x", "False/InvalidCertificateRef: spec.tls.secretRef: Secret a/s, tls.key: ");
    assert_true(render_find(b.r, "a", "x")->served);
    assert_false(render_find(b.r, "a", "x")->newest);
    assert_int_equal(render_find(b.r, "a", "x")->version, version);
    assert_accepted(&b, "x", "True/Accepted");
    put_pair(&b, "a", "s", "Z2FyYmFnZQ==", two.key64);
    assert_false(render_run(b.r, b.s));
    assert_resolved(&b, "x", "False/InvalidCertificateRef: spec.tls.secretRef: Secret a/s, tls.crt: ");
    PUT(b.s, STORE_SECRETS, "{'metadata':{'namespace':'a','name':'s'},'data':{'tls.crt':'%s'}}", one.cert64);
    assert_false(render_run(b.r, b.s));
    assert_resolved(&b, "x", "False/InvalidCertificateRef: spec.tls.secretRef: Secret a/s has no tls.key");
    assert_true(drop(b.s, STORE_SECRETS, "a", "s"));
    assert_false(render_run(b.r, b.s));
    put_pair(&b, "a", "s", two.cert64, two.key64);
    assert_true(render_run(b.r, b.s));
    assert_has(&b, two.cert64, true);
    assert_true(render_find(b.r, "a", "x")->newest);
    assert_true(render_find(b.r, "a", "x")->version != version);
    free(good);
    made_pair_free(&one);
    made_pair_free(&two);
    bench_free(&b);
}

static void a_secret_of_another_namespace_needs_a_grant_and_goes_with_it(void **state)
{
    static const char grant[] =
        "{'metadata':{'namespace':'c','name':'g'},'spec':{'from':[{'group':'tidegate.dev','kind':"
        "'WebSocketServer','namespace':'a'}],'to':[{'group':'','kind':'Secret','name':'s'}]}}";
    struct bench b = bench_new(&gateway);
    struct made_pair p = make_pair("p");

    (void)state;
    put_pair(&b, "c", "s", p.cert64, "Z2FyYmFnZQ==");
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "x", 1, T1,
               "'port':1,'https':true,'backend':'ws://"
               "h.x','tls':{'secretRef':{'name':'s','namespace':'c'},'clientCARef':{'name':'none'}}"));
    render_run(b.r, b.s);
    /* It wins over what is wrong with the other reference. */
    assert_resolved(&b, "x",
                    "False/RefNotPermitted: spec.tls.secretRef: Secret c/s is in another namespace; create a "
                    "ReferenceGrant in namespace c, from group tidegate.dev kind WebSocketServer namespace a "
                    "to kind Secret name s");
    PUT(b.s, STORE_WSS,
        WSS_OF(
            "a", "x", 2, T1,
            "'port':1,'https':true,'backend':'ws://h.x','tls':{'secretRef':{'name':'s','namespace':'c'}}"));
    put_pair(&b, "c", "s", p.cert64, p.key64);
    PUT(b.s, STORE_GRANTS, "%s", grant);
    assert_true(render_run(b.r, b.s));
    assert_has(&b, p.cert64, true);
    /* An edit that is wrong keeps it, until the grant goes. */
    PUT(b.s, STORE_WSS, WSS_OF("a", "x", 3, T1, "'port':'?'"));
    assert_false(render_run(b.r, b.s));
    assert_has(&b, p.cert64, true);
    drop(b.s, STORE_GRANTS, "c", "g");
    assert_true(render_run(b.r, b.s));
    assert_text(&b, "");
    made_pair_free(&p);
    bench_free(&b);
}

static void the_oldest_wins_a_port_and_the_loser_takes_over(void **state)
{
    struct bench b = bench_new(&gateway);

    (void)state;
    PUT(b.s, STORE_WSS, WSS_OF("a", "young", 1, T2, "'port':1,'backend':'ws://young.x'"));
    assert_true(render_run(b.r, b.s));
    assert_has(&b, "young.x", true);
    PUT(b.s, STORE_WSS, WSS_OF("a", "zold", 1, T1, "'port':1,'backend':'ws://old.x'"));
    assert_true(render_run(b.r, b.s));
    assert_has(&b, "young.x", false);
    assert_has(&b, "old.x", true);
    assert_accepted(&b, "young",
                    "False/PortConflict: spec.port: 1 is taken by a/zold, which is older; give another port");
    assert_false(render_find(b.r, "a", "young")->served);
    /* The winner's newest is bad: it holds the port of its last good one. */
    PUT(b.s, STORE_WSS, WSS_OF("a", "zold", 2, T1, "'port':1,'backend':'http://x'"));
    assert_false(render_run(b.r, b.s));
    assert_has(&b, "old.x", true);
    drop(b.s, STORE_WSS, "a", "zold");
    assert_true(render_run(b.r, b.s));
    assert_has(&b, "young.x", true);
    assert_accepted(&b, "young", "True/Accepted");
    /* Of one age: by name. */
    PUT(b.s, STORE_WSS, WSS_OF("a", "alike", 1, T2, "'port':1,'backend':'ws://alike.x'"));
    assert_true(render_run(b.r, b.s));
    assert_has(&b, "alike.x", true);
    assert_has(&b, "young.x", false);
    bench_free(&b);
}

static void an_edit_into_a_taken_port_leaves_what_was_served(void **state)
{
    struct bench b = bench_new(&gateway);

    (void)state;
    PUT(b.s, STORE_WSS, WSS_OF("a", "old", 1, T1, "'port':1,'backend':'ws://old.x'"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "young", 1, T2, "'port':2,'backend':'ws://young.x'"));
    render_run(b.r, b.s);
    PUT(b.s, STORE_WSS, WSS_OF("a", "young", 2, T2, "'port':1,'backend':'ws://young.x'"));
    assert_false(render_run(b.r, b.s));
    assert_has(&b, "port: 2\n", true);
    assert_accepted(&b, "young",
                    "False/PortConflict: spec.port: 1 is taken by a/old, which is older; give another port");
    assert_true(render_find(b.r, "a", "young")->served);
    assert_false(render_find(b.r, "a", "young")->newest);
    bench_free(&b);
}

static void what_is_wrong_is_not_accepted_and_harms_nobody_else(void **state)
{
    static const struct {
        const char *spec, *accepted;
    } wrong[] = {
        {"'port':9901,'backend':'ws://h.x'", "False/UnsupportedValue: spec.port: 9901 is the gateway's own, "
                                             "as are all from 9900 to 9903; give another "
                                             "port"},
        {"'port':1,'backendRef':{'name':'s','port':1},'workloadSelector':{}",
         "False/UnsupportedValue: spec.backendRef: is not for sidecars"},
        {"'port':1,'backend':'ws://localhost:1'",
         "False/InvalidBackend: spec.backend: localhost is a loopback"},
        {"'port':1,'backends':[{'url':'ws://h.x'},{'url':'ws://[::ffff:169.254.1.1]'}]",
         "False/InvalidBackend: spec.backends[1].url: ::ffff:169.254.1.1 is a loopback"},
        {"'port':1", "False/Invalid: spec: there is no backend"},
        {"'port':1,'backend':'ws://h.x','backends':[]",
         "False/Invalid: spec: backend, backends and backendRef exclude each other"},
        {"'port':1,'backend':'ws://h.x','backendTLS':{}",
         "False/Invalid: spec.backendTLS: is for wss backends only"},
        {"'port':1,'backend':'ws://h.x','tls':{'secretRef':{'name':'s'}}",
         "False/Invalid: spec.tls: needs https: true"},
        {"'port':1,'backend':'ws://h.x','https':true", "False/Invalid: spec.https: true needs a certificate; "
                                                       "give certBase64 and keyBase64, or tls.secretRef"},
        {"'port':1,'backend':'ws://h.x','https':true,'certBase64':'QQ==','keyBase64':'QQ=='",
         "False/Invalid: spec.certBase64: "},
        {"'backend':'ws://h.x\\nx'", "False/Invalid: spec.backend: "},
        {"'backend':'ws://h.x'", "False/Invalid: spec.port: missing; give a port from 1 to 65535"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct bench b = bench_new(&gateway);
        const struct render_verdict *v;
        char got[600];

        PUT(b.s, STORE_WSS, WSS_OF("a", "good", 1, T1, "'port':2,'backend':'ws://good.x'"));
        PUT(b.s, STORE_WSS, WSS_OF("a", "x", 1, T1, "%s"), wrong[i].spec);
        render_run(b.r, b.s);
        v = render_find(b.r, "a", "x");
        snprintf(got, sizeof got, "%s/%s: %s", wss_status_label(v->accepted.status), v->accepted.reason,
                 v->accepted.message);
        if (strncmp(got, wrong[i].accepted, strlen(wrong[i].accepted)) != 0)
            assert_string_equal(got, wrong[i].accepted);
        assert_false(v->served);
        assert_has(&b, "good.x", true);
        bench_free(&b);
    }
}

static void who_serves_it_follows_gateway_and_selector(void **state)
{
    struct bench b = bench_new(&gateway);

    (void)state;
    PUT(b.s, STORE_WSS, WSS_OF("a", "x", 1, T1, "'port':1,'backend':'ws://h.x'"));
    render_run(b.r, b.s);
    PUT(b.s, STORE_WSS, WSS_OF("a", "x", 2, T1, "'port':1,'backend':'ws://h.x','gatewayName':'other'"));
    assert_true(render_run(b.r, b.s));
    assert_text(&b, "");
    assert_int_equal(render_find(b.r, "a", "x")->part, RENDER_NOT_OURS);
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "x", 3, T1,
               "'port':1,'https':true,'tls':{'secretRef':{'name':'s'}},'backend':'ws://"
               "localhost:3','workloadSelector':{'matchLabels':{'app':'x'}}"));
    render_run(b.r, b.s);
    assert_text(&b, "");
    assert_int_equal(render_find(b.r, "a", "x")->part, RENDER_SIDECARS);
    assert_accepted(&b, "x", "True/Accepted");
    assert_resolved(&b, "x", "False/InvalidCertificateRef: spec.tls.secretRef: there is no Secret a/s");
    bench_free(&b);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_sidecar_serves_what_selects_its_pod_with_the_secrets_it_mounts(void **state)
{
    char dir[] = "/tmp/test_render.XXXXXX", sub[64], path[128];
    const struct wss_label labels[] = {{(char[]){"app"}, (char[]){"x"}}};
    struct render_rules rules = {.sidecar = true, .gateway = "tidegate", .labels = labels, .label_count = 1};
    struct made_pair p = make_pair("p");
    struct bench b;

    (void)state;
    rules.secrets_dir = mkdtemp(dir);
    snprintf(sub, sizeof sub, "%s/s", dir);
    b = bench_new(&rules);
    PUT(b.s, STORE_WSS, WSS_OF("a", "gw", 1, T1, "'port':1,'backend':'ws://h.x'"));
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "else", 1, T1,
               "'port':1,'backend':'ws://h.x','workloadSelector':{'matchLabels':{'app':'y'}}"));
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "tls", 1, T1,
               "'port':9901,'https':true,'backend':'ws://"
               "chat:3','tls':{'secretRef':{'name':'s'}},'workloadSelector':{'matchLabels':{'app':'x'}}"));
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "far", 1, T1,
               "'port':3,'https':true,'backend':'ws://"
               "localhost:3','tls':{'secretRef':{'name':'s','namespace':'c'}},'workloadSelector':{}"));
    render_run(b.r, b.s);
    assert_text(&b, "");
    assert_int_equal(render_find(b.r, "a", "gw")->part, RENDER_NOT_OURS);
    assert_int_equal(render_find(b.r, "a", "else")->part, RENDER_NOT_OURS);
    assert_resolved(&b, "tls",
                    "False/InvalidCertificateRef: spec.tls.secretRef: Secret s is not mounted into this pod; "
                    "name it in the pod's annotation tidegate.dev/tls-secrets");
    assert_resolved(&b, "far", "False/RefNotPermitted: ");
    assert_int_equal(mkdir(sub, 0700), 0);
    write_file(sub, "tls.crt", p.cert);
    write_file(sub, "tls.key", p.key);
    render_set_rules(b.r, &rules, b.s);
    assert_true(render_run(b.r, b.s));
    assert_has(&b, p.cert64, true);
    assert_has(&b, "backend: \"ws://chat:3\"\n", true);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", sub, i ? "tls.key" : "tls.crt");
        unlink(path);
    }
    rmdir(sub);
    rmdir(dir);
    made_pair_free(&p);
    bench_free(&b);
}

static void documents_of_an_earlier_process_stand_until_the_store_says_otherwise(void **state)
{
    static const char file[] =
        "# x\n---\nkind: \"WebSocketServer\"\nname: \"a/bad\"\nport: 1\nbackend: \"ws://was.x\"\n"
        "---\nkind: \"WebSocketServer\"\nname: \"a/gone\"\nport: 2\nbackend: \"ws://gone.x\"\n"
        "---\nkind: \"WebSocketServer\"\nname: \"a/files\"\nport: 3\nhttps: true\ntls:\n  certFile: \"/x\"\n "
        " keyFile: \"/x\"\nbackend: \"ws://f.x\"\n";
    struct bench b = bench_new(&gateway);
    struct err err;

    (void)state;
    assert_int_equal(render_recall(b.r, (const uint8_t *)file, strlen(file), &err), -1);
    assert_non_null(strstr(err.msg, "1 of 3 documents are left out"));
    PUT(b.s, STORE_WSS, WSS_OF("a", "bad", 5, T1, "'port':1,'backend':'http://x'"));
    assert_true(render_run(b.r, b.s));
    assert_text(&b, "---\nkind: \"WebSocketServer\"\nname: \"a/bad\"\nport: 1\nbackend: \"ws://was.x\"\n");
    assert_int_equal(render_recall(b.r, (const uint8_t *)"{", 1, &err), -1);
    bench_free(&b);
}

/* What its document rests on is not known any more, so a missing grant counts as one that was revoked. */
static void a_recalled_document_goes_when_its_object_may_not_refer(void **state)
{
    static const char file[] =
        "---\nkind: \"WebSocketServer\"\nname: \"a/x\"\nport: 1\nbackend: \"ws://10.0.0.1\"\n";
    struct bench b = bench_new(&gateway);
    struct err err;

    (void)state;
    assert_int_equal(render_recall(b.r, (const uint8_t *)file, strlen(file), &err), 0);
    PUT(b.s, STORE_WSS, WSS_OF("a", "x", 1, T1, "'port':1,'backend':'ws://far.c.svc'"));
    render_run(b.r, b.s);
    assert_text(&b, "");
    assert_false(render_find(b.r, "a", "x")->served);
    bench_free(&b);
}

static void an_inline_key_is_warned_of(void **state)
{
    struct bench b = bench_new(&gateway);
    struct made_pair p = make_pair("p");

    (void)state;
    PUT(b.s, STORE_WSS,
        WSS_OF("a", "x", 1, T1,
               "'port':1,'https':true,'backend':'ws://h.x','certBase64':'%s','keyBase64':'%s'"),
        p.cert64, p.key64);
    render_run(b.r, b.s);
    assert_accepted(&b, "x", "True/Accepted");
    assert_true(render_find(b.r, "a", "x")->warn_inline_key);
    assert_non_null(
        strstr(render_find(b.r, "a", "x")->accepted.message, "a private key stands in the object"));
    assert_null(strstr(render_find(b.r, "a", "x")->accepted.message, p.key64));
    made_pair_free(&p);
    bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_sorted_and_the_same_each_time),
        cmocka_unit_test(endpoints_become_backends_by_address),
        cmocka_unit_test(without_ready_endpoints_the_list_is_empty_or_of_those_that_still_serve),
        cmocka_unit_test(says_which_service_or_port_is_not_there),
        cmocka_unit_test(a_secret_turned_to_garbage_leaves_the_last_good_pair),
        cmocka_unit_test(a_secret_of_another_namespace_needs_a_grant_and_goes_with_it),
        cmocka_unit_test(the_oldest_wins_a_port_and_the_loser_takes_over),
        cmocka_unit_test(an_edit_into_a_taken_port_leaves_what_was_served),
        cmocka_unit_test(what_is_wrong_is_not_accepted_and_harms_nobody_else),
        cmocka_unit_test(who_serves_it_follows_gateway_and_selector),
        cmocka_unit_test(a_sidecar_serves_what_selects_its_pod_with_the_secrets_it_mounts),
        cmocka_unit_test(documents_of_an_earlier_process_stand_until_the_store_says_otherwise),
        cmocka_unit_test(a_recalled_document_goes_when_its_object_may_not_refer),
        cmocka_unit_test(an_inline_key_is_warned_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
