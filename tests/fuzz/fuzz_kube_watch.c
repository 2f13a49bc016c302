/* The bytes of a watch: however they are cut, the same events come and the same end.
 * Input: a byte that seeds the cuts, the stream. */
#include "kube/kube_watch.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

struct seen {
    unsigned events, stop_after;
    uint32_t hash;
};

static bool on_event(void *arg, enum kube_event_type type, json_t *object)
{
    struct seen *s = arg;
    char *text = json_dumps(object, JSON_SORT_KEYS | JSON_COMPACT);

    CHECK(json_is_object(object) && type <= KUBE_UNKNOWN);
    s->events++;
    s->hash = s->hash * 31 + (uint32_t)type;
    for (const char *p = text; p && *p; p++)
        s->hash = s->hash * 31 + (uint8_t)*p;
    free(text);
    return s->events != s->stop_after;
}

static int feed(struct kube_watch *w, struct seen *s, const uint8_t *bytes, size_t len, enum err_code *code)
{
    uint8_t *copy = malloc(len ? len : 1);
    struct err err = {0};
    int rc;

    CHECK(copy);
    memcpy(copy, bytes, len);
    rc = kube_watch_feed(w, copy, len, on_event, s, &err);
    free(copy);
    CHECK((rc == 0) == (err.code == ERR_NONE) && (rc == 0 || rc == -1));
    *code = err.code;
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kube_watch w;
    unsigned seed;
    struct seen whole, pieces;
    enum err_code whole_code, code = ERR_NONE;
    size_t rest;
    int rc = 0;

    if (!size)
        return 0;
    seed = data[0];
    whole = pieces = (struct seen){.stop_after = seed & 0x80 ? 1 + seed % 4 : 0};
    data++;
    size--;
    kube_watch_init(&w);
    feed(&w, &whole, data, size, &whole_code);
    rest = w.line.len;
    CHECK(!memchr(w.line.data ? (void *)w.line.data : "", '\n', rest));
    kube_watch_done(&w);

    kube_watch_init(&w);
    for (size_t at = 0; at < size && !rc && (!pieces.stop_after || pieces.events < pieces.stop_after);) {
        size_t piece = 1 + (seed >> 16) % (seed & 0x8000 ? 3 : 100);

        seed = seed * 1103515245 + 12345;
        if (piece > size - at)
            piece = size - at;
        rc = feed(&w, &pieces, data + at, piece, &code);
        at += piece;
    }
    CHECK(whole_code == code && whole.events == pieces.events && whole.hash == pieces.hash);
    kube_watch_done(&w);
    return 0;
}
