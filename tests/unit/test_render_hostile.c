/* test_render_hostile.c - texts that would be more than a value somewhere: refused in words, or the same when read back */
#include "render.h"

#include "spec/spec_cert.h"
#include "test_objects.h"

static const char *const texts[] = {
    "a\nport: 1",
    "a\r\nX-Evil: 1",
    "\"",
    "'",
    "a: b",
    "- a",
    "#",
    "a #b",
    "{{ .Values }}",
    "${HOME}",
    "$(id)",
    "../../etc/passwd",
    "---",
    "a\n---\nkind: WebSocketServer\nname: evil\nport: 7\nbackend: ws://evil\n",
    "...",
    "&a",
    "*a",
    "!!binary aGk=",
    "|",
    ">",
    "%YAML 1.1",
    "\\",
    "\\n",
    "\x7f",
    "\xc2\x85",
    "\xe2\x80\xa8",
    "\xef\xbb\xbf",
    "\t",
    "~",
    "null",
    "true",
    "1e3",
    "0x10",
    "<<",
    "location / { return 200; }",
};

/* Where a text is put, and where it must stand again. */
static json_t *in_header(const char *text)
{
    return json_pack("{s:{s:{s:s}}}", "headers", "set", "X-Value", text);
}
static const char *header_of(const struct spec_server *s)
{
    return s->headers.set_count == 1 ? s->headers.set[0].value : NULL;
}

static json_t *in_header_name(const char *text)
{
    return json_pack("{s:{s:{s:s}}}", "headers", "set", text, "v");
}
static const char *header_name_of(const struct spec_server *s)
{
    return s->headers.set_count == 1 ? s->headers.set[0].name : NULL;
}

static json_t *in_origin(const char *text)
{
    return json_pack("{s:[s]}", "allowedOrigins", text);
}
static const char *origin_of(const struct spec_server *s)
{
    return s->allowed_origins.count == 1 ? s->allowed_origins.items[0] : NULL;
}

static json_t *in_server_name(const char *text)
{
    return json_pack("{s:{s:s}}", "backendTLS", "serverName", text);
}
static const char *server_name_of(const struct spec_server *s)
{
    return s->backend_tls.server_name;
}

static json_t *in_certificate(const char *text)
{
    return json_pack("{s:b,s:s,s:s}", "https", 1, "certBase64", text, "keyBase64", text);
}
static const char *nothing_of(const struct spec_server *s)
{
    (void)s;
    return NULL;
}

static json_t *in_backend(const char *text)
{
    char url[2048];

    snprintf(url, sizeof url, "wss://%s", text);
    return json_pack("{s:s}", "backend", url);
}
static const char *backend_of(const struct spec_server *s)
{
    return s->backend.text ? s->backend.text + strlen("wss://") : NULL;
}

static const struct {
    const char *what;
    json_t *(*with)(const char *text);
    const char *(*of)(const struct spec_server *s);
} places[] = {
    {"a header's value", in_header, header_of}, {"a header's name", in_header_name, header_name_of},
    {"an origin", in_origin, origin_of},        {"a server name", in_server_name, server_name_of},
    {"a backend", in_backend, backend_of},      {"a certificate", in_certificate, nothing_of},
};

/* What the proxy will make of it. */
static void read_back(const struct render *r, struct spec *out)
{
    struct spec_cert *certs = spec_cert_new();
    struct spec_problems problems = {0};
    struct buf text;
    struct err err;

    buf_init(&text, SPEC_MAX_BYTES);
    assert_int_equal(render_text(r, &text, &err), 0);
    assert_int_equal(spec_load_bytes(text.data, text.len, certs, out, &problems), 0);
    assert_int_equal(problems.count, 0);
    spec_cert_free(certs);
    buf_free(&text);
}

/* True when it was served. */
static bool judge(const char *text, size_t place)
{
    static const struct render_rules gateway = {.gateway = "tidegate"};
    json_t *object =
        object_of(WSS_OF("a", "hostile", 1, "2026-01-01T00:00:00Z", "'port':1,'backend':'wss://h.x'"));
    json_t *keys = places[place].with(text);
    struct render *r = render_new(&gateway);
    struct store *s = store_new();
    const struct render_verdict *v;
    struct spec back = {0};
    bool served;

    assert_non_null(keys);
    json_object_update(json_object_get(object, "spec"), keys);
    json_decref(keys);
    for (int kind = 0; kind < STORE_KINDS; kind++)
        store_set_sync(s, (enum store_kind)kind, STORE_SYNCED, "");
    PUT(s, STORE_WSS, WSS_OF("a", "good", 1, "2026-01-01T00:00:00Z", "'port':2,'backend':'ws://h.x'"));
    put_json(s, STORE_WSS, object);
    render_run(r, s);
    v = render_find(r, "a", "hostile");
    served = v->served;
    read_back(r, &back);
    assert_int_equal(back.count, served ? 2 : 1);
    assert_string_equal(back.servers[0].name, "a/good");
    if (served) {
        const char *got = places[place].of(&back.servers[1]);

        if (!got || strcmp(got, text) != 0)
            fail_msg("%s %s came back as %s", places[place].what, text, got ? got : "nothing");
    } else {
        const struct render_condition *why = v->accepted.status == WSS_FALSE ? &v->accepted : &v->resolved;

        if (why->status != WSS_FALSE || !why->message || strpbrk(why->message, "\n\r\x7f"))
            fail_msg("%s %s is refused without words", places[place].what, text);
    }
    spec_free(&back);
    render_free(r);
    store_free(s);
    return served;
}

static void a_hostile_text_is_refused_or_reads_back_the_same(void **state)
{
    size_t served = 0;

    (void)state;
    for (size_t place = 0; place < COUNT(places); place++)
        for (size_t i = 0; i < COUNT(texts); i++)
            served += judge(texts[i], place);
    assert_true(served > 20 && served < COUNT(places) * COUNT(texts));
}

static void a_text_of_a_megabyte_is_refused_in_words(void **state)
{
    char *text = malloc((1u << 20) + 1);

    (void)state;
    memset(text, 'x', 1u << 20);
    text[1u << 20] = '\0';
    for (size_t place = 0; place < COUNT(places); place++)
        assert_true(places[place].with == in_backend || !judge(text, place));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hostile_text_is_refused_or_reads_back_the_same),
        cmocka_unit_test(a_text_of_a_megabyte_is_refused_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
