/* echo.c - the backend of the bench: answers the WebSocket handshake, sends every frame back unmasked
 *
 *   bench_echo --port N       (port 0: any free one; the first line of stdout names it)
 *
 * A frame is sent back as it comes in, piece by piece, never collected. After a Close the connection ends.
 * Source:  RFC 6455 4.2.2 (Sec-WebSocket-Accept), 5.2 and 5.3 (frames, masking) */
#include "bench/net.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK_BYTES     262144
#define HEAD_BYTES      4096
#define HEADER_MAX      14
#define OP_CLOSE        8
#define EVENTS          256
#define KEY_BYTES       24 /* a Sec-WebSocket-Key: 16 bytes in base64 */
#define ACCEPT_TEXT_MAX 64

struct conn {
    int fd;
    bool open;     /* the handshake is done */
    bool is_close; /* the frame at hand is a Close */
    bool closing;  /* a Close went by: close when everything is written */
    char *head;    /* the request until it is complete */
    size_t head_len;
    uint8_t header[HEADER_MAX]; /* of the frame at hand, as far as it came */
    size_t header_len;
    uint64_t payload_left;
    uint8_t key[8]; /* the masking key twice, turned so that [0] is for the next byte */
    uint8_t *kept;  /* what the socket has not taken yet */
    size_t kept_off, kept_len;
};

/* A header that began in the last read may come out longer than what this read holds of it: hence the room in
 * front. */
static uint8_t space[HEADER_MAX + CHUNK_BYTES];
static uint8_t *const chunk = space + HEADER_MAX;

static void conn_end(struct conn *c)
{
    close(c->fd);
    free(c->head);
    free(c->kept);
    free(c);
}

static bool watch(int ep, int op, struct conn *c)
{
    struct epoll_event e = {.events = c->kept ? EPOLLOUT : EPOLLIN, .data.ptr = c};

    return epoll_ctl(ep, op, c->fd, &e) == 0;
}

/* Writes and keeps the rest; while something is kept, nothing is read. */
static bool put(int ep, struct conn *c, const uint8_t *bytes, size_t len)
{
    ssize_t n = send(c->fd, bytes, len, 0);

    if (n < 0 && errno != EAGAIN)
        return false;
    if (n < 0)
        n = 0;
    if ((size_t)n == len)
        return !c->closing;
    c->kept_len = len - (size_t)n;
    c->kept_off = 0;
    c->kept = malloc(c->kept_len);
    if (!c->kept)
        return false;
    memcpy(c->kept, bytes + n, c->kept_len);
    return watch(ep, EPOLL_CTL_MOD, c);
}

static bool put_kept(int ep, struct conn *c)
{
    const ssize_t n = send(c->fd, c->kept + c->kept_off, c->kept_len, 0);

    if (n < 0)
        return errno == EAGAIN;
    c->kept_off += (size_t)n;
    c->kept_len -= (size_t)n;
    if (c->kept_len)
        return true;
    free(c->kept);
    c->kept = NULL;
    return !c->closing && watch(ep, EPOLL_CTL_MOD, c);
}

static void unmask(uint8_t *out, const uint8_t *in, size_t len, uint8_t key[8])
{
    uint64_t k, word;
    size_t i = 0;

    memcpy(&k, key, 8);
    for (; i + 8 <= len; i += 8) {
        memcpy(&word, in + i, 8);
        word ^= k;
        memcpy(out + i, &word, 8);
    }
    const size_t rest = len - i;
    for (size_t r = 0; r < rest; r++)
        out[i + r] = in[i + r] ^ key[r];
    for (size_t r = 0; r < rest; r++) {
        const uint8_t first = key[0];
        memmove(key, key + 1, 3);
        key[3] = first;
    }
    memcpy(key + 4, key, 4);
}

static size_t header_need(const struct conn *c)
{
    if (c->header_len < 2)
        return 2;
    const unsigned len7 = c->header[1] & 0x7f;
    return len7 == 127 ? 14 : len7 == 126 ? 8 : 6;
}

/* A whole header is there: begins its payload, returns the length of the answer's header. */
static size_t header_done(struct conn *c, uint8_t *out)
{
    const size_t plain_len = c->header_len - 4;

    c->payload_left = c->header[1] & 0x7f;
    if (plain_len > 2) {
        c->payload_left = 0;
        for (size_t i = 2; i < plain_len; i++)
            c->payload_left = c->payload_left << 8 | c->header[i];
    }
    c->is_close = (c->header[0] & 0x0f) == OP_CLOSE;
    memcpy(c->key, c->header + plain_len, 4);
    memcpy(c->key + 4, c->header + plain_len, 4);
    memcpy(out, c->header, plain_len);
    out[1] &= 0x7f;
    c->header_len = 0;
    return plain_len;
}

/* chunk[0..len) -> space[0..result): the same frames without masks. */
static size_t turn_round(struct conn *c, size_t len)
{
    const uint8_t *in = chunk, *end = chunk + len;
    uint8_t *out = space;

    while (in < end && !c->closing) {
        if (c->payload_left) {
            const size_t have = (size_t)(end - in);
            const size_t n = have < c->payload_left ? have : (size_t)c->payload_left;
            unmask(out, in, n, c->key);
            in += n;
            out += n;
            c->payload_left -= n;
        } else {
            while (in < end && c->header_len < header_need(c))
                c->header[c->header_len++] = *in++;
            if (c->header_len < header_need(c))
                break;
            out += header_done(c, out);
        }
        c->closing = c->is_close && !c->payload_left;
    }
    return (size_t)(out - space);
}

static bool answer_head(int ep, struct conn *c)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    static const char name[] = "\r\nsec-websocket-key:";
    char text[KEY_BYTES + sizeof(guid)], answer[256];
    unsigned char sum[SHA_DIGEST_LENGTH], accept_text[ACCEPT_TEXT_MAX];
    const char *key = strcasestr(c->head, name);

    if (!key)
        return false;
    key += sizeof(name) - 1;
    key += strspn(key, " \t");
    if (strcspn(key, " \r\n") != KEY_BYTES)
        return false;
    snprintf(text, sizeof(text), "%.*s%s", KEY_BYTES, key, guid);
    SHA1((const unsigned char *)text, strlen(text), sum);
    EVP_EncodeBlock(accept_text, sum, sizeof(sum));
    const int n = snprintf(answer, sizeof(answer),
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Accept: %s\r\n\r\n",
                           accept_text);
    free(c->head);
    c->head = NULL;
    c->open = true;
    return put(ep, c, (const uint8_t *)answer, (size_t)n);
}

/* The clients of the bench send nothing before the 101, so the head ends where its read ends. */
static bool read_head(int ep, struct conn *c)
{
    if (!c->head && !(c->head = malloc(HEAD_BYTES)))
        return false;
    const ssize_t n = recv(c->fd, c->head + c->head_len, HEAD_BYTES - 1 - c->head_len, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    c->head_len += (size_t)n;
    c->head[c->head_len] = '\0';
    if (c->head_len < 4 || memcmp(c->head + c->head_len - 4, "\r\n\r\n", 4) != 0)
        return c->head_len < HEAD_BYTES - 1;
    return answer_head(ep, c);
}

static bool handle(int ep, struct conn *c)
{
    if (c->kept)
        return put_kept(ep, c);
    if (!c->open)
        return read_head(ep, c);
    const ssize_t n = recv(c->fd, chunk, CHUNK_BYTES, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    const size_t len = turn_round(c, (size_t)n);
    return len == 0 || put(ep, c, space, len);
}

static void accept_all(int ep, int listener)
{
    int fd;

    while ((fd = net_accept(listener)) >= 0) {
        struct conn *c = calloc(1, sizeof(*c));
        if (!c)
            net_fail("a new connection");
        c->fd = fd;
        if (!watch(ep, EPOLL_CTL_ADD, c))
            net_fail("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        net_fail("accept");
}

static void run(int listener)
{
    struct epoll_event events[EVENTS];
    struct epoll_event e = {.events = EPOLLIN};
    const int ep = epoll_create1(EPOLL_CLOEXEC);

    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e))
        net_fail("epoll");
    for (;;) {
        const int n = epoll_wait(ep, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            net_fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c)
                accept_all(ep, listener);
            else if (!handle(ep, c))
                conn_end(c);
        }
    }
}

int main(int argc, char **argv)
{
    uint16_t port = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port"))
            port = (uint16_t)net_number(argv[i], argv[i + 1], UINT16_MAX);
    }
    net_process_init();
    const int listener = net_listen(&port);
    printf("%u\n", port);
    fflush(stdout);
    run(listener);
}
