#include "kube/kube_watch.h"

#include <string.h>

/* More than this is given back after the line that needed it. */
#define KEEP_BYTES (64u << 10)

void kube_watch_init(struct kube_watch *w)
{
    buf_init(&w->line, KUBE_WATCH_LINE);
}

void kube_watch_done(struct kube_watch *w)
{
    buf_free(&w->line);
}

static enum kube_event_type type_of(const json_t *event)
{
    static const char *const names[] = {"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"};
    const char *name = json_string_value(json_object_get(event, "type"));

    for (size_t i = 0; name && i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i]))
            return (enum kube_event_type)i;
    return KUBE_UNKNOWN;
}

/* 1: go on, 0: the receiver has enough. */
static int give_line(const uint8_t *bytes, size_t len,
                     bool (*event)(void *arg, enum kube_event_type type, json_t *object), void *arg,
                     struct err *err)
{
    json_auto_t *line = NULL;
    json_t *object;
    json_error_t why;

    if (len && bytes[len - 1] == '\r')
        len--;
    if (!len)
        return 1;
    /* Anybody who may write an annotation may put a \u0000 there: it must not stop the whole kind. */
    line = json_loadb((const char *)bytes, len, JSON_ALLOW_NUL, &why);
    if (!line)
        /* What jansson says quotes it, and it may be a Secret's. */
        return err_set(err, ERR_SYNTAX, "a line of the watch is no JSON from its byte %d on", why.position);
    object = json_object_get(line, "object");
    if (!json_is_object(object))
        return err_set(err, ERR_SYNTAX, "a line of the watch has no object");
    return event(arg, type_of(line), object);
}

static int keep_rest(struct kube_watch *w, const uint8_t *bytes, size_t len, struct err *err)
{
    if (buf_add(&w->line, bytes, len))
        return err_set(err, ERR_LIMIT, "a line of the watch is longer than %u bytes", KUBE_WATCH_LINE);
    return 0;
}

int kube_watch_feed(struct kube_watch *w, const uint8_t *bytes, size_t len,
                    bool (*event)(void *arg, enum kube_event_type type, json_t *object), void *arg,
                    struct err *err)
{
    int more = 1;

    while (more > 0 && len) {
        const uint8_t *newline = memchr(bytes, '\n', len);
        size_t piece = newline ? (size_t)(newline - bytes) : len;

        if (w->line.len + piece > KUBE_WATCH_LINE)
            return err_set(err, ERR_LIMIT, "a line of the watch is longer than %u bytes", KUBE_WATCH_LINE);
        if (!newline)
            return keep_rest(w, bytes, len, err);
        if (!w->line.len) {
            more = give_line(bytes, piece, event, arg, err);
        } else {
            if (keep_rest(w, bytes, piece, err))
                return -1;
            more = give_line(w->line.data, w->line.len, event, arg, err);
            w->line.len = 0;
            if (w->line.cap > KEEP_BYTES)
                buf_free(&w->line);
        }
        bytes += piece + 1;
        len -= piece + 1;
    }
    return more < 0 ? -1 : 0;
}
