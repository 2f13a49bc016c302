/* test_tls_tickets.c - a ticket is good at every worker of its server, and nowhere else */
#include "test_tls_peer.h"

#include <openssl/x509.h>
#include <time.h>

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
#define EACH_VERSION(v) for (size_t v##_i = 0, v; v##_i < 2 && ((v = (size_t)versions[v##_i]), true); v##_i++)

static struct shared master, other; /* the second one maps the same memory, as another process does */
static struct made_pair pair, renewed, person, stranger;
static int shared_fd;

static int setup(void **state)
{
    struct err err;

    (void)state;
    pair = make_pair("server");
    renewed = make_pair("server");
    person = make_pair("person");
    stranger = make_pair("stranger");
    return shared_new(&master, 1, 1024, &shared_fd, &err) || shared_map(&other, shared_fd, &err);
}

static int teardown(void **state)
{
    (void)state;
    made_pair_free(&pair);
    made_pair_free(&renewed);
    made_pair_free(&person);
    made_pair_free(&stranger);
    shared_done(&other);
    shared_done(&master);
    close(shared_fd);
    return 0;
}

static void rotate(void)
{
    struct err err;

    assert_int_equal(shared_ticket_rotate(&master, &err), 0);
}

static SSL_CTX *pick(void *arg, const char *name)
{
    (void)name;
    return arg;
}

/* A connection that is accepted with `first` and moved to `chosen`. */
static struct met come(SSL_CTX *client, SSL_CTX *first, SSL_CTX *chosen, SSL_SESSION *session)
{
    struct tls_picker picker = {.pick = pick, .arg = chosen};

    return meet(SSL_new(client), tls_accept_new(first, &picker), session);
}

/* A full handshake and the ticket that it brings. */
static SSL_SESSION *ticket_of(SSL_CTX *client, SSL_CTX *server)
{
    struct met met = come(client, server, server, NULL);

    assert_true(met.ok);
    assert_false(met.reused);
    assert_non_null(met.session);
    assert_true(SSL_SESSION_has_ticket(met.session));
    return met.session;
}

/* The one that came, if any, is dropped. */
static void assert_comes(SSL_CTX *client, SSL_CTX *first, SSL_CTX *chosen, SSL_SESSION *session, bool reused)
{
    struct met met = come(client, first, chosen, session);

    SSL_SESSION_free(met.session);
    assert_true(met.ok);
    assert_int_equal(met.reused, reused);
}

static void assert_refused(SSL_CTX *client, SSL_CTX *first, SSL_CTX *chosen, SSL_SESSION *session)
{
    struct met met = come(client, first, chosen, session);

    SSL_SESSION_free(met.session);
    assert_false(met.ok);
}

static void a_ticket_of_one_worker_opens_at_another(void **state)
{
    struct spec_server spec = server_spec("a", &pair, NULL), later = server_spec("a", &renewed, NULL);
    SSL_CTX *one = server_ctx(&spec, &master), *two = server_ctx(&spec, &other);
    SSL_CTX *new_certificate = server_ctx(&later, &other);

    (void)state;
    EACH_VERSION(version)
    {
        SSL_CTX *client = client_ctx((int)version, NULL);
        SSL_SESSION *ticket = ticket_of(client, one);

        assert_comes(client, one, one, ticket, true);
        assert_comes(client, two, two, ticket, true);
        assert_comes(client, new_certificate, new_certificate, ticket, true);
        SSL_SESSION_free(ticket);
        SSL_CTX_free(client);
    }
    SSL_CTX_free(one);
    SSL_CTX_free(two);
    SSL_CTX_free(new_certificate);
}

static void tls_1_3_gives_a_new_ticket_for_each_used_one(void **state)
{
    struct spec_server spec = server_spec("a", &pair, NULL);
    SSL_CTX *server = server_ctx(&spec, &master), *client = client_ctx(TLS1_3_VERSION, NULL);
    SSL_SESSION *ticket = ticket_of(client, server);

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct met met = come(client, server, server, ticket);

        assert_true(met.ok && met.reused);
        assert_non_null(met.session);
        SSL_SESSION_free(ticket);
        ticket = met.session;
    }
    SSL_SESSION_free(ticket);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}

static void a_ticket_lives_through_one_rotation_and_is_renewed(void **state)
{
    struct spec_server spec = server_spec("a", &pair, NULL);
    SSL_CTX *server = server_ctx(&spec, &other);

    (void)state;
    EACH_VERSION(version)
    {
        SSL_CTX *client = client_ctx((int)version, NULL);
        SSL_SESSION *old = ticket_of(client, server);
        struct met met;

        rotate();
        met = come(client, server, server, old);
        assert_true(met.ok && met.reused);
        assert_non_null(met.session); /* under the new key: */
        rotate();
        assert_comes(client, server, server, old, false);
        assert_comes(client, server, server, met.session, true);
        SSL_SESSION_free(met.session);
        SSL_SESSION_free(old);
        SSL_CTX_free(client);
    }
    SSL_CTX_free(server);
}

static void a_ticket_that_no_key_opens_is_a_full_handshake(void **state)
{
    struct spec_server spec = server_spec("a", &pair, NULL);
    SSL_CTX *server = server_ctx(&spec, &other);

    (void)state;
    EACH_VERSION(version)
    {
        SSL_CTX *client = client_ctx((int)version, NULL);
        SSL_SESSION *ticket = ticket_of(client, server);

        /* The name is known and the key is not its own: what is read while the master writes may look so. */
        master.head->ticket_keys[0].hmac[0] ^= 1;
        assert_comes(client, server, server, ticket, false);
        master.head->ticket_keys[0].hmac[0] ^= 1;
        master.head->ticket_keys[0].aes[0] ^= 1;
        assert_comes(client, server, server, ticket, false);
        master.head->ticket_keys[0].aes[0] ^= 1;
        assert_comes(client, server, server, ticket, true);
        rotate();
        rotate();
        assert_comes(client, server, server, ticket, false);
        SSL_SESSION_free(ticket);
        SSL_CTX_free(client);
    }
    SSL_CTX_free(server);
}

static void a_master_that_died_while_it_wrote_holds_nobody_up(void **state)
{
    struct spec_server spec = server_spec("a", &pair, NULL);
    SSL_CTX *server = server_ctx(&spec, &other), *client = client_ctx(TLS1_3_VERSION, NULL);
    SSL_SESSION *ticket;

    (void)state;
    atomic_fetch_add(&master.head->ticket_sequence, 1);
    ticket = ticket_of(client, server);
    assert_comes(client, server, server, ticket, true);
    atomic_fetch_add(&master.head->ticket_sequence, 1);
    SSL_SESSION_free(ticket);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}

/* Two servers on one port: `first` is the SSL_CTX of the accept, the picker moves the SSL. */
static void a_ticket_of_another_server_is_a_full_handshake(void **state)
{
    struct spec_server spec_a = server_spec("a", &pair, NULL), spec_b = server_spec("b", &renewed, NULL);
    SSL_CTX *a = server_ctx(&spec_a, &master), *b = server_ctx(&spec_b, &master);

    (void)state;
    EACH_VERSION(version)
    {
        SSL_CTX *client = client_ctx((int)version, NULL);
        SSL_SESSION *of_a = ticket_of(client, a), *of_b;
        struct met moved = come(client, a, b, NULL);

        assert_comes(client, b, b, of_a, false);
        assert_comes(client, a, b, of_a, false);
        assert_comes(client, b, a, of_a, true);
        /* One that was issued after the move is the chosen server's. */
        of_b = moved.session;
        assert_non_null(of_b);
        assert_comes(client, b, b, of_b, true);
        assert_comes(client, a, b, of_b, true);
        assert_comes(client, a, a, of_b, false);
        assert_comes(client, b, a, of_b, false);
        SSL_SESSION_free(of_a);
        SSL_SESSION_free(of_b);
        SSL_CTX_free(client);
    }
    SSL_CTX_free(a);
    SSL_CTX_free(b);
}

static void a_server_that_demands_certificates_takes_no_ticket_without_one(void **state)
{
    struct spec_server free_spec = server_spec("a", &pair, NULL);
    struct spec_server closed_spec = server_spec("a", &pair, person.cert);
    struct spec_server other_spec = server_spec("b", &pair, NULL);
    SSL_CTX *open_to_all = server_ctx(&free_spec, &master), *closed = server_ctx(&closed_spec, &master);
    SSL_CTX *open_other = server_ctx(&other_spec, &master);

    (void)state;
    EACH_VERSION(version)
    {
        SSL_CTX *nobody = client_ctx((int)version, NULL), *known = client_ctx((int)version, &person);
        SSL_SESSION *ticket = ticket_of(nobody, open_to_all), *of_other = ticket_of(nobody, open_other);
        SSL_SESSION *of_known;
        struct met met;

        assert_refused(nobody, closed, closed, NULL);
        assert_refused(nobody, closed, closed, ticket); /* the same server, before it demanded them */
        assert_refused(nobody, open_to_all, closed, ticket);
        assert_refused(nobody, open_other, closed, of_other);
        /* One with a certificate is looked at in full first, and then comes by its ticket. */
        assert_comes(known, open_other, closed, ticket, false);
        of_known = ticket_of(known, closed);
        met = come(known, open_other, closed, of_known);
        assert_true(met.ok && met.reused && met.knows_client);
        SSL_SESSION_free(met.session);
        assert_comes(known, open_to_all, open_to_all, of_known, false);
        SSL_SESSION_free(of_known);
        SSL_SESSION_free(of_other);
        SSL_SESSION_free(ticket);
        SSL_CTX_free(nobody);
        SSL_CTX_free(known);
    }
    SSL_CTX_free(open_to_all);
    SSL_CTX_free(open_other);
    SSL_CTX_free(closed);
}

static void a_ticket_from_before_the_client_ca_changed_is_a_full_handshake(void **state)
{
    char *both_ca = join(person.cert, stranger.cert);
    struct spec_server before = server_spec("a", &pair, person.cert);
    struct spec_server wider = server_spec("a", &pair, both_ca);
    struct spec_server after = server_spec("a", &pair, stranger.cert);
    SSL_CTX *old = server_ctx(&before, &master), *both = server_ctx(&wider, &master);
    SSL_CTX *new = server_ctx(&after, &master);

    (void)state;
    EACH_VERSION(version)
    {
        SSL_CTX *known = client_ctx((int)version, &person);
        SSL_SESSION *ticket = ticket_of(known, old);

        assert_comes(known, old, old, ticket, true);
        assert_comes(known, both, both, ticket, false);
        assert_refused(known, new, new, ticket);
        SSL_SESSION_free(ticket);
        SSL_CTX_free(known);
    }
    SSL_CTX_free(old);
    SSL_CTX_free(both);
    SSL_CTX_free(new);
    free(both_ca);
}

/* A certificate that runs out in two seconds. */
static struct made_pair make_short_lived(X509 **x)
{
    EVP_PKEY *key = make_ec_key("P-256", 0);
    struct made_pair made;

    *x = make_certificate(key, "guest", NULL, NULL, 0, EVP_sha256());
    X509_gmtime_adj(X509_getm_notAfter(*x), 2);
    assert_true(X509_sign(*x, key, EVP_sha256()) > 0);
    made = (struct made_pair){.cert = certificate_pem(*x), .key = key_pem(key)};
    EVP_PKEY_free(key);
    return made;
}

static void a_ticket_dies_with_the_client_certificate(void **state)
{
    X509 *x;
    struct made_pair guest = make_short_lived(&x);
    struct spec_server spec = server_spec("a", &pair, guest.cert);
    struct spec_server free_spec = server_spec("b", &pair, NULL);
    SSL_CTX *server = server_ctx(&spec, &master), *open_to_all = server_ctx(&free_spec, &master);
    SSL_CTX *clients[2];
    SSL_SESSION *tickets[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        clients[i] = client_ctx(versions[i], &guest);
        tickets[i] = ticket_of(clients[i], server);
    }
    while (X509_cmp_current_time(X509_get0_notAfter(x)) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    for (int i = 0; i < 2; i++) {
        assert_refused(clients[i], server, server, tickets[i]);
        assert_refused(clients[i], open_to_all, server, tickets[i]);
        SSL_SESSION_free(tickets[i]);
        SSL_CTX_free(clients[i]);
    }
    SSL_CTX_free(server);
    SSL_CTX_free(open_to_all);
    X509_free(x);
    made_pair_free(&guest);
}

static void a_name_that_nobody_serves_is_refused(void **state)
{
    struct spec_server spec = server_spec("a", &pair, NULL);
    SSL_CTX *server = server_ctx(&spec, &master);

    (void)state;
    EACH_VERSION(version)
    {
        SSL_CTX *client = client_ctx((int)version, NULL);

        assert_refused(client, server, NULL, NULL);
        SSL_CTX_free(client);
    }
    SSL_CTX_free(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ticket_of_one_worker_opens_at_another),
        cmocka_unit_test(tls_1_3_gives_a_new_ticket_for_each_used_one),
        cmocka_unit_test(a_ticket_lives_through_one_rotation_and_is_renewed),
        cmocka_unit_test(a_ticket_that_no_key_opens_is_a_full_handshake),
        cmocka_unit_test(a_master_that_died_while_it_wrote_holds_nobody_up),
        cmocka_unit_test(a_ticket_of_another_server_is_a_full_handshake),
        cmocka_unit_test(a_server_that_demands_certificates_takes_no_ticket_without_one),
        cmocka_unit_test(a_ticket_from_before_the_client_ca_changed_is_a_full_handshake),
        cmocka_unit_test(a_ticket_dies_with_the_client_certificate),
        cmocka_unit_test(a_name_that_nobody_serves_is_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
