/* sock.h - one stream socket on the loop, plain or TLS behind the same four calls
 * Shape:   edge-triggered: an event only sets flags (sock_event); reads and writes clear them when the kernel has said
 *          that there is no more. `readable` false = a read would block, known without asking
 * Units:   bytes
 * Owner:   embedded in a side; sock_close frees the SSL and closes the descriptor
 * Errors:  SOCK_AGAIN, SOCK_EOF, SOCK_ERROR (sock_why says what, for one log line)
 * Limits:  a TLS peer that sends more than SOCK_MAX_REKEYS KeyUpdates in one second is an error; one call reads at most
 *          SOCK_TLS_TURN bytes from the wire and joins SOCK_TLS_RECORDS records
 * Threads: the loop's own
 * Source:  epoll(7) on EPOLLET; SSL_read(3), SSL_write(3); bars S34, S43, S44; security.md 2.8 */
#ifndef PROXY_RELAY_SOCK_H
#define PROXY_RELAY_SOCK_H

#include "base/loop.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SOCK_AGAIN       (-1)
#define SOCK_ERROR       (-2)
#define SOCK_EOF         0
#define SOCK_EVENTS      (EPOLLIN | EPOLLOUT | EPOLLRDHUP)
#define SOCK_MAX_REKEYS  32
#define SOCK_TLS_TURN    65536
#define SOCK_TLS_RECORDS 4

#define SOCK_USER_TIMEOUT_MS      30000
#define SOCK_KEEPALIVE_IDLE_S     60
#define SOCK_KEEPALIVE_INTERVAL_S 15

struct sock {
    struct loop_fd lf;
    SSL *ssl; /* NULL: plain */
    int last_errno;
    uint32_t rekey_second;
    uint32_t turn_bytes; /* TLS: read from the wire in the current call */
    uint8_t rekeys;
    bool readable; /* the kernel may hold bytes or an end for us */
    bool writable; /* the kernel may take bytes */
    bool hup;      /* an end has been announced: a short read proves nothing any more */
    bool tls_more; /* OpenSSL may hold bytes that it has read already */
    bool tls_dead; /* a fatal error: SSL_shutdown and SSL_write are forbidden */
    bool tls_open; /* the TLS handshake is over */
    bool fin_sent;
    bool cork;      /* more follows at once: the kernel waits with what it is given */
    bool heard;     /* at least one byte has come */
    bool truncated; /* TLS ended without close_notify */
};

/* What every TCP socket of ours has, set on a listener for those it accepts: no delay, keepalive after a quiet minute,
 * and an end when what was sent stays unacknowledged, or a window shut, for SOCK_USER_TIMEOUT_MS (bar S37). */
void sock_set_options(int fd);
/* Takes over fd (non-blocking) and adds it to the loop. On -1 the fd is still the caller's. */
__attribute__((warn_unused_result)) int sock_open(struct sock *s, struct loop *l, int fd,
                                                  void (*ready)(struct loop_fd *, uint32_t), struct err *err);
/* Puts TLS on it; `ssl` is owned by the sock from here on, also on failure. */
__attribute__((warn_unused_result)) int sock_start_tls(struct sock *s, SSL *ssl, bool accept);
/* 1 when done, SOCK_AGAIN, SOCK_ERROR */
int sock_handshake(struct sock *s);

void sock_event(struct sock *s, uint32_t events);
/* May sock_read bring something without a further event? */
static inline bool sock_has_input(const struct sock *s)
{
    return s->readable || s->tls_more;
}
/* > 0 bytes, SOCK_EOF (a clean end), SOCK_AGAIN, SOCK_ERROR */
ssize_t sock_read(struct sock *s, uint8_t *bytes, size_t cap);
/* > 0 bytes taken, SOCK_AGAIN, SOCK_ERROR. After SOCK_AGAIN on TLS the next call must begin with the same bytes. */
ssize_t sock_write(struct sock *s, const uint8_t *bytes, size_t len);
/* Bytes that the kernel has of us and the peer has not acknowledged; and how many it has acknowledged in all. */
size_t sock_unacked(const struct sock *s);
uint64_t sock_acked(const struct sock *s);
/* close_notify and FIN; reading goes on. */
void sock_fin(struct sock *s);
/* abort: RST instead of FIN. Safe on a closed or zeroed-with-fd -1 sock. */
void sock_close(struct sock *s, bool abort);
/* Did the TLS handshake fail because the peer spoke HTTP? Asked right behind sock_handshake. */
bool sock_saw_http(const struct sock *s);
/* Goes on in plain, to tell such a peer. */
void sock_drop_tls(struct sock *s);
bool sock_is_open(const struct sock *s);
/* What the last SOCK_ERROR was, as text for a log. */
const char *sock_why(const struct sock *s, char *text, size_t cap);

/* Once a process: our BIO and SIGPIPE. */
__attribute__((warn_unused_result)) int sock_global_init(struct err *err);

#endif
