#include "run/ports.h"

#include "relay/addr.h"
#include "relay/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct port *ports_find(const struct ports *p, uint16_t number)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i]->number == number && !p->items[i]->closing)
            return p->items[i];
    return NULL;
}

/* Would this descriptor be one of those that are kept for all else: the workers' control, the spec, the admin port? */
static bool is_spare(int fd)
{
    struct rlimit lim = {.rlim_cur = RLIM_INFINITY};
    rlim_t spare;

    getrlimit(RLIMIT_NOFILE, &lim);
    spare = lim.rlim_cur / 4 < PORTS_SPARE_FDS ? lim.rlim_cur / 4 : PORTS_SPARE_FDS;
    return (rlim_t)fd >= lim.rlim_cur - spare;
}

static int make_socket(struct addr *any, struct err *err)
{
    int off = 0, on = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    } else if (errno == EAFNOSUPPORT) {
        addr_parse_ip("0.0.0.0", &any->ip);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0)
        return err_set(err, ERR_IO, "socket: %s", strerror(errno));
    if (is_spare(fd)) {
        close(fd);
        return err_set(err, ERR_LIMIT, "no descriptor is left for it (ulimit -n)");
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sock_set_options(fd);
    return fd;
}

static int reuse_port(int fd)
{
    int on = 1;

    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
}

/* [::] with IPv4 mapped in, else 0.0.0.0 where IPv6 is off. */
static int open_socket(uint16_t number, bool first, struct err *err)
{
    struct addr any = {.port = number};
    struct sockaddr_storage ss;
    socklen_t len;
    int fd = make_socket(&any, err);

    if (fd < 0)
        return -1;
    len = addr_to_sockaddr(&any, &ss);
    if ((!first && reuse_port(fd)) || bind(fd, (struct sockaddr *)&ss, len) || (first && reuse_port(fd)) ||
        listen(fd, LISTENER_BACKLOG)) {
        err_set(err, ERR_IO, "%s", strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

static void port_free(struct port *port, unsigned workers)
{
    for (unsigned w = 0; w < workers; w++)
        if (port->fds[w] >= 0)
            close(port->fds[w]);
    free(port->fds);
    free(port->sent);
    free(port);
}

static struct port *port_new(uint16_t number, unsigned workers)
{
    struct port *port = calloc(1, sizeof *port);

    if (!port)
        return NULL;
    port->number = number;
    port->fds = malloc(workers * sizeof *port->fds);
    port->sent = calloc(workers, sizeof *port->sent);
    for (unsigned w = 0; port->fds && w < workers; w++)
        port->fds[w] = -1;
    if (port->fds && port->sent)
        return port;
    free(port->fds);
    free(port->sent);
    free(port);
    return NULL;
}

static bool is_closing(const struct ports *p, uint16_t number)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i]->number == number && p->items[i]->closing)
            return true;
    return false;
}

int ports_open(struct ports *p, uint16_t number, struct err *err)
{
    struct port *port = ports_find(p, number), **items;

    if (port)
        return 0;
    if (is_closing(p, number))
        return err_set(err, ERR_IO, "it is just being closed");
    items = realloc(p->items, (p->count + 1) * sizeof *p->items);
    if (items)
        p->items = items;
    port = items ? port_new(number, p->workers) : NULL;
    if (!port)
        return err_set(err, ERR_LIMIT, "out of memory");
    for (unsigned w = 0; w < p->workers; w++) {
        port->fds[w] = open_socket(number, w == 0, err);
        if (port->fds[w] < 0) {
            port_free(port, p->workers);
            return -1;
        }
    }
    p->items[p->count++] = port;
    return 0;
}

void ports_close_unwanted(struct ports *p, uint64_t generation)
{
    for (size_t i = 0; i < p->count; i++) {
        struct port *port = p->items[i];

        if (port->wanted || port->closing)
            continue;
        port->closing = generation;
        /* Ours first: then the worker's copy is the last one, and it closes right behind its last accept. */
        for (unsigned w = 0; w < p->workers; w++) {
            close(port->fds[w]);
            port->fds[w] = -1;
        }
    }
}

bool ports_closed(struct ports *p, uint64_t generation)
{
    size_t kept = 0, before = p->count;

    for (size_t i = 0; i < p->count; i++)
        if (p->items[i]->closing && p->items[i]->closing <= generation)
            port_free(p->items[i], p->workers);
        else
            p->items[kept++] = p->items[i];
    p->count = kept;
    return kept < before;
}

void ports_forget_sent(struct ports *p, unsigned w)
{
    for (size_t i = 0; i < p->count; i++)
        p->items[i]->sent[w] = false;
}

void ports_free(struct ports *p)
{
    for (size_t i = 0; i < p->count; i++)
        port_free(p->items[i], p->workers);
    free(p->items);
    p->items = NULL;
    p->count = 0;
}
