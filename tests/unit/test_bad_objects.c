#include "render.h"

#include "test_objects.h"

static const struct render_rules gateway = {.gateway = "tidegate"};

/* Each field that takes a text, and the names of keys: people paste into the wrong one. */
static const char *const fields[] = {
    "'port':'%s'",
    "'port':10020,'backend':'%s'",
    "'port':10020,'backend':'ws://%s'",
    "'port':10020,'backend':'ws://h.x:%s'",
    "'port':10020,'backends':['%s']",
    "'port':10020,'backends':[{'url':'%s'}]",
    "'port':10020,'backends':[{'url':'ws://h.x','host':'%s'}]",
    "'port':10020,'backends':[{'url':'ws://h.x','weight':'%s'}]",
    "'port':10020,'backend':'ws://h.x','https':'%s'",
    "'port':10020,'backend':'ws://h.x','hosts':['%s']",
    "'port':10020,'backend':'ws://h.x','path':'%s'",
    "'port':10020,'backend':'ws://h.x','allowedOrigins':['%s']",
    "'port':10020,'backend':'ws://h.x','allowedOrigins':['https://%s']",
    "'port':10020,'backend':'ws://h.x','trustedProxies':['%s']",
    "'port':10020,'backend':'ws://h.x','loadBalance':'%s'",
    "'port':10020,'backend':'ws://h.x','proxyProtocol':'%s'",
    "'port':10020,'backend':'ws://h.x','headers':{'set':{'%s':'1'}}",
    "'port':10020,'backend':'ws://h.x','headers':{'set':{'X-A: %s':'1'}}",
    "'port':10020,'backend':'ws://h.x','headers':{'remove':['%s']}",
    "'port':10020,'backend':'ws://h.x','timeouts':{'idle':'%s'}",
    "'port':10020,'backend':'ws://h.x','limits':{'maxConnections':'%s'}",
    "'port':10020,'backend':'ws://h.x','ping':'%s'",
    "'port':10020,'backend':'ws://h.x','%s':1",
    "'port':10020,'backend':'ws://h.x','tls':{'%s':1},'https':true",
    "'port':10020,'backend':'ws://h.x','https':true,'tls':{'minVersion':'%s'}",
    "'port':10020,'backend':'ws://h.x','https':true,'tls':{'secretRef':'%s'}",
    "'port':10020,'backend':'ws://h.x','https':true,'tls':{'secretRef':{'name':'%s'}}",
    "'port':10020,'backend':'ws://h.x','https':true,'tls':{'secretRef':{'name':'s','%s':'x'}}",
    "'port':10020,'backend':'ws://h.x','https':true,'tls':{'keyFile':'%s'}",
    "'port':10020,'backend':'ws://h.x','https':true,'certBase64':'%s','keyBase64':'%s'",
    "'port':10020,'backend':'wss://h.x','backendTLS':{'serverName':'%s'}",
    "'port':10020,'backend':'wss://h.x','backendTLS':{'caBase64':'%s'}",
    "'port':10020,'backendRef':'%s'",
    "'port':10020,'backendRef':{'name':'%s','port':1}",
    "'port':10020,'backendRef':{'name':'x','port':1,'scheme':'%s'}",
    "'port':10020,'backend':'ws://h.x','gatewayName':'%s'",
    "'port':10020,'backend':'ws://h.x','workloadSelector':{'matchLabels':{'%s':'%s'}}",
    "'port':10020,'backend':'ws://h.x','kind':'%s'",
    "'port':10020,'backend':'ws://h.x','name':'%s'",
};

static const struct {
    const char *text, *secret;
} pasted[] = {
    /* PEM, the same in base64, DER in base64: an EC key, of which 60 characters hold all. */
    {"-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIHkq9Zr0sTn5uVw3xYb7cDe1fGh2iJk4lMn6oPq8rSt\\n",
     "MC4CAQ"},
    {"LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1DNENBUUF3QlFZREsyVndCQ0lFSUhrcTlacjBzVG41dVZ3M3hZYjdjRGUxZkdoMml"
     "Kaz0K",
     "TUM0Q0FR"},
    {"MHcCAQEEIHkq9Zr0sTn5uVw3xYb7cDe1fGh2iJk4lMn6oPq8rStoAoGCCqGSM49AwEHoUQDQgAE", "kq9Zr0s"},
    {"someone:hunter2@h.x", "hunter2"},
};

static void assert_untold(const char *text, const char *secret, const char *spec)
{
    if (text && strstr(text, secret))
        fail_msg("%s: %s", spec, text);
}

static void nothing_pasted_into_a_wrong_field_is_quoted(void **state)
{
    (void)state;
    for (size_t f = 0; f < COUNT(fields); f++)
        for (size_t p = 0; p < COUNT(pasted); p++) {
            struct store *s = store_new();
            struct render *r = render_new(&gateway);
            const struct render_verdict *v;
            char spec[1024], *secret = strdup(pasted[p].secret);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(spec, sizeof spec, fields[f], pasted[p].text, pasted[p].text);
#pragma GCC diagnostic pop
            PUT(s, STORE_WSS, "{'metadata':{'namespace':'a','name':'x'},'spec':{%s}}", spec);
            render_run(r, s);
            v = render_at(r, 0);
            assert_untold(store_at(s, 0)->wss.problem, secret, spec);
            assert_untold(v->accepted.message, secret, spec);
            assert_untold(v->resolved.message, secret, spec);
            free(secret);
            render_free(r);
            store_free(s);
        }
}

/* The value of a header in the place of its name. */
static void of_a_header_only_its_name_is_told(void **state)
{
    static const char *const headers[] = {"'set':{'Authorization: Bearer hunter2':''}",
                                          "'remove':['Authorization: Bearer hunter2']"};

    (void)state;
    for (size_t i = 0; i < COUNT(headers); i++) {
        struct store *s = store_new();
        const char *problem;

        PUT(s, STORE_WSS,
            "{'metadata':{'namespace':'a','name':'x'},'spec':{'port':1,'backend':'ws://h.x','headers':{%s}}}",
            headers[i]);
        problem = store_at(s, 0)->wss.problem;
        assert_non_null(problem);
        assert_non_null(strstr(problem, "\"Authorization:\" is not the name of a header"));
        assert_untold(problem, "hunter2", headers[i]);
        store_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_pasted_into_a_wrong_field_is_quoted),
        cmocka_unit_test(of_a_header_only_its_name_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
