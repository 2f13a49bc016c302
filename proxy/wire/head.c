#include "wire/head.h"

#include <string.h>

#define METHOD_MAX  32
#define VERSION_LEN 8 /* HTTP/1.1 */

/* The longest request line whose target may still be within its limit. */
#define REQUEST_LINE_MAX (METHOD_MAX + 1 + HEAD_MAX_TARGET + 1 + VERSION_LEN)

/* What a byte may be part of. */
enum {
    C_CTL = 1,   /* 0x00-0x1f but for tab, 0x7f: nowhere */
    C_TAB = 2,   /* only inside field values */
    C_OBS = 4,   /* 0x80-0xff: only in field values and the reason */
    C_TOKEN = 8, /* RFC 9110 5.6.2 */
};

#define CTL4  C_CTL, C_CTL, C_CTL, C_CTL
#define OBS8  C_OBS, C_OBS, C_OBS, C_OBS, C_OBS, C_OBS, C_OBS, C_OBS
#define OBS32 OBS8, OBS8, OBS8, OBS8
#define T     C_TOKEN

/* clang-format off */
static const uint8_t byte_class[256] = {
    CTL4, CTL4, C_CTL, C_TAB, C_CTL, C_CTL, CTL4,
    CTL4, CTL4, CTL4, CTL4,
    0, T, 0, T, T, T, T, T, 0, 0, T, T, 0, T, T, 0,    /*  !"#$%&'()*+,-./ */
    T, T, T, T, T, T, T, T, T, T, 0, 0, 0, 0, 0, 0,    /* 0-9 :;<=>? */
    0, T, T, T, T, T, T, T, T, T, T, T, T, T, T, T,    /* @ A-O */
    T, T, T, T, T, T, T, T, T, T, T, 0, 0, 0, T, T,    /* P-Z [\]^_ */
    T, T, T, T, T, T, T, T, T, T, T, T, T, T, T, T,    /* ` a-o */
    T, T, T, T, T, T, T, T, T, T, T, 0, T, 0, T, C_CTL, /* p-z {|}~ DEL */
    OBS32, OBS32, OBS32, OBS32,
};
/* clang-format on */

#undef T

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

bool head_is_token(const uint8_t *bytes, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        if (!(byte_class[bytes[i]] & C_TOKEN))
            return false;
    return len > 0;
}

static struct head_slice slice(size_t from, size_t to)
{
    return (struct head_slice){(uint16_t)from, (uint16_t)(to - from)};
}

static enum head_result bad(struct head *h, const char *why)
{
    h->why = why;
    return HEAD_BAD;
}

static enum head_result over(struct head *h, enum head_result result, const char *why)
{
    h->why = why;
    return result;
}

void head_init(struct head *h, enum head_kind kind)
{
    /* Not the fields: the count says how many of them hold. */
    h->kind = kind;
    h->method = h->target = h->reason = (struct head_slice){0, 0};
    h->status = 0;
    h->minor = 0;
    h->field_count = 0;
    h->len = h->seen = h->scan = 0;
    h->why = NULL;
}

/* HEAD_DONE: bytes[0..8) are "HTTP/1.0" or "HTTP/1.1". */
static enum head_result take_version(struct head *h, const uint8_t *v, size_t len)
{
    if (len != VERSION_LEN || memcmp(v, "HTTP/", 5) != 0 || !is_digit(v[5]) || v[6] != '.' || !is_digit(v[7]))
        return bad(h, "the start line has no HTTP version");
    if (v[5] != '1' || v[7] > '1')
        return over(h, HEAD_VERSION, "this HTTP version is not spoken here: use HTTP/1.1");
    h->minor = v[7] - '0';
    return HEAD_DONE;
}

static enum head_result take_request_line(struct head *h, const uint8_t *bytes, size_t end)
{
    size_t method_end, target_end, i;

    for (method_end = 0; method_end < end && (byte_class[bytes[method_end]] & C_TOKEN); method_end++)
        if (method_end == METHOD_MAX)
            return bad(h, "the method is too long");
    if (!method_end || method_end == end || bytes[method_end] != ' ')
        return bad(h, "the start line is not METHOD TARGET HTTP/1.1");
    h->method = slice(0, method_end);

    for (i = method_end + 1; i < end && bytes[i] != ' '; i++)
        ;
    target_end = i;
    if (target_end - method_end - 1 > HEAD_MAX_TARGET)
        return over(h, HEAD_TARGET_TOO_LONG, "the request target is longer than 8192 bytes");
    if (target_end == end || target_end == method_end + 1)
        return bad(h, "the start line is not METHOD TARGET HTTP/1.1, with single spaces");
    h->target = slice(method_end + 1, target_end);
    return take_version(h, bytes + target_end + 1, end - target_end - 1);
}

static enum head_result take_status_line(struct head *h, const uint8_t *bytes, size_t end)
{
    const uint8_t *s = bytes + VERSION_LEN + 1;
    enum head_result result;

    if (end < VERSION_LEN + 4 || s[-1] != ' ')
        return bad(h, "the start line is not HTTP/1.1 STATUS REASON");
    result = take_version(h, bytes, VERSION_LEN);
    if (result != HEAD_DONE)
        return result;
    if (!is_digit(s[0]) || !is_digit(s[1]) || !is_digit(s[2]) || (end > VERSION_LEN + 4 && s[3] != ' '))
        return bad(h, "the status is not three digits");
    h->status = (s[0] - '0') * 100 + (s[1] - '0') * 10 + (s[2] - '0');
    if (end > VERSION_LEN + 5)
        h->reason = slice(VERSION_LEN + 5, end);
    return HEAD_DONE;
}

static enum head_result take_field(struct head *h, const uint8_t *bytes, size_t start, size_t end)
{
    size_t colon, from, to = end;

    if (h->field_count == HEAD_MAX_FIELDS)
        return over(h, HEAD_TOO_LARGE, "the head has more than 100 fields");
    for (colon = start; colon < end && (byte_class[bytes[colon]] & C_TOKEN); colon++)
        ;
    if (colon == end)
        return bad(h, "a field has no colon");
    if (bytes[colon] != ':')
        return bad(h, is_space(bytes[colon]) ? "white space in a field name or in front of its colon"
                                             : "a byte that may not stand in a field name");
    if (colon == start)
        return bad(h, "a field without a name");
    for (from = colon + 1; from < end && is_space(bytes[from]); from++)
        ;
    while (to > from && is_space(bytes[to - 1]))
        to--;
    h->fields[h->field_count++] = (struct head_field){slice(start, colon), slice(from, to)};
    return HEAD_DONE;
}

/* What the first bytes already tell; HEAD_DONE: nothing against them. */
static enum head_result check_opening(struct head *h, const uint8_t *bytes, size_t len)
{
    bool tls = bytes[0] == 0x16 && (len < 2 || bytes[1] == 0x03);

    if (h->kind == HEAD_REQUEST) {
        if (tls)
            return bad(h, "this port speaks plain HTTP; the bytes look like a TLS handshake");
        if (bytes[0] == '\r' || bytes[0] == '\n')
            return bad(h, "an empty line in front of the request");
        if (!(byte_class[bytes[0]] & C_TOKEN))
            return bad(h, "the bytes are not an HTTP request");
        return HEAD_DONE;
    }
    /* A TLS server says 0x15 (alert) to a plain request. */
    if (tls || (bytes[0] == 0x15 && (len < 2 || bytes[1] == 0x03)))
        return bad(h, "the backend speaks TLS: its URL should begin with wss://");
    if (memcmp(bytes, "HTTP/", len < 5 ? len : 5) != 0)
        return bad(h, "the backend's answer is not HTTP");
    return HEAD_DONE;
}

/* A line whose content, without its CRLF, passes the limit. */
static enum head_result line_too_long(struct head *h, const uint8_t *bytes, size_t end)
{
    if (h->seen > 0 || h->kind == HEAD_RESPONSE)
        return over(h, HEAD_TOO_LARGE, "a line is longer than 8192 bytes");
    /* Too long to be good: it says which of its parts is to blame. */
    return take_request_line(h, bytes, end);
}

static const char *why_stopped(uint8_t c)
{
    switch (c) {
    case '\r': return "a CR without its LF";
    case '\n': return "a line that ends with a bare LF";
    case 0: return "a NUL byte";
    case '\t': return "a tab outside a field value";
    default: return c < 0x80 ? "a control byte" : "a byte above 0x7f in the start line";
    }
}

/* Searches the open line for its end from where the last call stopped. HEAD_DONE: *end is its CR. */
static enum head_result find_line_end(struct head *h, const uint8_t *bytes, size_t len, size_t *end)
{
    bool start_line = h->seen == 0;
    size_t max = start_line && h->kind == HEAD_REQUEST ? REQUEST_LINE_MAX : HEAD_MAX_LINE;
    size_t limit = h->seen + max + 1; /* behind the place where the CR must stand at the latest */
    size_t to = len < limit ? len : limit;
    size_t i = h->seen + h->scan;
    unsigned refused = C_CTL;

    if (start_line)
        refused |= h->kind == HEAD_REQUEST ? C_TAB | C_OBS : C_TAB;
    while (i < to && !(byte_class[bytes[i]] & refused))
        i++;
    h->scan = i - h->seen;
    if (i == limit)
        return line_too_long(h, bytes, i);
    if (i == len || (bytes[i] == '\r' && i + 1 == len))
        return HEAD_MORE;
    if (bytes[i] != '\r' || bytes[i + 1] != '\n')
        return bad(h, why_stopped(bytes[i]));
    *end = i;
    return HEAD_DONE;
}

static enum head_result parse_lines(struct head *h, const uint8_t *bytes, size_t len)
{
    enum head_result result;
    size_t end = 0;

    while (h->seen < len) {
        if (h->seen && is_space(bytes[h->seen]))
            return bad(h, "a field continued on a second line");
        result = find_line_end(h, bytes, len, &end);
        if (result != HEAD_DONE)
            return result;
        if (!h->seen) {
            result =
                h->kind == HEAD_REQUEST ? take_request_line(h, bytes, end) : take_status_line(h, bytes, end);
        } else if (end == h->seen) {
            h->len = end + 2;
            return HEAD_DONE;
        } else {
            result = take_field(h, bytes, h->seen, end);
        }
        if (result != HEAD_DONE)
            return result;
        h->seen = end + 2;
        h->scan = 0;
    }
    return HEAD_MORE;
}

enum head_result head_parse(struct head *h, const uint8_t *bytes, size_t len)
{
    enum head_result result;

    if (!len)
        return HEAD_MORE;
    if (!h->seen) {
        result = check_opening(h, bytes, len);
        if (result != HEAD_DONE)
            return result;
    }
    result = parse_lines(h, bytes, len < HEAD_MAX_BYTES ? len : HEAD_MAX_BYTES);
    if (result == HEAD_MORE && len >= HEAD_MAX_BYTES)
        return over(h, HEAD_TOO_LARGE, "the head is longer than 16384 bytes");
    return result;
}

static uint8_t fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool head_slice_is(struct head_slice s, const uint8_t *bytes, const char *text)
{
    return strlen(text) == s.len && memcmp(bytes + s.off, text, s.len) == 0;
}

static bool same_folded(const uint8_t *a, const uint8_t *b, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        if (fold(a[i]) != fold(b[i]))
            return false;
    return true;
}

bool head_slice_is_icase(struct head_slice s, const uint8_t *bytes, const char *text)
{
    size_t i;

    for (i = 0; i < s.len; i++)
        if (!text[i] || fold(bytes[s.off + i]) != fold((uint8_t)text[i]))
            return false;
    return !text[s.len];
}

const struct head_field *head_find(const struct head *h, const uint8_t *bytes, const char *name, size_t *at)
{
    size_t len = strlen(name);

    while (*at < h->field_count) {
        const struct head_field *f = &h->fields[(*at)++];

        if (f->name.len == len && same_folded(bytes + f->name.off, (const uint8_t *)name, len))
            return f;
    }
    return NULL;
}

size_t head_count(const struct head *h, const uint8_t *bytes, const char *name)
{
    size_t at = 0, count = 0;

    while (head_find(h, bytes, name, &at))
        count++;
    return count;
}

bool head_list_next(const uint8_t *bytes, struct head_slice *rest, struct head_slice *item)
{
    size_t i = rest->off, end = i + rest->len, from, to;
    bool quoted = false;

    while (i < end && (bytes[i] == ',' || is_space(bytes[i])))
        i++;
    for (from = i; i < end && (quoted || bytes[i] != ','); i++) {
        if (bytes[i] == '"')
            quoted = !quoted;
        else if (bytes[i] == '\\' && quoted && i + 1 < end)
            i++;
    }
    for (to = i; to > from && is_space(bytes[to - 1]); to--)
        ;
    *item = slice(from, to);
    *rest = slice(i, end);
    return to > from;
}

bool head_mark_named(const struct head *h, const uint8_t *bytes, bool named[HEAD_MAX_FIELDS])
{
    const struct head_field *f;
    struct head_slice rest, item;
    size_t at = 0, options = 0, i;

    memset(named, 0, HEAD_MAX_FIELDS * sizeof(named[0]));
    while ((f = head_find(h, bytes, "Connection", &at)))
        for (rest = f->value; head_list_next(bytes, &rest, &item);) {
            if (++options > HEAD_MAX_ITEMS)
                return false;
            for (i = 0; i < h->field_count; i++) {
                struct head_slice name = h->fields[i].name;

                if (name.len == item.len && same_folded(bytes + name.off, bytes + item.off, item.len))
                    named[i] = true;
            }
        }
    return true;
}

bool head_has_token(const struct head *h, const uint8_t *bytes, const char *name, const char *token)
{
    const struct head_field *f;
    struct head_slice rest, item;
    size_t at = 0;

    while ((f = head_find(h, bytes, name, &at)))
        for (rest = f->value; head_list_next(bytes, &rest, &item);)
            if (head_slice_is_icase(item, bytes, token))
                return true;
    return false;
}

int head_add_slice(struct buf *out, const uint8_t *bytes, struct head_slice s)
{
    return buf_add(out, bytes + s.off, s.len);
}

int head_add_field(struct buf *out, const uint8_t *bytes, const struct head_field *f)
{
    uint8_t *to;

    if (buf_reserve(out, (size_t)f->name.len + 2 + f->value.len + 2))
        return -1;
    to = out->data + out->len;
    memcpy(to, bytes + f->name.off, f->name.len);
    to += f->name.len;
    *to++ = ':';
    *to++ = ' ';
    memcpy(to, bytes + f->value.off, f->value.len);
    to += f->value.len;
    *to++ = '\r';
    *to++ = '\n';
    out->len = (size_t)(to - out->data);
    return 0;
}
