/* backend.c - the application behind the gateway: echoes, and says who it is
 *
 *   backend ADDRESS PORT [quick | SECONDS]
 *
 * A thread a connection. The answer to the handshake carries X-Backend, the host's name: in a pod, the pod's. TERM is
 * none of its business: as process 1 it lives until its grace is over, as applications do that finish their work;
 * `quick` ones end as soon as everyone they have let in is answered, others after so many seconds, as a job or an init
 * container.
 * Source:  RFC 6455 4.2.2 (Sec-WebSocket-Accept), 5.2 and 5.3 (frames, masking) */
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_BYTES 8192
#define KEY_BYTES  24
#define FRAME_MAX  125 /* one length byte */
#define OP_CLOSE   8
#define OP_PING    9
#define OP_PONG    10
#define BACKLOG    512
#define QUICK_MS   1000

static char name[256];
static atomic_int unanswered;

static void end(int number)
{
    (void)number;
    _exit(0);
}

static int whole(int fd, uint8_t *out, size_t len)
{
    return recv(fd, out, len, MSG_WAITALL) == (ssize_t)len;
}

static int shake_hands(int fd)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char head[HEAD_BYTES] = "", text[KEY_BYTES + sizeof(guid)], answer[512];
    unsigned char sum[SHA_DIGEST_LENGTH], accept_text[64];
    size_t len = 0;

    while (!strstr(head, "\r\n\r\n")) {
        const ssize_t n = recv(fd, head + len, sizeof(head) - 1 - len, 0);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        head[len] = '\0';
    }
    const char *key = strcasestr(head, "\r\nsec-websocket-key: ");
    if (!key)
        return 0;
    snprintf(text, sizeof(text), "%.*s%s", KEY_BYTES, key + 21, guid);
    SHA1((const unsigned char *)text, strlen(text), sum);
    EVP_EncodeBlock(accept_text, sum, sizeof(sum));
    const int n = snprintf(answer, sizeof(answer),
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           "X-Backend: %s\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                           name, (char *)accept_text);
    return send(fd, answer, (size_t)n, MSG_NOSIGNAL) == n;
}

/* One frame there and back; 0 after a Close. */
static int echo(int fd)
{
    uint8_t f[2 + FRAME_MAX], mask[4];

    if (!whole(fd, f, 2))
        return 0;
    const size_t len = f[1] & 0x7f;
    if (len > FRAME_MAX || !(f[1] & 0x80) || !whole(fd, mask, 4) || !whole(fd, f + 2, len))
        return 0;
    for (size_t i = 0; i < len; i++)
        f[2 + i] ^= mask[i % 4];
    const unsigned op = f[0] & 0x0f;
    if (op == OP_PONG)
        return 1;
    if (op == OP_PING)
        f[0] = 0x80 | OP_PONG;
    f[1] = (uint8_t)len;
    return send(fd, f, len + 2, MSG_NOSIGNAL) == (ssize_t)len + 2 && op != OP_CLOSE;
}

static void *serve(void *arg)
{
    const int fd = (int)(intptr_t)arg;

    const int in = shake_hands(fd);

    unanswered--;
    if (in)
        while (echo(fd))
            ;
    close(fd);
    return NULL;
}

static void let_in(int fd)
{
    pthread_t thread;

    unanswered++;
    if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0) {
        pthread_detach(thread);
        return;
    }
    unanswered--;
    close(fd);
}

/* Whoever is in the queue is let in; who comes later is refused, and finds somebody else. */
static void end_quickly(int listener)
{
    int fd;

    fcntl(listener, F_SETFL, O_NONBLOCK);
    while ((fd = accept(listener, NULL, NULL)) >= 0)
        let_in(fd);
    close(listener);
    for (int ms = 0; unanswered && ms < QUICK_MS; ms++)
        usleep(1000);
    _exit(0);
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    const int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct pollfd polled[2] = {{.fd = listener, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    sigset_t term;

    if (argc < 3 || listener < 0 || gethostname(name, sizeof(name) - 1) || !inet_aton(argv[1], &a.sin_addr))
        return 2;
    a.sin_port = htons((uint16_t)atoi(argv[2]));
    if (argc > 3 && !strcmp(argv[3], "quick")) {
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &term, NULL);
        polled[1].fd = signalfd(-1, &term, 0);
    } else if (argc > 3) {
        signal(SIGALRM, end);
        alarm((unsigned)atoi(argv[3]));
    }
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, BACKLOG)) {
        perror("listen");
        return 1;
    }
    for (;;) {
        poll(polled, 2, -1);
        if (polled[1].revents)
            end_quickly(listener);
        const int fd = polled[0].revents ? accept(listener, NULL, NULL) : -1;
        if (fd >= 0)
            let_in(fd);
    }
}
