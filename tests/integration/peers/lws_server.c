/* libwebsockets' ws role as an echo server: lws_server [--cert F --key F [--ca F]] [--protocol P]
 * websockets_peer.py says what it does and prints. */
#include "lws_peer.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

static const struct lws_extension extensions[] = {
    {"permessage-deflate", lws_extension_callback_pm_deflate, "permessage-deflate; client_max_window_bits"},
    {NULL, NULL, NULL},
};

struct connection {
    struct peer_message message;
    struct peer_close close;
    char path[256];
    char query[256];
    char protocol[64];
    bool deflate;
};

static void note_handshake(struct connection *c, struct lws *wsi)
{
    char agreed[256] = "";

    lws_hdr_copy(wsi, c->path, sizeof c->path, WSI_TOKEN_GET_URI);
    lws_hdr_copy(wsi, c->query, sizeof c->query, WSI_TOKEN_HTTP_URI_ARGS);
    if (lws_hdr_total_length(wsi, WSI_TOKEN_PROTOCOL) > 0)
        snprintf(c->protocol, sizeof c->protocol, "%s", lws_get_protocol(wsi)->name);
    lws_hdr_copy(wsi, agreed, sizeof agreed, WSI_TOKEN_EXTENSIONS);
    c->deflate = strstr(agreed, "permessage-deflate") != NULL;
}

static int answer(struct connection *c, struct lws *wsi)
{
    static const char ask[] = "close me", reason[] = "as asked";
    struct peer_message *m = &c->message;

    if (!m->binary && m->len == sizeof ask - 1 && memcmp(peer_bytes(m), ask, m->len) == 0) {
        c->close.code = 4002;
        snprintf(c->close.reason, sizeof c->close.reason, "%s", reason);
        lws_close_reason(wsi, 4002, (unsigned char *)c->close.reason, sizeof reason - 1);
        return -1;
    }
    if (lws_write(wsi, peer_bytes(m), m->len, m->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT) < 0)
        return -1;
    m->len = 0;
    m->whole = false; /* libwebsockets calls for writing on its own account, too */
    lws_rx_flow_control(wsi, 1);
    return 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons why, void *user, void *in, size_t len)
{
    struct connection *c = user;

    switch (why) {
    case LWS_CALLBACK_ESTABLISHED: note_handshake(c, wsi); return 0;
    case LWS_CALLBACK_RECEIVE:
        if (!peer_gather(&c->message, wsi, in, len))
            return -1;
        if (c->message.whole) {
            lws_rx_flow_control(wsi, 0);
            lws_callback_on_writable(wsi);
        }
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE: return c->message.whole ? answer(c, wsi) : 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        if (c->close.code == 0)
            peer_closed(&c->close, in, len);
        return 0;
    case LWS_CALLBACK_CLOSED:
        printf("{\"path\": \"%s%s%s\", \"protocol\": \"%s\", \"deflate\": %s, \"close\": [%d, \"%s\"]}\n",
               c->path, c->query[0] ? "?" : "", c->query, c->protocol, peer_bool(c->deflate),
               c->close.code ? c->close.code : 1006, c->close.reason);
        fflush(stdout);
        return 0;
    default: return lws_callback_http_dummy(wsi, why, user, in, len);
    }
}

static bool stdin_ended(void)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;

    return poll(&p, 1, 0) == 1 && read(STDIN_FILENO, &byte, 1) <= 0;
}

static void on_tick(lws_sorted_usec_list_t *sul);

static struct ticker {
    lws_sorted_usec_list_t sul; /* first: on_tick gets its address */
    struct lws_context *context;
} ticker;

/* Wakes the loop, so that the end of standard input is seen. */
static void on_tick(lws_sorted_usec_list_t *sul)
{
    lws_sul_schedule(ticker.context, 0, sul, on_tick, LWS_USEC_PER_SEC / 20);
}

int main(int argc, char **argv)
{
    struct lws_protocols protocols[] = {
        {"echo", on_event, sizeof(struct connection), 4096, 0, NULL, 0},
        {NULL, NULL, 0, 0, 0, NULL, 0},
    };
    struct lws_context_creation_info info = {0};
    struct lws_vhost *host;

    info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS;
    info.protocols = protocols;
    info.extensions = extensions;
    info.iface = "127.0.0.1";
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--protocol") == 0)
            protocols[0].name = argv[i + 1];
        else if (strcmp(argv[i], "--cert") == 0)
            info.ssl_cert_filepath = argv[i + 1];
        else if (strcmp(argv[i], "--key") == 0)
            info.ssl_private_key_filepath = argv[i + 1];
        else if (strcmp(argv[i], "--ca") == 0)
            info.ssl_ca_filepath = argv[i + 1];
    }
    if (info.ssl_cert_filepath)
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    if (info.ssl_ca_filepath)
        info.options |= LWS_SERVER_OPTION_REQUIRE_VALID_OPENSSL_CLIENT_CERT;
    lws_set_log_level(LLL_ERR | LLL_WARN, NULL);
    ticker.context = lws_create_context(&info);
    if (!ticker.context)
        return 1;
    host = lws_create_vhost(ticker.context, &info); /* port 0: any free one */
    if (!host)
        return 1;
    printf("{\"port\": %d}\n", lws_get_vhost_listen_port(host));
    fflush(stdout);
    on_tick(&ticker.sul);
    while (!stdin_ended() && lws_service(ticker.context, 0) >= 0)
        ;
    lws_context_destroy(ticker.context);
    return 0;
}
