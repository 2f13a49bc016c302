#include "spec/spec.h"

#include "test_spec_text.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *example_1 =
    "kind: WebSocketServer\n"
    "name: websocketSvr          # rendered: namespace/name\n"
    "https: false                # clients come by https/wss when true; then certBase64 "
    "and keyBase64 (or tls) are required\n"
    "certBase64:                 # PEM, base64\n"
    "keyBase64:\n"
    "port: 10020\n"
    "backend: ws://localhost:3001  # ws:// or wss://; ports default to 80 and 443; the "
    "client's path and query replace any path in it\n"
    "wssCertBase64:              # certificate and key the proxy shows a wss backend "
    "(client certificate)\n"
    "wssKeyBase64:\n";

static void reads_example_1_as_it_stands(void **state)
{
    struct spec s;

    (void)state;
    assert_good(example_1, &s);
    assert_int_equal(s.count, 1);
    assert_string_equal(s.servers[0].name, "websocketSvr");
    assert_false(s.servers[0].https);
    assert_int_equal(s.servers[0].port, 10020);
    assert_string_equal(s.servers[0].backend.host, "localhost");
    assert_int_equal(s.servers[0].backend.port, 3001);
    assert_false(s.servers[0].backend.tls);
    assert_null(s.servers[0].cert.data);
    assert_null(s.servers[0].wss_key.data);
    assert_true(s.servers[0].headers.keep_host);
    assert_int_equal(s.servers[0].timeouts.connect_ms, 5000);
    assert_int_equal(s.servers[0].timeouts.handshake_ms, 10000);
    assert_int_equal(s.servers[0].timeouts.idle_ms, 0);
    assert_int_equal(s.servers[0].timeouts.max_age_ms, 0);
    assert_int_equal(s.servers[0].timeouts.drain_ms, 30000);
    assert_int_equal(s.servers[0].ping.interval_ms, 0);
    assert_int_equal(s.servers[0].ping.timeout_ms, 10000);
    assert_int_equal(s.servers[0].limits.max_connections, 0);
    assert_int_equal(s.servers[0].port_pos.line, 6);
    assert_int_equal(s.servers[0].port_pos.column, 7);
    spec_free(&s);
}

static void reads_example_2_with_certificates_of_its_own(void **state)
{
    struct made_pair server = make_pair("localhost"), client = make_pair("gateway");
    char *text =
        text_of("kind: WebSocketServer\nname: websocketSvr\nhttps: true\ncertBase64: %s\nkeyBase64: %s\n"
                "port: 10020\nbackend: wss://localhost:3001\nwssCertBase64: %s\nwssKeyBase64: %s\n",
                server.cert64, server.key64, client.cert64, client.key64);
    struct spec s;

    (void)state;
    assert_good(text, &s);
    assert_true(s.servers[0].https);
    assert_true(s.servers[0].backend.tls);
    assert_int_equal(s.servers[0].cert.len, strlen(server.cert));
    assert_memory_equal(s.servers[0].cert.data, server.cert, strlen(server.cert));
    assert_memory_equal(s.servers[0].wss_key.data, client.key, strlen(client.key));
    spec_free(&s);
    free(text);
    made_pair_free(&server);
    made_pair_free(&client);
}

static void reads_every_extension(void **state)
{
    struct made_pair a = make_pair("a");
    char *text =
        text_of(HEAD "backend: wss://b\nhttps: TRUE\ncertBase64: %s\nkeyBase64: >\n  %s\n"
                     "tls: {minVersion: TLSv1.3, clientCABase64: %s}\n"
                     "backendTLS:\n  caBase64: %s\n  serverName: Chat.Example.org\n"
                     "  insecureSkipVerify: true\n"
                     "allowedOrigins: [https://A.example, \"null\"]\n"
                     "headers: {set: {X-A: 1, X-B: \"\"}, remove: [Cookie], keepHost: false}\n"
                     "trustedProxies: [10.0.0.0/8, \"::1\"]\n"
                     "timeouts: {connect: 1s, handshake: 2s, idle: 1m30s, maxAge: 24h, drain: 0}\n"
                     "ping: {interval: 20s, timeout: 300ms}\n"
                     "limits: {clientMaxMessageBytes: 1024, backendMaxMessageBytes: 0,\n"
                     "  maxConnections: 4294967295, maxConnectionsPerIP: 20, handshakesPerSecond: 7}\n",
                a.cert64, a.key64, a.cert64, a.cert64);
    struct spec spec;
    struct spec_server *s;

    (void)state;
    assert_good(text, &spec);
    s = &spec.servers[0];
    assert_true(s->tls_given && s->backend_tls_given && s->backend_tls.insecure_skip_verify);
    assert_int_equal(s->tls.min_version, SPEC_TLS_1_3);
    assert_string_equal(s->backend_tls.server_name, "chat.example.org");
    assert_memory_equal(s->key.data, a.key, s->key.len);
    assert_non_null(s->tls.client_ca.data);
    assert_non_null(s->backend_tls.ca.data);
    assert_int_equal(s->allowed_origins.count, 2);
    assert_string_equal(s->allowed_origins.items[0], "https://a.example");
    assert_string_equal(s->headers.set[0].value, "1");
    assert_string_equal(s->headers.set[1].value, "");
    assert_string_equal(s->headers.remove.items[0], "Cookie");
    assert_false(s->headers.keep_host);
    assert_int_equal(s->trusted_proxies[0].bits, 104);
    assert_int_equal(s->trusted_proxies[1].bits, 128);
    assert_int_equal(s->timeouts.connect_ms, 1000);
    assert_int_equal(s->timeouts.idle_ms, 90000);
    assert_int_equal(s->timeouts.max_age_ms, 24 * 60 * 60 * 1000);
    assert_int_equal(s->timeouts.drain_ms, 0);
    assert_int_equal(s->ping.interval_ms, 20000);
    assert_int_equal(s->ping.timeout_ms, 300);
    assert_int_equal(s->limits.client_max_message_bytes, 1024);
    assert_int_equal(s->limits.max_connections, UINT32_MAX);
    assert_int_equal(s->limits.max_connections_per_ip, 20);
    assert_int_equal(s->limits.handshakes_per_second, 7);
    spec_free(&spec);
    free(text);
    made_pair_free(&a);
}

static void takes_files_without_documents(void **state)
{
    static const char *const empty[] = {
        "", "\n", "# only a comment\n", "---\n", "---\n---\n...\n", "~\n", "\xef\xbb\xbf"};

    (void)state;
    for (size_t i = 0; i < COUNT(empty); i++) {
        struct spec s;

        assert_good(empty[i], &s);
        assert_int_equal(s.count, 0);
        spec_free(&s);
    }
}

static void takes_an_empty_value_for_an_absent_one(void **state)
{
    struct spec s;

    (void)state;
    assert_good("\xef\xbb\xbf%YAML 1.2\n---\n" BASE
                "https:\ntls: ~\nbackendTLS: null\nallowedOrigins:\nheaders: {set: , remove: , keepHost: }\n"
                "trustedProxies: []\ntimeouts: {connect: , idle: \"\", drain: }\nping: {interval: , timeout: "
                "}\nlimits: {}\nwssCertBase64: \"\"\n",
                &s);
    assert_false(s.servers[0].tls_given);
    assert_false(s.servers[0].backend_tls_given);
    assert_true(s.servers[0].headers.keep_host);
    assert_int_equal(s.servers[0].timeouts.connect_ms, 5000);
    assert_int_equal(s.servers[0].timeouts.drain_ms, 30000);
    assert_int_equal(s.servers[0].ping.timeout_ms, 10000);
    spec_free(&s);
}

static const struct bad {
    const char *text, *where, *because;
} bad_fields[] = {
    {"kind: WebSocketServer\nport: 1\nbackend: ws://b\n", "F:1:1: name: missing", "a name of its own"},
    {"kind: WebSocketServer\nname: a\nbackend: ws://b\n", "F:1:1: server \"a\": port: missing", "1 to 65535"},
    {HEAD, "F:1:1: server \"a\": backend: missing", "ws://HOST"},
    {"name: a\nport: 1\nbackend: ws://b\n", "F:1:1: server \"a\": kind: missing", "WebSocketServer"},
    {"kind: HTTPServer\nname: a\nrules: [{paths: []}]\n", "F:1:7: server \"a\": kind: \"HTTPServer\"",
     "WebSocketServer"},
    {"kind: websocketserver\n", "F:1:7: kind:", "give WebSocketServer"},
    {BASE "colour: red\n", "F:5:1: server \"a\": colour: unknown key", "remove it"},
    {BASE "Https: true\n", "F:5:1: server \"a\": Https: unknown key", "did you mean https?"},
    {BASE "certbase64: eA==\n", "F:5:1: server \"a\": certbase64:", "did you mean certBase64?"},
    {BASE "tls: {certfile: x}\nhttps: true\n", "F:5:7: server \"a\": tls.certfile: unknown",
     "did you mean certFile?"},
    {BASE "hosts: [a]\n", "F:5:1: server \"a\": hosts: unknown key", ""},
    {BASE "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7: x\n",
     "F:5:1: server \"a\": unknown key of 52 bytes", ""},
    {BASE "port: 1\n", "F:5:1: server \"a\": port: stands here twice, first at line 3", "keep one"},
    {BASE "timeouts: {idle: 1s, idle: 1s}\n", "F:5:22: server \"a\": timeouts.idle: stands here twice",
     "line 5"},
    {BASE "? [x]\n: 1\n", "F:5:3: server \"a\": a key must be a word", ""},
    {BASE "https: yes\n", "F:5:8: server \"a\": https: \"yes\"", "write true or false"},
    {BASE "https: \"true\"\n", "F:5:8: server \"a\": https: \"true\" is a text", "without them"},
    {BASE "https: [true]\n", "F:5:8: server \"a\": https: is a list", "give a single value"},
    {BASE "tls: true\n", "F:5:6: server \"a\": tls: is a single value", "give a mapping"},
    {BASE "allowedOrigins: https://a\n", "F:5:17: server \"a\": allowedOrigins: is a single value",
     "give a list"},
    {BASE "headers: [a]\n", "F:5:10: server \"a\": headers: is a list", "give a mapping"},
    {BASE "allowedOrigins: [null]\n", "F:5:18: server \"a\": allowedOrigins: an item is empty", "in quotes"},
    {BASE "allowedOrigins:\n  - https://a\n  - \"*\"\n", "F:7:5: server \"a\": allowedOrigins: \"*\"",
     "exactly"},
    {BASE "allowedOrigins: [[a]]\n", "F:5:18: server \"a\": allowedOrigins: an item is a list", "text"},
    {BASE "trustedProxies: [10.0.0.1/8]\n", "F:5:18: server \"a\": trustedProxies:", "10.0.0.0/8"},
    {BASE "headers: {set: {Host: a}}\n", "F:5:17: server \"a\": headers.set: Host", "keepHost"},
    {BASE "headers: {set: {Upgrade: a}}\n", "F:5:17: server \"a\": headers.set: Upgrade", "own"},
    {BASE "headers: {set: {X-A: 1, x-a: 2}}\n", "F:5:25: server \"a\": headers.set: x-a is set twice",
     "line 5"},
    {BASE "headers: {set: {X-A: }}\n", "F:5:22: server \"a\": headers.set: X-A has no value", "\"\""},
    {BASE "headers: {set: {X-A: [1]}}\n", "F:5:22: server \"a\": headers.set: X-A is a list", "text"},
    {BASE "headers: {set: {X-A: \"a\\r\\nb\"}}\n", "F:5:22: server \"a\": headers.set: X-A has control",
     "one line"},
    {BASE "headers: {remove: [A, a]}\n", "F:5:23: server \"a\": headers.remove: a stands here twice",
     "keep one"},
    {BASE "headers: {remove: [te]}\n", "F:5:20: server \"a\": headers.remove: te", "own"},
    {BASE "headers: {set: {X-A: 1}, remove: [x-A]}\n", "F:5:35: server \"a\": headers.remove: x-A is set",
     "keep one"},
    {BASE "timeouts: {connect: 0}\n", "F:5:21: server \"a\": timeouts.connect: must be above 0", "default"},
    {BASE "timeouts: {handshake: 0s}\n", "F:5:23: server \"a\": timeouts.handshake: must be", "default"},
    {BASE "timeouts: {idle: 5}\n", "F:5:18: server \"a\": timeouts.idle: \"5\"", "like 5s"},
    {BASE "timeouts: {idle: 25h}\n", "F:5:18: server \"a\": timeouts.idle: \"25h\"", "24h"},
    {BASE "timeouts: {maxage: 5s}\n", "F:5:12: server \"a\": timeouts.maxage: unknown key",
     "did you mean maxAge?"},
    {BASE "timeouts: {maxAge: 25h}\n", "F:5:20: server \"a\": timeouts.maxAge: \"25h\"", "24h"},
    {BASE "timeouts: {drain: 30}\n", "F:5:19: server \"a\": timeouts.drain: \"30\"", "like 5s"},
    {BASE "ping: 20s\n", "F:5:7: server \"a\": ping: is a single value", "give a mapping"},
    {BASE "ping: {intervall: 20s}\n", "F:5:8: server \"a\": ping.intervall: unknown key",
     "did you mean interval?"},
    {BASE "ping: {interval: -1s}\n", "F:5:18: server \"a\": ping.interval: \"-1s\"", "like 5s"},
    {BASE "ping: {timeout: 0}\n", "F:5:17: server \"a\": ping.timeout: must be above 0", "default"},
    {BASE "limits: {maxConnections: 4294967296}\n",
     "F:5:26: server \"a\": limits.maxConnections: 4294967296 is out of range", "from 0 to 4294967295"},
    {BASE "limits: {maxConnectionsPerIP: \"20\"}\n",
     "F:5:31: server \"a\": limits.maxConnectionsPerIP: \"20\" is a text", "without"},
    {BASE "limits: {maxConnectionsPerIp: 20}\n",
     "F:5:10: server \"a\": limits.maxConnectionsPerIp: unknown key", "did you mean maxConnectionsPerIP?"},
    {BASE "limits: {handshakesPerSecond: 0.5}\n", "F:5:31: server \"a\": limits.handshakesPerSecond: \"0.5\"",
     "digits"},
    {BASE "limits: {clientMaxMessageBytes: 64MiB}\n",
     "F:5:33: server \"a\": limits.clientMaxMessageBytes:", "digits"},
    {BASE "limits: {clientMaxMessageBytes: -1}\n",
     "F:5:33: server \"a\": limits.clientMaxMessageBytes:", "digits"},
    {BASE "tls: {minVersion: TLSv1.1}\n", "F:5:19: server \"a\": tls.minVersion: \"TLSv1.1\"", "TLSv1.3"},
    {BASE "certBase64: \"%%%\"\nhttps: true\n", "F:5:13: server \"a\": certBase64: is not base64",
     "base64 -w0"},
    {HEAD "backend: http://b\n", "F:4:10: server \"a\": backend: \"http\"", "write ws"},
    {HEAD "backend: ws://u:p@b\nwssCertBase64: eA==\nbackendTLS: {}\n",
     "F:4:10: server \"a\": backend: has a user", ""},
    {"kind: WebSocketServer\nname: a\nport: 0x50\nbackend: ws://b\n", "F:3:7: server \"a\": port: \"0x50\"",
     "digits"},
    {"kind: WebSocketServer\nname: a\nport: 010\nbackend: ws://b\n", "F:3:7: server \"a\": port: \"010\"",
     "octal"},
    {"kind: WebSocketServer\nname: a\nport: 70000\nbackend: ws://b\n",
     "F:3:7: server \"a\": port: 70000 is out of range", "give a number from 1 to 65535"},
    {"kind: WebSocketServer\nname: a\nport: \"80\"\nbackend: ws://b\n",
     "F:3:7: server \"a\": port: \"80\" is a text", ""},
    {"kind: WebSocketServer\nname: a b\nport: 1\nbackend: ws://b\n", "F:2:7: name: \"a b\" is not a name",
     ""},
    {"kind: WebSocketServer\nname: \"a\\0b\"\nport: 1\nbackend: ws://b\n", "F:2:7: name: \"a\\x00b\" is not",
     ""},
    {"- a\n", "F:1:1: a document must be a mapping", "kind: WebSocketServer"},
    {"hello\n", "F:1:1: a document must be a mapping", ""},
    {BASE "tls: &x {minVersion: TLSv1.3}\n", "F:5:6: server \"a\": tls: an anchor", "without it"},
    {BASE "tls: *x\n", "F:5:6: server \"a\": tls: an alias", "write the value out"},
    {BASE "<<: *x\n", "F:5:1: server \"a\": a merge key", "write the fields out"},
    {BASE "https: !!bool false\n", "F:5:8: server \"a\": https: a tag", "without it"},
    {BASE "limits: !x {a: b}\n", "F:5:9: server \"a\": limits: a tag", "without it"},
    {"&x " BASE, "F:1:1: server \"a\": an anchor", ""},
    {"--- !x\n" BASE, "F:1:5: a tag", ""},
};

static void says_of_every_wrong_field_where_and_what_would_be_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad_fields); i++)
        assert_problem(bad_fields[i].text, bad_fields[i].where, bad_fields[i].because);
}

static void says_where_the_yaml_ends_and_what_was_wrong_before(void **state)
{
    static const struct bad bad[] = {
        {HEAD "backend: ws://b: c\n", "F:4:16: server \"a\": not valid YAML",
         "mapping values are not allowed"},
        {BASE "\thttps: true\n", "F:5:1: server \"a\": not valid YAML", ""},
        {BASE "tls: {\n", "F:6:1: server \"a\": not valid YAML", ""},
        {BASE "tls: \"\n", "F:6:1: server \"a\": not valid YAML", "quoted scalar"},
        {HEAD "backend: \"\\ud800\"\n", "F:4:", "not valid YAML"},
        {"%YAML 2.0\n---\n" BASE, "F:1:1: not valid YAML", "incompatible"},
    };
    char *printed;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_problem(bad[i].text, bad[i].where, bad[i].because);
    assert_problem_of("kind: \xff\n", 8, "F:1:7: not a text in UTF-8", "UTF-8");
    assert_problem_of("kind: WebSocketServer\nname: a\0b\n", 33, "F:2:8: not a text in UTF-8",
                      "control characters");
    assert_problem_of("k\0i\0n\0d\0", 8, "F:1:2: not a text in UTF-8", "control characters");
    printed = problems_of("kind: WebSocketServer\nname: a\nport: x\ncolour: 1\n{\n", 49, NULL);
    assert_non_null(strstr(printed, "F:3:7: server \"a\": port"));
    assert_non_null(strstr(printed, "F:4:1: server \"a\": colour"));
    assert_non_null(strstr(printed, "not valid YAML"));
    assert_null(strstr(printed, "missing"));
    free(printed);
}

/* The certificates of these are made for the test; %1$s is one, %2$s its key, %3$s the key of another. */
static const struct bad bad_rules[] = {
    {BASE "https: true\n", "F:5:8: server \"a\": https: true needs a certificate", "tls.certFile"},
    {BASE "https: true\ncertBase64: %1$s\n", "F:6:13: server \"a\": certBase64: given without its key",
     "keyBase64"},
    {BASE "https: true\nkeyBase64: %2$s\n", "F:6:12: server \"a\": keyBase64: given without its cert",
     "certBase64"},
    {BASE "https: true\ncertBase64: %1$s\nkeyBase64: %3$s\n",
     "F:7:12: server \"a\": keyBase64: does not match", ""},
    {BASE "https: true\ncertBase64: %2$s\nkeyBase64: %2$s\n",
     "F:6:13: server \"a\": certBase64: no certificate", ""},
    {BASE "https: true\ncertBase64: %1$s\nkeyBase64: %1$s\n",
     "F:7:12: server \"a\": keyBase64: no private key", ""},
    {BASE "https: true\ncertBase64: %1$s\ntls: {keyFile: %4$s}\n",
     "F:7:16: server \"a\": tls.keyFile: goes together", "both as files"},
    {BASE "https: true\ncertBase64: %1$s\nkeyBase64: %2$s\ntls: {certFile: x}\n",
     "F:8:17: server \"a\": tls.certFile: certBase64 is given as well, at line 6", "one of the two"},
    {BASE "https: true\ntls: {keyFile: x}\ncertBase64: %1$s\nkeyBase64: %2$s\n",
     "F:8:12: server \"a\": keyBase64: tls.keyFile is given as well, at line 6", "one of the two"},
    {BASE "certBase64: %1$s\nkeyBase64: %2$s\n", "F:5:13: server \"a\": certBase64: is not used",
     "https: true"},
    {BASE "keyBase64: %2$s\n", "F:5:12: server \"a\": keyBase64: is not used", "https: true"},
    {BASE "tls: {minVersion: TLSv1.3}\n", "F:5:6: server \"a\": tls: needs https: true", "remove tls"},
    {BASE "https: true\ncertBase64: %1$s\nkeyBase64: %2$s\ntls: {clientCABase64: %2$s}\n",
     "F:8:23: server \"a\": tls.clientCABase64: no certificate", ""},
    {BASE "https: true\ncertBase64: %1$s\nkeyBase64: %2$s\ntls: {clientCABase64: %1$s, clientCAFile: x}\n",
     "F:8:", "tls.clientCAFile: tls.clientCABase64 is given as well"},
    {BASE "wssCertBase64: %1$s\nwssKeyBase64: %2$s\n", "F:5:16: server \"a\": wssCertBase64: is shown to wss",
     "wss://"},
    {BASE "wssKeyBase64: %2$s\n", "F:5:15: server \"a\": wssKeyBase64: is shown to wss", "wss://"},
    {BASE "backendTLS: {}\n", "F:5:13: server \"a\": backendTLS: is for wss", "remove it"},
    {HEAD "backend: wss://b\nwssCertBase64: %1$s\n", "F:5:16: server \"a\": wssCertBase64: given without",
     "wssKeyBase64"},
    {HEAD "backend: wss://b\nwssKeyBase64: %2$s\n", "F:5:15: server \"a\": wssKeyBase64: given without",
     "wssCertBase64"},
    {HEAD "backend: wss://b\nwssCertBase64: %1$s\nwssKeyBase64: %3$s\n",
     "F:6:15: server \"a\": wssKeyBase64: does not", ""},
    {HEAD "backend: wss://b\nwssCertBase64: %1$s\nwssKeyBase64: x\n",
     "F:6:15: server \"a\": wssKeyBase64: is not", ""},
    {HEAD "backend: wss://b\nbackendTLS: {caBase64: %2$s}\n",
     "F:5:24: server \"a\": backendTLS.caBase64: no cert", ""},
    {HEAD "backend: wss://b\nbackendTLS: {caBase64: %1$s, caFile: x}\n",
     "F:5:", "backendTLS.caFile: backendTLS.caBase64 is given as well"},
    {BASE "---\n" BASE, "F:7:7: server \"a\": name: a is the name of the server at line 2 too", ""},
    {BASE "---\nkind: WebSocketServer\nname: b\nport: 10020\nbackend: ws://b\n",
     "F:8:7: server \"b\": port: 10020 is taken by server \"a\" at line 3", "port of its own"},
};

/* Replaces %N$s; as printf would, without a format that the compiler cannot see. */
static char *filled(const char *pattern, const char *const values[])
{
    char *text = join("", "");

    for (const char *p = pattern; *p; p++) {
        char one[2] = {*p, '\0'}, *longer;
        const char *add = one;

        if (p[0] == '%' && p[1] >= '1' && p[1] <= '9') {
            add = values[p[1] - '1'];
            p += 3;
        }
        longer = join(text, add);
        free(text);
        text = longer;
    }
    return text;
}

static void says_of_every_broken_rule_where_and_what_would_be_right(void **state)
{
    struct made_pair a = make_pair("a"), b = make_pair("b");
    char *key_file = temp_file(a.key);
    const char *const values[] = {a.cert64, a.key64, b.key64, key_file};

    (void)state;
    for (size_t i = 0; i < COUNT(bad_rules); i++) {
        char *text = filled(bad_rules[i].text, values);
        size_t names = 0, ports = 0;

        /* Two documents of one name share the port too: that table row is about the name. */
        if (strstr(bad_rules[i].because, "port of its own"))
            ports++;
        if (strstr(bad_rules[i].where, "name of the server"))
            names++;
        if (names && !ports) {
            char *other = strstr(strstr(text, "---"), "10020");

            memcpy(other, "10021", 5);
        }
        assert_problem(text, bad_rules[i].where, bad_rules[i].because);
        free(text);
    }
    unlink(key_file);
    free(key_file);
    made_pair_free(&a);
    made_pair_free(&b);
}

static void reports_all_problems_of_a_file_once_and_in_order(void **state)
{
    char *printed =
        loaded("kind: WebSocketServer\nname: a\nport: 70000\nbackend: http://b\nhttps: yes\n"
               "---\nkind: WebSocketServer\nname: b\nport: 1\nhttps: true\nbackend: ws://b\n"
               "timeouts: {idle: 5, connect: 0}\nwssCertBase64: \"!\"\nwssKeyBase64:\n"
               "---\nkind: HTTPServer\nname: b\nport: 1\n"
               "---\nkind: WebSocketServer\nname: b\nport: 1\ncertbase64: eA==\nkeyBase64: \nhttps: true\n",
               NULL);
    static const char *const lines[] = {
        "F:3:7: server \"a\": port:",
        "F:4:10: server \"a\": backend:",
        "F:5:8: server \"a\": https:",
        "F:10:8: server \"b\": https: true needs",
        "F:12:18: server \"b\": timeouts.idle:",
        "F:12:30: server \"b\": timeouts.connect:",
        "F:13:16: server \"b\": wssCertBase64:",
        "F:16:7: server \"b\": kind:",
        "F:20:1: server \"b\": backend: missing",
        "F:21:7: server \"b\": name: b is the name of the server at line 8",
        "F:22:7: server \"b\": port: 1 is taken",
        "F:23:1: server \"b\": certbase64: unknown",
    };
    char *at = printed;

    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        if (strncmp(at, lines[i], strlen(lines[i])) != 0)
            fail_msg("line %zu is not \"%s\" in:\n%s", i + 1, lines[i], printed);
        at = strchr(at, '\n') + 1;
    }
    assert_string_equal(at, "");
    free(printed);
}

static void reads_the_files_that_are_named(void **state)
{
    struct made_pair a = make_pair("a");
    char *cert = temp_file(a.cert), *key = temp_file(a.key);
    char *text =
        text_of(HEAD "backend: wss://b\nhttps: true\ntls: {certFile: %s, keyFile: %s, clientCAFile: %s}\n"
                     "backendTLS: {caFile: %s}\n",
                cert, key, cert, cert);
    char *printed;
    struct spec s;

    (void)state;
    printed = loaded(text, &s);
    assert_string_equal(printed, "");
    assert_memory_equal(s.servers[0].cert.data, a.cert, strlen(a.cert));
    assert_memory_equal(s.servers[0].key.data, a.key, strlen(a.key));
    assert_string_equal(s.servers[0].key.file, key);
    assert_int_equal(s.servers[0].tls.client_ca.len, strlen(a.cert));
    assert_int_equal(s.servers[0].backend_tls.ca.len, strlen(a.cert));
    spec_free(&s);
    free(printed);
    free(text);
    unlink(cert);
    unlink(key);
    free(cert);
    free(key);
    made_pair_free(&a);
}

static void names_field_and_path_of_a_file_that_cannot_be_used(void **state)
{
    struct made_pair a = make_pair("a");
    char *cert = temp_file(a.cert), *empty = temp_file(""), *fifo = temp_file(""), *large = temp_file(a.key);
    const struct {
        const char *path, *because;
    } bad[] = {{"/nonexistent/key", "/nonexistent/key: No such file"},
               {empty, "is empty"},
               {fifo, "not a regular file"},
               {large, "larger than 65536 bytes"},
               {"/tmp", "/tmp: "},
               {cert, "no private key"}};

    (void)state;
    unlink(fifo);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(truncate(large, SPEC_MAX_PEM_BYTES + 1), 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        char *text = text_of(BASE "https: true\ntls:\n  certFile: %s\n  keyFile: %s\n", cert, bad[i].path);
        char *printed = loaded(text, NULL);

        assert_int_equal(strncmp(printed, "F:8:12: server \"a\": tls.keyFile: ", 33), 0);
        if (!strstr(printed, bad[i].because) || strchr(printed, '\n')[1])
            fail_msg("%s", printed);
        free(printed);
        free(text);
    }
    unlink(cert);
    unlink(empty);
    unlink(fifo);
    unlink(large);
    free(cert);
    free(empty);
    free(fifo);
    free(large);
    made_pair_free(&a);
}

static void says_when_the_spec_itself_cannot_be_read(void **state)
{
    struct spec_problems p = {0};
    struct spec s;

    (void)state;
    assert_int_equal(spec_load("/nonexistent/spec.yaml", &s, &p), -1);
    assert_int_equal(p.count, 1);
    assert_string_equal(p.items[0].text, "cannot read it: No such file or directory");
    spec_problems_free(&p);
}

static void never_prints_what_a_key_field_held(void **state)
{
    static const char secret[] = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";
    static const char *const texts[] = {
        BASE "https: true\nkeyBase64: %1$s!\n",
        BASE "https: true\nkeyBase64: %1$s\n",
        BASE "https: true\nkeyBase64: [%1$s]\n",
        BASE "https: true\nkeyBase64: &%1$s x\n",
        BASE "https: true\ntls: {keyFile: LS0tLS1CRUdJTi%1$s}\n",
        BASE "keyBase64: x\n%1$s\n%1$s\n",
        BASE "keyBase64:\n  %1$s: x\n",
        BASE "keyBase64: \"%1$s\\q\"\n",
        BASE "\"-----BEGIN PRIVATE KEY-----%1$s\": x\n",
        HEAD "backend: wss://x\nwssKeyBase64: %1$s\nwssCertBase64: %1$s\n",
    };
    const char *const values[] = {secret};

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        char *text = filled(texts[i], values), *printed = loaded(text, NULL);

        if (!*printed || strstr(printed, "c2Vj"))
            fail_msg("for\n%s\nprinted: %s", text, printed);
        free(text);
        free(printed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_example_1_as_it_stands),
        cmocka_unit_test(reads_example_2_with_certificates_of_its_own),
        cmocka_unit_test(reads_every_extension),
        cmocka_unit_test(takes_files_without_documents),
        cmocka_unit_test(takes_an_empty_value_for_an_absent_one),
        cmocka_unit_test(says_of_every_wrong_field_where_and_what_would_be_right),
        cmocka_unit_test(says_where_the_yaml_ends_and_what_was_wrong_before),
        cmocka_unit_test(says_of_every_broken_rule_where_and_what_would_be_right),
        cmocka_unit_test(reports_all_problems_of_a_file_once_and_in_order),
        cmocka_unit_test(reads_the_files_that_are_named),
        cmocka_unit_test(names_field_and_path_of_a_file_that_cannot_be_used),
        cmocka_unit_test(says_when_the_spec_itself_cannot_be_read),
        cmocka_unit_test(never_prints_what_a_key_field_held),
    };

    return cmocka_run_group_tests_name("spec", tests, NULL, NULL);
}
