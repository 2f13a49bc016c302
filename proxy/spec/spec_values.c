#include "spec/spec_values.h"

#include "spec/spec_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool name_part(const char *text, size_t len, size_t most)
{
    if (!len || len > most || !is_alnum(text[0]) || !is_alnum(text[len - 1]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_alnum(text[i]) && text[i] != '-' && text[i] != '.')
            return false;
    return true;
}

int spec_value_name(const char *text, size_t len, char **out, struct err *err)
{
    const char *slash = memchr(text, '/', len);
    size_t space = slash ? (size_t)(slash - text) : 0;
    const char *name = slash ? slash + 1 : text;
    size_t name_len = slash ? len - space - 1 : len;

    if (len > SPEC_MAX_NAME || (slash && !name_part(text, space, 63)) || !name_part(name, name_len, 253))
        return err_set(
            err, ERR_INVALID,
            "%s is not a name; give letters, digits, '-' and '.', beginning and ending with a letter "
            "or digit, at most 253, perhaps with a namespace and one '/' in front",
            SPEC_QUOTE(text, len));
    *out = spec_copy(text, len);
    return 0;
}

static bool is_word(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && !memcmp(text, word, len);
}

int spec_value_bool(const char *text, size_t len, bool *out, struct err *err)
{
    if (is_word(text, len, "true") || is_word(text, len, "True") || is_word(text, len, "TRUE"))
        *out = true;
    else if (is_word(text, len, "false") || is_word(text, len, "False") || is_word(text, len, "FALSE"))
        *out = false;
    else
        return err_set(
            err, ERR_INVALID,
            "%s is neither true nor false; write true or false (yes, no, on and off are just words)",
            SPEC_QUOTE(text, len));
    return 0;
}

int spec_value_uint(const char *text, size_t len, uint64_t least, uint64_t most, uint64_t *out,
                    struct err *err)
{
    uint64_t n = 0;
    bool over = len > 19; /* 19 digits always fit */

    for (size_t i = 0; i < len; i++)
        if (text[i] < '0' || text[i] > '9')
            return err_set(err, ERR_INVALID, "%s is not a whole number; give digits only, from %llu to %llu",
                           SPEC_QUOTE(text, len), (unsigned long long)least, (unsigned long long)most);
    if (!len || (len > 1 && text[0] == '0'))
        return err_set(err, ERR_INVALID, "%s begins with 0 and could be meant octal; leave the zeros out",
                       SPEC_QUOTE(text, len));
    for (size_t i = 0; i < len && !over; i++)
        n = n * 10 + (uint64_t)(text[i] - '0');
    if (over || n < least || n > most)
        return err_set(err, ERR_INVALID, "%.*s is out of range; give a number from %llu to %llu",
                       len > 40 ? 40 : (int)len, text, (unsigned long long)least, (unsigned long long)most);
    *out = n;
    return 0;
}

/* "ms" before "m" and "s": the longest match wins. */
static const struct {
    const char *name;
    uint64_t ns;
} units[] = {
    {"ns", 1},       {"us", 1000},         {"\xc2\xb5s", 1000},       {"\xce\xbcs", 1000},
    {"ms", 1000000}, {"s", 1000000000ull}, {"m", 60 * 1000000000ull}, {"h", 3600 * 1000000000ull},
};

#define MAX_NS ((uint64_t)SPEC_MAX_DURATION_MS * 1000000)

/* One "12.5s" at *at; false when it is none. Anything above the limit comes out as MAX_NS + 1. */
static bool duration_part(const char *text, size_t len, size_t *at, uint64_t *ns, bool *whole)
{
    uint64_t number = 0, fraction = 0, scale = 1;
    size_t i = *at, digits = 0;

    for (; i < len && text[i] >= '0' && text[i] <= '9'; i++, digits++)
        if (number <= MAX_NS)
            number = number * 10 + (uint64_t)(text[i] - '0');
    if (i < len && text[i] == '.')
        for (i++; i < len && text[i] >= '0' && text[i] <= '9'; i++, digits++) {
            if (scale < 1000000) {
                fraction = fraction * 10 + (uint64_t)(text[i] - '0');
                scale *= 10;
            } else if (text[i] != '0') {
                *whole = false;
            }
        }
    for (size_t u = 0; digits && u < sizeof units / sizeof *units; u++) {
        size_t n = strlen(units[u].name);

        if (len - i < n || memcmp(text + i, units[u].name, n) != 0)
            continue;
        if (fraction * units[u].ns % scale)
            *whole = false;
        *ns = number > MAX_NS / units[u].ns ? MAX_NS + 1
                                            : number * units[u].ns + fraction * units[u].ns / scale;
        *at = i + n;
        return true;
    }
    return false;
}

int spec_value_duration(const char *text, size_t len, bool zero_ok, uint32_t *ms, struct err *err)
{
    uint64_t ns = 0, part = 0;
    bool whole = true;
    size_t at = 0;

    if (!is_word(text, len, "0"))
        do {
            if (!duration_part(text, len, &at, &part, &whole))
                return err_set(err, ERR_INVALID,
                               "%s is not a duration; give numbers with units, like 5s, 1m30s or 300ms",
                               SPEC_QUOTE(text, len));
            ns = ns + part > MAX_NS ? MAX_NS + 1 : ns + part;
        } while (at < len);
    if (ns > MAX_NS)
        return err_set(err, ERR_INVALID, "%s is too long; give at most 24h", SPEC_QUOTE(text, len));
    if (!whole || ns % 1000000)
        return err_set(err, ERR_INVALID, "%s is finer than a millisecond; give whole milliseconds",
                       SPEC_QUOTE(text, len));
    if (!ns && !zero_ok)
        return err_set(err, ERR_INVALID, "must be above 0; leave it out for the default");
    *ms = (uint32_t)(ns / 1000000);
    return 0;
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Into `out`, which has room; returns NULL or what is wrong. Says nothing of the content: it may be a key. */
static const char *base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    uint32_t bits = 0;
    size_t digits = 0, pads = 0, n = 0;

    for (size_t i = 0; i < len; i++) {
        int d = base64_digit(text[i]);

        if (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t')
            continue;
        if (text[i] == '=') {
            pads++;
            continue;
        }
        if (d < 0)
            return text[i] == '-' || text[i] == '_'
                       ? "is in the URL form of base64; use the standard form (+ and /)"
                       : "is not base64; give the output of `base64 -w0 FILE`";
        if (pads)
            return "is not base64: it goes on behind the padding; give the output of `base64 -w0 FILE`";
        bits = bits << 6 | (uint32_t)d;
        if (++digits % 4 == 0) {
            out[n++] = (uint8_t)(bits >> 16);
            out[n++] = (uint8_t)(bits >> 8);
            out[n++] = (uint8_t)bits;
            bits = 0;
        }
    }
    if (digits % 4 == 1 || pads != (4 - digits % 4) % 4)
        return "is not whole base64: digits or padding (=) are missing or too many; give the output of "
               "`base64 -w0 FILE`";
    if ((digits % 4 == 2 && bits & 0xf) || (digits % 4 == 3 && bits & 0x3))
        return "is not base64 as encoders write it: unused bits are set; give the output of `base64 -w0 "
               "FILE`";
    if (digits % 4 == 2) {
        out[n++] = (uint8_t)(bits >> 4);
    } else if (digits % 4 == 3) {
        out[n++] = (uint8_t)(bits >> 10);
        out[n++] = (uint8_t)(bits >> 2);
    }
    *out_len = n;
    return NULL;
}

static bool starts_with(const char *text, size_t len, const char *with)
{
    return len >= strlen(with) && !memcmp(text, with, strlen(with));
}

int spec_value_base64(const char *text, size_t len, size_t max_bytes, uint8_t **out, size_t *out_len,
                      struct err *err)
{
    const char *wrong;
    uint8_t *bytes;
    size_t n = 0;

    if (starts_with(text, len, "-----BEGIN"))
        return err_set(err, ERR_INVALID, "is PEM text itself; give it in base64 (`base64 -w0 FILE`)");
    bytes = need(malloc(len / 4 * 3 + 3));
    wrong = base64_decode(text, len, bytes, &n);
    if (!wrong && !n)
        wrong = "is empty; give PEM text in base64, or leave the field out";
    if (wrong || n > max_bytes) {
        explicit_bzero(bytes, n);
        free(bytes);
        return wrong ? err_set(err, ERR_INVALID, "%s", wrong)
                     : err_set(err, ERR_INVALID, "is too long; PEM text may have %zu bytes before base64",
                               max_bytes);
    }
    *out = bytes;
    *out_len = n;
    return 0;
}

/* C0, DEL, C1 and the line separators of Unicode; the text is valid UTF-8. */
static bool has_control(const char *text, size_t len)
{
    const unsigned char *t = (const unsigned char *)text;

    for (size_t i = 0; i < len; i++) {
        if (t[i] < 0x20 || t[i] == 0x7f)
            return true;
        if (t[i] == 0xc2 && i + 1 < len && t[i + 1] < 0xa0)
            return true;
        if (t[i] == 0xe2 && i + 2 < len && t[i + 1] == 0x80 && (t[i + 2] == 0xa8 || t[i + 2] == 0xa9))
            return true;
    }
    return false;
}

int spec_value_path(const char *text, size_t len, char **out, struct err *err)
{
    /* A key pasted into the wrong field must not be quoted when its "file" is not found. */
    if (starts_with(text, len, "-----BEGIN") || starts_with(text, len, "LS0tLS1CRUdJTi"))
        return err_set(err, ERR_INVALID,
                       "is a certificate or key itself; give the path of a file that holds it");
    if (has_control(text, len))
        return err_set(err, ERR_INVALID, "has control characters; give the path of a file");
    if (len > SPEC_MAX_PATH)
        return err_set(err, ERR_INVALID, "is %zu bytes long; a path may have %d", len, SPEC_MAX_PATH);
    *out = spec_copy(text, len);
    return 0;
}

/* Fields that the gateway sets, drops or checks itself. */
static const char *const own_headers[] = {
    "Connection",       "Upgrade",           "Content-Length", "Transfer-Encoding", "TE",
    "Trailer",          "Keep-Alive",        "HTTP2-Settings", "Proxy-Connection",  "X-Forwarded-For",
    "X-Forwarded-Host", "X-Forwarded-Proto",
};

static bool is_token(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!text[i] || (!is_alnum(text[i]) && !strchr("!#$%&'*+-.^_`|~", text[i])))
            return false;
    return len > 0;
}

int spec_value_header_name(const char *text, size_t len, char **out, struct err *err)
{
    static const char own_prefix[] = "Sec-WebSocket-";
    const char *colon = memchr(text, ':', len);
    bool own = len >= sizeof own_prefix - 1 && !strncasecmp(text, own_prefix, sizeof own_prefix - 1);

    /* Behind a colon stands the value, perhaps a token: that is not quoted. */
    if (!is_token(text, len))
        return err_set(err, ERR_INVALID,
                       "%s is not the name of a header; give letters, digits and '-', without space or colon",
                       SPEC_QUOTE(text, colon ? (size_t)(colon - text) + 1 : len));
    if (len > SPEC_MAX_HEADER_NAME)
        return err_set(err, ERR_INVALID, "a name of %zu bytes is too long; it may have %d", len,
                       SPEC_MAX_HEADER_NAME);
    if (len == 4 && !strncasecmp(text, "Host", 4))
        return err_set(err, ERR_INVALID, "Host is not set here; use headers.keepHost");
    for (size_t i = 0; i < sizeof own_headers / sizeof *own_headers; i++)
        own |= strlen(own_headers[i]) == len && !strncasecmp(text, own_headers[i], len);
    if (own)
        return err_set(err, ERR_INVALID, "%.*s is the gateway's own; leave it out", (int)len, text);
    *out = spec_copy(text, len);
    return 0;
}

int spec_value_header_value(const char *text, size_t len, char **out, struct err *err)
{
    if (has_control(text, len))
        return err_set(err, ERR_INVALID, "has control characters or line ends; give one line of text");
    if (len && (text[0] == ' ' || text[len - 1] == ' '))
        return err_set(err, ERR_INVALID, "begins or ends with a space, which HTTP drops; leave it out");
    if (len > SPEC_MAX_HEADERS_BYTES)
        return err_set(err, ERR_INVALID, "is %zu bytes long; all of headers.set may have %u", len,
                       SPEC_MAX_HEADERS_BYTES);
    *out = spec_copy(text, len);
    return 0;
}
