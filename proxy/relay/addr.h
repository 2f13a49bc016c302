/* addr.h - socket addresses: one form inside, one text outside
 * Shape:   struct addr is an IPv6 address and a port; IPv4 lives as ::ffff:a.b.c.d and is written as IPv4
 * Units:   port in host order
 * Owner:   by value
 * Errors:  addr_parse_ip says false
 * Limits:  ADDR_TEXT_BYTES hold every text
 * Threads: any; pure
 * Source:  RFC 4291 2.5.5.2 (mapped addresses), RFC 5952 (text) */
#ifndef PROXY_RELAY_ADDR_H
#define PROXY_RELAY_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDR_TEXT_BYTES 64

struct addr {
    struct in6_addr ip;
    uint16_t port;
};

/* IPv4 or IPv6 without brackets */
bool addr_parse_ip(const char *text, struct in6_addr *out);
struct addr addr_from_sockaddr(const struct sockaddr_storage *ss);
/* An AF_INET sockaddr for mapped addresses, so that a host without IPv6 can dial. */
socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *out);
const char *addr_ip_text(const struct in6_addr *ip, char out[ADDR_TEXT_BYTES]);
/* ip:port, [v6]:port */
const char *addr_text(const struct addr *a, char out[ADDR_TEXT_BYTES]);

#endif
