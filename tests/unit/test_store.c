#include "store.h"

#include "test_objects.h"

#define AT "2026-01-01T00:00:00Z"

static void clean(struct store *s)
{
    for (size_t i = 0; i < store_count(s); i++)
        store_at(s, i)->dirty = false;
}

/* The names of the dirty ones, which are clean afterwards. */
static const char *dirty(struct store *s)
{
    static char names[512];

    names[0] = '\0';
    for (size_t i = 0; i < store_count(s); i++)
        if (store_at(s, i)->dirty)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s ", store_at(s, i)->wss.name);
    clean(s);
    return names;
}

static void lists_replace_what_was_there_of_their_namespace(void **state)
{
    struct store *s = store_new();

    (void)state;
    store_begin(s, STORE_WSS, NULL);
    assert_true(PUT(s, STORE_WSS, WSS_OF("b", "x", 1, AT, "'port':1")));
    assert_true(PUT(s, STORE_WSS, WSS_OF("a", "z", 1, AT, "'port':2")));
    assert_true(PUT(s, STORE_WSS, WSS_OF("a", "y", 1, AT, "'port':3")));
    assert_false(store_end(s, STORE_WSS, NULL));
    assert_string_equal(store_at(s, 0)->wss.name, "y");
    assert_string_equal(store_at(s, 1)->wss.name, "z");
    assert_string_equal(store_at(s, 2)->wss.name, "x");
    store_begin(s, STORE_WSS, "a");
    assert_false(PUT(s, STORE_WSS, WSS_OF("a", "z", 1, AT, "'port':2")));
    assert_true(store_end(s, STORE_WSS, "a"));
    assert_int_equal(store_count(s), 2);
    assert_null(store_find(s, "a", "y"));
    assert_non_null(store_find(s, "b", "x"));
    store_begin(s, STORE_WSS, NULL);
    assert_true(store_end(s, STORE_WSS, NULL));
    assert_int_equal(store_count(s), 0);
    store_free(s);
}

static void lists_of_two_namespaces_may_overlap(void **state)
{
    struct store *s = store_new();

    (void)state;
    store_begin(s, STORE_WSS, "a");
    PUT(s, STORE_WSS, WSS_OF("a", "x", 1, AT, "'port':1"));
    store_begin(s, STORE_WSS, "b");
    PUT(s, STORE_WSS, WSS_OF("b", "y", 1, AT, "'port':2"));
    assert_false(store_end(s, STORE_WSS, "a"));
    assert_false(store_end(s, STORE_WSS, "b"));
    store_begin(s, STORE_WSS, "a");
    store_begin(s, STORE_WSS, "b");
    PUT(s, STORE_WSS, WSS_OF("b", "y", 1, AT, "'port':2"));
    assert_false(store_end(s, STORE_WSS, "b"));
    assert_int_equal(store_count(s), 2);
    assert_true(store_end(s, STORE_WSS, "a"));
    assert_null(store_find(s, "a", "x"));
    store_free(s);
}

static void a_status_alone_is_kept_and_marks_nothing(void **state)
{
    struct store *s = store_new();

    (void)state;
    PUT(s, STORE_WSS, WSS_OF("a", "x", 1, AT, "'port':1"));
    clean(s);
    assert_true(PUT(
        s, STORE_WSS,
        "{'metadata':{'namespace':'a','name':'x','uid':'u-x','resourceVersion':'2','generation':1,"
        "'labels':{'k':'v'}},'spec':{'port':1},'status':{'conditions':[{'type':'Ready','status':'True'}]}}"));
    assert_string_equal(dirty(s), "");
    assert_string_equal(store_at(s, 0)->wss.resource_version, "2");
    assert_true(store_at(s, 0)->wss.conditions[WSS_READY].present);
    assert_true(PUT(s, STORE_WSS, WSS_OF("a", "x", 2, AT, "'port':2")));
    assert_string_equal(dirty(s), "x ");
    store_free(s);
}

static void made_again_it_is_another_object(void **state)
{
    struct store *s = store_new();

    (void)state;
    PUT(s, STORE_WSS, "{'metadata':{'namespace':'a','name':'x','uid':'1','generation':1},'spec':{'port':1}}");
    clean(s);
    assert_true(PUT(s, STORE_WSS,
                    "{'metadata':{'namespace':'a','name':'x','uid':'2','generation':1},'spec':{'port':2}}"));
    assert_string_equal(dirty(s), "x ");
    assert_int_equal(store_at(s, 0)->wss.spec.port, 2);
    store_free(s);
}

static void a_change_marks_those_who_refer_to_it(void **state)
{
    struct store *s = store_new();

    (void)state;
    PUT(s, STORE_WSS, WSS_OF("a", "ref", 1, AT, "'backendRef':{'name':'svc','port':80}"));
    PUT(s, STORE_WSS, WSS_OF("a", "tls", 1, AT, "'backend':'ws://h.x','tls':{'secretRef':{'name':'s'}}"));
    PUT(s, STORE_WSS, WSS_OF("a", "far", 1, AT, "'backend':'ws://svc.b.svc'"));
    PUT(s, STORE_WSS, WSS_OF("a", "list", 1, AT, "'backends':[{'url':'ws://svc'}]"));
    PUT(s, STORE_WSS, WSS_OF("a", "none", 1, AT, "'backend':'ws://h.x'"));
    clean(s);
    assert_true(PUT(s, STORE_SECRETS, "{'metadata':{'namespace':'a','name':'s'},'data':{'tls.crt':'QQ=='}}"));
    assert_string_equal(dirty(s), "tls ");
    assert_false(
        PUT(s, STORE_SECRETS,
            "{'metadata':{'namespace':'a','name':'s','labels':{'x':'y'}},'data':{'tls.crt':'QQ=='}}"));
    assert_string_equal(dirty(s), "");
    assert_true(PUT(s, STORE_SECRETS, "{'metadata':{'namespace':'a','name':'s'},'data':{'tls.crt':'QUE='}}"));
    assert_string_equal(dirty(s), "tls ");
    assert_true(PUT(s, STORE_SECRETS, "{'metadata':{'namespace':'b','name':'s'}}"));
    assert_string_equal(dirty(s), "");
    assert_true(
        PUT(s, STORE_SERVICES, "{'metadata':{'namespace':'a','name':'svc'},'spec':{'ports':[{'port':80}]}}"));
    assert_string_equal(dirty(s), "list ref ");
    assert_true(
        PUT(s, STORE_SLICES,
            "{'metadata':{'namespace':'a','name':'svc-1','labels':{'kubernetes.io/service-name':'svc'}},"
            "'addressType':'IPv4','ports':[{'port':8080}],'endpoints':[{'addresses':['10.0.0.1']}]}"));
    assert_string_equal(dirty(s), "list ref ");
    assert_false(PUT(s, STORE_SLICES,
                     "{'metadata':{'namespace':'a','name':'svc-1','resourceVersion':'9','labels':"
                     "{'kubernetes.io/service-name':'svc'}},'addressType':'IPv4','ports':[{'port':8080}],"
                     "'endpoints':[{'addresses':['10.0.0.1'],'nodeName':'n'}]}"));
    assert_true(PUT(s, STORE_GRANTS, "{'metadata':{'namespace':'b','name':'g'},'spec':{}}"));
    assert_string_equal(dirty(s), "far ");
    assert_true(drop(s, STORE_SECRETS, "a", "s"));
    assert_string_equal(dirty(s), "tls ");
    assert_true(drop(s, STORE_SLICES, "a", "svc-1"));
    assert_string_equal(dirty(s), "list ref ");
    assert_false(drop(s, STORE_SLICES, "a", "svc-1"));
    store_set_sync(s, STORE_SECRETS, STORE_FORBIDDEN, "no");
    assert_string_equal(dirty(s), "tls ");
    store_set_sync(s, STORE_SECRETS, STORE_FORBIDDEN, "no");
    assert_string_equal(dirty(s), "");
    store_free(s);
}

static void secrets_keep_three_keys_and_say_what_is_no_base64(void **state)
{
    struct store *s = store_new();
    const struct store_secret *v;

    (void)state;
    PUT(s, STORE_SECRETS,
        "{'metadata':{'namespace':'a','name':'s'},'type':'Opaque','data':{'tls.crt':'QUI=',"
        "'tls.key':'?','ca.crt':7,'password':'QUI='}}");
    v = store_secret(s, "a", "s");
    assert_int_equal(v->cert.len, 2);
    assert_null(v->key.data);
    assert_non_null(strstr(v->problem, "tls.key: is not base64"));
    assert_non_null(strstr(v->problem, "ca.crt: is no text"));
    PUT(s, STORE_SECRETS, "{'metadata':{'namespace':'a','name':'t'},'data':[]}");
    assert_null(store_secret(s, "a", "t")->cert.data);
    store_free(s);
}

static void a_grant_names_both_sides(void **state)
{
    struct store *s = store_new();

    (void)state;
    assert_true(store_granted(s, "a", "Secret", "a", "x"));
    assert_false(store_granted(s, "a", "Secret", "b", "x"));
    PUT(s, STORE_GRANTS,
        "{'metadata':{'namespace':'b','name':'g'},'spec':{'from':[{'group':'tidegate.dev','kind':'"
        "WebSocketServer',"
        "'namespace':'a'}],'to':[{'group':'','kind':'Secret','name':'x'},{'group':'','kind':'Service'},"
        "{'group':'','kind':'Secret','name':7}]}}");
    assert_true(store_granted(s, "a", "Secret", "b", "x"));
    assert_false(store_granted(s, "a", "Secret", "b", "y"));
    assert_true(store_granted(s, "a", "Service", "b", "y"));
    assert_false(store_granted(s, "c", "Secret", "b", "x"));
    assert_false(store_granted(s, "a", "Secret", "c", "x"));
    store_free(s);
}

static void garbage_of_every_kind_is_borne(void **state)
{
    static const char *const garbage[] = {
        "{}",
        "[]",
        "{'metadata':[]}",
        "{'metadata':{'namespace':7,'name':'x'}}",
        "{'metadata':{'namespace':'a','name':'x','labels':7},'spec':7,'data':7,'ports':7,'endpoints':7}",
        "{'metadata':{'namespace':'a','name':'y'},'spec':{'ports':[7,{'port':'x'},{'port':-1}],'from':7,'to':"
        "[7]},"
        "'endpoints':[7,{'addresses':7},{'addresses':[7],'conditions':7}],'ports':[[]]}",
    };
    struct store *s = store_new();

    (void)state;
    for (int kind = 0; kind < STORE_KINDS; kind++)
        for (size_t i = 0; i < COUNT(garbage); i++) {
            PUT(s, (enum store_kind)kind, "%s", garbage[i]);
            PUT(s, (enum store_kind)kind, "%s", garbage[i]);
        }
    store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_replace_what_was_there_of_their_namespace),
        cmocka_unit_test(lists_of_two_namespaces_may_overlap),
        cmocka_unit_test(a_status_alone_is_kept_and_marks_nothing),
        cmocka_unit_test(made_again_it_is_another_object),
        cmocka_unit_test(a_change_marks_those_who_refer_to_it),
        cmocka_unit_test(secrets_keep_three_keys_and_say_what_is_no_base64),
        cmocka_unit_test(a_grant_names_both_sides),
        cmocka_unit_test(garbage_of_every_kind_is_borne),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
