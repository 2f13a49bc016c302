/* lws_peer.h - what the two libwebsockets peers share: one message at a time
 * Shape:   frames are gathered into a message of at most PEER_MAX_BYTES behind LWS_PRE bytes, as lws_write wants it
 * Owner:   the buffer lies in the connection's own data, which libwebsockets gives zeroed and frees
 * Threads: loop thread only
 * Source:  tests/integration/peers/websockets_peer.py says what the peers do */
#ifndef TESTS_INTEGRATION_PEERS_LWS_PEER_H
#define TESTS_INTEGRATION_PEERS_LWS_PEER_H

#include <libwebsockets.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PEER_MAX_BYTES (1024 * 1024)

struct peer_message {
    unsigned char space[LWS_PRE + PEER_MAX_BYTES];
    size_t len;
    bool binary;
    bool whole;
};

struct peer_close {
    int code; /* 0: none yet, 1005: a Close without a code */
    char reason[124];
};

static inline unsigned char *peer_bytes(struct peer_message *m)
{
    return m->space + LWS_PRE;
}

/* Adds what one callback delivered; false: the message is too long. */
static inline bool peer_gather(struct peer_message *m, struct lws *wsi, const void *in, size_t len)
{
    if (m->whole)
        m->len = 0;
    if (len > PEER_MAX_BYTES - m->len)
        return false;
    if (len)
        memcpy(peer_bytes(m) + m->len, in, len);
    m->len += len;
    m->binary = lws_frame_is_binary(wsi) != 0;
    m->whole = lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0;
    return true;
}

/* The payload of a Close frame, as LWS_CALLBACK_WS_PEER_INITIATED_CLOSE hands it over. */
static inline void peer_closed(struct peer_close *c, const void *in, size_t len)
{
    const unsigned char *p = in;

    c->code = len >= 2 ? p[0] << 8 | p[1] : 1005;
    snprintf(c->reason, sizeof c->reason, "%.*s", len > 2 ? (int)(len - 2) : 0,
             len > 2 ? (const char *)p + 2 : "");
}

static inline const char *peer_bool(bool value)
{
    return value ? "true" : "false";
}

#endif
