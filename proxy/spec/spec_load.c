#include "spec/spec.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "spec/spec_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* file_read's message without the path in front, for texts that name it themselves. */
static const char *reason(const struct err *err, const char *path)
{
    size_t n = strlen(path);

    return !strncmp(err->msg, path, n) && !strncmp(err->msg + n, ": ", 2) ? err->msg + n + 2 : err->msg;
}

static void read_pem(const struct spec_server *s, struct spec_pem *pem, const char *field, size_t max_bytes,
                     struct spec_problems *problems)
{
    struct err err;
    struct buf b;

    if (!pem->file)
        return;
    buf_init(&b, max_bytes);
    if (file_read(pem->file, &b, &err)) {
        spec_problem_add(problems, pem->pos, s->name, "%s: cannot read %.300s: %s; give a file that is there",
                         field, pem->file, reason(&err, pem->file));
    } else if (!b.len) {
        spec_problem_add(problems, pem->pos, s->name, "%s: %.300s is empty; give a file with PEM text", field,
                         pem->file);
    } else {
        if (pem->data)
            explicit_bzero(pem->data, pem->len);
        free(pem->data);
        pem->data = buf_take(&b, &pem->len);
    }
    buf_free(&b);
}

static void read_pems(struct spec *s, struct spec_problems *problems)
{
    for (size_t i = 0; i < s->count; i++) {
        struct spec_server *v = &s->servers[i];

        read_pem(v, &v->cert, "tls.certFile", SPEC_MAX_PEM_BYTES, problems);
        read_pem(v, &v->key, "tls.keyFile", SPEC_MAX_PEM_BYTES, problems);
        read_pem(v, &v->tls.client_ca, "tls.clientCAFile", SPEC_MAX_CA_BYTES, problems);
        read_pem(v, &v->backend_tls.ca, "backendTLS.caFile", SPEC_MAX_CA_BYTES, problems);
    }
}

int spec_read_files(struct spec *s, struct spec_problems *problems)
{
    size_t before = problems->count;

    read_pems(s, problems);
    return problems->count > before || problems->cut ? -1 : 0;
}

int spec_read(const char *path, struct buf *b, struct spec_problems *problems)
{
    struct err err;
    struct stat st;

    /* Asked first, so that a file that is far too large is not read up to the limit. */
    if (!stat(path, &st) && (uint64_t)st.st_size > b->max)
        err_set(&err, ERR_LIMIT, "larger than %zu bytes", b->max);
    else if (!file_read(path, b, &err))
        return 0;
    spec_problem_add(problems, (struct spec_pos){0}, NULL, "cannot read it: %s", reason(&err, path));
    return -1;
}

/* The last document that begins at `line` or above, or NULL. */
static struct spec_server *document_at(const struct spec *s, uint32_t line)
{
    size_t low = 0, high = s->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (s->servers[middle].pos.line <= line)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &s->servers[low - 1] : NULL;
}

int spec_load_bytes(const uint8_t *bytes, size_t len, struct spec_cert *certs, struct spec *out,
                    struct spec_problems *problems)
{
    size_t before = problems->count;
    cleanup_free unsigned *marks = NULL;
    bool judged = !spec_parse_marked(bytes, len, out, &marks, problems);

    /* A file that was not read leaves its pem without data; the other rules are checked all the same. */
    read_pems(out, problems);
    spec_check_marked(out, marks, certs, problems);
    for (size_t i = before; i < problems->count; i++) {
        struct spec_server *s = document_at(out, problems->items[i].pos.line);

        if (s)
            s->bad = true;
        else
            judged = false; /* nobody's problem is everybody's */
    }
    if (judged && !problems->cut)
        return 0;
    spec_free(out);
    return -1;
}

int spec_load(const char *path, struct spec *out, struct spec_problems *problems)
{
    struct spec_cert *certs = spec_cert_new();
    size_t before = problems->count;
    struct spec s;
    struct buf b;
    int r;

    buf_init(&b, SPEC_MAX_BYTES);
    r = spec_read(path, &b, problems);
    if (!r)
        r = spec_load_bytes(b.data, b.len, certs, &s, problems);
    spec_cert_free(certs);
    if (b.data)
        explicit_bzero(b.data, b.len);
    buf_free(&b);
    if (r)
        return -1;
    if (problems->count > before) {
        spec_free(&s);
        return -1;
    }
    *out = s;
    return 0;
}
