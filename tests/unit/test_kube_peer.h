/* test_kube_peer.h - an HTTPS server of the test's own that answers request by request what it was told to
 * Shape:   peer_open(pair) -> peer_next(step)... -> requests in peer->seen in the order of their arrival
 * Owner:   the test: peer_open ... peer_close; texts of steps are borrowed until then
 * Errors:  cmocka's asserts in the test's thread; a connection that fails ends silently
 * Limits:  PEER_STEPS requests of PEER_HEAD bytes, PEER_CONNECTIONS connections
 * Threads: one a connection, behind `lock` */
#ifndef TESTS_UNIT_TEST_KUBE_PEER_H
#define TESTS_UNIT_TEST_KUBE_PEER_H

#include "test_spec_pem.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEER_STEPS       128
#define PEER_HEAD        8192
#define PEER_CONNECTIONS 128

enum peer_after {
    PEER_KEEP = 0, /* the connection waits for the next request */
    PEER_HOLD,     /* nothing more comes, until the client leaves */
    PEER_EOF,      /* a FIN without close_notify */
    PEER_RESET,
};

struct peer_step {
    const char *reply; /* all bytes of it, NULL: none */
    enum peer_after after;
};

struct peer_request {
    char text[PEER_HEAD]; /* head and body */
    char sni[128];
    int connection; /* from 0 */
};

struct peer {
    pthread_mutex_t lock;
    pthread_t thread, connections[PEER_CONNECTIONS];
    int connection_count;
    int listener, port;
    int stop[2]; /* readable: the end */
    SSL_CTX *ctx;
    struct peer_step steps[PEER_STEPS];
    struct peer_request seen[PEER_STEPS];
    int step_count, seen_count;
    const char *refused; /* not NULL: a head that has this gets `refusal`, whatever its step says */
    const char *refusal;
    int open_now, open_most; /* requests that wait for their answer to be finished */
};

struct peer_work {
    struct peer *peer;
    int fd, index;
};

static inline bool peer_wait(struct peer *p, int fd)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = p->stop[0], .events = POLLIN}};

    return poll(fds, 2, -1) > 0 && !fds[1].revents;
}

/* Head and body as long as Content-Length says. */
static inline bool peer_read(struct peer *p, SSL *ssl, char *text)
{
    size_t len = 0, want = 0;

    while (!want || len < want) {
        const char *end, *length;
        int n;

        if (!SSL_pending(ssl) && !peer_wait(p, SSL_get_fd(ssl)))
            return false;
        n = SSL_read(ssl, text + len, (int)(PEER_HEAD - 1 - len));
        if (n <= 0)
            return false;
        len += (size_t)n;
        text[len] = '\0';
        end = strstr(text, "\r\n\r\n");
        length = strstr(text, "Content-Length: ");
        if (end)
            want = (size_t)(end + 4 - text) + (length && length < end ? strtoul(length + 16, NULL, 10) : 0);
    }
    return true;
}

static inline void peer_end(struct peer *p, SSL *ssl, int fd, enum peer_after after)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    char byte;

    if (after == PEER_HOLD && peer_wait(p, fd))
        (void)SSL_read(ssl, &byte, 1);
    if (after == PEER_RESET)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

/* One request and its answer; false ends the connection. */
static inline bool peer_serve(struct peer_work *w, SSL *ssl)
{
    struct peer *p = w->peer;
    struct peer_step step = {.after = PEER_HOLD};
    struct peer_request *r = calloc(1, sizeof *r);
    const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    bool ok = peer_read(p, ssl, r->text);

    if (ok) {
        pthread_mutex_lock(&p->lock);
        r->connection = w->index;
        snprintf(r->sni, sizeof r->sni, "%s", sni ? sni : "");
        if (p->seen_count < p->step_count)
            step = p->steps[p->seen_count];
        if (p->refused && strstr(r->text, p->refused))
            step.reply = p->refusal;
        if (p->seen_count < PEER_STEPS)
            p->seen[p->seen_count++] = *r;
        if (++p->open_now > p->open_most)
            p->open_most = p->open_now;
        pthread_mutex_unlock(&p->lock);
        if (step.reply)
            (void)SSL_write(ssl, step.reply, (int)strlen(step.reply));
        if (step.after == PEER_KEEP) {
            pthread_mutex_lock(&p->lock);
            p->open_now--;
            pthread_mutex_unlock(&p->lock);
        }
    }
    free(r);
    if (ok && step.after != PEER_KEEP)
        peer_end(p, ssl, w->fd, step.after);
    return ok && step.after == PEER_KEEP;
}

static void *peer_connection(void *arg)
{
    struct peer_work *w = arg;
    SSL *ssl = SSL_new(w->peer->ctx);

    SSL_set_fd(ssl, w->fd);
    if (SSL_accept(ssl) == 1)
        while (peer_serve(w, ssl))
            ;
    close(w->fd);
    SSL_free(ssl);
    free(w);
    return NULL;
}

static void *peer_main(void *arg)
{
    struct peer *p = arg;

    while (peer_wait(p, p->listener) && p->connection_count < PEER_CONNECTIONS) {
        struct peer_work *w = calloc(1, sizeof *w);

        *w = (struct peer_work){
            .peer = p, .fd = accept(p->listener, NULL, NULL), .index = p->connection_count};
        pthread_create(&p->connections[p->connection_count++], NULL, peer_connection, w);
    }
    return NULL;
}

static inline void peer_open(struct peer *p, const struct made_pair *pair)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    BIO *cert = BIO_new_mem_buf(pair->cert, -1), *key = BIO_new_mem_buf(pair->key, -1);
    X509 *x = PEM_read_bio_X509(cert, NULL, NULL, NULL);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);

    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    p->ctx = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(p->ctx, x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(p->ctx, pkey), 1);
    X509_free(x);
    EVP_PKEY_free(pkey);
    BIO_free(cert);
    BIO_free(key);
    assert_int_equal(pipe(p->stop), 0);
    p->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(listen(p->listener, 128), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&here, &len), 0);
    p->port = ntohs(here.sin_port);
    assert_int_equal(pthread_create(&p->thread, NULL, peer_main, p), 0);
}

static inline void peer_close(struct peer *p)
{
    assert_int_equal(write(p->stop[1], "x", 1), 1);
    pthread_join(p->thread, NULL);
    for (int i = 0; i < p->connection_count; i++)
        pthread_join(p->connections[i], NULL);
    close(p->listener);
    close(p->stop[0]);
    close(p->stop[1]);
    SSL_CTX_free(p->ctx);
    pthread_mutex_destroy(&p->lock);
}

static inline void peer_next(struct peer *p, const char *reply, enum peer_after after)
{
    pthread_mutex_lock(&p->lock);
    assert_true(p->step_count < PEER_STEPS);
    p->steps[p->step_count++] = (struct peer_step){.reply = reply, .after = after};
    pthread_mutex_unlock(&p->lock);
}

static inline int peer_seen(struct peer *p)
{
    int n;

    pthread_mutex_lock(&p->lock);
    n = p->seen_count;
    pthread_mutex_unlock(&p->lock);
    return n;
}

#endif
