/* spec_values.h - one scalar's text -> its value; no YAML here
 * Shape:   (text, len) -> value; the text may hold any byte
 * Units:   durations in milliseconds, sizes in bytes
 * Owner:   strings and bytes that come out are the caller's
 * Errors:  INVALID; msg is `what is wrong; what would be right`, without the field's name and never with PEM bytes
 * Limits:  SPEC_MAX_* of spec.h, SPEC_MAX_DURATION_MS, SPEC_MAX_PATH
 * Threads: any; pure
 * Source:  RFC 3986 (authority), RFC 9110 5.1, 5.5 and 7.6.1 (fields), RFC 4648 4, RFC 6454 6.2, Go's ParseDuration */
#ifndef PROXY_SPEC_SPEC_VALUES_H
#define PROXY_SPEC_SPEC_VALUES_H

#include "spec/spec.h"

#define SPEC_MAX_DURATION_MS (24u * 60 * 60 * 1000)
#define SPEC_MAX_PATH        4095
#define SPEC_MAX_URL         2048
#define SPEC_MAX_HEADER_NAME 256

#define SPEC_VALUE __attribute__((warn_unused_result)) int

/* [namespace/]name: letters, digits, '-' and '.', beginning and ending with a letter or digit. */
SPEC_VALUE spec_value_name(const char *text, size_t len, char **out, struct err *err);
SPEC_VALUE spec_value_bool(const char *text, size_t len, bool *out, struct err *err);
/* Decimal digits without sign or leading zero, least..most. */
SPEC_VALUE spec_value_uint(const char *text, size_t len, uint64_t least, uint64_t most, uint64_t *out,
                           struct err *err);
SPEC_VALUE spec_value_duration(const char *text, size_t len, bool zero_ok, uint32_t *ms, struct err *err);
/* ws://host[:port][/path], wss:// alike. */
SPEC_VALUE spec_value_url(const char *text, size_t len, struct spec_url *out, struct err *err);
/* A DNS name, IPv4, or IPv6 without brackets; comes out in lower case. */
SPEC_VALUE spec_value_host(const char *text, size_t len, char **out, struct err *err);
/* HOST[:PORT], IPv6 in brackets; comes out in lower case. */
SPEC_VALUE spec_value_authority(const char *text, size_t len, char **out, struct err *err);
/* White space inside is passed over; the rest is exact: alphabet, padding, no stray bits. */
SPEC_VALUE spec_value_base64(const char *text, size_t len, size_t max_bytes, uint8_t **out, size_t *out_len,
                             struct err *err);
SPEC_VALUE spec_value_path(const char *text, size_t len, char **out, struct err *err);
/* scheme://host[:port] as a browser sends it, scheme and host lowered; or "null". */
SPEC_VALUE spec_value_origin(const char *text, size_t len, char **out, struct err *err);
SPEC_VALUE spec_value_cidr(const char *text, size_t len, struct spec_cidr *out, struct err *err);
/* A field name that headers.set or headers.remove may touch. */
SPEC_VALUE spec_value_header_name(const char *text, size_t len, char **out, struct err *err);
SPEC_VALUE spec_value_header_value(const char *text, size_t len, char **out, struct err *err);
/* Loopback, link-local (most metadata services of clouds live there), unspecified, the metadata services elsewhere
 * (100.100.100.200, 168.63.129.16, fd00:ec2::254, fd20:ce::254), and the same IPv4 addresses inside ::ffff:0:0/96, ::/96,
 * 64:ff9b::/96 (NAT64) and 2002::/16 (6to4): where nobody's backend is, but much that trusts its neighbours (S47). */
bool spec_address_is_local(const uint8_t addr[16]);
/* A host as spec_value_host gives it: an address as above, or "localhost" and what ends in ".localhost". */
bool spec_host_is_local(const char *host);

#endif
