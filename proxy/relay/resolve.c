#include "relay/resolve.h"

#include <ares.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024

LIST_HEAD(queries, resolve_query);

/* What is known of one name. */
struct name {
    LIST_ENTRY(name) link;
    struct resolver *resolver;
    struct queries waiting;
    bool asked; /* c-ares is at it */
    uint64_t fresh_until_ms;
    size_t count;
    struct in6_addr ips[RESOLVE_MAX];
    char host[];
};
LIST_HEAD(names, name);

/* A socket of c-ares on our loop. */
struct ares_sock {
    LIST_ENTRY(ares_sock) link;
    struct loop_fd lf;
    struct loop_dead dead;
    struct lane *lane;
    uint32_t watched;
};

/* A channel of c-ares: whether it tries the search list of resolv.conf is settled at its birth. */
struct lane {
    struct loop *loop;
    ares_channel channel; /* NULL: not open */
    struct loop_timer timer;
    LIST_HEAD(, ares_sock) socks;
};

struct resolver {
    struct loop *loop;
    struct lane bare;  /* names without a dot */
    struct lane whole; /* the others: as they stand */
    size_t name_count;
    struct names buckets[BUCKETS];
};

/* c-ares keeps its own time-outs; the loop only asks it when the next one is due. */
static void arm(struct lane *l)
{
    struct timeval tv, *due = ares_timeout(l->channel, NULL, &tv);

    if (due)
        loop_timer_set(l->loop, &l->timer,
                       l->loop->now_ms + (uint64_t)due->tv_sec * 1000 + (uint64_t)due->tv_usec / 1000 + 1);
    else
        loop_timer_clear(&l->timer);
}

static void on_timer(struct loop_timer *t)
{
    struct lane *l = (struct lane *)((char *)t - offsetof(struct lane, timer));

    ares_process_fd(l->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm(l);
}

static void on_ready(struct loop_fd *f, uint32_t events)
{
    struct ares_sock *s = (struct ares_sock *)((char *)f - offsetof(struct ares_sock, lf));
    struct lane *l = s->lane;
    int fd = f->fd;

    ares_process_fd(l->channel, events & ~(uint32_t)EPOLLOUT ? fd : ARES_SOCKET_BAD,
                    events & EPOLLOUT ? fd : ARES_SOCKET_BAD);
    arm(l);
}

static void free_sock(struct loop_dead *d)
{
    free((char *)d - offsetof(struct ares_sock, dead));
}

static void on_sock_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct lane *l = arg;
    uint32_t events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0);
    struct ares_sock *s;
    struct err err;

    LIST_FOREACH(s, &l->socks, link)
    if (s->lf.fd == fd)
        break;
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s)
            return; /* the query runs into its time-out */
        s->lane = l;
        s->lf = (struct loop_fd){.fd = fd, .ready = on_ready};
        LIST_INSERT_HEAD(&l->socks, s, link);
    }
    if (loop_watch(l->loop, &s->lf, &s->watched, events, &err) || !events) {
        LIST_REMOVE(s, link);
        s->lf.fd = -1;
        s->dead.release = free_sock;
        loop_free_later(l->loop, &s->dead);
    }
}

/* Without a search list when `mask` holds ARES_OPT_DOMAINS: there are none in `o`. (ARES_FLAG_NOSEARCH is not looked at by
 * ares_getaddrinfo of 1.18.) */
static int open_lane(struct lane *l, struct loop *loop, int mask, struct err *err)
{
    struct ares_options o = {.timeout = RESOLVE_TRY_MS,
                             .tries = RESOLVE_TRIES,
                             .sock_state_cb = on_sock_state,
                             .sock_state_cb_data = l};
    int status;

    l->loop = loop;
    l->timer.fire = on_timer;
    status = ares_init_options(&l->channel, &o,
                               mask | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (status == ARES_SUCCESS)
        return 0;
    l->channel = NULL;
    return err_set(err, ERR_IO, "resolver: %s", ares_strerror(status));
}

static void close_lane(struct lane *l)
{
    if (l->channel)
        ares_destroy(l->channel);
    loop_timer_clear(&l->timer);
}

struct resolver *resolver_new(struct loop *loop, struct err *err)
{
    struct resolver *r = calloc(1, sizeof *r);
    int status;

    if (!r) {
        err_set(err, ERR_LIMIT, "resolver: out of memory");
        return NULL;
    }
    r->loop = loop;
    status = ares_library_init(ARES_LIB_INIT_ALL);
    if (status != ARES_SUCCESS) {
        err_set(err, ERR_IO, "resolver: %s", ares_strerror(status));
        free(r);
        return NULL;
    }
    if (open_lane(&r->bare, loop, 0, err) || open_lane(&r->whole, loop, ARES_OPT_DOMAINS, err)) {
        resolver_free(r);
        return NULL;
    }
    return r;
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    close_lane(&r->bare);
    close_lane(&r->whole);
    ares_library_cleanup();
    for (size_t i = 0; i < BUCKETS; i++) {
        struct name *n;

        while ((n = LIST_FIRST(&r->buckets[i]))) {
            LIST_REMOVE(n, link);
            free(n);
        }
    }
    free(r);
}

static struct names *bucket_of(struct resolver *r, const char *host)
{
    uint32_t h = 2166136261u; /* FNV-1a */

    for (; *host; host++)
        h = (h ^ (uint8_t)*host) * 16777619u;
    return &r->buckets[h % BUCKETS];
}

/* Forgets one name that nobody waits for. */
static void evict(struct resolver *r)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct name *n;

        LIST_FOREACH(n, &r->buckets[i], link)
        if (!n->asked) {
            LIST_REMOVE(n, link);
            free(n);
            r->name_count--;
            return;
        }
    }
}

static struct name *name_of(struct resolver *r, const char *host)
{
    struct names *bucket = bucket_of(r, host);
    struct name *n;
    size_t len = strlen(host);

    LIST_FOREACH(n, bucket, link)
    if (!strcmp(n->host, host))
        return n;
    if (r->name_count >= RESOLVE_CACHE)
        evict(r);
    n = calloc(1, sizeof *n + len + 1);
    if (!n)
        return NULL;
    n->resolver = r;
    memcpy(n->host, host, len + 1);
    LIST_INSERT_HEAD(bucket, n, link);
    r->name_count++;
    return n;
}

/* Keeps the addresses of an answer; returns the time that they hold. */
static uint64_t take_answer(struct name *n, const struct ares_addrinfo *info)
{
    uint64_t ttl_ms = RESOLVE_MAX_TTL_MS;
    size_t count = 0;

    for (const struct ares_addrinfo_node *a = info->nodes; a && count < RESOLVE_MAX; a = a->ai_next) {
        struct in6_addr *ip = &n->ips[count];

        if (a->ai_family == AF_INET6) {
            *ip = ((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_addr;
        } else if (a->ai_family == AF_INET) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)a->ai_addr;

            memset(ip, 0, sizeof *ip);
            ip->s6_addr[10] = ip->s6_addr[11] = 0xFF;
            memcpy(ip->s6_addr + 12, &in->sin_addr, 4);
        } else {
            continue;
        }
        count++;
        if ((uint64_t)(a->ai_ttl < 0 ? 0 : a->ai_ttl) * 1000 < ttl_ms)
            ttl_ms = (uint64_t)(a->ai_ttl < 0 ? 0 : a->ai_ttl) * 1000;
    }
    n->count = count;
    return ttl_ms < RESOLVE_MIN_TTL_MS ? RESOLVE_MIN_TTL_MS : ttl_ms;
}

static const char *why_of(int status)
{
    switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA: return "the backend's name does not exist";
    case ARES_ETIMEOUT: return "no name server answered for the backend's name";
    case ARES_ECONNREFUSED: return "the name server refused the connection";
    case ARES_ESERVFAIL: return "the name server failed to resolve the backend's name";
    default: return "the backend's name cannot be resolved";
    }
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct name *n = arg;
    struct queries waiting = n->waiting;
    struct resolve_query *q;
    struct in6_addr ips[RESOLVE_MAX];
    size_t count;
    uint64_t now = n->resolver->loop->now_ms;

    (void)timeouts;
    n->asked = false;
    if (status == ARES_SUCCESS && info && info->nodes)
        n->fresh_until_ms = now + take_answer(n, info);
    else if (n->count)
        n->fresh_until_ms = now + RESOLVE_RETRY_MS; /* the last good answer serves on */
    if (info)
        ares_freeaddrinfo(info);
    LIST_INIT(&n->waiting);
    if (LIST_FIRST(&waiting))
        LIST_FIRST(&waiting)->link.le_prev = &waiting.lh_first;
    /* `done` may ask for another name, for which this one is forgotten, or for this one again. */
    count = n->count;
    memcpy(ips, n->ips, sizeof ips);
    while ((q = LIST_FIRST(&waiting))) {
        LIST_REMOVE(q, link);
        q->waiting = false;
        if (status == ARES_EDESTRUCTION)
            continue;
        q->done(q, ips, count, count ? NULL : why_of(status));
    }
}

void resolve_start(struct resolver *r, const char *host, struct resolve_query *q)
{
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct lane *l = strchr(host, '.') ? &r->whole : &r->bare;
    struct name *n = name_of(r, host);

    q->waiting = false;
    if (!n) {
        q->done(q, NULL, 0, "out of memory");
        return;
    }
    if (n->count && r->loop->now_ms < n->fresh_until_ms) {
        q->done(q, n->ips, n->count, NULL);
        return;
    }
    LIST_INSERT_HEAD(&n->waiting, q, link);
    q->waiting = true;
    if (n->asked)
        return;
    n->asked = true;
    ares_getaddrinfo(l->channel, host, NULL, &hints, on_answer, n);
    arm(l);
}

void resolve_cancel(struct resolve_query *q)
{
    if (q->waiting)
        LIST_REMOVE(q, link);
    q->waiting = false;
}
