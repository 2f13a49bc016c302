#include "kube/kube_path.h"

#include "base/need.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES  253
#define LABEL_BYTES 63

static bool is_inner(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Letters, digits and dashes, none of these at an end. */
static bool label_ok(const char *p, size_t len)
{
    if (!len || !is_inner(p[0]) || !is_inner(p[len - 1]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_inner(p[i]) && p[i] != '-')
            return false;
    return true;
}

bool kube_path_label_ok(const char *name)
{
    size_t len = strnlen(name, LABEL_BYTES + 1);

    return len <= LABEL_BYTES && label_ok(name, len);
}

bool kube_path_name_ok(const char *name)
{
    size_t len = strnlen(name, NAME_BYTES + 1);
    const char *end = name + len;

    if (len > NAME_BYTES)
        return false;
    /* A part between dots may be longer than a label: only the whole is bounded (apimachinery IsDNS1123Subdomain). */
    for (const char *p = name;; p++) {
        size_t part = (size_t)(end - p);
        const char *dot = memchr(p, '.', part);

        if (!label_ok(p, dot ? (size_t)(dot - p) : part))
            return false;
        if (!dot)
            return true;
        p = dot;
    }
}

/* Everything but RFC 3986's unreserved characters becomes %XX. */
static char *escaped(const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = need(malloc(strlen(text) * 3 + 1)), *w = out;

    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if ((*p >= 'A' && *p <= 'Z') || is_inner((char)*p) || strchr("-._~", *p)) {
            *w++ = (char)*p;
            continue;
        }
        *w++ = '%';
        *w++ = hex[*p >> 4];
        *w++ = hex[*p & 15];
    }
    *w = '\0';
    return out;
}

/* PATH/SEGMENT; nothing without one. */
static void add_segment(char **path, const char *segment)
{
    char *safe, *longer;

    if (!segment)
        return;
    safe = escaped(segment);
    longer = need_printf("%s/%s", *path, safe);
    free(safe);
    free(*path);
    *path = longer;
}

char *kube_path(const char *group, const char *version, const char *ns, const char *plural, const char *name,
                const char *sub)
{
    char *path = need_printf("%s", *group ? "/apis" : "/api");

    assert(!ns || kube_path_label_ok(ns));
    assert(!name || kube_path_name_ok(name));
    add_segment(&path, *group ? group : NULL);
    add_segment(&path, version);
    if (ns) {
        add_segment(&path, "namespaces");
        add_segment(&path, ns);
    }
    add_segment(&path, plural);
    add_segment(&path, name);
    add_segment(&path, sub);
    return path;
}

void kube_path_query(char **path, const char *key, const char *value)
{
    char *safe_key = escaped(key), *safe_value = escaped(value);
    char *longer = need_printf("%s%c%s=%s", *path, strchr(*path, '?') ? '&' : '?', safe_key, safe_value);

    free(safe_key);
    free(safe_value);
    free(*path);
    *path = longer;
}
