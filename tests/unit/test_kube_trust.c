/* test_kube_trust.c - whom a request trusts, as whom it goes, and over what: CA, token, client certificate, names, sockets */
#include "test_kube_call.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <semaphore.h>
#include <sys/stat.h>

#define REFUSED "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"

static void a_401_is_tried_once_more_with_a_fresh_token(void **state)
{
    struct got g = {0}, h = {0};

    (void)state;
    config.token_after_reject = "secret-2";
    peer_next(&peer, REFUSED, PEER_KEEP);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 200);
    assert_non_null(strstr(peer.seen[1].text, "\r\nAuthorization: Bearer secret-2\r\n"));
    peer_next(&peer, REFUSED, PEER_KEEP);
    start(&h, get("/", &h)); /* this time nothing better is known */
    turn_until(&h.done, 1);
    assert_int_equal(h.status, 401);
    assert_int_equal(peer_seen(&peer), 3);
    assert_int_equal(config.rejects, 2);
}

static void a_fresh_token_is_refused_once_only(void **state)
{
    struct got g = {0};

    (void)state;
    config.token_after_reject = "secret-2";
    peer_next(&peer, REFUSED, PEER_KEEP);
    peer_next(&peer, REFUSED, PEER_KEEP);
    start(&g, stream(&g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 401);
    assert_int_equal(peer_seen(&peer), 2);
    assert_int_equal(config.rejects, 1);
}

static void calls_refused_together_all_get_the_fresh_token(void **state)
{
    struct got g[4] = {{0}};

    (void)state;
    config.token_after_reject = "secret-2";
    peer.refused =
        "Bearer secret-1"; /* in whatever order they come: a second try may be faster than another's first */
    peer.refusal = REFUSED;
    for (int i = 0; i < 8; i++)
        peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    for (int i = 0; i < 4; i++)
        start(&g[i], get("/", &g[i]));
    for (int i = 0; i < 4; i++)
        turn_until(&g[i].done, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(g[i].status, 200);
    assert_int_equal(config.rejects, 1);
}

static void a_redirect_is_an_answer(void **state)
{
    struct got g = {0};
    char reply[256];

    (void)state;
    snprintf(reply, sizeof reply, "HTTP/1.1 302 Found\r\nLocation: %s/else\r\nContent-Length: 0\r\n\r\n",
             config.server);
    peer_next(&peer, reply, PEER_KEEP);
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 302);
    turn_for(50);
    assert_int_equal(peer_seen(&peer), 1);
}

static void nothing_but_https_is_spoken(void **state)
{
    struct got g = {0};

    (void)state;
    snprintf(config.server, sizeof config.server, "http://127.0.0.1:%d", peer.port);
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_CUT);
    assert_int_equal(peer.connection_count, 0);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;

    getsockopt(fd, level, name, &value, &len);
    return value;
}

static void a_dead_peer_is_noticed_by_tcp(void **state)
{
    struct got g = {0};
    int found = 0;

    (void)state;
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    start(&g, stream(&g));
    turn_until(&g.chunks, 1);
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_in to = {0};
        socklen_t len = sizeof to;

        if (getpeername(fd, (struct sockaddr *)&to, &len) || to.sin_family != AF_INET ||
            ntohs(to.sin_port) != peer.port)
            continue;
        found++;
        assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
        assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 30);
        assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 15);
        assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
        assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 75000);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
    assert_int_equal(found, 1);
}

/* In front of libc's: OpenSSL looks for an issuer in a folder by this call. */
static int looked_into_etc;

int stat(const char *restrict path, struct stat *restrict st)
{
    looked_into_etc += !strncmp(path, "/etc/ssl/", 9);
    return fstatat(AT_FDCWD, path, st, 0);
}

static void a_stranger_is_told_nothing(void **state)
{
    struct got g = {0};

    (void)state;
    config.auth.ca_pem = other.cert;
    config.auth.ca_len = strlen(other.cert);
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_CUT);
    assert_int_equal(g.status, 0);
    assert_int_equal(config.rejects, 1);
    assert_int_equal(peer_seen(&peer), 0);
    assert_int_equal(looked_into_etc,
                     0); /* the system's roots are not believed beside the CA that was given */
}

static void a_new_ca_is_read_when_the_old_one_does_not_fit(void **state)
{
    struct got g = {0};

    (void)state;
    config.auth.ca_pem = other.cert;
    config.auth.ca_len = strlen(other.cert);
    config.ca_after_reject = pair.cert;
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 200);
    assert_int_equal(config.rejects, 1);
}

static void a_new_generation_has_connections_of_its_own(void **state)
{
    struct got g[3] = {{0}}, watch = {0};

    (void)state;
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    peer_next(&peer, HEAD_OF_STREAM "3\r\none\r\n", PEER_HOLD);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g[0], get("/", &g[0]));
    turn_until(&g[0].done, 1);
    start(&watch, stream(&watch));
    turn_until(&watch.chunks, 1);
    config.auth.generation++;
    start(&g[1], get("/", &g[1]));
    turn_until(&g[1].done, 1);
    assert_int_not_equal(peer.seen[2].connection, peer.seen[0].connection);
    assert_int_equal(watch.done, 0); /* a CA that changed is no reason to end it */
    config.auth.generation++;
    config.auth.cert_pem = other.cert;
    config.auth.cert_len = strlen(other.cert);
    config.auth.key_pem = other.key;
    config.auth.key_len = strlen(other.key);
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g[2], get("/", &g[2]));
    turn_until(&g[2].done, 1);
    assert_int_not_equal(peer.seen[3].connection, peer.seen[2].connection);
    turn_until(&watch.done, 1); /* it went on as somebody else */
    assert_int_equal(watch.end, KUBE_CUT);
}

static void the_server_may_have_another_name_than_its_address(void **state)
{
    struct got g = {0}, h = {0};
    struct made_pair named = make_pair("kubernetes.default.svc");
    char host[80];

    (void)state;
    peer_close(&peer);
    peer_open(&peer, &named);
    snprintf(config.server, sizeof config.server, "https://127.0.0.1:%d/k8s", peer.port);
    snprintf(host, sizeof host, "\r\nHost: 127.0.0.1:%d\r\n", peer.port);
    config.auth.ca_pem = named.cert;
    config.auth.ca_len = strlen(named.cert);
    start(&g, get("/api", &g)); /* the address alone is not what the certificate says */
    turn_until(&g.done, 1);
    assert_int_equal(g.end, KUBE_CUT);
    config.auth.tls_server_name = "kubernetes.default.svc";
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&h, get("/api", &h));
    turn_until(&h.done, 1);
    assert_int_equal(h.status, 200);
    assert_string_equal(peer.seen[0].sni, "kubernetes.default.svc");
    assert_non_null(strstr(peer.seen[0].text, host));
    assert_ptr_equal(strstr(peer.seen[0].text, "GET /k8s/api HTTP/1.1\r\n"), peer.seen[0].text);
    made_pair_free(&named);
}

static void nothing_is_sent_before_the_config_is_ready(void **state)
{
    struct got g = {0};

    (void)state;
    config.not_ready = true;
    peer_next(&peer, OK_REPLY("2", "{}"), PEER_KEEP);
    start(&g, get("/", &g));
    turn_for(50);
    assert_int_equal(peer_seen(&peer), 0);
    config.not_ready = false;
    config.ready(config.arg);
    turn_until(&g.done, 1);
    assert_int_equal(g.status, 200);
}

/* In front of libc's: a name server that does not answer. Addresses are not asked for here. */
static sem_t asked, answered;

int getaddrinfo(const char *restrict node, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict out)
{
    (void)node;
    (void)service;
    (void)hints;
    *out = NULL;
    sem_post(&asked);
    sem_wait(&answered);
    return EAI_AGAIN;
}

static void nobody_waits_for_a_name(void **state)
{
    struct got g = {0};
    uint64_t from_ms;

    (void)state;
    sem_init(&asked, 0, 0);
    sem_init(&answered, 0, 0);
    snprintf(config.server, sizeof config.server, "https://no-such-name.invalid:%d", peer.port);
    start(&g, get("/", &g));
    while (sem_trywait(&asked))
        turn_for(5);
    from_ms = loop_clock_ms();
    alarm(10);
    kube_http_cancel(g.call);
    kube_http_free(http);
    http = NULL;
    turn_for(20);
    alarm(0);
    assert_true(loop_clock_ms() - from_ms < 1000);
    assert_int_equal(g.done, 0);
    sem_post(&answered);
}

static void nobody_there_is_said_at_once(void **state)
{
    struct got g = {0};
    int closed = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;

    (void)state;
    assert_int_equal(bind(closed, (struct sockaddr *)&here, sizeof here), 0);
    getsockname(closed, (struct sockaddr *)&here, &len);
    snprintf(config.server, sizeof config.server, "https://127.0.0.1:%d", ntohs(here.sin_port));
    start(&g, get("/", &g));
    turn_until(&g.done, 1);
    close(closed);
    assert_int_equal(g.end, KUBE_CUT);
    assert_non_null(strstr(g.why, "onnect"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_401_is_tried_once_more_with_a_fresh_token),
        TEST(a_fresh_token_is_refused_once_only),
        TEST(calls_refused_together_all_get_the_fresh_token),
        TEST(a_redirect_is_an_answer),
        TEST(nothing_but_https_is_spoken),
        TEST(a_dead_peer_is_noticed_by_tcp),
        TEST(a_stranger_is_told_nothing),
        TEST(a_new_ca_is_read_when_the_old_one_does_not_fit),
        TEST(a_new_generation_has_connections_of_its_own),
        TEST(the_server_may_have_another_name_than_its_address),
        TEST(nothing_is_sent_before_the_config_is_ready),
        TEST(nobody_waits_for_a_name),
        TEST(nobody_there_is_said_at_once),
    };

    return run_calls(tests, sizeof tests / sizeof *tests);
}
