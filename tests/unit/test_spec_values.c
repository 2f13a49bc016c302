#include "spec/spec_values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
/* A literal's bytes, NUL bytes inside included. */
#define BYTES(literal) literal, sizeof(literal) - 1

static void assert_refused(int rc, const struct err *err, const char *text, const char *because)
{
    if (rc != -1)
        fail_msg("\"%s\" was taken", text);
    if (!strstr(err->msg, because))
        fail_msg("\"%s\": \"%s\" is not in \"%s\"", text, because, err->msg);
}

static void takes_names_of_kubernetes_and_of_example_1(void **state)
{
    static const char *const good[] = {"websocketSvr", "a", "a-b.c", "default/chat", "ns-1/a.b-c", "9"};
    char *out, part63[64 + 254];
    struct err err;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(spec_value_name(good[i], strlen(good[i]), &out, &err), 0);
        assert_string_equal(out, good[i]);
        free(out);
    }
    memset(part63, 'a', sizeof part63);
    part63[63] = '/';
    assert_int_equal(spec_value_name(part63, SPEC_MAX_NAME, &out, &err), 0);
    free(out);
    assert_int_equal(spec_value_name(part63, SPEC_MAX_NAME + 1, &out, &err), -1);
}

static void refuses_names_that_are_no_names(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {BYTES("")},     {BYTES("a/b/c")}, {BYTES("/a")},   {BYTES("a/")},       {BYTES("-a")},
        {BYTES("a.")},   {BYTES("a b")},   {BYTES("a\nb")}, {BYTES("a\0b")},     {BYTES("a\"b")},
        {BYTES("../a")}, {BYTES("${x}")},  {BYTES("a_b")},  {BYTES("\xc3\xa9")}, {BYTES("a/-b")},
    };
    char *out;
    struct err err;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(spec_value_name(bad[i].text, bad[i].len, &out, &err), &err, bad[i].text,
                       "is not a name");
}

static void reads_bools_of_yaml_1_2_only(void **state)
{
    static const char *const yes[] = {"true", "True", "TRUE"}, *const no[] = {"false", "False", "FALSE"};
    static const char *const bad[] = {"yes", "no", "on", "off", "y", "1", "0", "tRUE", "truee", "t"};
    struct err err;
    bool b;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(spec_value_bool(yes[i], strlen(yes[i]), &b, &err), 0);
        assert_true(b);
        assert_int_equal(spec_value_bool(no[i], strlen(no[i]), &b, &err), 0);
        assert_false(b);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(spec_value_bool(bad[i], strlen(bad[i]), &b, &err), &err, bad[i],
                       "write true or false");
}

static void reads_whole_numbers_in_decimal_only(void **state)
{
    static const struct {
        const char *text, *because;
    } bad[] = {
        {"0", "out of range"},
        {"65536", "from 1 to 65535"},
        {"99999999999999999999999999", "out of range"},
        {"18446744073709551617", "out of range"},
        {"0x50", "not a whole number"},
        {"0b11", "not a whole number"},
        {"0o17", "not a whole number"},
        {"010", "leave the zeros out"},
        {"00", "leave the zeros out"},
        {"-1", "not a whole number"},
        {"+80", "not a whole number"},
        {"80.0", "not a whole number"},
        {"8e1", "not a whole number"},
        {"8_0", "not a whole number"},
        {"1:30", "not a whole number"},
        {" 80", "not a whole number"},
        {"http", "not a whole number"},
    };
    struct err err;
    uint64_t n = 7;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(spec_value_uint(bad[i].text, strlen(bad[i].text), 1, 65535, &n, &err), &err,
                       bad[i].text, bad[i].because);
    assert_int_equal(n, 7);
    assert_int_equal(spec_value_uint("65535", 5, 1, 65535, &n, &err), 0);
    assert_int_equal(n, 65535);
    assert_int_equal(spec_value_uint("9223372036854775807", 19, 0, INT64_MAX, &n, &err), 0);
    assert_true(n == INT64_MAX);
    assert_int_equal(spec_value_uint("9223372036854775808", 19, 0, INT64_MAX, &n, &err), -1);
}

static void reads_durations_as_go_writes_them(void **state)
{
    static const struct {
        const char *text;
        uint32_t ms;
    } good[] = {
        {"5s", 5000},
        {"1m30s", 90000},
        {"1.5s", 1500},
        {"300ms", 300},
        {"0", 0},
        {"0s", 0},
        {"24h", 86400000},
        {"1h0m0s", 3600000},
        {".5s", 500},
        {"1.s", 1000},
        {"1000us", 1},
        {"1000\xc2\xb5s", 1},
        {"1000\xce\xbcs", 1},
        {"1000000ns", 1},
        {"0.5m", 30000},
        {"1.5h", 5400000},
        {"30s1m", 90000},
        {"1.500000000s", 1500},
        {"23h59m60s", 86400000},
        {"0.0005s500us", 1},
    };
    static const struct {
        const char *text, *because;
    } bad[] = {
        {"5", "not a duration"},
        {"s", "not a duration"},
        {"5 s", "not a duration"},
        {"-5s", "not a duration"},
        {"+5s", "not a duration"},
        {"5d", "not a duration"},
        {"1h30", "not a duration"},
        {".s", "not a duration"},
        {"5S", "not a duration"},
        {"1,5s", "not a duration"},
        {"24h1ms", "at most 24h"},
        {"25h", "at most 24h"},
        {"99999999999999999999h", "at most 24h"},
        {"1e3s", "not a duration"},
        {"1us", "finer than"},
        {"1.0005s", "finer than"},
        {"0.0000000001s", "finer than"},
        {"24h0.1ns", "finer than"},
        {"18446744073709551616ns", "at most 24h"},
        {"forever", "not a duration"},
    };
    struct err err;
    uint32_t ms;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        ms = 77;
        if (spec_value_duration(good[i].text, strlen(good[i].text), true, &ms, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(spec_value_duration(bad[i].text, strlen(bad[i].text), true, &ms, &err), &err,
                       bad[i].text, bad[i].because);
    assert_refused(spec_value_duration("0", 1, false, &ms, &err), &err, "0", "above 0");
    assert_refused(spec_value_duration("0.0s", 4, false, &ms, &err), &err, "0.0s", "above 0");
}

static void reads_backend_urls(void **state)
{
    static const struct {
        const char *text, *host;
        bool tls;
        uint16_t port;
    } good[] = {
        {"ws://localhost:3001", "localhost", false, 3001},
        {"wss://localhost:3001", "localhost", true, 3001},
        {"ws://Chat.Example.ORG", "chat.example.org", false, 80},
        {"wss://chat.example.org", "chat.example.org", true, 443},
        {"ws://10.1.2.3:1/", "10.1.2.3", false, 1},
        {"ws://[::1]:3001/a/b?c=d&e=%20", "::1", false, 3001},
        {"wss://[2001:DB8::1]", "2001:db8::1", true, 443},
        {"ws://a_b.c-d:65535?x=http://y", "a_b.c-d", false, 65535},
        {"ws://3com.example", "3com.example", false, 80},
        {"ws://h/a@b:c", "h", false, 80},
    };
    struct err err;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        struct spec_url url;

        if (spec_value_url(good[i].text, strlen(good[i].text), &url, &err))
            fail_msg("%s: %s", good[i].text, err.msg);
        assert_string_equal(url.host, good[i].host);
        assert_string_equal(url.text, good[i].text);
        assert_int_equal(url.tls, good[i].tls);
        assert_int_equal(url.port, good[i].port);
        free(url.host);
        free(url.text);
    }
}

static void refuses_backend_urls_that_could_mean_something_else(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        const char *because;
    } bad[] = {
        {BYTES("localhost:3001"), "has no scheme"},
        {BYTES("http://h"), "write ws"},
        {BYTES("https://h"), "write wss"},
        {BYTES("WS://h"), "write ws"},
        {BYTES("wSs://h"), "write wss"},
        {BYTES("wsx://h"), "neither ws nor wss"},
        {BYTES("://h"), "neither ws nor wss"},
        {BYTES("tcp://h"), "neither ws nor wss"},
        {BYTES("ws:/h"), "has no scheme"},
        {BYTES("ws://"), "has no host"},
        {BYTES("ws:///path"), "has no host"},
        {BYTES("ws://:80"), "has no host"},
        {BYTES("ws://h:"), "for a port"},
        {BYTES("ws://h:0"), "1 to 65535"},
        {BYTES("ws://h:65536"), "1 to 65535"},
        {BYTES("ws://h:080"), "for a port"},
        {BYTES("ws://h:80:81"), "for a port"},
        {BYTES("ws://h:http"), "for a port"},
        {BYTES("ws://::1"), "in [ ]"},
        {BYTES("ws://[::1"), "for a host"},
        {BYTES("ws://[::1]x"), "behind the ]"},
        {BYTES("ws://[127.0.0.1]"), "for a host"},
        {BYTES("ws://[fe80::1%eth0]"), "for a host"},
        {BYTES("ws://user:secret@h"), "user name"},
        {BYTES("ws://h@x"), "user name"},
        {BYTES("user:secret@ws://h"), "it has no scheme"},
        {BYTES("ws://user:secret/x@h"), "user name"}, /* a password with a slash ends the host for us */
        {BYTES("ws://user:secret?@h"), "user name"},
        {BYTES("ws://h#f"), "fragment"},
        {BYTES("ws://h/p#f"), "fragment"},
        {BYTES("ws://h h"), "at byte 7"},
        {BYTES("ws://h/a\nb"), "at byte 9"},
        {BYTES("ws://h\0x"), "at byte 7"},
        {BYTES("ws://h/\xc3\xa9"), "at byte 8"},
        {BYTES("ws://h\x7f"), "at byte 7"},
        {BYTES("ws://h\\x"), "for a host"},
        {BYTES("ws://h%20"), "for a host"},
        {BYTES("ws://-h"), "for a host"},
        {BYTES("ws://h-.x"), "for a host"},
        {BYTES("ws://h..x"), "for a host"},
        {BYTES("ws://h.x."), "for a host"},
        {BYTES("ws://.h"), "for a host"},
        {BYTES("ws://1.2.3"), "for a host"},
        {BYTES("ws://2130706433"), "for a host"},
        {BYTES("ws://0x7f000001"), "for a host"},
        {BYTES("ws://127.0.0.0x1"), "for a host"},
        {BYTES("ws://127.0.0.01"), "for a host"},
        {BYTES("ws://256.1.1.1"), "for a host"},
    };
    struct err err;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct spec_url url = {0};

        assert_refused(spec_value_url(bad[i].text, bad[i].len, &url, &err), &err, bad[i].text,
                       bad[i].because);
        assert_null(url.host);
        assert_null(strstr(err.msg, "secret"));
    }
}

static void bounds_host_names(void **state)
{
    char text[260];
    char *out;
    struct err err;

    (void)state;
    memset(text, 'a', sizeof text);
    assert_int_equal(spec_value_host(text, 64, &out, &err), -1);
    for (size_t i = 63; i < sizeof text; i += 64)
        text[i] = '.';
    assert_int_equal(spec_value_host(text, 253, &out, &err), 0);
    free(out);
    assert_int_equal(spec_value_host(text, 254, &out, &err), -1);
    assert_int_equal(spec_value_host("2001:DB8::7", 11, &out, &err), 0);
    assert_string_equal(out, "2001:db8::7");
    free(out);
}

static void decodes_base64_with_white_space_inside(void **state)
{
    static const struct {
        const char *text, *plain;
    } good[] = {{"YQ==", "a"}, {"YWI=", "ab"}, {"YWJj", "abc"}, {"YW\nJj\n ZA = =\n", "abcd"}};
    static const struct {
        const char *text, *because;
    } bad[] = {
        {"YQ", "digits or padding"},
        {"YQ=", "digits or padding"},
        {"YQ===", "digits or padding"},
        {"Y", "digits or padding"},
        {"=", "digits or padding"},
        {"YWJj=", "digits or padding"},
        {"YQ==YQ==", "goes on behind"},
        {"YR==", "unused bits"},
        {"YWJ=", ""},
        {"YW-j", "URL form"},
        {"YW_j", "URL form"},
        {"YW!j", "is not base64"},
        {"Y\xc3\xa9", "is not base64"},
        {"  \n", "is empty"},
        {"-----BEGIN CERTIFICATE-----", "PEM text itself"},
    };
    struct err err;
    uint8_t *out;
    size_t len;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(
            spec_value_base64(good[i].text, strlen(good[i].text), SPEC_MAX_PEM_BYTES, &out, &len, &err), 0);
        assert_int_equal(len, strlen(good[i].plain));
        assert_memory_equal(out, good[i].plain, len);
        free(out);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(
            spec_value_base64(bad[i].text, strlen(bad[i].text), SPEC_MAX_PEM_BYTES, &out, &len, &err), &err,
            bad[i].text, bad[i].because);
}

static void bounds_base64_by_what_comes_out(void **state)
{
    struct err err;
    uint8_t *out;
    size_t len;

    (void)state;
    assert_int_equal(spec_value_base64("YWJj\nZA==", 9, 4, &out, &len, &err), 0);
    assert_int_equal(len, 4);
    free(out);
    assert_refused(spec_value_base64("YWJjZA==", 8, 3, &out, &len, &err), &err,
                   "YWJjZA==", "may have 3 bytes before base64");
}

static void refuses_paths_that_are_a_key_itself_without_quoting_them(void **state)
{
    static const char *const bad[] = {"-----BEGIN PRIVATE KEY-----MIG",
                                      "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t", "a\nb"};
    struct err err;
    char *out;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(spec_value_path(bad[i], strlen(bad[i]), &out, &err), -1);
        assert_null(strstr(err.msg, "LS0t"));
        assert_null(strstr(err.msg, "MIG"));
    }
}

static void lowers_origins_and_takes_no_patterns(void **state)
{
    static const struct {
        const char *text, *out;
    } good[] = {
        {"https://Chat.Example.org", "https://chat.example.org"},
        {"HTTP://localhost:3000", "http://localhost:3000"},
        {"https://[::1]:8443", "https://[::1]:8443"},
        {"null", "null"},
        {"chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"},
    };
    static const struct {
        const char *text, *because;
    } bad[] = {
        {"*", "compared exactly"},
        {"https://*.example.org", "compared exactly"},
        {"example.org", "not an origin"},
        {"https://example.org/", "more than an origin"},
        {"https://a/b", "more than"},
        {"https://", "has no host"},
        {"https://a:443", "default port 443"},
        {"http://a:80", "default port 80"},
        {"https://a b", "for a host"},
        {"https://u@a", "for a host"},
        {"1http://a", "not an origin"},
        {"://a", "not an origin"},
        {"https://a:0", "for a port"},
        {"https://a?b", "for a host"},
        {"https://u@a/b", "may be a secret has more"},
        /* Long, and yet readable: of what is random this much without a digit and in one case is not seen. */
        {"https://example.org/applications/production/websocket/chat", "\"https://example.org/applications/"},
        {"averylongsubdomainwithoutanyhyphensordotsinit", "\"averylong"},
        {"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3Jl", "may be a secret is not"},
        {"MCowBQYDKVQQIgQgABCDEFGHIJKLMNOPQRSTUVWXYZAB", "may be a secret is not"},
        {"QSDFGHJKLMPOIUYTREZAabcdefghijklmnopqrstuvwx", "may be a secret is not"},
        {"0123456789abcdef0123456789abcdef01234567", "may be a secret is not"},
    };
    struct err err;
    char *out;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        if (spec_value_origin(good[i].text, strlen(good[i].text), &out, &err))
            fail_msg("%s", err.msg);
        assert_string_equal(out, good[i].out);
        free(out);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(spec_value_origin(bad[i].text, strlen(bad[i].text), &out, &err), &err, bad[i].text,
                       bad[i].because);
}

static void reads_networks_and_maps_ipv4(void **state)
{
    static const struct {
        const char *text;
        uint8_t addr[16];
        uint8_t bits;
    } good[] = {
        {"10.0.0.0/8", {[10] = 255, 255, 10}, 104},
        {"192.0.2.7", {[10] = 255, 255, 192, 0, 2, 7}, 128},
        {"0.0.0.0/0", {[10] = 255, 255}, 96},
        {"fd00::/8", {0xfd}, 8},
        {"::1", {[15] = 1}, 128},
        {"::/0", {0}, 0},
        {"::ffff:10.0.0.0/104", {[10] = 255, 255, 10}, 104},
        {"10.1.2.128/25", {[10] = 255, 255, 10, 1, 2, 128}, 121},
    };
    static const struct {
        const char *text, *because;
    } bad[] = {
        {"10.0.0.1/8", "write 10.0.0.0/8"},
        {"fd00::1/8", "write fd00::/8"},
        {"10.0.0.0/33", "0 to 32"},
        {"::/129", "0 to 128"},
        {"10.0.0.0/", "prefix length"},
        {"10.0.0.0/08", "prefix length"},
        {"10.0.0/8", "not a network"},
        {"10.0.0.010", "not a network"},
        {"fe80::1%eth0", "not a network"},
        {"localhost", "not a network"},
        {"/8", "not a network"},
        {"[::1]", "not a network"},
    };
    struct err err;
    struct spec_cidr c;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        if (spec_value_cidr(good[i].text, strlen(good[i].text), &c, &err))
            fail_msg("%s", err.msg);
        assert_memory_equal(c.addr, good[i].addr, 16);
        assert_int_equal(c.bits, good[i].bits);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(spec_value_cidr(bad[i].text, strlen(bad[i].text), &c, &err), &err, bad[i].text,
                       bad[i].because);
}

static void keeps_the_gateways_own_headers_out_of_reach(void **state)
{
    static const struct {
        const char *text, *because;
    } bad[] = {
        {"connection", "own"},        {"UPGRADE", "own"},           {"host", "keepHost"},
        {"Content-Length", "own"},    {"transfer-encoding", "own"}, {"TE", "own"},
        {"Trailer", "own"},           {"Keep-Alive", "own"},        {"Proxy-Connection", "own"},
        {"HTTP2-Settings", "own"},    {"X-Forwarded-For", "own"},   {"x-forwarded-host", "own"},
        {"X-FORWARDED-PROTO", "own"}, {"Sec-WebSocket-Key", "own"}, {"sec-websocket-anything", "own"},
        {"", "not the name"},         {"X A", "not the name"},      {"X:", "not the name"},
        {"X\r\nY", "not the name"},   {"\xc3\xa9", "not the name"}, {"X(1)", "not the name"},
    };
    static const char *const good[] = {
        "X-Api-Key", "Authorization", "X-Forwarded-Port", "Hosts", "Sec-WebSocket", "_", "a"};
    struct err err;
    char *out;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_refused(spec_value_header_name(bad[i].text, strlen(bad[i].text), &out, &err), &err,
                       bad[i].text, bad[i].because);
    assert_int_equal(spec_value_header_name("a\0b", 3, &out, &err), -1);
    for (size_t i = 0; i < COUNT(good); i++) {
        if (spec_value_header_name(good[i], strlen(good[i]), &out, &err))
            fail_msg("%s", err.msg);
        free(out);
    }
}

static void refuses_header_values_that_could_end_the_line(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {BYTES("a\nb")}, {BYTES("a\rb")}, {BYTES("a\0b")},  {BYTES("a\tb")},       {BYTES("a\x1b[0m")},
        {BYTES(" a")},   {BYTES("a ")},   {BYTES("a\x7f")}, {BYTES("a\xc2\x85z")}, {BYTES("\xe2\x80\xa8")},
    };
    struct err err;
    char *out;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(spec_value_header_value(bad[i].text, bad[i].len, &out, &err), -1);
    assert_int_equal(spec_value_header_value(BYTES("a: \"b\" \xc3\xa9 'c'"), &out, &err), 0);
    free(out);
    assert_int_equal(spec_value_header_value("", 0, &out, &err), 0);
    assert_string_equal(out, "");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_names_of_kubernetes_and_of_example_1),
        cmocka_unit_test(refuses_names_that_are_no_names),
        cmocka_unit_test(reads_bools_of_yaml_1_2_only),
        cmocka_unit_test(reads_whole_numbers_in_decimal_only),
        cmocka_unit_test(reads_durations_as_go_writes_them),
        cmocka_unit_test(reads_backend_urls),
        cmocka_unit_test(refuses_backend_urls_that_could_mean_something_else),
        cmocka_unit_test(bounds_host_names),
        cmocka_unit_test(decodes_base64_with_white_space_inside),
        cmocka_unit_test(bounds_base64_by_what_comes_out),
        cmocka_unit_test(refuses_paths_that_are_a_key_itself_without_quoting_them),
        cmocka_unit_test(lowers_origins_and_takes_no_patterns),
        cmocka_unit_test(reads_networks_and_maps_ipv4),
        cmocka_unit_test(keeps_the_gateways_own_headers_out_of_reach),
        cmocka_unit_test(refuses_header_values_that_could_end_the_line),
    };

    return cmocka_run_group_tests_name("spec_values", tests, NULL, NULL);
}
