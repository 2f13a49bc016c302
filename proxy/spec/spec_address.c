#include "spec/spec_values.h"

#include "base/cleanup.h"
#include "spec/spec_internal.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static char *lowered(const char *text, size_t len)
{
    char *copy = spec_copy(text, len);

    for (size_t i = 0; i < len; i++)
        copy[i] = lower(copy[i]);
    return copy;
}

/* inet_pton on a slice; a longer text is no address. */
static bool is_address(int family, const char *text, size_t len, uint8_t addr[16])
{
    char copy[INET6_ADDRSTRLEN];

    if (len >= sizeof copy || memchr(text, '\0', len))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return inet_pton(family, copy, addr) == 1;
}

/* A last label of digits (or 0x...) is a number to many resolvers, and the name then an address in disguise. */
static bool ends_in_number(const char *text, size_t len)
{
    const char *dot = memrchr(text, '.', len);
    const char *label = dot ? dot + 1 : text;
    size_t n = len - (size_t)(label - text);

    if (n >= 2 && label[0] == '0' && lower(label[1]) == 'x')
        return true;
    for (size_t i = 0; i < n; i++)
        if (!is_digit(label[i]))
            return false;
    return true;
}

static bool is_dns_name(const char *text, size_t len)
{
    size_t label = 0;

    if (!len || len > 253)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = lower(text[i]);
        bool edge = !label || i + 1 == len || text[i + 1] == '.';

        if (c == '.') {
            if (!label || i + 1 == len)
                return false;
            label = 0;
            continue;
        }
        if (!is_digit(c) && !(c >= 'a' && c <= 'z') && c != '_' && (c != '-' || edge))
            return false;
        if (++label > 63)
            return false;
    }
    return !ends_in_number(text, len);
}

static bool is_host(const char *text, size_t len, bool bracketed)
{
    uint8_t addr[16];

    if (bracketed)
        return is_address(AF_INET6, text, len, addr);
    return is_address(AF_INET, text, len, addr) || is_dns_name(text, len);
}

int spec_value_host(const char *text, size_t len, char **out, struct err *err)
{
    if (!is_host(text, len, false) && !is_host(text, len, true))
        return err_set(err, ERR_INVALID, "%s is not a host; give a name like chat.example.org or an address",
                       SPEC_QUOTE(text, len));
    *out = lowered(text, len);
    return 0;
}

struct authority {
    const char *host; /* without brackets */
    size_t host_len;
    bool bracketed;
    bool has_port;
    uint16_t port;
};

/* host[:port]; err says what is wrong of which part. */
static int authority_parse(const char *text, size_t len, struct authority *a, struct err *err)
{
    const char *close = len && text[0] == '[' ? memchr(text, ']', len) : NULL;
    const char *rest;
    uint64_t port = 0;

    *a = (struct authority){.host = text, .bracketed = close != NULL};
    if (close) {
        a->host = text + 1;
        a->host_len = (size_t)(close - text) - 1;
        rest = close + 1;
    } else {
        const char *colon = memchr(text, ':', len);

        a->host_len = colon ? (size_t)(colon - text) : len;
        rest = text + a->host_len;
    }
    len -= (size_t)(rest - text);
    if (!a->host_len)
        return err_set(err, ERR_INVALID, "has no host; give a name, an IPv4 address or an IPv6 one in [ ]");
    if (!is_host(a->host, a->host_len, a->bracketed))
        return err_set(err, ERR_INVALID,
                       "has %s for a host; give a name, an IPv4 address or an IPv6 one in [ ]",
                       SPEC_QUOTE(a->host, a->host_len));
    if (!len)
        return 0;
    if (rest[0] != ':')
        return err_set(err, ERR_INVALID, "goes on behind the ] with something else than :port");
    if (spec_value_uint(rest + 1, len - 1, 1, 65535, &port, err))
        return err_set(err, ERR_INVALID, "has %s for a port; give a number from 1 to 65535",
                       SPEC_QUOTE(rest + 1, len - 1));
    a->port = (uint16_t)port;
    a->has_port = true;
    return 0;
}

int spec_value_authority(const char *text, size_t len, char **out, struct err *err)
{
    struct authority a;

    if (authority_parse(text, len, &a, err))
        return -1;
    *out = lowered(text, len);
    return 0;
}

/* Past "ws://" or "wss://", or NULL. */
static const char *url_scheme(const char *text, size_t len, bool *tls, struct err *err)
{
    static const char form[] = "give ws://HOST[:PORT] or wss://HOST[:PORT]";
    const char *sep = memmem(text, len, "://", 3);
    size_t n = sep ? (size_t)(sep - text) : 0;
    cleanup_free char *low = NULL;

    /* Not quoted with an @: what stands before it may be a password. */
    if (!sep || memchr(text, '@', n)) {
        err_set(err, ERR_INVALID, "%s has no scheme; %s",
                memchr(text, '@', len) ? "it" : SPEC_QUOTE(text, len), form);
        return NULL;
    }
    low = lowered(text, n);
    *tls = !strcmp(low, "wss");
    if ((*tls && !memcmp(text, "wss", 3)) || (n == 2 && !memcmp(text, "ws", 2)))
        return sep + 3;
    if (*tls || !strcmp(low, "ws"))
        err_set(err, ERR_INVALID, "scheme %s is not in lower case; write %s", SPEC_QUOTE(text, n), low);
    else if (!strcmp(low, "http") || !strcmp(low, "https"))
        err_set(err, ERR_INVALID, "%s is not a scheme of WebSocket; write %s", SPEC_QUOTE(text, n),
                strcmp(low, "http") ? "wss" : "ws");
    else
        err_set(err, ERR_INVALID, "scheme %s is neither ws nor wss; %s", SPEC_QUOTE(text, n), form);
    return NULL;
}

static int has_user(struct err *err)
{
    return err_set(err, ERR_INVALID, "has a user name (@); leave it out, use headers.set for credentials");
}

int spec_value_url(const char *text, size_t len, struct spec_url *out, struct err *err)
{
    const char *at, *end = text + len, *slash;
    struct authority a;
    bool tls;

    if (len > SPEC_MAX_URL)
        return err_set(err, ERR_INVALID, "is %zu bytes long; a URL may have %d", len, SPEC_MAX_URL);
    for (size_t i = 0; i < len; i++)
        if (text[i] <= 0x20 || text[i] >= 0x7f) /* char may be signed: bytes above 0x7f are below 0 then */
            return err_set(
                err, ERR_INVALID,
                "has a space, a control or a non-ASCII character at byte %zu; leave it out or escape it",
                i + 1);
    at = url_scheme(text, len, &tls, err);
    if (!at)
        return -1;
    for (slash = at; slash < end && *slash != '/' && *slash != '?' && *slash != '#'; slash++)
        ;
    if (memchr(at, '@', (size_t)(slash - at)))
        return has_user(err);
    if (memchr(slash, '#', (size_t)(end - slash)))
        return err_set(err, ERR_INVALID, "has a fragment (#), which is never sent; leave it out");
    /* A password with a slash in it: what stands before that is not to be quoted. */
    if (authority_parse(at, (size_t)(slash - at), &a, err))
        return memchr(slash, '@', (size_t)(end - slash)) ? has_user(err) : -1;
    *out = (struct spec_url){
        .tls = tls,
        .host = lowered(a.host, a.host_len),
        .port = a.has_port ? a.port
                : tls      ? 443
                           : 80,
        .text = spec_copy(text, len),
    };
    return 0;
}

static bool is_scheme(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = lower(text[i]);

        if (!(c >= 'a' && c <= 'z') && (!i || (!is_digit(c) && c != '+' && c != '-' && c != '.')))
            return false;
    }
    return len > 0;
}

static uint16_t default_port(const char *scheme)
{
    if (!strcmp(scheme, "http") || !strcmp(scheme, "ws"))
        return 80;
    if (!strcmp(scheme, "https") || !strcmp(scheme, "wss"))
        return 443;
    return 0;
}

int spec_value_origin(const char *text, size_t len, char **out, struct err *err)
{
    const char *sep = memmem(text, len, "://", 3);
    size_t scheme_len = sep ? (size_t)(sep - text) : 0;
    cleanup_free char *scheme = NULL;
    struct authority a;

    if (len == 4 && !memcmp(text, "null", 4)) {
        *out = spec_copy(text, len);
        return 0;
    }
    if (memchr(text, '*', len))
        return err_set(
            err, ERR_INVALID,
            "%s is a pattern and origins are compared exactly; list each one, or leave allowedOrigins "
            "out to let all pass",
            SPEC_QUOTE(text, len));
    if (!sep || !is_scheme(text, scheme_len))
        return err_set(err, ERR_INVALID, "%s is not an origin; give SCHEME://HOST[:PORT]",
                       SPEC_QUOTE(text, len));
    if (len > SPEC_MAX_URL || memchr(sep + 3, '/', len - scheme_len - 3))
        return err_set(err, ERR_INVALID, "%s has more than an origin; end it behind the host and port",
                       SPEC_QUOTE(text, len));
    if (authority_parse(sep + 3, len - scheme_len - 3, &a, err))
        return -1;
    scheme = lowered(text, scheme_len);
    if (a.has_port && a.port == default_port(scheme))
        return err_set(err, ERR_INVALID,
                       "browsers leave the default port %u out of an origin; leave it out here", a.port);
    *out = lowered(text, len);
    return 0;
}

static bool host_bits_zero(const struct spec_cidr *c)
{
    for (unsigned bit = c->bits; bit < 128; bit++)
        if (c->addr[bit / 8] & (0x80u >> bit % 8))
            return false;
    return true;
}

static void host_bits_clear(struct spec_cidr *c)
{
    for (unsigned bit = c->bits; bit < 128; bit++)
        c->addr[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
}

int spec_value_cidr(const char *text, size_t len, struct spec_cidr *out, struct err *err)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const char *slash = memchr(text, '/', len);
    size_t addr_len = slash ? (size_t)(slash - text) : len;
    struct spec_cidr c = {0};
    bool v4 = is_address(AF_INET, text, addr_len, c.addr);
    unsigned most = v4 ? 32 : 128;
    uint64_t bits = most;

    if (v4) {
        memmove(c.addr + 12, c.addr, 4);
        memcpy(c.addr, mapped, sizeof mapped);
    } else if (!is_address(AF_INET6, text, addr_len, c.addr)) {
        return err_set(err, ERR_INVALID,
                       "%s is not a network; give one like 10.0.0.0/8, fd00::/8 or 192.0.2.7",
                       SPEC_QUOTE(text, len));
    }
    if (slash && spec_value_uint(slash + 1, len - addr_len - 1, 0, most, &bits, err))
        return err_set(err, ERR_INVALID, "%s has a wrong prefix length; give 0 to %u", SPEC_QUOTE(text, len),
                       most);
    c.bits = (uint8_t)(v4 ? bits + 96 : bits);
    if (!host_bits_zero(&c)) {
        char right[INET6_ADDRSTRLEN] = "";

        host_bits_clear(&c);
        inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? c.addr + 12 : c.addr, right, sizeof right);
        return err_set(err, ERR_INVALID, "%s has bits set behind its prefix; write %s/%u",
                       SPEC_QUOTE(text, len), right, (unsigned)bits);
    }
    *out = c;
    return 0;
}

static bool ipv4_is_local(const uint8_t four[4])
{
    static const uint8_t metadata[][4] = {{100, 100, 100, 200}, {168, 63, 129, 16}}; /* Alibaba's, Azure's */

    return four[0] == 0 || four[0] == 127 || (four[0] == 169 && four[1] == 254) ||
           !memcmp(four, metadata[0], 4) || !memcmp(four, metadata[1], 4);
}

bool spec_address_is_local(const uint8_t addr[16])
{
    static const uint8_t zero[16], mapped[12] = {[10] = 0xff, [11] = 0xff}, nat64[12] = {0, 0x64, 0xff, 0x9b};
    static const uint8_t metadata[][16] = {{0xfd, 0, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54},  /* Amazon's */
                                           {0xfd, 0x20, 0, 0xce, [14] = 0x02, [15] = 0x54}}; /* Google's */

    if (!memcmp(addr, mapped, 12) || !memcmp(addr, nat64, 12) || !memcmp(addr, zero, 12))
        return ipv4_is_local(addr + 12); /* ::1 and :: are 0.0.0.1 and 0.0.0.0 among the last */
    if (addr[0] == 0x20 && addr[1] == 0x02)
        return ipv4_is_local(addr + 2);
    return (addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80) || !memcmp(addr, metadata[0], 16) ||
           !memcmp(addr, metadata[1], 16);
}

bool spec_host_is_local(const char *host)
{
    static const char name[] = "localhost";
    size_t len = strlen(host), tail = sizeof name - 1;
    uint8_t addr[16] = {[10] = 0xff, [11] = 0xff};

    if (inet_pton(AF_INET, host, addr + 12) == 1 || inet_pton(AF_INET6, host, addr) == 1)
        return spec_address_is_local(addr);
    return len >= tail && !strcmp(host + len - tail, name) && (len == tail || host[len - tail - 1] == '.');
}
