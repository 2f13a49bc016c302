#include "admin/http_ws.h"

#include "admin/http.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <libwebsockets.h>
#include <linux/close_range.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define LOOP_PROTOCOL "loop"
/* Of libwebsockets itself: an event descriptor, the loop's, and room. */
#define OTHER_FDS  8
#define LOG_LEVELS (LLL_ERR | LLL_WARN)

/* A connection of the feed, in libwebsockets' memory. */
struct feed {
    LIST_ENTRY(feed) link;
    struct lws *wsi;
    uint64_t behind_ms; /* since when the newest text is not sent; 0: it is */
};
LIST_HEAD(feeds, feed);

struct http_ws {
    struct lws_context *context;
    struct lws_vhost *vhost;
    struct loop *loop;
    struct loop_fd timer; /* fires when the loop is due */
    struct feeds feeds;
    size_t count;
    uint8_t *text; /* LWS_PRE bytes of room, then the newest text */
    size_t len;
};

static void on_log(int level, const char *line)
{
    log_msg(level & LLL_ERR ? LOG_ERROR : LOG_WARN, "libwebsockets", "%.*s", (int)strcspn(line, "\n"), line);
}

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void fall_behind(struct feed *f)
{
    if (!f->behind_ms)
        f->behind_ms = now_ms();
    lws_callback_on_writable(f->wsi);
}

static int on_open(struct http_ws *ws, struct feed *f, struct lws *wsi)
{
    *f = (struct feed){.wsi = wsi};
    LIST_INSERT_HEAD(&ws->feeds, f, link);
    ws->count++;
    if (ws->text)
        fall_behind(f);
    return 0;
}

/* Not called while libwebsockets still holds a part of the last text. */
static int on_writable(struct http_ws *ws, struct feed *f)
{
    if (!f->behind_ms)
        return 0;
    f->behind_ms = 0;
    return lws_write(f->wsi, ws->text + LWS_PRE, ws->len, LWS_WRITE_TEXT) < 0 ? -1 : 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct http_ws *ws = lws_context_user(lws_get_context(wsi));
    struct feed *f = user;

    (void)in;
    (void)len;
    switch ((int)reason) {
    case LWS_CALLBACK_RAW_RX_FILE: loop_turn(ws->loop, 0); return 0;
    case LWS_CALLBACK_ESTABLISHED: return on_open(ws, f, wsi);
    case LWS_CALLBACK_SERVER_WRITEABLE: return on_writable(ws, f);
    case LWS_CALLBACK_CLOSED:
        LIST_REMOVE(f, link);
        if (!--ws->count) { /* nobody is to get it when it is old */
            free(ws->text);
            ws->text = NULL;
        }
        return 0;
    case LWS_CALLBACK_RECEIVE: return -1;
    case LWS_CALLBACK_HTTP: return -1; /* http_ws_take asks for an upgrade and nothing else */
    default: return 0;
    }
}

struct http_ws *http_ws_new(struct err *err)
{
    static const struct lws_protocols protocols[] = {
        {.name = "feed", .callback = on_event, .per_session_data_size = sizeof(struct feed)},
        {.name = LOOP_PROTOCOL, .callback = on_event},
        {.name = NULL},
    };
    struct http_ws *ws = calloc(1, sizeof *ws);
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .protocols = protocols,
        .fd_limit_per_thread = HTTP_MAX_FEEDS + OTHER_FDS,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS,
        .user = ws,
    };

    if (!ws) {
        err_set(err, ERR_IO, "out of memory");
        return NULL;
    }
    ws->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    lws_set_log_level(LOG_LEVELS, on_log);
    ws->context = lws_create_context(&info);
    if (ws->context)
        ws->vhost = lws_create_vhost(ws->context, &info);
    if (ws->timer.fd < 0 || !ws->vhost) {
        err_set(err, ERR_IO, "libwebsockets does not start: %s", strerror(errno));
        http_ws_free(ws);
        return NULL;
    }
    /* 4.3 opens a netlink socket that a child would inherit. Nothing of this process is meant to be inherited. */
    (void)close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    return ws;
}

void http_ws_free(struct http_ws *ws)
{
    if (!ws)
        return;
    if (ws->context)
        lws_context_destroy(ws->context);
    if (ws->timer.fd >= 0)
        close(ws->timer.fd);
    free(ws->text);
    free(ws);
}

/* Edge-triggered: each time it is set anew counts, so nobody reads it. */
static void on_timer(struct loop_fd *f, uint32_t events)
{
    (void)f;
    (void)events;
}

/* By the clock and not from now on: what libwebsockets does meanwhile must not put the loop's timers off. */
static void set_timer(struct http_ws *ws)
{
    int wait_ms = loop_wait_ms(ws->loop);
    uint64_t at_ms = ws->loop->now_ms + (uint64_t)(wait_ms > 0 ? wait_ms : 0);
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(at_ms / 1000), .tv_nsec = (long)(at_ms % 1000 * 1000000) + 1}};

    timerfd_settime(ws->timer.fd, TFD_TIMER_ABSTIME, wait_ms < 0 ? &(struct itimerspec){0} : &at, NULL);
}

/* A copy, for libwebsockets closes what it was given. */
static struct lws *adopt_loop(struct http_ws *ws)
{
    lws_sock_file_fd_type fd = {.filefd = fcntl(ws->loop->epoll_fd, F_DUPFD_CLOEXEC, 0)};

    return fd.filefd < 0
               ? NULL
               : lws_adopt_descriptor_vhost(ws->vhost, LWS_ADOPT_RAW_FILE_DESC, fd, LOOP_PROTOCOL, NULL);
}

void http_ws_run(struct http_ws *ws, struct loop *loop)
{
    struct lws *wsi;
    struct err err;

    ws->loop = loop;
    ws->timer.ready = on_timer;
    wsi = adopt_loop(ws);
    if (wsi && !loop_add(loop, &ws->timer, EPOLLIN, &err)) {
        do
            set_timer(ws);
        while (!loop->stop && lws_service(ws->context, 0) >= 0);
        lws_set_timeout(wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_SYNC);
    }
    if (!loop->stop) {
        log_msg(LOG_ERROR, "libwebsockets", "its wait has failed; the feed stops, all else goes on");
        loop_run(loop);
    }
}

/* All of it is ours but the key: no header of the client's gets there. The log is silent meanwhile, for 4.1 calls what
 * is meant to happen an error. */
void http_ws_take(struct http_ws *ws, int fd, const char *key)
{
    char request[256];
    int len = snprintf(request, sizeof request,
                       "GET / HTTP/1.1\r\nHost: feed\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
                       key);

    lws_set_log_level(0, on_log);
    lws_adopt_socket_vhost_readbuf(ws->vhost, fd, request, (size_t)len);
    lws_set_log_level(LOG_LEVELS, on_log);
}

size_t http_ws_count(const struct http_ws *ws)
{
    return ws->count;
}

void http_ws_send(struct http_ws *ws, const void *text, size_t len)
{
    uint8_t *copy = malloc(LWS_PRE + len);
    uint64_t now = now_ms();
    struct feed *f;

    if (!copy)
        return;
    memcpy(copy + LWS_PRE, text, len);
    free(ws->text);
    ws->text = copy;
    ws->len = len;
    LIST_FOREACH(f, &ws->feeds, link)
    {
        if (f->behind_ms && now - f->behind_ms > HTTP_WS_STUCK_MS)
            lws_set_timeout(f->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
        else
            fall_behind(f);
    }
}
