/* http.h - the ports that people, probes and Prometheus ask: GET of a few pages, and one live feed over WebSocket
 * Shape:   struct http_page table -> libwebsockets' vhost; feed text -> every open feed connection
 * Units:   none
 * Owner:   http_new ... http_free; pages and their arguments are the caller's and outlive it
 * Errors:  IO, with the address in front
 * Limits:  HTTP_MAX_CONNECTIONS at once over all ports; a request's head is bounded by libwebsockets; a feed connection that does not
 *          read misses updates, nothing queues up
 * Threads: the caller's; driven by http_run
 * Source:  libwebsockets (server role); design.md 2.1, 4 "admin port" */
#ifndef PROXY_ADMIN_HTTP_H
#define PROXY_ADMIN_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

#define HTTP_MAX_CONNECTIONS 64

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
struct http *http_new(const struct http_listen *listens, size_t count, struct err *err);
void http_free(struct http *h);
/* Turns `loop` until loop->stop, serving the ports meanwhile. */
void http_run(struct http *h, struct loop *loop);
/* Is anybody watching the feed? Then the caller sends an update now and then. */
bool http_feed_watched(const struct http *h);
/* Text for every feed connection; one that has not taken the last one yet gets only the newest. */
void http_feed(struct http *h, const void *text, size_t len);

#endif
