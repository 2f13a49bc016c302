/* http_ws.h - what libwebsockets does for the admin port: the feed's WebSockets, and the wait of the process
 * Shape:   a socket whose handshake was checked -> 101 -> text frames, one a send; a loop's epoll descriptor and its next
 *          deadline (a timerfd) stand among libwebsockets' own descriptors, for it has no wait but its own
 * Units:   HTTP_WS_STUCK_MS milliseconds
 * Owner:   http_ws_new ... http_ws_free; http_ws_take takes the descriptor over, also on failure
 * Errors:  IO
 * Limits:  HTTP_MAX_FEEDS connections; a connection holds at most one text that is not sent yet, for HTTP_WS_STUCK_MS;
 *          what a client sends ends its connection, but for Pong and Close
 * Threads: the caller's; one a process, for the log of libwebsockets is a global of it
 * Source:  libwebsockets 4.1 to 4.3 (server role, raw file) */
#ifndef PROXY_ADMIN_HTTP_WS_H
#define PROXY_ADMIN_HTTP_WS_H

#include "base/err.h"
#include "base/loop.h"

#define HTTP_WS_STUCK_MS 20000

struct http_ws;

struct http_ws *http_ws_new(struct err *err);
void http_ws_free(struct http_ws *ws);
/* Turns `loop` until loop->stop. */
void http_ws_run(struct http_ws *ws, struct loop *loop);
/* Answers the handshake with this Sec-WebSocket-Key (checked: 24 characters of base64). */
void http_ws_take(struct http_ws *ws, int fd, const char *key);
size_t http_ws_count(const struct http_ws *ws);
void http_ws_send(struct http_ws *ws, const void *text, size_t len);

#endif
