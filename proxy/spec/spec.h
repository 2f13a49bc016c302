/* spec.h - what a file of WebSocketServer documents says: plain data, the contract of the two uses
 * Shape:   one struct spec_server a document, in the order of the file; absent values stand as their defaults
 * Units:   *_ms milliseconds (0 = off), *_bytes bytes (0 = none), ports in host order
 * Owner:   spec_free frees all; strings and PEM bytes belong to the spec
 * Errors:  never one at a time: every problem of a file goes to struct spec_problems with its line and column
 * Limits:  SPEC_MAX_*; libyaml aliases, tags and merge keys are refused
 * Threads: any; nothing is shared
 * Source:  the WebSocketServer of Easegress v1.2-v2.1 (port, https, backend, *Base64) and our extensions */
#ifndef PROXY_SPEC_SPEC_H
#define PROXY_SPEC_SPEC_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define SPEC_MAX_BYTES (64u * 1024 * 1024) /* 4,096 servers with inline certificates fit */
/* What spec_emit may need for 4,096 servers with their files inlined, 64 KiB each; to be parsed document by document. */
#define SPEC_MAX_EMIT_BYTES (256u * 1024 * 1024)
#define SPEC_MAX_SERVERS    4096
#define SPEC_MAX_DEPTH      8
#define SPEC_MAX_LIST       256
#define SPEC_MAX_WEIGHT     1000000
#define SPEC_MAX_SCALAR     (1536u * 1024) /* the base64 of SPEC_MAX_CA_BYTES, in lines */
#define SPEC_MAX_PEM_BYTES  65536          /* a certificate chain or a key, given inline or as a file */
#define SPEC_MAX_CA_BYTES   (1024u * 1024) /* a CA may be a system's whole bundle */
#define SPEC_MAX_PROBLEMS   1000
#define SPEC_MAX_HEADERS_BYTES                                                                               \
    8192u                 /* all names and values of headers.set, so that a head still fits HEAD_MAX_BYTES */
#define SPEC_MAX_NAME 317 /* namespace/name: 63 + 1 + 253 */

/* Where a value stood, counted from 1; 0 when the value was not in a file. */
struct spec_pos {
    uint32_t line, column;
};

/* PEM text as OpenSSL reads it, decoded from *Base64 or read from *File by spec_load. */
struct spec_pem {
    uint8_t *data; /* NULL: absent */
    size_t len;
    char *file; /* the path that was given, or NULL: given inline */
    struct spec_pos pos;
};

struct spec_url {
    bool tls;      /* wss */
    char *host;    /* a name, IPv4, or IPv6 without brackets; lower case */
    uint16_t port; /* 80 and 443 filled in */
    char *text;    /* as it was written */
    struct spec_pos pos;
};

struct spec_strings {
    char **items;
    struct spec_pos *pos;
    size_t count;
};

/* One of `backends`. */
struct spec_backend {
    struct spec_url url;
    uint32_t weight; /* default 1; 0: dialled only when no other can be */
    char *host;      /* host[:port] that keepHost: false sends, as it stands; NULL: that of the URL */
    struct spec_pos pos;
};

struct spec_header {
    char *name, *value;
    struct spec_pos pos;
};

/* A network: the first `bits` bits of addr; IPv4 stands as ::ffff:a.b.c.d with bits + 96. */
struct spec_cidr {
    uint8_t addr[16];
    uint8_t bits;
    struct spec_pos pos;
};

enum spec_tls_version { SPEC_TLS_1_2 = 0, SPEC_TLS_1_3 };

struct spec_server {
    struct spec_pos pos; /* of the document's first key */
    char *name;
    bool https;
    uint16_t port;
    struct spec_pos name_pos, https_pos, port_pos;
    struct spec_url backend; /* text NULL: `backends` was given */
    bool backends_given;     /* an empty list is valid and answers 503 */
    struct spec_backend *backends;
    size_t backend_count;
    struct spec_pos backends_pos;

    struct spec_pem cert, key;         /* certBase64 + keyBase64, or tls.certFile + tls.keyFile */
    struct spec_pem wss_cert, wss_key; /* wssCertBase64 + wssKeyBase64 */

    bool tls_given;
    struct {
        enum spec_tls_version min_version;
        struct spec_pem
            client_ca; /* clientCAFile or clientCABase64; given: clients must show a certificate */
        struct spec_pos pos;
    } tls;

    bool backend_tls_given;
    struct {
        struct spec_pem ca; /* caFile or caBase64; given: replaces the system roots */
        char *server_name;  /* NULL: the backend's host */
        bool insecure_skip_verify;
        struct spec_pos pos;
    } backend_tls;

    struct spec_strings allowed_origins; /* empty list absent: every Origin passes */

    struct {
        struct spec_header *set;
        size_t set_count;
        struct spec_strings remove;
        bool keep_host; /* default true */
    } headers;

    struct spec_cidr *trusted_proxies;
    size_t trusted_proxy_count;

    struct {
        uint32_t connect_ms;   /* default 5000, an address */
        uint32_t handshake_ms; /* default 10000 */
        uint32_t idle_ms;      /* default 0: off */
        uint32_t max_age_ms;   /* default 0: off */
        uint32_t drain_ms;     /* default 30000; 0: at once */
    } timeouts;

    struct {
        uint32_t interval_ms; /* default 0: off */
        uint32_t timeout_ms;  /* default 10000 */
    } ping;

    struct {
        uint64_t client_max_message_bytes, backend_max_message_bytes;
        uint32_t max_connections, max_connections_per_ip, handshakes_per_second; /* 0: none */
    } limits;

    bool bad; /* set by spec_load_bytes: a problem names this document, so it is not to be served */
};

struct spec {
    struct spec_server *servers;
    size_t count;
};

struct spec_problem {
    struct spec_pos pos;
    char *server; /* its name, NULL when the document has none */
    char *text;   /* `port: 70000 is out of range; give a port from 1 to 65535` */
};

struct spec_problems {
    struct spec_problem *items;
    size_t count;
    bool cut; /* more than SPEC_MAX_PROBLEMS */
};

/* YAML bytes -> spec. Every problem of syntax, type, key and range is added; returns 0 when none was, else -1.
 * `out` is filled on 0 only. Files are not opened: spec_pem.file holds the path. */
__attribute__((warn_unused_result)) int spec_parse(const uint8_t *bytes, size_t len, struct spec *out,
                                                   struct spec_problems *problems);
/* Reads each *File into its spec_pem. */
__attribute__((warn_unused_result)) int spec_read_files(struct spec *s, struct spec_problems *problems);
/* The rules across fields and documents: required ones, pairs, duplicates, certificates that match their keys.
 * certBase64 without https, wssCertBase64 or backendTLS with a ws backend: refused, where the original looked away. */
__attribute__((warn_unused_result)) int spec_check(const struct spec *s, struct spec_problems *problems);
struct spec_cert; /* spec_cert.h: what is known of certificates, kept from one reading to the next */
/* Bytes -> parsed, files read, checked; for who serves what is good and leaves out what is wrong. 0: every document
 * stands in `out`, `bad` when a problem belongs to it, as one does to each without a name or of another kind; of two
 * with one name or one port it is the later. -1: nothing can be judged and `out` is empty: no YAML, a limit of the
 * whole file passed, more than SPEC_MAX_PROBLEMS. */
__attribute__((warn_unused_result)) int spec_load_bytes(const uint8_t *bytes, size_t len,
                                                        struct spec_cert *certs, struct spec *out,
                                                        struct spec_problems *problems);
/* A file's bytes, for spec_load_bytes; `b` comes with its limit, SPEC_MAX_BYTES. They may hold keys. */
__attribute__((warn_unused_result)) int spec_read(const char *path, struct buf *b,
                                                  struct spec_problems *problems);
/* Both; -1 and nothing in `out` at the first problem, however small. The whole of `--check`. */
__attribute__((warn_unused_result)) int spec_load(const char *path, struct spec *out,
                                                  struct spec_problems *problems);
/* spec -> YAML, the documents in their order, defaults left out; equal specs give equal bytes and
 * spec_parse(spec_emit(s)) equals s but for positions and for what was read from files (their paths are emitted).
 * Each document begins with a line "---", and no other line is like that: the text can be cut there. */
__attribute__((warn_unused_result)) int spec_emit(const struct spec *s, struct buf *out, struct err *err);
/* One document of it. */
__attribute__((warn_unused_result)) int spec_emit_server(const struct spec_server *s, struct buf *out,
                                                         struct err *err);

/* Forgets the names of the files that were read, so that their content is emitted instead. */
void spec_server_inline(struct spec_server *s);
#define SPEC_MAX_FILES 4
/* The files that a document names, good or bad, into `paths`; borrowed. Returns how many. */
size_t spec_server_files(const struct spec_server *s, const char *paths[SPEC_MAX_FILES]);

/* Equal in everything but positions and `bad`. */
bool spec_server_equal(const struct spec_server *a, const struct spec_server *b);
void spec_free(struct spec *s);
/* Frees what it holds and leaves it empty. */
void spec_server_free(struct spec_server *s);

void spec_problem_add(struct spec_problems *p, struct spec_pos pos, const char *server, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* `FILE:12:7: server "a": port: 70000 is out of range; ...`, one a line, sorted by position */
void spec_problems_print(const struct spec_problems *p, const char *file, FILE *to);
void spec_problems_free(struct spec_problems *p);

#endif
