#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "relay/drain.h"
#include "relay/handshake.h"

#define SERVERS 2
#define MANY    200

/* Tunnels between two socket pairs; the test holds the far ends. */
struct tunnel {
    struct pair *pair;
    int client, backend;
};

static struct relay *relay;
static struct server *servers[SERVERS];
static int shared_fd;

static int setup(void **state)
{
    static const char text[] = "kind: WebSocketServer\nname: a\nport: 20001\nbackend: ws://localhost:1\n---\n"
                               "kind: WebSocketServer\nname: b\nport: 20002\nbackend: ws://localhost:1\n";
    struct spec_problems problems = {0};
    struct spec spec;
    struct err err;

    (void)state;
    log_init(LOG_ERROR);
    relay = calloc(1, sizeof *relay);
    assert_non_null(relay);
    assert_int_equal(loop_init(&relay->loop, &err), 0);
    assert_int_equal(shared_new(&relay->shared, 1, 1000, &shared_fd, &err), 0);
    relay->me = shared_worker(&relay->shared, 0);
    assert_int_equal(spec_parse((const uint8_t *)text, strlen(text), &spec, &problems), 0);
    for (unsigned i = 0; i < SERVERS; i++) {
        int slot = shared_slot_take(&relay->shared, spec.servers[i].name);

        spec.servers[i].timeouts.drain_ms = 10000 * (i + 1);
        servers[i] = server_new(&spec.servers[i], &relay->shared, 0, (unsigned)slot, &err);
        assert_non_null(servers[i]);
    }
    spec_free(&spec);
    return 0;
}

static int teardown(void **state)
{
    struct pair *p;

    (void)state;
    while ((p = LIST_FIRST(&relay->pairs)))
        pair_end(p, true);
    loop_turn(&relay->loop, 0);
    for (unsigned i = 0; i < SERVERS; i++)
        server_unref(servers[i]);
    assert_int_equal(stats_read(&relay->me->server_objects), 0);
    loop_done(&relay->loop);
    shared_done(&relay->shared);
    close(shared_fd);
    free(relay);
    return 0;
}

static struct pair *new_pair(struct server *s, int *far)
{
    struct addr addr = {.port = 1};
    int fds[2];
    struct pair *p;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    p = pair_new(relay, s, fds[0], &addr);
    assert_non_null(p);
    *far = fds[1];
    return p;
}

static struct tunnel open_tunnel(struct server *s, const char *early_client, const char *early_backend)
{
    struct tunnel t;
    struct err err;
    int fds[2];

    t.pair = new_pair(s, &t.client);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(
        sock_open(&t.pair->backend.sock, &relay->loop, fds[0], t.pair->backend.sock.lf.ready, &err), 0);
    t.backend = fds[1];
    pair_start(t.pair, 0, (const uint8_t *)early_client, strlen(early_client), (const uint8_t *)early_backend,
               strlen(early_backend));
    loop_turn(&relay->loop, 0); /* that both can be written is news too */
    return t;
}

static void close_tunnel(struct tunnel *t)
{
    close(t->client);
    close(t->backend);
}

static void say(int fd, const char *bytes, size_t len)
{
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    loop_turn(&relay->loop, 0);
}

/* What has come is exactly this, whole frames. */
static void hears(int fd, const char *bytes, size_t len)
{
    char got[256];

    assert_int_equal(read(fd, got, sizeof got), (ssize_t)len);
    assert_memory_equal(got, bytes, len);
}

static void gauges_are(const struct server *s, uint64_t handshakes, uint64_t connections)
{
    assert_int_equal(stats_read(&s->cell->handshakes), handshakes);
    assert_int_equal(stats_read(&s->cell->connections), connections);
}

static uint64_t closes(const struct server *s, enum stats_who who, unsigned code)
{
    return stats_read(&s->cell->closes[who][stats_close_index(code)]);
}

static void pair_counts_from_its_first_moment(void **state)
{
    int far;
    struct pair *p = new_pair(servers[0], &far);

    (void)state;
    gauges_are(servers[0], 1, 0);
    gauges_are(servers[1], 0, 0);
    assert_int_equal(stats_read(&relay->me->pairs), 1);
    pair_end(p, false);
    pair_end(p, false);
    gauges_are(servers[0], 0, 0);
    assert_int_equal(stats_read(&relay->me->pairs), 0);
    assert_int_equal(stats_read(&servers[0]->cell->connections_total), 0);
    assert_int_equal(closes(servers[0], STATS_GATEWAY, 1006), 0);
    close(far);
}

static void tunnel_counts_while_it_lives(void **state)
{
    struct stats_cell *c = servers[0]->cell;
    struct tunnel t = open_tunnel(servers[0], "\x81\x81\x01\x01\x01\x01y", "\x82\x01z\x89");

    (void)state;
    gauges_are(servers[0], 0, 1);
    assert_int_equal(relay->tunnel_count, 1);
    assert_int_equal(stats_read(&c->connections_total), 1);
    assert_int_equal(stats_read(&c->bytes[STATS_CLIENT]), 7);
    assert_int_equal(stats_read(&c->bytes[STATS_BACKEND]), 4);
    assert_int_equal(stats_read(&c->messages[STATS_CLIENT][FRAME_TEXT]), 1);
    assert_int_equal(stats_read(&c->messages[STATS_BACKEND][FRAME_BINARY]), 1);
    assert_int_equal(stats_read(&c->messages[STATS_BACKEND][FRAME_PING]), 0);
    hears(t.backend, "\x81\x81\x01\x01\x01\x01y", 7);
    say(t.backend, "\x00\x83\x00", 3); /* the Ping's end, and a wrong frame */
    assert_int_equal(stats_read(&c->messages[STATS_BACKEND][FRAME_PING]), 1);
    assert_int_equal(stats_read(&c->bytes[STATS_BACKEND]), 7);
    close_tunnel(&t);
    loop_turn(&relay->loop, 0);
    loop_turn(&relay->loop, 0);
    gauges_are(servers[0], 0, 0);
    assert_int_equal(relay->tunnel_count, 0);
    assert_int_equal(closes(servers[0], STATS_GATEWAY, 1002), 1);
}

static void close_counts_by_who_began_it(void **state)
{
    static const char up[] = "\x88\x82\x00\x00\x00\x00\x0f\xa1", down[] = "\x88\x02\x03\xe8";
    struct tunnel t = open_tunnel(servers[0], "", "");

    (void)state;
    say(t.client, up, 8);
    assert_int_equal(closes(servers[0], STATS_CLIENT, 4001), 0); /* not over yet */
    gauges_are(servers[0], 0, 1);
    say(t.backend, down, 4);
    assert_int_equal(stats_read(&servers[0]->cell->messages[STATS_CLIENT][FRAME_CLOSE]), 1);
    close_tunnel(&t);
    loop_turn(&relay->loop, 0);
    loop_turn(&relay->loop, 0);
    gauges_are(servers[0], 0, 0);
    assert_int_equal(closes(servers[0], STATS_CLIENT, 4999), 1); /* 4xxx are counted together */

    t = open_tunnel(servers[0], "", "");
    close(t.backend);
    loop_turn(&relay->loop, 0);
    close(t.client);
    loop_turn(&relay->loop, 0);
    gauges_are(servers[0], 0, 0);
    assert_int_equal(closes(servers[0], STATS_BACKEND, 1006), 1);

    t = open_tunnel(servers[0], "", "");
    pair_end(t.pair, true);
    gauges_are(servers[0], 0, 0);
    assert_int_equal(closes(servers[0], STATS_GATEWAY, 1006), 1);
    assert_int_equal(stats_read(&servers[0]->cell->connections_total), 3);
    close_tunnel(&t);
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Each n-th of the window holds one Close, and neighbours in age are told far from each other. */
static void window_is_shared_evenly(void **state)
{
    static const size_t counts[] = {1, 2, 3, 7, 50, MANY};

    (void)state;
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        size_t n = counts[c], near = 0;
        struct tunnel t[MANY];
        uint64_t at[MANY], now;

        for (size_t i = 0; i < n; i++)
            t[i] = open_tunnel(servers[0], "", "");
        now = relay->loop.now_ms;
        drain_slots(relay, (uint64_t[SHARED_SLOTS / 64]){UINT64_C(1) << servers[0]->slot}, 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(t[i].pair->deadline_ms, now + 10000);
            at[i] = t[i].pair->drain_at_ms - now;
            near += i > 0 && llabs((long long)at[i] - (long long)at[i - 1]) < 800;
        }
        assert_true(n < 50 || near < n / 5);
        qsort(at, n, sizeof *at, by_time);
        for (size_t i = 0; i < n; i++)
            assert_in_range(at[i], 8000 * i / n, 8000 * (i + 1) / n);
        drain_now(relay);
        for (size_t i = 0; i < n; i++)
            close_tunnel(&t[i]);
        loop_turn(&relay->loop, 0);
        relay->draining = false;
    }
}

static void only_the_slots_that_are_named_drain(void **state)
{
    uint64_t slots[SHARED_SLOTS / 64] = {UINT64_C(1) << servers[1]->slot};
    struct tunnel a = open_tunnel(servers[0], "", ""), b = open_tunnel(servers[1], "", "");
    uint64_t now = relay->loop.now_ms;

    (void)state;
    drain_slots(relay, (uint64_t[SHARED_SLOTS / 64]){UINT64_C(1) << servers[1]->slot}, 0);
    assert_false(relay->draining);
    assert_int_equal(a.pair->deadline_ms, 0);
    assert_int_equal(b.pair->deadline_ms, now + 20000);
    assert_in_range(b.pair->drain_at_ms, now, now + 16000);
    drain_slots(relay, NULL, 500);
    assert_true(relay->draining);
    assert_int_equal(a.pair->deadline_ms, now + 500);
    assert_int_equal(b.pair->deadline_ms, now + 500);
    assert_in_range(b.pair->drain_at_ms, now, now + 400);
    drain_slots(relay, NULL, 0); /* no second call gives more time */
    assert_int_equal(b.pair->deadline_ms, now + 500);
    drain_cancel(relay, slots); /* a worker that ends does not turn back */
    assert_int_equal(b.pair->deadline_ms, now + 500);
    close_tunnel(&a);
    close_tunnel(&b);
}

static void server_that_came_back_keeps_those_not_told_yet(void **state)
{
    uint64_t slots[SHARED_SLOTS / 64] = {UINT64_C(1) << servers[0]->slot};
    struct tunnel told = open_tunnel(servers[0], "", ""), kept = open_tunnel(servers[0], "", "");

    (void)state;
    drain_slots(relay, slots, 0);
    told.pair->drain_at_ms = relay->loop.now_ms;
    drain_due(told.pair);
    hears(told.client, "\x88\x10\x03\xe9server removed", 18);
    assert_int_equal(stats_read(&servers[0]->cell->drained), 1);
    drain_cancel(relay, slots);
    assert_int_not_equal(told.pair->deadline_ms, 0);
    assert_int_equal(kept.pair->deadline_ms, 0);
    assert_int_equal(kept.pair->drain_at_ms, 0);
    say(kept.client, "\x81\x81\x01\x01\x01\x01y", 7);
    hears(kept.backend, "\x81\x81\x01\x01\x01\x01y", 7);
    close_tunnel(&told);
    close_tunnel(&kept);
}

static void no_time_tells_and_cuts_at_once(void **state)
{
    struct tunnel t = open_tunnel(servers[0], "", ""), inside = open_tunnel(servers[0], "", "\x82\x05x");

    (void)state;
    servers[0]->spec->timeouts.drain_ms = 0;
    hears(inside.client, "\x82\x05x", 3);
    drain_slots(relay, NULL, 0);
    assert_int_equal(relay->pair_count, 0);
    gauges_are(servers[0], 0, 0);
    hears(t.client, "\x88\x1a\x03\xe9gateway is shutting down", 28);
    hears(inside.client, "", 0); /* the end, and nothing into its frame */
    assert_int_equal(stats_read(&servers[0]->cell->cut), 2);
    assert_int_equal(stats_read(&servers[0]->cell->drained), 1);
    assert_int_equal(closes(servers[0], STATS_GATEWAY, 1001), 2);
    close_tunnel(&t);
    close_tunnel(&inside);
}

/* Reads the answer of a refused request and ends it. */
static void answers(int fd, const char *status_line)
{
    char got[1024];
    ssize_t len = read(fd, got, sizeof got - 1);

    assert_true(len > 0);
    got[len] = 0;
    assert_memory_equal(got, status_line, strlen(status_line));
    close(fd);
    loop_turn(&relay->loop, 0);
}

static uint64_t handshakes(const struct server *s, int status)
{
    return stats_read(&s->cell->handshakes_total[stats_status_index(status)]);
}

static const char request[] =
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

static void handshake_counts_once_by_its_answer(void **state)
{
    int far;

    (void)state;
    handshake_start(new_pair(servers[0], &far));
    loop_turn(&relay->loop, 0);
    say(far, "what?\r\n\r\n", 9);
    assert_int_equal(handshakes(servers[0], 400), 1);
    gauges_are(servers[0], 1, 0); /* it lingers */
    answers(far, "HTTP/1.1 400 ");
    handshake_start(new_pair(servers[0], &far));
    close(far);
    loop_turn(&relay->loop, 0);
    handshake_start(new_pair(servers[0], &far));
    handshake_abort(LIST_FIRST(&relay->pairs)->handshake);
    close(far);
    loop_turn(&relay->loop, 0);
    gauges_are(servers[0], 0, 0);
    assert_int_equal(handshakes(servers[0], 400), 1);
    assert_int_equal(handshakes(servers[0], 0), 2);
}

static void request_to_a_server_that_goes_is_answered_503(void **state)
{
    uint64_t slots[SHARED_SLOTS / 64] = {UINT64_C(1) << servers[0]->slot};
    struct pair *p;
    int removed, late, other;

    (void)state;
    handshake_start(p = new_pair(servers[0], &removed));
    handshake_start(new_pair(servers[1], &other));
    loop_turn(&relay->loop, 0);
    say(removed, request, 20);
    drain_slots(relay, slots, 0);
    assert_int_equal(p->timer.at_ms, relay->loop.now_ms + HANDSHAKE_DRAIN_MS);
    say(removed, request + 20, sizeof request - 1 - 20);
    answers(removed, "HTTP/1.1 503 ");
    assert_int_equal(handshakes(servers[0], 503), 1);
    assert_int_equal(stats_read(&servers[0]->cell->limited[STATS_DRAINING]), 1);
    assert_int_equal(handshakes(servers[1], 503), 0);

    drain_slots(relay, NULL, 1000);
    handshake_start(p = new_pair(servers[0], &late)); /* was in the queue of a listener */
    assert_in_range(p->deadline_ms, 1, relay->loop.now_ms + 1000);
    loop_turn(&relay->loop, 0);
    say(late, request, sizeof request - 1);
    answers(late, "HTTP/1.1 503 ");
    say(other, request, sizeof request - 1);
    answers(other, "HTTP/1.1 503 ");
    gauges_are(servers[0], 0, 0);
    gauges_are(servers[1], 0, 0);
    assert_int_equal(relay->pair_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pair_counts_from_its_first_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(tunnel_counts_while_it_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(close_counts_by_who_began_it, setup, teardown),
        cmocka_unit_test_setup_teardown(handshake_counts_once_by_its_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(request_to_a_server_that_goes_is_answered_503, setup, teardown),
        cmocka_unit_test_setup_teardown(window_is_shared_evenly, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_slots_that_are_named_drain, setup, teardown),
        cmocka_unit_test_setup_teardown(server_that_came_back_keeps_those_not_told_yet, setup, teardown),
        cmocka_unit_test_setup_teardown(no_time_tells_and_cuts_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
