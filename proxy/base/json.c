#include "base/json.h"

#include <stdio.h>
#include <string.h>

/* Length of the UTF-8 sequence at p and the character it means; 0: it is none. */
static size_t utf8_len(const uint8_t *p, size_t left, uint32_t *c)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n;

    if (*p >= 0xC2 && *p <= 0xDF)
        n = 2;
    else if (*p >= 0xE0 && *p <= 0xEF)
        n = 3;
    else if (*p >= 0xF0 && *p <= 0xF4)
        n = 4;
    else
        return 0;
    if (n > left)
        return 0;
    *c = (uint32_t)(*p & (0xFF >> (n + 1)));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        *c = *c << 6 | (p[i] & 0x3F);
    }
    return *c < least[n] || *c > 0x10FFFF || (*c >= 0xD800 && *c <= 0xDFFF) ? 0 : n;
}

size_t json_plain_len(const uint8_t *p, size_t len)
{
    size_t n = 0;

    while (n < len && p[n] >= 0x20 && p[n] < 0x7F && p[n] != '"' && p[n] != '\\')
        n++;
    return n;
}

size_t json_escape(const uint8_t *p, size_t left, char out[8], size_t *take)
{
    uint32_t c = *p;
    size_t n = *p >= 0x80 ? utf8_len(p, left, &c) : 0;

    *take = n ? n : 1;
    if (n && c >= 0xA0) {
        memcpy(out, p, n);
        return n;
    }
    if (c == '"' || c == '\\') {
        out[0] = '\\';
        out[1] = (char)c;
        return 2;
    }
    return (size_t)snprintf(out, 8, "\\u%04x", n ? c : *p);
}

void json_init(struct json *j, struct buf *out)
{
    *j = (struct json){.out = out};
}

static void add(struct json *j, const void *bytes, size_t len)
{
    if (!j->failed && buf_add(j->out, bytes, len))
        j->failed = true;
}

static void add_string(struct json *j, const char *text)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t len = strlen(text);

    add(j, "\"", 1);
    for (size_t i = 0, take; i < len; i += take) {
        char escaped[8];

        take = json_plain_len(p + i, len - i);
        if (take)
            add(j, p + i, take);
        else
            add(j, escaped, json_escape(p + i, len - i, escaped, &take));
    }
    add(j, "\"", 1);
}

static void begin(struct json *j, const char *key)
{
    if (j->comma)
        add(j, ",", 1);
    j->comma = true;
    if (key) {
        add_string(j, key);
        add(j, ":", 1);
    }
}

void json_open(struct json *j, const char *key, char bracket)
{
    begin(j, key);
    add(j, &bracket, 1);
    j->comma = false;
}

void json_close(struct json *j, char bracket)
{
    add(j, &bracket, 1);
    j->comma = true;
}

void json_str(struct json *j, const char *key, const char *text)
{
    begin(j, key);
    if (text)
        add_string(j, text);
    else
        add(j, "null", 4);
}

void json_num(struct json *j, const char *key, uint64_t n)
{
    char text[24];

    begin(j, key);
    add(j, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)n));
}

void json_bool(struct json *j, const char *key, bool b)
{
    begin(j, key);
    add(j, b ? "true" : "false", b ? 4 : 5);
}

void json_time(struct json *j, const char *key, time_t at)
{
    char text[32];
    struct tm tm;

    if (at && gmtime_r(&at, &tm) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
        json_str(j, key, text);
    else
        json_str(j, key, NULL);
}
