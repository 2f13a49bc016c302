#include "run/connect.h"

#include "base/err.h"
#include "spec/spec_values.h"
#include "wire/frame.h"

#include <arpa/inet.h>
#include <libwebsockets.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL   "probe"
#define MAX_WHY    256
#define MAX_HOST   (253 + 2 + sizeof ":65535")
#define PING_BYTES 16
#define CLOSE_CODE 1000
#define EXIT_URL   2
/* An event pipe, a socket and room; Debian's lws would else size its tables by the descriptor limit. */
#define MAX_FDS 16
/* lws has limits of its own (5 s for a connect): out of the way, ours has the better words. */
#define LWS_LIMIT_S (CONNECT_DEADLINE_MS / 1000 + 5)

/* How far the connection is; each stage is left by what its comment names. */
enum stage {
    STAGE_TCP = 0, /* the TLS handshake or the request begins */
    STAGE_TLS,     /* the request begins */
    STAGE_ANSWER,  /* 101 */
    STAGE_PING,    /* ours is sent */
    STAGE_PONG,    /* its Pong is here */
    STAGE_CLOSE,   /* ours is sent */
    STAGE_CLOSING, /* the peer's is here */
    STAGE_DONE,
};

struct probe {
    struct spec_url url;
    char host[MAX_HOST]; /* for the Host field: the port left out when it is the default one */
    char path[SPEC_MAX_URL];
    bool literal; /* the host is an address: no SNI then, and the certificate must name the address */
    int64_t deadline_us;

    SSL_CTX *tls;
    struct lws_context *context; /* of the address that is tried now */
    enum stage stage;
    bool over;
    int status; /* HTTP status that was no 101 */
    char why[MAX_WHY];
    char certificate[MAX_WHY]; /* what is wrong with it */
    uint8_t ping[PING_BYTES];
    int64_t ping_sent_us;
    lws_sorted_usec_list_t alarm;
};

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* The loop has nothing to wait for any more; lws may be about to sleep, if it is a timer that says so. */
static void finish(struct probe *p)
{
    p->over = true;
    if (p->context)
        lws_cancel_service(p->context);
}

/* The first reason stays: what follows from it is noise. */
__attribute__((format(printf, 2, 3))) static int fail(struct probe *p, const char *fmt, ...)
{
    if (!p->why[0]) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(p->why, sizeof p->why, fmt, args);
        va_end(args);
    }
    finish(p);
    return -1;
}

static int parse_url(const char *text, struct probe *p, struct err *err)
{
    struct in_addr address;
    if (spec_value_url(text, strlen(text), &p->url, err))
        return -1;
    const char *authority = strstr(text, "://") + 3;
    const char *path = authority + strcspn(authority, "/?");
    snprintf(p->path, sizeof p->path, "%s%s", path[0] == '/' ? "" : "/", path);

    bool v6 = strchr(p->url.host, ':') != NULL;
    p->literal = v6 || inet_pton(AF_INET, p->url.host, &address) == 1;
    int len = snprintf(p->host, sizeof p->host, "%s%s%s", v6 ? "[" : "", p->url.host, v6 ? "]" : "");
    if (p->url.port != (p->url.tls ? 443 : 80))
        snprintf(p->host + len, sizeof p->host - (size_t)len, ":%d", p->url.port);
    return 0;
}

static void too_late(int signal)
{
    static const char text[] = "timeout: the host's name has not been resolved in time\n";
    (void)signal;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

/* Blocks; an alarm keeps the deadline. To be freed by freeaddrinfo. */
static int resolve(struct probe *p, struct addrinfo **out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char port[sizeof "65535"];
    snprintf(port, sizeof port, "%u", p->url.port);
    signal(SIGALRM, too_late);
    alarm(CONNECT_DEADLINE_MS / 1000);
    int result = getaddrinfo(p->url.host, port, &hints, out);
    alarm(0);
    return result ? fail(p, "name %s: %s", p->url.host, gai_strerror(result)) : 0;
}

/* lws takes at most 127 bytes of the host, up to the first ':', for SNI and for the name that is verified. */
static void on_tls(const SSL *ssl, int where, int value)
{
    struct probe *p = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL *own = (SSL *)ssl;
    X509_VERIFY_PARAM *verify = SSL_get0_param(own);
    (void)value;
    if (!(where & SSL_CB_HANDSHAKE_START) || p->stage != STAGE_TCP)
        return;
    p->stage = STAGE_TLS;
    bool set = X509_VERIFY_PARAM_set1_host(verify, p->literal ? NULL : p->url.host, 0) &&
               (!p->literal || X509_VERIFY_PARAM_set1_ip_asc(verify, p->url.host)) &&
               SSL_set_tlsext_host_name(own, p->literal ? NULL : p->url.host);
    if (!set)
        fail(p, "OpenSSL does not take the host");
}

static int make_tls(struct probe *p)
{
    p->tls = SSL_CTX_new(TLS_client_method());
    if (!p->tls || !SSL_CTX_set_default_verify_paths(p->tls) ||
        !SSL_CTX_set_min_proto_version(p->tls, TLS1_2_VERSION))
        return fail(p, "OpenSSL does not start");
    SSL_CTX_set_verify(p->tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_app_data(p->tls, p);
    SSL_CTX_set_info_callback(p->tls, on_tls);
    return 0;
}

static int on_open(struct probe *p, struct lws *wsi)
{
    if (p->url.tls)
        printf("tls: %s\n", SSL_get_version(lws_get_ssl(wsi)));
    printf("status: 101\n");
    p->stage = STAGE_PING;
    lws_callback_on_writable(wsi);
    return 0;
}

static int send_ping(struct probe *p, struct lws *wsi)
{
    uint8_t frame[LWS_PRE + PING_BYTES];
    memcpy(frame + LWS_PRE, p->ping, PING_BYTES);
    p->ping_sent_us = now_us();
    p->stage = STAGE_PONG;
    if (lws_write(wsi, frame + LWS_PRE, PING_BYTES, LWS_WRITE_PING) < 0)
        return fail(p, "the connection ended before our Ping");
    return 0;
}

/* As raw bytes: after a Close that lws makes itself it keeps the peer's code to itself. */
static int send_close(struct probe *p, struct lws *wsi)
{
    uint8_t frame[LWS_PRE + FRAME_MAX_CONTROL];
    uint8_t mask[4];
    if (getrandom(mask, sizeof mask, 0) != sizeof mask)
        return fail(p, "no random bytes");
    size_t len = frame_close(frame + LWS_PRE, CLOSE_CODE, NULL, mask);
    p->stage = STAGE_CLOSING;
    if (lws_write(wsi, frame + LWS_PRE, len, LWS_WRITE_HTTP) < 0)
        return fail(p, "the connection ended before our Close");
    return 0;
}

static int on_writable(struct probe *p, struct lws *wsi)
{
    if (p->stage == STAGE_PING)
        return send_ping(p, wsi);
    return p->stage == STAGE_CLOSE ? send_close(p, wsi) : 0;
}

static void on_pong(struct probe *p, struct lws *wsi, const void *payload, size_t len)
{
    if (p->stage != STAGE_PONG || len != PING_BYTES || memcmp(payload, p->ping, PING_BYTES) != 0)
        return; /* one that nobody asked for */
    printf("pong: %.3f ms\n", (double)(now_us() - p->ping_sent_us) / 1000);
    p->stage = STAGE_CLOSE;
    lws_callback_on_writable(wsi);
}

/* Returns -1, which makes lws end the connection without a Close of its own behind ours. */
static int on_peer_close(struct probe *p, const uint8_t *payload, size_t len)
{
    unsigned code = len >= 2 ? (unsigned)payload[0] << 8 | payload[1] : 1005;
    printf("close: %u\n", code);
    if (p->stage != STAGE_CLOSING)
        return fail(p, "the endpoint closed with %u before it answered our Ping", code);
    p->stage = STAGE_DONE;
    finish(p);
    return -1;
}

static int on_error(struct probe *p, struct lws *wsi, const char *text)
{
    int status = (int)lws_http_client_http_response(wsi);
    if (p->certificate[0])
        return fail(p, "certificate: %s", p->certificate);
    if (p->stage == STAGE_ANSWER && !p->status && status != 101)
        p->status = status;
    if (p->status)
        return fail(p, "HTTP status %d instead of 101", p->status);
    return fail(p, "%s (%s)",
                p->stage == STAGE_TCP      ? "no TCP connection"
                : p->stage == STAGE_TLS    ? "the TLS handshake failed"
                : p->stage == STAGE_ANSWER ? "the handshake's answer is none"
                                           : "the connection failed",
                text ? text : "no reason given");
}

static int on_verify(struct probe *p, X509_STORE_CTX *store, bool good)
{
    if (!good && !p->certificate[0])
        snprintf(p->certificate, sizeof p->certificate, "%s",
                 X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
    return 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct probe *p = lws_context_user(lws_get_context(wsi));
    switch ((int)reason) {
    case LWS_CALLBACK_OPENSSL_PERFORM_SERVER_CERT_VERIFICATION: return on_verify(p, user, len != 0);
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER: p->stage = STAGE_ANSWER; return 0;
    case LWS_CALLBACK_CLIENT_HTTP_REDIRECT: p->status = (int)len; return -1;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR: return on_error(p, wsi, in);
    case LWS_CALLBACK_CLIENT_ESTABLISHED: return on_open(p, wsi);
    case LWS_CALLBACK_CLIENT_WRITEABLE: return on_writable(p, wsi);
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG: on_pong(p, wsi, in, len); return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE: return on_peer_close(p, in, len);
    case LWS_CALLBACK_CLIENT_CLOSED: return fail(p, "the connection ended without a Close");
    default: return 0;
    }
}

static void on_alarm(lws_sorted_usec_list_t *alarm)
{
    static const char *const missing[] = {
        [STAGE_TCP] = "no TCP connection",
        [STAGE_TLS] = "no end of the TLS handshake",
        [STAGE_ANSWER] = "no answer to the handshake",
        [STAGE_PING] = "no room for our Ping",
        [STAGE_PONG] = "no Pong",
        [STAGE_CLOSE] = "no room for our Close",
        [STAGE_CLOSING] = "no Close",
        [STAGE_DONE] = "no end",
    };
    struct probe *p = lws_container_of(alarm, struct probe, alarm);
    fail(p, "timeout: %s", missing[p->stage]);
}

/* One address in a context of its own, so that nothing of a failed one is left. */
static void attempt(struct probe *p, const char *address, int64_t limit_us)
{
    static const struct lws_protocols protocols[] = {{.name = PROTOCOL, .callback = on_event},
                                                     {.name = NULL}};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = protocols,
        .options = p->tls ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT : 0,
        .provided_client_ssl_ctx = p->tls,
        .fd_limit_per_thread = MAX_FDS,
        .timeout_secs = LWS_LIMIT_S,
        .connect_timeout_secs = LWS_LIMIT_S,
        .user = p,
    };
    p->over = false;
    p->why[0] = '\0';
    p->context = lws_create_context(&info);
    if (!p->context) {
        fail(p, "libwebsockets does not start");
        return;
    }
    struct lws_client_connect_info c = {
        .context = p->context,
        .address = address,
        .port = p->url.port,
        .host = p->host,
        .path = p->path,
        .ssl_connection = p->tls ? LCCSCF_USE_SSL : 0,
        .local_protocol_name = PROTOCOL,
        .alpn = "http/1.1",
    };
    lws_sul_schedule(p->context, 0, &p->alarm, on_alarm, limit_us);
    if (!lws_client_connect_via_info(&c))
        fail(p, "no TCP connection");
    while (!p->over && lws_service(p->context, 0) >= 0)
        ;
    lws_sul_cancel(&p->alarm);
    lws_context_destroy(p->context);
    p->context = NULL;
}

/* Another address is tried while none has taken the connection; each gets its share of the time that is left. */
static int try_all(struct probe *p, const struct addrinfo *addresses)
{
    int left = 0;
    for (const struct addrinfo *a = addresses; a; a = a->ai_next)
        left++;
    for (const struct addrinfo *a = addresses; a; a = a->ai_next, left--) {
        char address[NI_MAXHOST];
        int64_t limit_us = (p->deadline_us - now_us()) / left;
        if (limit_us <= 0 ||
            getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST))
            continue;
        bool v6 = a->ai_family == AF_INET6;
        printf("address: %s%s%s:%u\n", v6 ? "[" : "", address, v6 ? "]" : "", p->url.port);
        attempt(p, address, limit_us);
        if (p->stage != STAGE_TCP)
            break;
    }
    return p->stage == STAGE_DONE ? 0 : -1;
}

static int run(struct probe *p)
{
    struct addrinfo *addresses = NULL;
    if (getrandom(p->ping, sizeof p->ping, 0) != sizeof p->ping)
        return fail(p, "no random bytes");
    if ((p->url.tls && make_tls(p)) || resolve(p, &addresses))
        return -1;
    int result = try_all(p, addresses);
    freeaddrinfo(addresses);
    return result;
}

int connect_main(const char *url)
{
    struct probe p = {.deadline_us = now_us() + CONNECT_DEADLINE_MS * (int64_t)1000};
    struct err err = {.code = ERR_NONE};
    if (parse_url(url, &p, &err)) {
        fprintf(stderr, "--connect: %s\n", err.msg);
        return EXIT_URL;
    }
    /* lws would go through these, and the line with the address would lie. */
    unsetenv("http_proxy");
    unsetenv("socks_proxy");
    lws_set_log_level(0, NULL);
    int result = run(&p);
    if (result)
        fprintf(stderr, "%s: %s\n", url, p.why[0] ? p.why : "no address to try");
    SSL_CTX_free(p.tls);
    free(p.url.host);
    free(p.url.text);
    return result ? 1 : 0;
}
