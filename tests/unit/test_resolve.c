/* test_resolve.c - names that are asked for while an answer is being told
 * The code is included, so that c-ares answers when the test wants it, and what is freed cannot be taken for good. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <ares.h>
#include <cmocka.h>

static void spoil_and_free(void *p)
{
    if (p)
        explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

/* The last name that c-ares was asked for, and how to answer. */
static struct {
    ares_addrinfo_callback answer;
    void *arg;
} asked;

static void keep_asked(ares_channel channel, const char *name, const char *service,
                       const struct ares_addrinfo_hints *hints, ares_addrinfo_callback answer, void *arg)
{
    (void)channel, (void)name, (void)service, (void)hints;
    asked.answer = answer;
    asked.arg = arg;
}

#define free                   spoil_and_free
#define ares_getaddrinfo       keep_asked
#define ares_freeaddrinfo(all) ((void)(all))
#include "../../proxy/relay/resolve.c" /* NOLINT */
#undef free
#undef ares_getaddrinfo
#undef ares_freeaddrinfo

static struct loop loop;
static struct resolver *resolver;
static size_t told_count;
static struct in6_addr told_ip;

static void tell(struct resolve_query *q, const struct in6_addr *ips, size_t count, const char *why)
{
    (void)q, (void)why;
    told_count = count;
    if (count == 1)
        told_ip = ips[0];
}

static void ignore(struct resolve_query *q, const struct in6_addr *ips, size_t count, const char *why)
{
    (void)q, (void)ips, (void)count, (void)why;
}

static struct resolve_query next = {.done = ignore};

/* As a handshake whose backend may not be dialled goes on to the next one. */
static void ask_for_the_next(struct resolve_query *q, const struct in6_addr *ips, size_t count,
                             const char *why)
{
    ignore(q, ips, count, why);
    resolve_start(resolver, "next.test", &next);
}

static void an_answer_outlives_the_names_that_are_asked_for_because_of_it(void **state)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    struct ares_addrinfo_node node = {
        .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&there, .ai_ttl = 60};
    struct ares_addrinfo info = {.nodes = &node};
    static struct resolve_query others[RESOLVE_CACHE];
    struct resolve_query first = {.done = ask_for_the_next}, second = {.done = tell};
    struct err err;

    (void)state;
    assert_int_equal(loop_init(&loop, &err), 0);
    assert_non_null(resolver = resolver_new(&loop, &err));
    /* The cache is full, and of all its names only the one that is answered may be forgotten. */
    for (size_t i = 0; i + 1 < RESOLVE_CACHE; i++) {
        char name[32];

        snprintf(name, sizeof name, "n%zu.test", i);
        others[i].done = ignore;
        resolve_start(resolver, name, &others[i]);
    }
    resolve_start(resolver, "both.test", &second);
    resolve_start(resolver, "both.test", &first); /* the last to come is told first */
    asked.answer(asked.arg, ARES_SUCCESS, 0, &info);
    assert_true(next.waiting);
    assert_false(first.waiting || second.waiting);
    assert_int_equal(told_count, 1);
    assert_int_equal(told_ip.s6_addr[12], 127);
    resolver_free(resolver);
    loop_done(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_outlives_the_names_that_are_asked_for_because_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
