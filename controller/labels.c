#include "labels.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/need.h"

#include <stdlib.h>
#include <string.h>

#define LABELS_MAX_BYTES 65536

void labels_free(struct wss_label *labels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(labels[i].key);
        free(labels[i].value);
    }
    free(labels);
}

/* KEY="VALUE" */
static int parse_line(char *line, struct wss_label *out)
{
    char *equals = strchr(line, '='), *value = equals ? equals + 1 : NULL;
    size_t len = value ? strlen(value) : 0;

    if (!value || equals == line || len < 2 || value[0] != '"' || value[len - 1] != '"')
        return -1;
    *equals = '\0';
    value[len - 1] = '\0';
    value++;
    if (strpbrk(value, "\"\\"))
        return -1;
    *out = (struct wss_label){.key = need(strdup(line)), .value = need(strdup(value))};
    return 0;
}

int labels_read(const char *path, struct wss_label **out, size_t *count, struct err *err)
{
    struct buf bytes;
    cleanup_free char *text = NULL;
    char *rest, *line;
    struct wss_label *labels;
    size_t n = 0;

    buf_init(&bytes, LABELS_MAX_BYTES);
    if (file_read(path, &bytes, err)) {
        buf_free(&bytes);
        return -1;
    }
    text = need(strndup(bytes.len ? (const char *)bytes.data : "", bytes.len));
    buf_free(&bytes);
    labels = need(calloc(WSS_MAX_LABELS, sizeof *labels));
    rest = text;
    while ((line = strsep(&rest, "\n"))) {
        if (!*line)
            continue;
        if (n < WSS_MAX_LABELS && !parse_line(line, &labels[n])) {
            n++;
            continue;
        }
        labels_free(labels, n);
        return n == WSS_MAX_LABELS
                   ? err_set(err, ERR_LIMIT, "%s: more than %d labels", path, WSS_MAX_LABELS)
                   : err_set(err, ERR_SYNTAX, "%s: label %zu: not key=\"value\"", path, n + 1);
    }
    *out = labels;
    *count = n;
    return 0;
}
