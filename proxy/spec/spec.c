#include "spec/spec.h"

#include "base/cleanup.h"
#include "spec/spec_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

char *spec_copy(const char *text, size_t len)
{
    char *copy = need(malloc(len + 1));

    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void *spec_grow(void *items, size_t count, size_t each_bytes)
{
    /* Doubles at each power of two, so that no capacity has to be kept beside the public arrays. */
    if (!(count & (count - 1)))
        items = need(realloc(items, (count ? count * 2 : 1) * each_bytes));
    memset((char *)items + count * each_bytes, 0, each_bytes);
    return items;
}

enum base64_kind { BASE64_NOT = 0, BASE64_SIGN = 1, BASE64_LOWER = 2, BASE64_UPPER = 4, BASE64_DIGIT = 8 };

static unsigned base64_kind(char c)
{
    if (c >= 'a' && c <= 'z')
        return BASE64_LOWER;
    if (c >= 'A' && c <= 'Z')
        return BASE64_UPPER;
    if (c >= '0' && c <= '9')
        return BASE64_DIGIT;
    return c == '+' || c == '/' || c == '=' ? BASE64_SIGN : BASE64_NOT;
}

/* What is random has digits or both cases; a path or a name may have neither. */
static bool looks_random(unsigned kinds)
{
    return kinds & BASE64_DIGIT || (kinds & BASE64_LOWER && kinds & BASE64_UPPER);
}

/* A key or a password that was put into a field which is quoted: PEM, a long run of base64, what stands before an @. */
static bool may_be_secret(const char *text, size_t len)
{
    unsigned kinds = 0;
    size_t run = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned kind = base64_kind(text[i]);

        run = kind ? run + 1 : 0;
        kinds = kind ? kinds | kind : 0;
        if ((run >= SPEC_SECRET_CHARS && looks_random(kinds)) || text[i] == '@' ||
            (text[i] == '-' && len - i >= 10 && !memcmp(text + i, "-----BEGIN", 10)))
            return true;
    }
    return false;
}

const char *spec_quote(struct spec_quote *q, const char *text, size_t len)
{
    size_t n = 0;

    if (may_be_secret(text, len)) {
        snprintf(q->text, sizeof q->text, "a text that may be a secret");
        return q->text;
    }
    q->text[n++] = '"';
    for (size_t i = 0; i < len && i < SPEC_QUOTE_CHARS; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c >= 0x20 && c < 0x7f)
            q->text[n++] = (char)c;
        else
            n += (size_t)snprintf(q->text + n, sizeof q->text - n, "\\x%02x", c);
    }
    snprintf(q->text + n, sizeof q->text - n, "%s\"", len > SPEC_QUOTE_CHARS ? "..." : "");
    return q->text;
}

static void pem_free(struct spec_pem *p)
{
    if (p->data)
        explicit_bzero(p->data, p->len);
    free(p->data);
    free(p->file);
}

static void strings_free(struct spec_strings *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->items[i]);
    free(s->items);
    free(s->pos);
}

static void url_free(struct spec_url *u)
{
    free(u->host);
    free(u->text);
}

void spec_backend_free(struct spec_backend *b)
{
    url_free(&b->url);
    free(b->host);
}

void spec_server_free(struct spec_server *s)
{
    free(s->name);
    url_free(&s->backend);
    for (size_t i = 0; i < s->backend_count; i++)
        spec_backend_free(&s->backends[i]);
    free(s->backends);
    pem_free(&s->cert);
    pem_free(&s->key);
    pem_free(&s->wss_cert);
    pem_free(&s->wss_key);
    pem_free(&s->tls.client_ca);
    pem_free(&s->backend_tls.ca);
    free(s->backend_tls.server_name);
    strings_free(&s->allowed_origins);
    strings_free(&s->headers.remove);
    for (size_t i = 0; i < s->headers.set_count; i++) {
        free(s->headers.set[i].name);
        free(s->headers.set[i].value);
    }
    free(s->headers.set);
    free(s->trusted_proxies);
    *s = (struct spec_server){0};
}

void spec_free(struct spec *s)
{
    for (size_t i = 0; i < s->count; i++)
        spec_server_free(&s->servers[i]);
    free(s->servers);
    *s = (struct spec){0};
}

static bool text_equal(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static bool pem_equal(const struct spec_pem *a, const struct spec_pem *b)
{
    if (!text_equal(a->file, b->file) || !a->data != !b->data)
        return false;
    return !a->data || (a->len == b->len && !memcmp(a->data, b->data, a->len));
}

static bool strings_equal(const struct spec_strings *a, const struct spec_strings *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    return true;
}

static bool url_equal(const struct spec_url *a, const struct spec_url *b)
{
    return a->tls == b->tls && a->port == b->port && text_equal(a->host, b->host) &&
           text_equal(a->text, b->text);
}

static bool backends_equal(const struct spec_server *a, const struct spec_server *b)
{
    if (!url_equal(&a->backend, &b->backend) || a->backends_given != b->backends_given ||
        a->backend_count != b->backend_count)
        return false;
    for (size_t i = 0; i < a->backend_count; i++)
        if (!url_equal(&a->backends[i].url, &b->backends[i].url) ||
            a->backends[i].weight != b->backends[i].weight ||
            !text_equal(a->backends[i].host, b->backends[i].host))
            return false;
    return true;
}

static bool tls_equal(const struct spec_server *a, const struct spec_server *b)
{
    return pem_equal(&a->cert, &b->cert) && pem_equal(&a->key, &b->key) &&
           pem_equal(&a->wss_cert, &b->wss_cert) && pem_equal(&a->wss_key, &b->wss_key) &&
           a->tls_given == b->tls_given && a->tls.min_version == b->tls.min_version &&
           pem_equal(&a->tls.client_ca, &b->tls.client_ca) && a->backend_tls_given == b->backend_tls_given &&
           pem_equal(&a->backend_tls.ca, &b->backend_tls.ca) &&
           text_equal(a->backend_tls.server_name, b->backend_tls.server_name) &&
           a->backend_tls.insecure_skip_verify == b->backend_tls.insecure_skip_verify;
}

static bool headers_equal(const struct spec_server *a, const struct spec_server *b)
{
    if (a->headers.set_count != b->headers.set_count || a->headers.keep_host != b->headers.keep_host ||
        !strings_equal(&a->headers.remove, &b->headers.remove))
        return false;
    for (size_t i = 0; i < a->headers.set_count; i++)
        if (strcmp(a->headers.set[i].name, b->headers.set[i].name) != 0 ||
            strcmp(a->headers.set[i].value, b->headers.set[i].value) != 0)
            return false;
    return true;
}

static bool proxies_equal(const struct spec_server *a, const struct spec_server *b)
{
    if (a->trusted_proxy_count != b->trusted_proxy_count)
        return false;
    for (size_t i = 0; i < a->trusted_proxy_count; i++)
        if (a->trusted_proxies[i].bits != b->trusted_proxies[i].bits ||
            memcmp(a->trusted_proxies[i].addr, b->trusted_proxies[i].addr, 16) != 0)
            return false;
    return true;
}

static bool limits_equal(const struct spec_server *a, const struct spec_server *b)
{
    return a->limits.client_max_message_bytes == b->limits.client_max_message_bytes &&
           a->limits.backend_max_message_bytes == b->limits.backend_max_message_bytes &&
           a->limits.max_connections == b->limits.max_connections &&
           a->limits.max_connections_per_ip == b->limits.max_connections_per_ip &&
           a->limits.handshakes_per_second == b->limits.handshakes_per_second;
}

bool spec_server_equal(const struct spec_server *a, const struct spec_server *b)
{
    return text_equal(a->name, b->name) && a->https == b->https && a->port == b->port &&
           backends_equal(a, b) && tls_equal(a, b) &&
           strings_equal(&a->allowed_origins, &b->allowed_origins) && headers_equal(a, b) &&
           proxies_equal(a, b) && a->timeouts.connect_ms == b->timeouts.connect_ms &&
           a->timeouts.handshake_ms == b->timeouts.handshake_ms &&
           a->timeouts.idle_ms == b->timeouts.idle_ms && a->timeouts.max_age_ms == b->timeouts.max_age_ms &&
           a->timeouts.drain_ms == b->timeouts.drain_ms && a->ping.interval_ms == b->ping.interval_ms &&
           a->ping.timeout_ms == b->ping.timeout_ms && limits_equal(a, b);
}

void spec_server_inline(struct spec_server *s)
{
    struct spec_pem *const pems[SPEC_MAX_FILES] = {&s->cert, &s->key, &s->tls.client_ca, &s->backend_tls.ca};

    for (size_t i = 0; i < SPEC_MAX_FILES; i++) {
        if (!pems[i]->data)
            continue; /* not read: the name is all there is of it */
        free(pems[i]->file);
        pems[i]->file = NULL;
    }
}

size_t spec_server_files(const struct spec_server *s, const char *paths[SPEC_MAX_FILES])
{
    const char *const files[SPEC_MAX_FILES] = {s->cert.file, s->key.file, s->tls.client_ca.file,
                                               s->backend_tls.ca.file};
    size_t n = 0;

    for (size_t i = 0; i < SPEC_MAX_FILES; i++)
        if (files[i])
            paths[n++] = files[i];
    return n;
}

void spec_problem_add(struct spec_problems *p, struct spec_pos pos, const char *server, const char *fmt, ...)
{
    char text[1024];
    struct spec_problem *item;
    va_list ap;

    if (p->count >= SPEC_MAX_PROBLEMS) {
        p->cut = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->items = spec_grow(p->items, p->count, sizeof *p->items);
    item = &p->items[p->count++];
    item->pos = pos;
    item->server = server ? spec_copy(server, strlen(server)) : NULL;
    item->text = spec_copy(text, strlen(text));
}

static int by_position(const void *a, const void *b)
{
    const struct spec_problem *x = *(const struct spec_problem *const *)a;
    const struct spec_problem *y = *(const struct spec_problem *const *)b;

    if (x->pos.line != y->pos.line)
        return x->pos.line < y->pos.line ? -1 : 1;
    if (x->pos.column != y->pos.column)
        return x->pos.column < y->pos.column ? -1 : 1;
    return x < y ? -1 : x > y; /* qsort is not stable: as they were found */
}

void spec_problems_print(const struct spec_problems *p, const char *file, FILE *to)
{
    cleanup_free const struct spec_problem **sorted = NULL;

    if (!p->count)
        return;
    sorted = need(calloc(p->count, sizeof(struct spec_problem *)));
    for (size_t i = 0; i < p->count; i++)
        sorted[i] = &p->items[i];
    qsort(sorted, p->count, sizeof(struct spec_problem *), by_position);
    for (size_t i = 0; i < p->count; i++) {
        fprintf(to, "%s:", file);
        if (sorted[i]->pos.line)
            fprintf(to, "%u:%u:", sorted[i]->pos.line, sorted[i]->pos.column);
        if (sorted[i]->server)
            fprintf(to, " server \"%s\":", sorted[i]->server);
        fprintf(to, " %s\n", sorted[i]->text);
    }
    if (p->cut)
        fprintf(to, "%s: more than %d problems; the rest is not shown\n", file, SPEC_MAX_PROBLEMS);
}

void spec_problems_free(struct spec_problems *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->items[i].server);
        free(p->items[i].text);
    }
    free(p->items);
    *p = (struct spec_problems){0};
}
