#include "spec/spec.h"
#include "spec/spec_cert.h"

#include "test_spec_text.h"

#include <sys/stat.h>

#define GOOD(name, port) "kind: WebSocketServer\nname: " name "\nport: " port "\nbackend: ws://b\n"

/* spec_load_bytes of a text; the problems are printed into `printed`, which the caller frees. */
static int load(const char *text, struct spec *s, char **printed)
{
    struct spec_cert *certs = spec_cert_new();
    struct spec_problems p = {0};
    int r = spec_load_bytes((const uint8_t *)text, strlen(text), certs, s, &p);

    spec_cert_free(certs);
    *printed = printed_and_freed(&p);
    return r;
}

static void marks_the_documents_that_a_problem_belongs_to(void **state)
{
    static const struct {
        const char *text;
        const char *verdicts; /* a letter a document: g good, b bad */
    } files[] = {
        {"", ""},
        {GOOD("a", "1"), "g"},
        {GOOD("a", "1") "---\n" GOOD("b", "2"), "gg"},
        {GOOD("a", "x") "---\n" GOOD("b", "2"), "bg"},
        {GOOD("a", "1") "---\n" GOOD("b", "x"), "gb"},
        {GOOD("a", "1") "colour: red\n---\n" GOOD("b", "2") "---\n" GOOD("c", "3") "tls: {}\n", "bgb"},
        {GOOD("a", "1") "---\n" GOOD("a", "2"), "gb"},
        {GOOD("b", "1") "---\n" GOOD("a", "1") "---\n" GOOD("b", "2") "---\n" GOOD("c", "1"), "gbbb"},
        {GOOD("a", "1") "---\nkind: HTTPServer\nname: b\nport: 1\n---\n" GOOD("c", "3"), "gbg"},
        {GOOD("a", "1") "---\nkind: WebSocketServer\nport: 2\nbackend: ws://b\n---\n" GOOD("c", "3"), "gbg"},
        {GOOD("a", "1") "---\nname: b\nport: 2\nbackend: ws://b\n", "gb"},
        {GOOD("a", "1") "---\n- x\n---\n" GOOD("c", "3"), "gbg"},
        {GOOD("a", "1") "---\nhello\n---\n" GOOD("c", "3"), "gbg"},
        {GOOD("a", "1") "---\n*x\n---\n" GOOD("c", "3"), "gbg"},
        {GOOD("a", "1") "--- !x\n" GOOD("b", "2") "---\n" GOOD("c", "3"), "gbg"},
        {GOOD("a", "1") "---\n---\n~\n---\n" GOOD("c", "3"), "gg"},
        {"# x\n\n--- {kind: WebSocketServer, name: a, port: 1, backend: 'ws://b'}\n--- {}\n--- {a: b}\n...\n"
         "--- {kind: WebSocketServer, name: b, port: 2, backend: 'ws://b'}\n",
         "gbbg"},
        {GOOD("a", "1") "tls: {certFile: /nonexistent, keyFile: /nonexistent}\nhttps: true\n---\n" GOOD("b",
                                                                                                        "2"),
         "bg"},
        {GOOD("a", "1") "https: true\n---\n" GOOD("b", "2"), "bg"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(files); i++) {
        char *printed, verdicts[8] = "";
        struct spec s;

        assert_int_equal(load(files[i].text, &s, &printed), 0);
        for (size_t j = 0; j < s.count && j < sizeof verdicts - 1; j++)
            verdicts[j] = s.servers[j].bad ? 'b' : 'g';
        if (strcmp(verdicts, files[i].verdicts) != 0)
            fail_msg("for\n%s\n%s instead of %s:\n%s", files[i].text, verdicts, files[i].verdicts, printed);
        assert_int_equal(!*printed, !strchr(verdicts, 'b'));
        spec_free(&s);
        free(printed);
    }
}

/* A document that is good is there whole, beside wrong ones, with what was read from its files. */
static void good_documents_are_whole(void **state)
{
    struct made_pair a = make_pair("a");
    char *cert = temp_file(a.cert), *key = temp_file(a.key), *printed;
    char *text =
        text_of(GOOD("a", "x") "---\n" GOOD("b", "2") "https: true\ntls: {certFile: %s, keyFile: %s}\n"
                                                      "limits: {clientMaxMessageBytes: 7}\n",
                cert, key);
    struct spec s;

    (void)state;
    assert_int_equal(load(text, &s, &printed), 0);
    assert_int_equal(s.count, 2);
    assert_true(s.servers[0].bad);
    assert_false(s.servers[1].bad);
    assert_string_equal(s.servers[0].name, "a");
    assert_string_equal(s.servers[1].name, "b");
    assert_memory_equal(s.servers[1].key.data, a.key, strlen(a.key));
    assert_int_equal(s.servers[1].limits.client_max_message_bytes, 7);
    spec_free(&s);
    free(printed);
    free(text);
    unlink(cert);
    unlink(key);
    free(cert);
    free(key);
    made_pair_free(&a);
}

static void judges_nothing_of_what_cannot_be_read_to_its_end(void **state)
{
    static const char *const bad[] = {
        GOOD("a", "1") "---\n" GOOD("b", "2") "\tx: y\n",
        GOOD("a", "1") "---\n{",
        GOOD("a", "1") "---\nkind: \"",
        GOOD("a", "1") "---\nkind: \xff\n",
        GOOD("a", "1") "---\na: [[[[[[[[[x]]]]]]]]]\n",
        "%YAML 2.0\n---\n" GOOD("a", "1"),
    };

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        char *printed;
        struct spec s;

        if (load(bad[i], &s, &printed) != -1)
            fail_msg("judged:\n%s", bad[i]);
        assert_int_equal(s.count, 0);
        assert_null(s.servers);
        assert_true(*printed);
        free(printed);
    }
}

/* In front of the unknown keys stands a good server. */
static void judges_nothing_after_too_many_problems(void **state)
{
    for (int over = 0; over <= 1; over++) {
        char *text = NULL, *printed;
        size_t size;
        FILE *to = open_memstream(&text, &size);
        struct spec s;

        (void)state;
        fprintf(to, GOOD("a", "1") "---\n" GOOD("b", "2"));
        for (int i = 0; i < SPEC_MAX_PROBLEMS + over; i++)
            fprintf(to, "x%d: y\n", i);
        fclose(to);
        assert_int_equal(load(text, &s, &printed), over ? -1 : 0);
        assert_int_equal(s.count, over ? 0 : 2);
        if (!over)
            assert_false(s.servers[0].bad);
        spec_free(&s);
        free(printed);
        free(text);
    }
}

static void reads_the_bytes_of_a_file_within_a_limit(void **state)
{
    char *path = temp_file("kind: x\n");
    struct spec_problems p = {0};
    struct buf b;

    (void)state;
    buf_init(&b, 8);
    assert_int_equal(spec_read(path, &b, &p), 0);
    assert_int_equal(b.len, 8);
    assert_memory_equal(b.data, "kind: x\n", 8);
    buf_free(&b);
    buf_init(&b, 7);
    assert_int_equal(spec_read(path, &b, &p), -1);
    assert_int_equal(spec_read("/tmp", &b, &p), -1);
    assert_int_equal(spec_read("/nonexistent/x", &b, &p), -1);
    assert_int_equal(b.len, 0);
    assert_int_equal(p.count, 3);
    assert_string_equal(p.items[0].text, "cannot read it: larger than 7 bytes");
    buf_free(&b);
    spec_problems_free(&p);
    unlink(path);
    free(path);
}

/* As large as each may be: PEM text may hold other lines. */
static char *padded_file(const char *pem, size_t bytes)
{
    char *text = malloc(bytes + 1), *path;

    assert_non_null(text);
    memset(text, '#', bytes);
    for (size_t i = 63; i < bytes; i += 64)
        text[i] = '\n';
    text[bytes] = '\0';
    memcpy(text + bytes - strlen(pem) - 1, "\n", 1);
    memcpy(text + bytes - strlen(pem), pem, strlen(pem));
    path = temp_file(text);
    free(text);
    return path;
}

static void inlined_servers_say_the_same_without_files(void **state)
{
    struct made_pair a = make_pair("a");
    char *cert = padded_file(a.cert, SPEC_MAX_PEM_BYTES), *key = padded_file(a.key, SPEC_MAX_PEM_BYTES);
    char *ca = padded_file(a.cert, SPEC_MAX_CA_BYTES), *printed;
    char *text = text_of("kind: WebSocketServer\nname: a\nport: 1\nbackend: wss://b\nhttps: true\n"
                         "tls: {certFile: %s, keyFile: %s, clientCAFile: %s}\nbackendTLS: {caFile: %s}\n",
                         cert, key, ca, ca);
    struct spec s, back;
    struct err err;
    struct buf out;

    (void)state;
    assert_int_equal(load(text, &s, &printed), 0);
    assert_string_equal(printed, "");
    free(printed);
    spec_server_inline(&s.servers[0]);
    unlink(cert);
    unlink(key);
    unlink(ca);
    buf_init(&out, SPEC_MAX_EMIT_BYTES);
    assert_int_equal(spec_emit(&s, &out, &err), 0);
    assert_int_equal(buf_add(&out, "", 1), 0);
    assert_null(strstr((const char *)out.data, "File"));
    assert_good((const char *)out.data, &back);
    assert_int_equal(back.count, 1);
    assert_true(spec_server_equal(&s.servers[0], &back.servers[0]));
    assert_int_equal(back.servers[0].key.len, SPEC_MAX_PEM_BYTES);
    assert_int_equal(back.servers[0].tls.client_ca.len, SPEC_MAX_CA_BYTES);
    assert_int_equal(back.servers[0].backend_tls.ca.len, SPEC_MAX_CA_BYTES);
    spec_free(&back);
    spec_free(&s);
    buf_free(&out);
    free(text);
    free(cert);
    free(key);
    free(ca);
    made_pair_free(&a);
}

/* An inlined server that lost its certificate would be another one. */
static void a_file_that_was_not_read_keeps_its_name(void **state)
{
    char *printed;
    struct spec s;

    (void)state;
    assert_int_equal(
        load(GOOD("a", "1") "https: true\ntls: {certFile: /nonexistent/c, keyFile: /nonexistent/k}\n", &s,
             &printed),
        0);
    spec_server_inline(&s.servers[0]);
    assert_string_equal(s.servers[0].cert.file, "/nonexistent/c");
    assert_string_equal(s.servers[0].key.file, "/nonexistent/k");
    spec_free(&s);
    free(printed);
}

static void lists_the_files_of_good_and_bad_documents(void **state)
{
    const char *paths[SPEC_MAX_FILES];
    char *printed;
    struct spec s;

    (void)state;
    assert_int_equal(load(GOOD("a", "x") "tls: {certFile: /nonexistent/c, keyFile: k, clientCAFile: a}\n"
                                         "backendTLS: {caFile: b}\n---\n" GOOD("b", "2") "---\n" GOOD(
                                             "c", "3") "tls: {clientCAFile: ../d}\n",
                          &s, &printed),
                     0);
    assert_int_equal(spec_server_files(&s.servers[0], paths), 4);
    assert_string_equal(paths[0], "/nonexistent/c");
    assert_string_equal(paths[1], "k");
    assert_string_equal(paths[2], "a");
    assert_string_equal(paths[3], "b");
    assert_int_equal(spec_server_files(&s.servers[1], paths), 0);
    assert_int_equal(spec_server_files(&s.servers[2], paths), 1);
    assert_string_equal(paths[0], "../d");
    spec_free(&s);
    free(printed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_the_documents_that_a_problem_belongs_to),
        cmocka_unit_test(good_documents_are_whole),
        cmocka_unit_test(judges_nothing_of_what_cannot_be_read_to_its_end),
        cmocka_unit_test(judges_nothing_after_too_many_problems),
        cmocka_unit_test(reads_the_bytes_of_a_file_within_a_limit),
        cmocka_unit_test(inlined_servers_say_the_same_without_files),
        cmocka_unit_test(a_file_that_was_not_read_keeps_its_name),
        cmocka_unit_test(lists_the_files_of_good_and_bad_documents),
    };

    return cmocka_run_group_tests_name("spec_load", tests, NULL, NULL);
}
