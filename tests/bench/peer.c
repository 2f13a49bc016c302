#include "bench/peer.h"

#include "bench/net.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK_BYTES 262144
#define AGAIN       (-2)
#define MASK_BYTES  4

/* Key and answer are the example of RFC 6455 1.3. */
static const char request_text[] = "GET /bench HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
                                   "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                   "Sec-WebSocket-Version: 13\r\n\r\n";
static const char accept_text[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
static const uint8_t mask_key[MASK_BYTES] = {0x37, 0xfa, 0x21, 0x3d};

static uint8_t chunk[CHUNK_BYTES];

static int fail(struct peer_plan *plan, const char *why)
{
    plan->why = why;
    return -1;
}

static void *take(size_t len)
{
    void *p = malloc(len);

    if (!p)
        net_fail("malloc");
    return p;
}

/* Header and payload of a binary message, or of a Close with code 1000; returns the frame's length. */
static size_t frame_write(uint8_t *out, bool is_close, bool masked, size_t len)
{
    size_t at = 0;

    out[at++] = is_close ? 0x88 : 0x82;
    const unsigned extra = len < 126 ? 0 : len < 65536 ? 2 : 8;
    out[at++] = (uint8_t)((masked ? 0x80 : 0) | (extra == 0 ? len : extra == 2 ? 126 : 127));
    for (unsigned i = 0; i < extra; i++)
        out[at++] = (uint8_t)((uint64_t)len >> (8 * (extra - 1 - i)));
    if (masked) {
        memcpy(out + at, mask_key, MASK_BYTES);
        at += MASK_BYTES;
    }
    for (size_t i = 0; i < len; i++) {
        const uint8_t plain = is_close ? (i ? 0xe8 : 0x03) : (uint8_t)(i * 7 + (i >> 8));
        out[at + i] = masked ? plain ^ mask_key[i % MASK_BYTES] : plain;
    }
    return at + len;
}

static struct peer_bytes frames_make(bool is_close, bool masked, size_t payload_bytes, unsigned count)
{
    struct peer_bytes b = {.data = take((payload_bytes + 14) * count)};

    for (unsigned i = 0; i < count; i++)
        b.len += frame_write(b.data + b.len, is_close, masked, payload_bytes);
    return b;
}

static SSL_CTX *tls_make(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    /* One version, suite and group, so that every subject does the same work; no session is ever offered
     * again. */
    if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256") ||
        !SSL_CTX_set1_groups_list(ctx, "X25519")) {
        fputs("cannot set up TLS\n", stderr);
        exit(1);
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    return ctx;
}

void peer_plan_init(struct peer_plan *plan, uint16_t port, bool tls, size_t payload_bytes, unsigned inflight)
{
    char text[sizeof(request_text) + 8];
    const int n = snprintf(text, sizeof(text), request_text, port);

    *plan = (struct peer_plan){.port = port, .why = "none"};
    plan->ep = epoll_create1(EPOLL_CLOEXEC);
    if (plan->ep < 0)
        net_fail("epoll_create1");
    plan->tls = tls ? tls_make() : NULL;
    plan->request = (struct peer_bytes){.data = take((size_t)n), .len = (size_t)n};
    memcpy(plan->request.data, text, (size_t)n);
    plan->frames = frames_make(false, true, payload_bytes, inflight);
    plan->echoes = frames_make(false, false, payload_bytes, inflight);
    plan->frame_bytes = plan->frames.len / inflight;
    plan->echo_bytes = plan->echoes.len / inflight;
    plan->close_frame = frames_make(true, true, 2, 1);
    plan->close_echo = frames_make(true, false, 2, 1);
}

void peer_plan_done(struct peer_plan *plan)
{
    free(plan->request.data);
    free(plan->frames.data);
    free(plan->echoes.data);
    free(plan->close_frame.data);
    free(plan->close_echo.data);
    SSL_CTX_free(plan->tls);
    close(plan->ep);
}

static int arm(struct peer *p, struct peer_plan *plan, uint32_t events)
{
    if (p->deaf)
        events = (events & ~(uint32_t)EPOLLIN) | EPOLLRDHUP;
    struct epoll_event e = {.events = events, .data.ptr = p};

    if (events == p->armed)
        return 0;
    if (epoll_ctl(plan->ep, p->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, p->fd, &e))
        return fail(plan, "epoll_ctl");
    p->armed = events;
    return 0;
}

int peer_start(struct peer *p, struct peer_plan *plan)
{
    *p = (struct peer){.fd = net_connect(plan->port), .state = PEER_CONNECT};
    if (p->fd < 0)
        return fail(plan, "connect");
    return arm(p, plan, EPOLLOUT);
}

void peer_end(struct peer *p)
{
    if (p->ssl) {
        if (p->state >= PEER_HEAD)
            SSL_shutdown(p->ssl); /* close_notify, as a real client sends; nobody waits for the answer */
        SSL_free(p->ssl);
        ERR_clear_error();
        p->ssl = NULL;
    }
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    free(p->head);
    free(p->answer.data);
    free(p->control);
    p->head = NULL;
    p->answer = (struct peer_bytes){0};
    p->control = NULL;
    p->state = PEER_FREE;
}

static ssize_t tls_result(const struct peer *p, int n)
{
    switch (SSL_get_error(p->ssl, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return AGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: return -1;
    }
}

static ssize_t get(const struct peer *p)
{
    if (p->ssl) {
        const int n = SSL_read(p->ssl, chunk, sizeof(chunk));
        return n > 0 ? n : tls_result(p, n);
    }
    const ssize_t n = recv(p->fd, chunk, sizeof(chunk), 0);
    return n < 0 && errno == EAGAIN ? AGAIN : n;
}

static ssize_t put(const struct peer *p, const uint8_t *bytes, size_t len)
{
    if (p->ssl) {
        const int n = SSL_write(p->ssl, bytes, (int)len);
        return n > 0 ? n : tls_result(p, n);
    }
    const ssize_t n = send(p->fd, bytes, len, 0);
    return n < 0 && errno == EAGAIN ? AGAIN : n;
}

static int flush_answer(struct peer *p, struct peer_plan *plan)
{
    while (p->answer_pos < p->answer.len) {
        const ssize_t n = put(p, p->answer.data + p->answer_pos, p->answer.len - p->answer_pos);
        if (n == AGAIN)
            return arm(p, plan, EPOLLIN | EPOLLOUT);
        if (n <= 0)
            return fail(plan, "a write failed");
        p->answer_pos += (size_t)n;
    }
    p->answer.len = p->answer_pos = 0;
    return arm(p, plan, EPOLLIN);
}

static int flush(struct peer *p, struct peer_plan *plan)
{
    while (p->out_left) {
        const size_t to_end = p->out->len - p->out_pos;
        const size_t len = p->out_left < to_end ? (size_t)p->out_left : to_end;
        const ssize_t n = put(p, p->out->data + p->out_pos, len);
        if (n == AGAIN)
            return arm(p, plan, EPOLLIN | EPOLLOUT);
        if (n <= 0)
            return fail(plan, "a write failed");
        p->out_left -= (uint64_t)n;
        p->out_pos = (p->out_pos + (size_t)n) % p->out->len;
    }
    return p->answer.len ? flush_answer(p, plan) : arm(p, plan, EPOLLIN);
}

static void out_set(struct peer *p, const struct peer_bytes *bytes)
{
    p->out = bytes;
    p->out_pos = 0;
}

int peer_answer(struct peer *p, struct peer_plan *plan, unsigned opcode, const uint8_t *payload, size_t len)
{
    if (p->answer_pos)
        return 0; /* half of the one before is out: this one is left out, as a Pong may be */
    if (!p->answer.data)
        p->answer.data = take(PEER_CONTROL_BYTES + MASK_BYTES);
    uint8_t *out = p->answer.data;

    out[0] = (uint8_t)(0x80 | opcode);
    out[1] = (uint8_t)(0x80 | len);
    memcpy(out + 2, mask_key, MASK_BYTES);
    for (size_t i = 0; i < len; i++)
        out[2 + MASK_BYTES + i] = payload[i] ^ mask_key[i % MASK_BYTES];
    p->answer.len = 2 + MASK_BYTES + len;
    return flush(p, plan);
}

int peer_send_half(struct peer *p, struct peer_plan *plan)
{
    p->out_left += plan->frame_bytes / 2;
    return flush(p, plan);
}

int peer_go_deaf(struct peer *p, struct peer_plan *plan)
{
    p->deaf = true;
    p->out_left = UINT64_MAX;
    return flush(p, plan);
}

int peer_send(struct peer *p, struct peer_plan *plan, unsigned messages)
{
    p->out_left += (uint64_t)messages * plan->frame_bytes;
    return flush(p, plan);
}

int peer_send_close(struct peer *p, struct peer_plan *plan)
{
    p->state = PEER_CLOSING;
    p->in_pos = 0;
    out_set(p, &plan->close_frame);
    p->out_left = plan->close_frame.len;
    return flush(p, plan);
}

static int request_send(struct peer *p, struct peer_plan *plan)
{
    p->state = PEER_HEAD;
    out_set(p, &plan->request);
    p->out_left = plan->request.len;
    return flush(p, plan);
}

static int tls_step(struct peer *p, struct peer_plan *plan)
{
    const int n = SSL_connect(p->ssl);

    if (n == 1)
        return request_send(p, plan);
    switch (SSL_get_error(p->ssl, n)) {
    case SSL_ERROR_WANT_READ: return arm(p, plan, EPOLLIN);
    case SSL_ERROR_WANT_WRITE: return arm(p, plan, EPOLLOUT);
    default: return fail(plan, "the TLS handshake failed");
    }
}

static int connected(struct peer *p, struct peer_plan *plan)
{
    int why = 0;
    socklen_t len = sizeof(why);

    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &why, &len) || why)
        return fail(plan, "connect");
    if (!plan->tls)
        return request_send(p, plan);
    p->ssl = SSL_new(plan->tls);
    if (!p->ssl || !SSL_set_fd(p->ssl, p->fd))
        return fail(plan, "out of memory");
    p->state = PEER_TLS;
    return tls_step(p, plan);
}

static int head_bytes(struct peer *p, struct peer_plan *plan, size_t len)
{
    if (!p->head)
        p->head = take(PEER_HEAD_BYTES);
    if (len >= PEER_HEAD_BYTES - p->head_len)
        return fail(plan, "the answer's head is too long");
    memcpy(p->head + p->head_len, chunk, len);
    p->head_len += len;
    p->head[p->head_len] = '\0';
    const char *end = strstr(p->head, "\r\n\r\n");
    if (!end)
        return 0;
    if (strncmp(p->head, "HTTP/1.1 101 ", 13) != 0)
        return fail(plan, "the handshake was not answered with 101");
    if (!strstr(p->head, accept_text))
        return fail(plan, "Sec-WebSocket-Accept is wrong");
    if (end + 4 != p->head + p->head_len)
        return fail(plan, "bytes after the answer's head");
    free(p->head);
    p->head = NULL;
    p->state = PEER_OPEN;
    out_set(p, &plan->frames);
    return 0;
}

/* Takes bytes of a control frame; returns how many, -1 when it is none that may come here. */
static ssize_t control_bytes(struct peer *p, struct peer_plan *plan, const uint8_t *bytes, size_t len)
{
    size_t used = 0;

    if (!p->control)
        p->control = take(PEER_CONTROL_BYTES);
    while (used < len && (p->control_len < 2 || p->control_len < 2u + p->control[1])) {
        p->control[p->control_len++] = bytes[used++];
        const unsigned opcode = p->control[0] & 0x7f;
        if (!(p->control[0] & 0x80) || opcode < PEER_OP_CLOSE || opcode > PEER_OP_PONG ||
            (p->control_len > 1 && p->control[1] > PEER_CONTROL_BYTES - 2))
            return fail(plan, "neither an echo nor a control frame came");
    }
    if (p->control_len < 2 || p->control_len < 2u + p->control[1])
        return (ssize_t)used;
    uint8_t *frame = p->control;
    p->control = NULL;
    p->control_len = 0;
    if ((frame[0] & 0x0f) == PEER_OP_CLOSE)
        p->state = PEER_CLOSED;
    plan->on_control(plan->arg, p, frame[0] & 0x0f, frame + 2, frame[1]);
    free(frame);
    return (ssize_t)used;
}

/* chunk[0..len) must be the next bytes of the echoes, that repeat; control frames may stand between them. */
static int echo_bytes(struct peer *p, struct peer_plan *plan, size_t len, unsigned *echoes)
{
    const size_t period = plan->on_control ? plan->echo_bytes : plan->echoes.len;

    for (size_t at = 0; at < len;) {
        if (p->state == PEER_CLOSED)
            return fail(plan, "bytes after a Close");
        if (plan->on_control && (p->control || (p->in_pos == 0 && chunk[at] != plan->echoes.data[0]))) {
            const ssize_t used = control_bytes(p, plan, chunk + at, len - at);
            if (used < 0)
                return -1;
            at += (size_t)used;
            continue;
        }
        const size_t to_end = period - p->in_pos;
        const size_t n = len - at < to_end ? len - at : to_end;
        if (memcmp(chunk + at, plan->echoes.data + p->in_pos, n) != 0)
            return fail(plan, "an echo differs from what was sent");
        *echoes += (unsigned)((p->in_pos + n) / plan->echo_bytes - p->in_pos / plan->echo_bytes);
        p->in_pos = (p->in_pos + n) % period;
        at += n;
    }
    return 0;
}

static int close_bytes(struct peer *p, struct peer_plan *plan, size_t len)
{
    if (len > plan->close_echo.len - p->in_pos || memcmp(chunk, plan->close_echo.data + p->in_pos, len) != 0)
        return fail(plan, "the Close was not answered by a Close");
    p->in_pos += len;
    return 0;
}

static int ended(struct peer *p, struct peer_plan *plan)
{
    if (p->state != PEER_CLOSED && (p->state != PEER_CLOSING || p->in_pos != plan->close_echo.len))
        return fail(plan, "the connection ended early");
    p->state = PEER_DONE;
    return 0;
}

static int read_all(struct peer *p, struct peer_plan *plan, unsigned *echoes)
{
    for (;;) {
        const ssize_t n = get(p);
        int r;
        if (n == AGAIN)
            return 0;
        if (n < 0)
            return fail(plan, "the connection was reset");
        if (n == 0)
            return ended(p, plan);
        if (p->state == PEER_HEAD)
            r = head_bytes(p, plan, (size_t)n);
        else if (p->state == PEER_OPEN || p->state == PEER_CLOSED)
            r = echo_bytes(p, plan, (size_t)n, echoes);
        else
            r = close_bytes(p, plan, (size_t)n);
        if (r)
            return -1;
        if (!p->ssl && (size_t)n < sizeof(chunk))
            return 0; /* level-triggered: more is announced again */
    }
}

int peer_handle(struct peer *p, struct peer_plan *plan, uint32_t events, unsigned *echoes)
{
    if (p->state == PEER_CONNECT)
        return connected(p, plan);
    if (p->state == PEER_TLS)
        return tls_step(p, plan);
    if (p->deaf && events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        return fail(plan, "the connection ended early");
    if (events & EPOLLOUT && flush(p, plan))
        return -1;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        return read_all(p, plan, echoes);
    return 0;
}
