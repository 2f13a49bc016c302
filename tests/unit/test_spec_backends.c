/* test_spec_backends.c - the list of backends: what it may hold, and which addresses are local */
#include "spec/spec_values.h"
#include "test_spec_text.h"

static void reads_a_list_of_backends(void **state)
{
    static const char text[] =
        HEAD "backends:\n"
             "  - {url: \"ws://[::1]:3001/x\", host: Chat.default.svc:8080, weight: 0}\n"
             "  - {weight: 1000000, url: wss://B}\n"
             "  - {url: ws://b, host: , weight: }\n"
             "  - {url: ws://b:443}\n"
             "backendTLS: {insecureSkipVerify: true}\n"
             "---\nkind: WebSocketServer\nname: b\nport: 2\nbackends: []\nbackendTLS: {serverName: b}\n";
    const struct spec_server *s;
    struct spec spec;

    (void)state;
    assert_good(text, &spec);
    s = spec.servers;
    assert_null(s->backend.text);
    assert_true(s->backends_given);
    assert_int_equal(s->backend_count, 4);
    assert_string_equal(s->backends[0].url.host, "::1");
    assert_string_equal(s->backends[0].host, "chat.default.svc:8080");
    assert_int_equal(s->backends[0].weight, 0);
    assert_true(s->backends[1].url.tls);
    assert_int_equal(s->backends[1].url.port, 443);
    assert_int_equal(s->backends[1].weight, 1000000);
    assert_null(s->backends[2].host);
    assert_int_equal(s->backends[2].weight, 1);
    assert_int_equal(s->backends[3].pos.line, 8);
    assert_true(s[1].backends_given);
    assert_int_equal(s[1].backend_count, 0);
    spec_free(&spec);
}

static void bounds_the_list_of_backends(void **state)
{
    char text[16384];
    size_t n = (size_t)snprintf(text, sizeof text, HEAD "backends:\n");
    struct spec spec;

    (void)state;
    for (unsigned i = 0; i < SPEC_MAX_LIST; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "  - url: ws://b%u\n", i);
    assert_good(text, &spec);
    assert_int_equal(spec.servers[0].backend_count, SPEC_MAX_LIST);
    spec_free(&spec);
    snprintf(text + n, sizeof text - n, "  - url: ws://b\n");
    assert_problem(text, "F:261:5: server \"a\": backends: more than 256 items", "shorten the list");
}

static const struct bad {
    const char *text, *where, *because;
} bad_fields[] = {
    {HEAD "backends:\n", "F:1:1: server \"a\": backend: missing", "or backends"},
    {HEAD "backends: ws://b\n", "F:4:11: server \"a\": backends: is a single value", "give a list"},
    {HEAD "backends: {url: ws://b}\n", "F:4:11: server \"a\": backends: is a mapping", "give a list"},
    {HEAD "backends: [ws://b]\n", "F:4:12: server \"a\": backends[0]: is no mapping", "give url:"},
    {HEAD "backends: [{url: ws://b}, null]\n", "F:4:27: server \"a\": backends[1]: is no mapping",
     "give url:"},
    {HEAD "backends: [{url: ws://b}, {}]\n", "F:4:27: server \"a\": backends[1]: url is missing",
     "ws://HOST"},
    {HEAD "backends: [{url: }]\n", "F:4:12: server \"a\": backends[0]: url is missing", "ws://HOST"},
    {HEAD "backends: [*x]\n", "F:4:12: server \"a\": backends[0]: an alias", "write the value out"},
    {HEAD "backends: [{url: http://b}]\nbackendTLS: {}\n", "F:4:18: server \"a\": backends[0].url: \"http\"",
     "write ws"},
    {HEAD "backends: [{url: ws://b, url: ws://c}]\n",
     "F:4:26: server \"a\": backends[0].url: stands here twice", "keep one"},
    {HEAD "backends: [{url: ws://b, weigth: 1}]\n", "F:4:26: server \"a\": backends[0].weigth: unknown key",
     "did you mean weight?"},
    {HEAD "backends: [{url: ws://b, weight: 1000001}]\n",
     "F:4:34: server \"a\": backends[0].weight: 1000001 is out of range", "from 0 to 1000000"},
    {HEAD "backends: [{url: ws://b, weight: -1}]\n", "F:4:34: server \"a\": backends[0].weight: \"-1\"",
     "digits"},
    {HEAD "backends: [{url: ws://b, weight: \"2\"}]\n",
     "F:4:34: server \"a\": backends[0].weight: \"2\" is a text", "without"},
    {HEAD "backends: [{url: ws://b, host: a b}]\n", "F:4:32: server \"a\": backends[0].host: has \"a b\"",
     "give a name"},
    {HEAD "backends: [{url: ws://b, host: \"::1\"}]\n", "F:4:32: server \"a\": backends[0].host: has",
     "in [ ]"},
    {HEAD "backends:\n  - url: ws://b\n  - url: ws://B:80/path\n",
     "F:6:10: server \"a\": backends[1]: \"ws://B:80/path\" is a backend already, at line 5", "weight"},
    {BASE "backends: []\n", "F:5:11: server \"a\": backends: backend is given as well, at line 4",
     "one of the two"},
    {HEAD "backends: [{url: ws://b}, {url: ws://c}]\nbackendTLS: {}\n",
     "F:5:13: server \"a\": backendTLS: is for wss backends only", "a URL of backends"},
};

static void says_of_every_wrong_backend_where_and_what_would_be_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad_fields); i++)
        assert_problem(bad_fields[i].text, bad_fields[i].where, bad_fields[i].because);
}

static void knows_local_addresses_in_every_form(void **state)
{
    static const char *const local[] = {
        "127.0.0.1",
        "127.255.255.255",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.0.1",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "fe80::1",
        "febf:ffff::1",
        "::ffff:169.254.1.1",
        "fd00:ec2::254",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "::ffff:100.100.100.200",
        "64:ff9b::a83f:8110",
        "fd20:ce::254",
        "localhost",
        "a.localhost",
        "a.b.localhost",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
    };
    static const char *const others[] = {
        "126.255.255.255",
        "128.0.0.1",
        "1.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "::ffff:10.0.0.1",
        "fec0::1",
        "fe7f::1",
        "fd00:ec2::253",
        "fd20:ce::253",
        "100.100.100.201",
        "168.63.129.17",
        "fd00:ec2::1:254",
        "1::1",
        "2001:db8::127.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "64:ff9b:1::7f00:1",
        "localhost.example",
        "mylocalhost",
        "localhosts",
        "local",
        "a",
        "::a00:1",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(local); i++)
        if (!spec_host_is_local(local[i]))
            fail_msg("%s is local", local[i]);
    for (size_t i = 0; i < COUNT(others); i++)
        if (spec_host_is_local(others[i]))
            fail_msg("%s is not local", others[i]);
}

static void reads_hosts_with_a_port(void **state)
{
    static const struct {
        const char *text, *out; /* NULL: refused */
    } cases[] = {
        {"chat.default.svc", "chat.default.svc"},
        {"Chat:8080", "chat:8080"},
        {"10.0.0.1:80", "10.0.0.1:80"},
        {"[2001:DB8::1]", "[2001:db8::1]"},
        {"[::1]:443", "[::1]:443"},
        {"", NULL},
        {":80", NULL},
        {"a:", NULL},
        {"a:0", NULL},
        {"a:65536", NULL},
        {"::1", NULL},
        {"a/b", NULL},
        {"a\r\nX: b", NULL},
        {"ws://a", NULL},
        {"a@b", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *out = NULL;
        struct err err;
        int rc = spec_value_authority(cases[i].text, strlen(cases[i].text), &out, &err);

        if (!cases[i].out)
            assert_int_equal(rc, -1);
        else if (rc || strcmp(out, cases[i].out) != 0)
            fail_msg("\"%s\" gave \"%s\"", cases[i].text, rc ? err.msg : out);
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_list_of_backends),
        cmocka_unit_test(bounds_the_list_of_backends),
        cmocka_unit_test(says_of_every_wrong_backend_where_and_what_would_be_right),
        cmocka_unit_test(knows_local_addresses_in_every_form),
        cmocka_unit_test(reads_hosts_with_a_port),
    };

    return cmocka_run_group_tests_name("spec_backends", tests, NULL, NULL);
}
