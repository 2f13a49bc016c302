/* test_tls_memory.c - each allocation of OpenSSL fails once, and it costs the one connection that needed it */
#include "test_tls_peer.h"

#include <openssl/crypto.h>

#define STEP 19 /* 1 tries each allocation, which takes minutes with sanitizers */

static struct {
    long next, fail_at; /* the N-th allocation from now on; 0: none */
    bool all_after;     /* and every one behind it */
    bool failed;
} memory;

static bool denied(void)
{
    bool deny;

    if (!memory.fail_at)
        return false;
    memory.next++;
    deny = memory.all_after ? memory.next >= memory.fail_at : memory.next == memory.fail_at;
    memory.failed |= deny;
    return deny;
}

static void *scarce_malloc(size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return n && !denied() ? malloc(n) : NULL;
}

static void *scarce_realloc(void *old, size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    if (!n) {
        free(old);
        return NULL;
    }
    return denied() ? NULL : realloc(old, n);
}

static void plain_free(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    free(p);
}

static void fail_at(long n, bool all_after)
{
    memory.next = 0;
    memory.failed = false;
    memory.all_after = all_after;
    memory.fail_at = n;
}

/* Memory is there again; was it ever missing? */
static bool relieve(void)
{
    memory.fail_at = 0;
    ERR_clear_error();
    return memory.failed;
}

static struct shared shared;
static struct made_pair pair, person;
static int shared_fd;

static int setup(void **state)
{
    struct err err;

    (void)state;
    pair = make_pair("server");
    person = make_pair("person");
    return shared_new(&shared, 1, 1024, &shared_fd, &err);
}

static int teardown(void **state)
{
    (void)state;
    made_pair_free(&pair);
    made_pair_free(&person);
    shared_done(&shared);
    close(shared_fd);
    return 0;
}

/* A backend's side and ours: what tls_dial_init and tls_accept_ctx make of them. */
static struct spec_server dial_spec(const struct made_pair *shown)
{
    struct spec_server s = {.name = "a", .backend = {.tls = true, .host = "server"}};

    s.backend_tls.ca = pem_of(pair.cert);
    if (shown) {
        s.wss_cert = pem_of(shown->cert);
        s.wss_key = pem_of(shown->key);
    }
    return s;
}

static SSL_CTX *pick(void *arg, const char *name)
{
    (void)name;
    return arg;
}

static struct met come(struct tls_dial *dial, SSL_CTX *first, SSL_CTX *chosen)
{
    struct tls_picker picker = {.pick = pick, .arg = chosen};
    struct met met = meet(tls_dial_new(dial), tls_accept_new(first, &picker), NULL);

    SSL_SESSION_free(met.session);
    return met;
}

/* OpenSSL hides that an algorithm could not be fetched or the key of a CA not be decoded: such an SSL_CTX may refuse
 * what it should take, never the other way round. */
static void an_ssl_ctx_made_in_need_is_an_error_or_no_less_strict(void **state)
{
    struct spec_server spec = server_spec("a", &pair, person.cert), wss = dial_spec(&person);
    struct err err;
    bool again = true;

    (void)state;
    for (long n = 1; again; n += STEP) {
        SSL_CTX *ctx;
        struct tls_dial dial, known;
        struct met met;

        err.msg[0] = '\0';
        fail_at(n, false);
        ctx = tls_accept_ctx(&spec, &shared, &err);
        again = relieve();
        assert_true(ctx || err.msg[0]);
        assert_true(ctx || again);
        assert_int_equal(tls_dial_init(&known, &wss, wss.backend.host, NULL, &err), 0);
        if (ctx) {
            met = come(&known, ctx, ctx);
            assert_true(!met.ok || met.knows_client);
        }
        SSL_CTX_free(ctx);

        fail_at(n, false);
        err.msg[0] = '\0';
        if (tls_dial_init(&dial, &wss, wss.backend.host, NULL, &err) == 0) {
            again |= relieve();
            ctx = server_ctx(&spec, &shared);
            met = come(&dial, ctx, ctx);
            assert_true(!met.ok || met.knows_client);
            SSL_CTX_free(ctx);
            tls_dial_done(&dial);
        } else {
            assert_true(relieve());
            again = true;
            assert_true(err.msg[0]);
            assert_null(dial.ctx);
        }
        tls_dial_done(&known);
    }
}

/* Both sides of it are ours; the next connection has its memory and comes through. */
static void short_of_memory(bool all_after, bool may_succeed)
{
    struct spec_server spec = server_spec("a", &pair, person.cert), other = server_spec("b", &pair, NULL);
    struct spec_server known_spec = dial_spec(&person), nobody_spec = dial_spec(NULL);
    SSL_CTX *closed = server_ctx(&spec, &shared), *open_to_all = server_ctx(&other, &shared);
    struct tls_dial known, nobody;
    struct err err;
    bool again = true;

    assert_int_equal(tls_dial_init(&known, &known_spec, known_spec.backend.host, NULL, &err), 0);
    assert_int_equal(tls_dial_init(&nobody, &nobody_spec, nobody_spec.backend.host, NULL, &err), 0);
    for (long n = 1; again; n += STEP) {
        struct met met;

        fail_at(n, all_after);
        met = come(may_succeed ? &known : &nobody, open_to_all, closed);
        again = relieve();
        if (!may_succeed)
            assert_false(met.ok);
        else
            assert_true(met.ok ? met.knows_client : again);
        met = come(&known, open_to_all, closed);
        assert_true(met.ok && met.knows_client);
    }
    tls_dial_done(&known);
    tls_dial_done(&nobody);
    SSL_CTX_free(closed);
    SSL_CTX_free(open_to_all);
}

static void one_lack_of_memory_costs_one_connection(void **state)
{
    (void)state;
    short_of_memory(false, true);
}

static void a_long_lack_of_memory_costs_one_connection(void **state)
{
    (void)state;
    short_of_memory(true, true);
}

static void no_lack_of_memory_admits_anyone(void **state)
{
    (void)state;
    short_of_memory(false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ssl_ctx_made_in_need_is_an_error_or_no_less_strict),
        cmocka_unit_test(one_lack_of_memory_costs_one_connection),
        cmocka_unit_test(a_long_lack_of_memory_costs_one_connection),
        cmocka_unit_test(no_lack_of_memory_admits_anyone),
    };

    if (!CRYPTO_set_mem_functions(scarce_malloc, scarce_realloc, plain_free))
        return 1;
    return cmocka_run_group_tests(tests, setup, teardown);
}
