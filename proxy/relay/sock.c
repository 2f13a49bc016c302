#include "relay/sock.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h> /* has all of struct tcp_info, unlike netinet/tcp.h */
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static BIO_METHOD *sock_bio;

/* One recv. Fewer bytes than asked for mean that the queue is empty (epoll(7)), which saves the call that would say
 * EAGAIN; once an end was announced only 0 or an error counts. */
static ssize_t raw_recv(struct sock *s, void *bytes, size_t cap)
{
    ssize_t n;

    if (!s->readable) {
        errno = EAGAIN;
        return -1;
    }
    do
        n = recv(s->lf.fd, bytes, cap, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (errno == EAGAIN)
            s->readable = false;
        else
            s->last_errno = errno;
        return n;
    }
    s->heard |= n > 0;
    if ((size_t)n < cap && n > 0 && !s->hup) {
        s->readable = false;
    }
    return n;
}

/* Writes until all is taken or the kernel says EAGAIN: only then will it announce room again. */
static ssize_t raw_send(struct sock *s, const uint8_t *bytes, size_t len)
{
    size_t done = 0;

    if (!s->writable) {
        errno = EAGAIN;
        return -1;
    }
    while (done < len) {
        ssize_t n = send(s->lf.fd, bytes + done, len - done, MSG_NOSIGNAL | (s->cork ? MSG_MORE : 0));

        if (n >= 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN) {
            s->writable = false;
            break;
        } else if (errno != EINTR) {
            s->last_errno = errno;
            if (!done)
                return -1;
            break; /* the next call meets the same error */
        }
    }
    if (!done && len) {
        errno = EAGAIN;
        return -1;
    }
    return (ssize_t)done;
}

static int bio_read(BIO *b, char *bytes, int cap)
{
    struct sock *s = BIO_get_data(b);
    ssize_t n;

    BIO_clear_retry_flags(b);
    if (s->turn_bytes >= SOCK_TLS_TURN || s->rekeys > SOCK_MAX_REKEYS) {
        /* Let others have their turn; `readable` stays set, so that this one comes back. */
        BIO_set_retry_read(b);
        errno = EAGAIN;
        return -1;
    }
    n = raw_recv(s, bytes, (size_t)cap);
    if (n > 0)
        s->turn_bytes += (uint32_t)n;
    if (n < 0 && errno == EAGAIN)
        BIO_set_retry_read(b);
    return (int)n;
}

static int bio_write(BIO *b, const char *bytes, int len)
{
    struct sock *s = BIO_get_data(b);
    ssize_t n;

    BIO_clear_retry_flags(b);
    n = raw_send(s, (const uint8_t *)bytes, (size_t)len);
    if (n < 0 && errno == EAGAIN)
        BIO_set_retry_write(b);
    return (int)n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    (void)b;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

int sock_global_init(struct err *err)
{
    signal(SIGPIPE, SIG_IGN);
    if (sock_bio)
        return 0;
    sock_bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tidegate socket");
    if (!sock_bio || !BIO_meth_set_read(sock_bio, bio_read) || !BIO_meth_set_write(sock_bio, bio_write) ||
        !BIO_meth_set_ctrl(sock_bio, bio_ctrl)) {
        BIO_meth_free(sock_bio);
        sock_bio = NULL;
        return err_set(err, ERR_LIMIT, "OpenSSL: no memory for a BIO method");
    }
    return 0;
}

void sock_set_options(int fd)
{
    int on = 1, idle_s = SOCK_KEEPALIVE_IDLE_S, interval_s = SOCK_KEEPALIVE_INTERVAL_S;
    unsigned user_ms = SOCK_USER_TIMEOUT_MS;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof user_ms);
}

int sock_open(struct sock *s, struct loop *l, int fd, void (*ready)(struct loop_fd *, uint32_t),
              struct err *err)
{
    *s = (struct sock){.lf = {.fd = fd, .ready = ready}};
    if (loop_add(l, &s->lf, SOCK_EVENTS, err)) {
        s->lf.fd = -1;
        return -1;
    }
    return 0;
}

/* Counts KeyUpdates: each costs a key derivation and none is ever needed at this rate (RFC 8446 5.5). */
static void on_tls_message(int sent, int version, int type, const void *bytes, size_t len, SSL *ssl,
                           void *arg)
{
    struct sock *s = arg;
    struct timespec now;

    (void)version;
    (void)ssl;
    if (sent || type != SSL3_RT_HANDSHAKE || len < 1 || *(const uint8_t *)bytes != SSL3_MT_KEY_UPDATE)
        return;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    if ((uint32_t)now.tv_sec != s->rekey_second) {
        s->rekey_second = (uint32_t)now.tv_sec;
        s->rekeys = 0;
    }
    if (s->rekeys <= SOCK_MAX_REKEYS)
        s->rekeys++;
}

int sock_start_tls(struct sock *s, SSL *ssl, bool accept)
{
    BIO *b = BIO_new(sock_bio);

    s->ssl = ssl;
    s->tls_more = true;
    if (!b)
        return -1;
    BIO_set_data(b, s);
    BIO_set_init(b, 1);
    SSL_set_bio(ssl, b, b);
    SSL_set_msg_callback(ssl, on_tls_message);
    SSL_set_msg_callback_arg(ssl, s);
    if (accept)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return 0;
}

static int tls_failed(struct sock *s, int error)
{
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        if (s->rekeys > SOCK_MAX_REKEYS) {
            s->tls_dead = true;
            return SOCK_ERROR;
        }
        return SOCK_AGAIN;
    }
    s->tls_dead = true;
    s->tls_more = false;
    return SOCK_ERROR;
}

int sock_handshake(struct sock *s)
{
    int n;

    ERR_clear_error();
    s->turn_bytes = 0;
    n = SSL_do_handshake(s->ssl);
    if (n != 1)
        return tls_failed(s, SSL_get_error(s->ssl, n));
    s->tls_open = true;
    return 1;
}

void sock_event(struct sock *s, uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        s->hup = true;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        s->readable = true;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        s->writable = true;
    /* OpenSSL may have wanted to write before it could read on. */
    if (s->ssl)
        s->tls_more = true;
}

static ssize_t tls_read(struct sock *s, uint8_t *bytes, size_t cap)
{
    size_t n = 0;
    int error;

    ERR_clear_error();
    s->turn_bytes = 0;
    if (SSL_read_ex(s->ssl, bytes, cap, &n)) {
        size_t more = 0, records = 1;

        /* A message may stand in several records: passed on together they cost one write. What stops this, the next
         * call meets again. */
        while ((s->tls_more = SSL_has_pending(s->ssl)) && n < cap && records++ < SOCK_TLS_RECORDS &&
               SSL_read_ex(s->ssl, bytes + n, cap - n, &more))
            n += more;
        return (ssize_t)n;
    }
    error = SSL_get_error(s->ssl, 0);
    s->tls_more = false;
    if (error == SSL_ERROR_ZERO_RETURN)
        return SOCK_EOF;
    if (error == SSL_ERROR_SYSCALL && !s->last_errno) {
        /* A FIN without close_notify. Frames show what was cut, so this is an end like any other, but it is said. */
        s->truncated = true;
        return SOCK_EOF;
    }
    return tls_failed(s, error);
}

ssize_t sock_read(struct sock *s, uint8_t *bytes, size_t cap)
{
    ssize_t n;

    if (s->ssl)
        return s->tls_dead ? SOCK_ERROR : tls_read(s, bytes, cap);
    n = raw_recv(s, bytes, cap);
    return n >= 0 ? n : errno == EAGAIN ? SOCK_AGAIN : SOCK_ERROR;
}

ssize_t sock_write(struct sock *s, const uint8_t *bytes, size_t len)
{
    size_t done = 0;
    ssize_t n;

    if (!s->ssl) {
        n = raw_send(s, bytes, len);
        return n >= 0 ? n : errno == EAGAIN ? SOCK_AGAIN : SOCK_ERROR;
    }
    if (s->tls_dead)
        return SOCK_ERROR;
    while (done < len) {
        size_t part = 0;

        ERR_clear_error();
        s->turn_bytes = 0;
        if (!SSL_write_ex(s->ssl, bytes + done, len - done, &part)) {
            int r = tls_failed(s, SSL_get_error(s->ssl, 0));

            return done ? (ssize_t)done : r;
        }
        done += part;
    }
    return (ssize_t)done;
}

size_t sock_unacked(const struct sock *s)
{
    int bytes = 0;

    return ioctl(s->lf.fd, SIOCOUTQ, &bytes) || bytes < 0 ? 0 : (size_t)bytes;
}

uint64_t sock_acked(const struct sock *s)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    return getsockopt(s->lf.fd, IPPROTO_TCP, TCP_INFO, &info, &len) ? 0 : info.tcpi_bytes_acked;
}

void sock_fin(struct sock *s)
{
    if (s->fin_sent || !sock_is_open(s))
        return;
    s->fin_sent = true;
    if (s->ssl && s->tls_open && !s->tls_dead) {
        ERR_clear_error();
        s->cork = true; /* close_notify and FIN in one segment */
        SSL_shutdown(s->ssl);
        s->cork = false;
    }
    shutdown(s->lf.fd, SHUT_WR);
}

void sock_close(struct sock *s, bool abort)
{
    if (s->ssl) {
        if (!abort && s->tls_open && !s->tls_dead && !s->fin_sent) {
            ERR_clear_error();
            SSL_shutdown(s->ssl);
        } else {
            SSL_set_quiet_shutdown(s->ssl, 1);
        }
        SSL_free(s->ssl);
        s->ssl = NULL;
        ERR_clear_error();
    }
    if (!sock_is_open(s))
        return;
    if (abort) {
        struct linger rst = {.l_onoff = 1};

        setsockopt(s->lf.fd, SOL_SOCKET, SO_LINGER, &rst, sizeof rst);
    }
    close(s->lf.fd);
    s->lf.fd = -1;
}

bool sock_saw_http(const struct sock *s)
{
    return s->ssl && ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
}

void sock_drop_tls(struct sock *s)
{
    SSL_set_quiet_shutdown(s->ssl, 1);
    SSL_free(s->ssl);
    s->ssl = NULL;
    s->tls_dead = s->tls_more = false;
    ERR_clear_error();
}

bool sock_is_open(const struct sock *s)
{
    return s->lf.fd >= 0;
}

const char *sock_why(const struct sock *s, char *text, size_t cap)
{
    unsigned long code = s->ssl ? ERR_peek_error() : 0;

    if (s->rekeys > SOCK_MAX_REKEYS)
        snprintf(text, cap, "too many TLS KeyUpdates");
    else if (code && ERR_reason_error_string(code))
        snprintf(text, cap, "TLS: %s", ERR_reason_error_string(code));
    else if (s->last_errno)
        snprintf(text, cap, "%s", strerror(s->last_errno));
    else
        snprintf(text, cap, "closed the connection");
    return text;
}
