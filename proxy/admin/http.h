/* http.h - the ports that people, probes and Prometheus ask: GET of a few pages, and one live feed over WebSocket
 * Shape:   accept -> strict head (wire/head.h) -> page -> answer -> close: what follows a request is dropped
 *                                              \-> a good handshake for the feed -> libwebsockets (http_ws.h)
 * Units:   *_ms milliseconds
 * Owner:   http_new ... http_free; pages and their arguments are the caller's and outlive it
 * Errors:  IO and INVALID, with the address in front
 * Limits:  HTTP_MAX_CONNECTIONS at once over all ports, the oldest goes for a new one; HTTP_MAX_FEEDS besides; a head of
 *          HTTP_MAX_HEAD; an answer of HTTP_MAX_ANSWER, HTTP_MAX_BIG of them over HTTP_BIG; each stage has a deadline;
 *          a feed connection that does not read misses updates, nothing queues up
 * Threads: the caller's; driven by http_run
 * Source:  design.md 4 "admin port"; RFC 9112, strictly. libwebsockets' own HTTP role spins (4.1.6) or cuts the answer
 *          (4.3) when bytes follow a request whose answer waits for a slow reader, so it sees no request of a stranger;
 *          its WebSocket role gets a handshake that was checked and written anew */
#ifndef PROXY_ADMIN_HTTP_H
#define PROXY_ADMIN_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

#define HTTP_MAX_CONNECTIONS 64
#define HTTP_MAX_FEEDS       16
#define HTTP_MAX_HEAD        8192
#define HTTP_MAX_ANSWER      (64u << 20)
#define HTTP_BIG             (256u << 10)
#define HTTP_MAX_BIG         4
#define HTTP_HEAD_MS         10000
#define HTTP_ANSWER_MS       30000
#define HTTP_LINGER_MS       1000 /* for the client's FIN behind our answer */

/* Fills `out` and *content_type; returns the HTTP status. */
typedef int (*http_handler)(void *arg, struct buf *out, const char **content_type);

struct http_page {
    const char *path; /* "/healthz" */
    http_handler get; /* NULL: the live feed, a WebSocket */
    void *arg;
};

struct http;

/* Where to listen and what is served there; an empty ADDR (":9900") means all families. */
struct http_listen {
    const char *address; /* "127.0.0.1:9901", "[::1]:9901", ":9900" */
    const struct http_page *pages;
    size_t page_count;
};

/* May this text be an address for http_listen? err says what would be right. */
__attribute__((warn_unused_result)) int http_check_address(const char *text, struct err *err);
/* Opens the ports; they are served once http_run turns. With a feed among the pages it makes every descriptor of the process
 * from 3 on close-on-exec, for libwebsockets opens some that are not. */
struct http *http_new(const struct http_listen *listens, size_t count, struct err *err);
void http_free(struct http *h);
/* Turns `loop` until loop->stop, serving the ports meanwhile. Without a feed among the pages libwebsockets is not started. */
void http_run(struct http *h, struct loop *loop);
/* Is anybody watching the feed? Then the caller sends an update now and then. */
bool http_feed_watched(const struct http *h);
/* Text for every feed connection; one that has not taken the last one yet gets only the newest. */
void http_feed(struct http *h, const void *text, size_t len);

#endif
