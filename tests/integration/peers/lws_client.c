/* libwebsockets' ws role as a client: lws_client URL [--ca F] [--protocol P] [--ask-close]
 * websockets_peer.py says what it does and prints. It offers no permessage-deflate: with it, libwebsockets 4.1.6
 * spins for ever on the first Pong. */
#include "lws_peer.h"

#include <stdlib.h>

#define HALF_BYTES  35000
#define RUN_SECONDS 60

enum step { STEP_TEXT = 0, STEP_BINARY, STEP_BINARY_REST, STEP_PING, STEP_CLOSE };

static struct call {
    struct lws *wsi;
    struct peer_message message;
    struct peer_close close;
    enum step step;
    unsigned char half[LWS_PRE + HALF_BYTES];
    char protocol[64], pong[126], error[256];
    bool wants_write; /* libwebsockets calls for writing on its own account, too */
    bool text, binary, ask_close, ended, late;
    unsigned status;
} call;

static const char text[] = "hello, w\xc3\xb6rld";

static bool is_text(const struct peer_message *m)
{
    return !m->binary && m->len == sizeof text - 1 && memcmp(m->space + LWS_PRE, text, m->len) == 0;
}

static bool is_two_halves(const struct peer_message *m)
{
    const unsigned char *got = m->space + LWS_PRE, *half = call.half + LWS_PRE;

    return m->binary && m->len == 2 * HALF_BYTES && memcmp(got, half, HALF_BYTES) == 0 &&
           memcmp(got + HALF_BYTES, half, HALF_BYTES) == 0;
}

static int write_all(struct lws *wsi, const void *bytes, size_t len, int kind)
{
    static unsigned char space[LWS_PRE + HALF_BYTES];

    memcpy(space + LWS_PRE, bytes, len);
    return lws_write(wsi, space + LWS_PRE, len, (enum lws_write_protocol)kind) < 0 ? -1 : 0;
}

static int say_goodbye(struct lws *wsi)
{
    static unsigned char done[] = "done";

    if (call.ask_close)
        return write_all(wsi, "close me", 8, LWS_WRITE_TEXT);
    call.close.code = 4001;
    snprintf(call.close.reason, sizeof call.close.reason, "done");
    lws_close_reason(wsi, 4001, done, sizeof done - 1);
    return -1;
}

static void want_write(struct lws *wsi)
{
    call.wants_write = true;
    lws_callback_on_writable(wsi);
}

static int on_writable(struct lws *wsi)
{
    if (!call.wants_write)
        return 0;
    call.wants_write = false;
    switch (call.step) {
    case STEP_TEXT: return write_all(wsi, text, sizeof text - 1, LWS_WRITE_TEXT);
    case STEP_BINARY:
        call.step = STEP_BINARY_REST;
        want_write(wsi);
        return write_all(wsi, call.half + LWS_PRE, HALF_BYTES, LWS_WRITE_BINARY | LWS_WRITE_NO_FIN);
    case STEP_BINARY_REST: return write_all(wsi, call.half + LWS_PRE, HALF_BYTES, LWS_WRITE_CONTINUATION);
    case STEP_PING: return write_all(wsi, "tick", 4, LWS_WRITE_PING);
    case STEP_CLOSE: return say_goodbye(wsi);
    }
    return 0;
}

static int on_message(struct lws *wsi)
{
    if (call.step == STEP_TEXT) {
        call.text = is_text(&call.message);
        call.step = STEP_BINARY;
    } else if (call.step == STEP_BINARY_REST) {
        call.binary = is_two_halves(&call.message);
        call.step = STEP_PING;
    } else {
        snprintf(call.error, sizeof call.error, "a message nobody awaited");
        return -1;
    }
    want_write(wsi);
    return 0;
}

static void note_handshake(struct lws *wsi)
{
    if (lws_hdr_copy(wsi, call.protocol, sizeof call.protocol, WSI_TOKEN_PROTOCOL) < 0)
        call.protocol[0] = 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons why, void *user, void *in, size_t len)
{
    switch (why) {
    case LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH: /* the answer's headers are gone later on */
        note_handshake(wsi);
        return 0;
    case LWS_CALLBACK_CLIENT_ESTABLISHED: want_write(wsi); return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        if (!peer_gather(&call.message, wsi, in, len))
            return -1;
        return call.message.whole ? on_message(wsi) : 0;
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
        snprintf(call.pong, sizeof call.pong, "%.*s", (int)len, (const char *)in);
        call.step = STEP_CLOSE;
        want_write(wsi);
        return 0;
    case LWS_CALLBACK_CLIENT_WRITEABLE: return on_writable(wsi);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE: peer_closed(&call.close, in, len); return 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        call.status = lws_http_client_http_response(wsi);
        snprintf(call.error, sizeof call.error, "%.*s", in ? (int)len : 0, in ? (const char *)in : "");
        call.ended = true;
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED: call.ended = true; return 0;
    default: return lws_callback_http_dummy(wsi, why, user, in, len);
    }
}

static void on_deadline(lws_sorted_usec_list_t *sul)
{
    (void)sul;
    call.late = true;
}

static void report(void)
{
    if (call.error[0] || call.late) {
        printf("{\"status\": %u, \"error\": \"%s\"}\n", call.status, call.late ? "too late" : call.error);
        return;
    }
    printf("{\"protocol\": \"%s\", \"deflate\": false, \"text\": %s, \"binary\": %s, \"pong\": \"%s\", "
           "\"close\": [%d, \"%s\"]}\n",
           call.protocol, peer_bool(call.text), peer_bool(call.binary), call.pong,
           call.close.code ? call.close.code : 1006, call.close.reason);
}

static bool start(struct lws_context *context, char *url, const char *protocol)
{
    struct lws_client_connect_info to = {0};
    const char *scheme, *path;
    char full[512];

    if (lws_parse_uri(url, &scheme, &to.address, &to.port, &path) != 0)
        return false;
    snprintf(full, sizeof full, "/%s", path[0] == '/' ? path + 1 : path);
    to.context = context;
    to.path = full;
    to.host = to.origin = to.address;
    to.protocol = protocol;
    to.local_protocol_name = "call";
    to.ssl_connection = strcmp(scheme, "wss") == 0 ? LCCSCF_USE_SSL : 0;
    to.pwsi = &call.wsi;
    return lws_client_connect_via_info(&to) != NULL;
}

int main(int argc, char **argv)
{
    static const struct lws_protocols protocols[] = {
        {"call", on_event, 0, 4096, 0, NULL, 0},
        {NULL, NULL, 0, 0, 0, NULL, 0},
    };
    struct lws_context_creation_info info = {0};
    lws_sorted_usec_list_t deadline = {0};
    struct lws_context *context;
    const char *protocol = NULL;

    if (argc < 2)
        return 2;
    info.port = CONTEXT_PORT_NO_LISTEN;
    info.protocols = protocols;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--ask-close") == 0)
            call.ask_close = true;
        else if (strcmp(argv[i], "--protocol") == 0 && i + 1 < argc)
            protocol = argv[++i];
        else if (strcmp(argv[i], "--ca") == 0 && i + 1 < argc)
            info.client_ssl_ca_filepath = argv[++i];
    }
    if (info.client_ssl_ca_filepath)
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    for (size_t i = 0; i < HALF_BYTES; i++)
        call.half[LWS_PRE + i] = (unsigned char)"tidegate"[i % 8];
    lws_set_log_level(LLL_ERR | LLL_WARN, NULL);
    context = lws_create_context(&info);
    if (!context)
        return 1;
    lws_sul_schedule(context, 0, &deadline, on_deadline, RUN_SECONDS * LWS_USEC_PER_SEC);
    if (!start(context, argv[1], protocol))
        call.ended = true;
    while (!call.ended && !call.late && lws_service(context, 0) >= 0)
        ;
    lws_sul_cancel(&deadline);
    lws_context_destroy(context);
    report();
    return 0;
}
