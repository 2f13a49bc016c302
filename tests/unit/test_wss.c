#include "wss.h"

#include "test_objects.h"

static struct wss parsed(json_t *object)
{
    struct wss w;
    struct err err;

    if (wss_parse(object, &w, &err))
        fail_msg("%s", err.msg);
    json_decref(object);
    return w;
}

static struct wss with_spec(const char *spec)
{
    return parsed(
        object_of("{'metadata':{'namespace':'a','name':'b','generation':3,'uid':'u'},'spec':%s}", spec));
}

static void takes_the_keys_that_only_an_object_has(void **state)
{
    struct wss w = with_spec(
        "{'port':10020,'https':true,'gatewayName':'g','workloadSelector':{'matchLabels':{'app':'x'}},"
        "'tls':{'secretRef':{'name':'s'},'clientCARef':{'name':'c','namespace':'n'},'minVersion':'TLSv1.3'},"
        "'backendTLS':{'secretRef':{'name':'p'},'caRef':{'name':'q'}},"
        "'backendRef':{'name':'svc','port':80,'scheme':'wss'}}");

    (void)state;
    assert_null(w.problem);
    assert_string_equal(w.gateway, "g");
    assert_true(w.has_selector);
    assert_int_equal(w.label_count, 1);
    assert_string_equal(w.tls_secret.name, "s");
    assert_string_equal(w.tls_secret.ns, "a");
    assert_string_equal(w.client_ca.ns, "n");
    assert_string_equal(w.backend_secret.name, "p");
    assert_string_equal(w.backend_ca.name, "q");
    assert_string_equal(w.backend_ref.name, "svc");
    assert_int_equal(w.backend_ref.port, 80);
    assert_true(w.backend_ref.tls);
    assert_true(w.spec.tls_given && w.spec.tls.min_version == SPEC_TLS_1_3 && w.spec.backend_tls_given);
    assert_string_equal(w.spec.name, "a/b");
    assert_int_equal(w.spec.port, 10020);
    assert_int_equal(w.generation, 3);
    wss_free(&w);
}

static void a_mapping_that_was_emptied_stays_and_null_is_absent(void **state)
{
    struct wss w =
        with_spec("{'port':1,'backend':'ws://h.x','tls':{'secretRef':{'name':'s','namespace':null}},"
                  "'backendTLS':null,'backendRef':null,'gatewayName':null,'workloadSelector':null,"
                  "'colour':null}");

    (void)state;
    /* `colour` is unknown to the parser; null does not make it known. */
    assert_string_equal(w.problem, "spec.colour: unknown key; remove it");
    assert_string_equal(w.tls_secret.name, "s");
    assert_string_equal(w.gateway, "tidegate");
    assert_false(w.has_selector);
    wss_free(&w);
    w = with_spec("{'port':1,'backend':'ws://h.x','tls':{'secretRef':{'name':'s'}},'backendTLS':null}");
    assert_null(w.problem);
    assert_true(w.spec.tls_given);
    assert_false(w.spec.backend_tls_given);
    wss_free(&w);
}

static void says_what_is_wrong_in_the_words_of_the_object(void **state)
{
    static const struct {
        const char *spec, *problem;
    } wrong[] = {
        {"{'port':70000,'backend':'ws://h.x'}",
         "spec.port: 70000 is out of range; give a number from 1 to 65535"},
        {"{'tls':{'secretRef':'x'}}", "spec.tls.secretRef: is a text; give a mapping with name"},
        {"{'tls':{'secretRef':{}}}", "spec.tls.secretRef.name: missing; give the name"},
        {"{'tls':{'secretRef':{'name':'../x'}}}", "spec.tls.secretRef.name: is not a name as Kubernetes has "
                                                  "them; give small letters, digits and '-' and '.'"},
        {"{'tls':{'secretRef':{'name':'x','namespace':'a/b'}}}",
         "spec.tls.secretRef.namespace: is not a name as Kubernetes has them; give small letters, digits and "
         "'-'"},
        {"{'tls':{'secretRef':{'name':'x','key':'y'}}}",
         "spec.tls.secretRef.key: unknown key; give name and, if need be, namespace"},
        {"{'tls':{'certFile':'/x'}}", "spec.tls.certFile: is not for objects; put the certificate into a "
                                      "Secret and name it in tls.secretRef"},
        {"{'backendTLS':{'caFile':'/x'}}",
         "spec.backendTLS.caFile: is not for objects; put the CA into a Secret "
         "(ca.crt) and name it in backendTLS.caRef"},
        {"{'kind':'x'}", "spec.kind: is not for objects; leave it out here"},
        {"{'name':'x'}", "spec.name: is not for objects; the name is metadata.name"},
        {"{'backendRef':{'name':'x','port':'80'}}",
         "spec.backendRef.port: is no port; give a number from 1 to 65535"},
        {"{'backendRef':{'name':'x'}}",
         "spec.backendRef.port: missing; give the number of a port of the Service"},
        {"{'backendRef':{'name':'x','port':80,'scheme':'http'}}",
         "spec.backendRef.scheme: is neither; give ws or wss"},
        {"{'workloadSelector':{'matchExpressions':[]}}",
         "spec.workloadSelector.matchExpressions: unknown key; give matchLabels"},
        {"[]", "spec: is a list; give a mapping"},
        {"null", "spec: missing; give a mapping"},
        {"{'headers':{'remove':['X-A','x-a']}}", "spec.headers.remove: x-a stands here twice; keep one"},
        {"{'gatewayName':7}", "spec.gatewayName: is a number; give a name"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct wss w = with_spec(wrong[i].spec);

        assert_non_null(w.problem);
        assert_string_equal(w.problem, wrong[i].problem);
        wss_free(&w);
    }
}

static void many_problems_are_cut_and_none_is_half(void **state)
{
    char spec[8192] = "{'backends':[";
    struct wss w;

    (void)state;
    for (int i = 0; i < 100; i++)
        snprintf(spec + strlen(spec), sizeof spec - strlen(spec), "%s{'url':'http://h%d'}", i ? "," : "", i);
    snprintf(spec + strlen(spec), sizeof spec - strlen(spec), "]}");
    w = with_spec(spec);
    assert_true(strlen(w.problem) < WSS_MAX_PROBLEM);
    assert_string_equal(w.problem + strlen(w.problem) - 5, "; ...");
    wss_free(&w);
}

static void garbage_is_kept_with_its_problem_or_refused_for_its_name(void **state)
{
    static const char *const refused[] = {
        "{}",
        "[]",
        "{'metadata':7}",
        "{'metadata':{'name':7,'namespace':'a'}}",
        "{'metadata':{'name':'../x','namespace':'a'}}",
        "{'metadata':{'name':'x','namespace':'a.b'}}",
        "{'metadata':{'name':'x','namespace':''}}",
    };
    struct err err;
    struct wss w;

    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        json_t *o = object_of("%s", refused[i]);

        assert_int_equal(wss_parse(o, &w, &err), -1);
        json_decref(o);
    }
    w = parsed(
        object_of("{'metadata':{'namespace':'a','name':'b','uid':7,'generation':'x'},"
                  "'spec':{'tls':[],'headers':'x','port':{},'backendTLS':7,'workloadSelector':'x',"
                  "'backendRef':[]},'status':{'conditions':[7,{'type':7},{'type':'Ready','status':'True',"
                  "'observedGeneration':4},{'type':'Ready','status':'False','reason':'R'}]}}"));
    assert_non_null(w.problem);
    assert_true(w.conditions[WSS_READY].present);
    assert_int_equal(w.conditions[WSS_READY].status, WSS_FALSE);
    assert_string_equal(w.conditions[WSS_READY].reason, "R");
    assert_null(w.uid);
    wss_free(&w);
}

static void texts_reach_the_parser_as_they_are(void **state)
{
    struct wss w = with_spec(
        "{'port':1,'backend':'ws://h.x','headers':{'set':{'X-A':'\\ud83d\\ude00 \\u00e9 \\\\u1'}}}");

    (void)state;
    assert_null(w.problem);
    assert_string_equal(w.spec.headers.set[0].value, "\xf0\x9f\x98\x80 \xc3\xa9 \\u1");
    wss_free(&w);
    w = with_spec(
        "{'port':1,'backend':'ws://h.x','headers':{'set':{'X-A':'a\\u0085b','X-B':'\\u2028','X-C':'\x7f'}}}");
    assert_non_null(strstr(w.problem, "X-A has control characters"));
    assert_non_null(strstr(w.problem, "X-B has control characters"));
    assert_non_null(strstr(w.problem, "X-C has control characters"));
    wss_free(&w);
}

static void labels_select_when_all_of_them_are_there(void **state)
{
    const struct wss_label pod[] = {{(char[]){"app"}, (char[]){"x"}}, {(char[]){"tier"}, (char[]){"y"}}};
    struct wss w = with_spec("{'workloadSelector':{'matchLabels':{'app':'x'}}}");

    (void)state;
    assert_true(wss_selects(&w, pod, 2));
    assert_false(wss_selects(&w, pod + 1, 1));
    wss_free(&w);
    w = with_spec("{'workloadSelector':{}}");
    assert_true(wss_selects(&w, NULL, 0));
    wss_free(&w);
    w = with_spec("{}");
    assert_false(wss_selects(&w, pod, 2));
    wss_free(&w);
}

static void a_bare_host_and_svc_names_are_services(void **state)
{
    static const struct {
        const char *host, *is;
    } hosts[] = {
        {"chat", "a/chat"},
        {"chat.b.svc", "b/chat"},
        {"chat.b.svc.cluster.local", "b/chat"},
        {"localhost", ""},
        {"chat.b", ""},
        {"chat.example.org", ""},
        {"10.0.0.1", ""},
        {"::1", ""},
        {"chat.b.svc.example.org", ""},
        {"x.chat.b.svc", ""},
    };
    struct wss w = with_spec("{}");

    (void)state;
    for (size_t i = 0; i < COUNT(hosts); i++) {
        struct wss_service v;
        char is[200] = "";

        if (wss_host_service(&w, hosts[i].host, &v))
            snprintf(is, sizeof is, "%s/%s", v.ns, v.name);
        assert_string_equal(is, hosts[i].is);
    }
    wss_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_the_keys_that_only_an_object_has),
        cmocka_unit_test(a_mapping_that_was_emptied_stays_and_null_is_absent),
        cmocka_unit_test(says_what_is_wrong_in_the_words_of_the_object),
        cmocka_unit_test(many_problems_are_cut_and_none_is_half),
        cmocka_unit_test(garbage_is_kept_with_its_problem_or_refused_for_its_name),
        cmocka_unit_test(texts_reach_the_parser_as_they_are),
        cmocka_unit_test(labels_select_when_all_of_them_are_there),
        cmocka_unit_test(a_bare_host_and_svc_names_are_services),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
