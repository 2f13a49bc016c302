#include "relay/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static void map_ipv4(struct in6_addr *out, const void *four)
{
    memset(out, 0, sizeof *out);
    out->s6_addr[10] = out->s6_addr[11] = 0xFF;
    memcpy(out->s6_addr + 12, four, 4);
}

bool addr_parse_ip(const char *text, struct in6_addr *out)
{
    struct in_addr four;

    if (inet_pton(AF_INET6, text, out) == 1)
        return true;
    if (inet_pton(AF_INET, text, &four) != 1)
        return false;
    map_ipv4(out, &four);
    return true;
}

struct addr addr_from_sockaddr(const struct sockaddr_storage *ss)
{
    struct addr a = {0};

    if (ss->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)ss;

        a.ip = in6->sin6_addr;
        a.port = ntohs(in6->sin6_port);
    } else if (ss->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)ss;

        map_ipv4(&a.ip, &in->sin_addr);
        a.port = ntohs(in->sin_port);
    }
    return a;
}

socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *out)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out;
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;

    memset(out, 0, sizeof *out);
    if (IN6_IS_ADDR_V4MAPPED(&a->ip)) {
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->ip.s6_addr + 12, 4);
        return sizeof *in;
    }
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(a->port);
    in6->sin6_addr = a->ip;
    return sizeof *in6;
}

const char *addr_ip_text(const struct in6_addr *ip, char out[ADDR_TEXT_BYTES])
{
    if (IN6_IS_ADDR_V4MAPPED(ip))
        inet_ntop(AF_INET, ip->s6_addr + 12, out, ADDR_TEXT_BYTES);
    else
        inet_ntop(AF_INET6, ip, out, ADDR_TEXT_BYTES);
    return out;
}

const char *addr_text(const struct addr *a, char out[ADDR_TEXT_BYTES])
{
    char ip[ADDR_TEXT_BYTES];

    addr_ip_text(&a->ip, ip);
    snprintf(out, ADDR_TEXT_BYTES, IN6_IS_ADDR_V4MAPPED(&a->ip) ? "%.46s:%u" : "[%.46s]:%u", ip, a->port);
    return out;
}
