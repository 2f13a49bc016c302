#include "run/source.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/need.h"
#include "spec/spec_cert.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void hex_sha256(const void *bytes, size_t len, char out[STATUS_HEX_BYTES])
{
    uint8_t digest[SHA256_DIGEST_LENGTH];

    SHA256(bytes ? bytes : "", len, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void free_candidates(struct candidate *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(c[i].name);
        free(c[i].message);
        version_unref(c[i].version);
    }
    free(c);
}

static void free_files(struct source *src)
{
    for (size_t i = 0; i < src->file_count; i++)
        free(src->files[i]);
    free(src->files);
    src->files = NULL;
    src->file_count = 0;
}

/* The document that a problem belongs to: the last one that begins at or above it. */
static size_t document_of(const struct spec *s, const struct spec_problem *p)
{
    size_t at = 0;

    while (at + 1 < s->count && s->servers[at + 1].pos.line <= p->pos.line)
        at++;
    return at;
}

/* The version that a name had; *at is where the last one was found, for most files keep their order. */
static struct version *last_version(const struct source *src, const char *name, size_t *at)
{
    for (size_t i = 0; i < src->candidate_count; i++) {
        const struct candidate *c = &src->candidates[(*at + i) % src->candidate_count];

        if (c->name && !strcmp(c->name, name)) {
            *at = (*at + i) % src->candidate_count;
            return c->version;
        }
    }
    return NULL;
}

static void take_candidates(struct source *src, struct spec *s)
{
    struct candidate *next = need(calloc(s->count + 1, sizeof *next));
    size_t at = 0;
    struct err err;

    for (size_t i = 0; i < s->count; i++) {
        struct candidate *c = &next[i];

        c->name = s->servers[i].name ? need(strdup(s->servers[i].name)) : NULL;
        if (s->servers[i].bad || !c->name)
            continue;
        c->version = version_new(&s->servers[i], last_version(src, c->name, &at), &err);
        if (!c->version)
            c->message = need(strdup(err.msg));
    }
    free_candidates(src->candidates, src->candidate_count);
    src->candidates = next;
    src->candidate_count = s->count;
    for (size_t i = 0; s->count && i < src->problems.count; i++) {
        struct candidate *c = &src->candidates[document_of(s, &src->problems.items[i])];

        if (!c->version && !c->message)
            c->message = need(strdup(src->problems.items[i].text));
    }
}

/* True when they are other ones than before. */
static bool take_files(struct source *src, const struct spec *s)
{
    char **files = need(calloc(s->count * SPEC_MAX_FILES + 1, sizeof *files));
    size_t count = 0;
    bool changed;

    for (size_t i = 0; i < s->count; i++) {
        const char *paths[SPEC_MAX_FILES];
        size_t n = spec_server_files(&s->servers[i], paths);

        for (size_t k = 0; k < n; k++)
            files[count++] = need(strdup(paths[k]));
    }
    changed = count != src->file_count;
    for (size_t i = 0; i < count && !changed; i++)
        changed = strcmp(files[i], src->files[i]) != 0;
    free_files(src);
    src->files = files;
    src->file_count = count;
    return changed;
}

/* Of the spec's bytes and of what stands in the files that the last good one named. A watch calls more often than
 * something changes; equal input is not judged again. */
static void digest_input(const struct source *src, const struct buf *spec, uint8_t out[VERSION_DIGEST_BYTES])
{
    size_t digests = (src->file_count + 1) * VERSION_DIGEST_BYTES;
    cleanup_free uint8_t *all = need(malloc(digests));

    SHA256(spec->data ? spec->data : (const uint8_t *)"", spec->len, all);
    for (size_t i = 0; i < src->file_count; i++) {
        uint8_t *to = all + (i + 1) * VERSION_DIGEST_BYTES;
        struct err err;
        struct buf b;

        buf_init(&b, SPEC_MAX_CA_BYTES);
        if (file_read(src->files[i], &b, &err))
            SHA256((const uint8_t *)err.msg, strlen(err.msg), to);
        else
            SHA256(b.data ? b.data : (const uint8_t *)"", b.len, to);
        if (b.data)
            explicit_bzero(b.data, b.len);
        buf_free(&b);
    }
    SHA256(all, digests, out);
}

/* A tool that could not write it, for lack of space say, leaves an empty file behind. To take all servers away, a file is
 * put in its place or says so. */
static bool emptied_in_place(const struct source *src, const struct stat *st, const struct buf *b)
{
    return src->read_once && src->had_bytes && st->st_ino == src->inode && !b->len;
}

/* Judges the bytes; the candidates are those of the file then. */
static enum source_result load_bytes(struct source *src, const struct buf *b)
{
    uint8_t input[VERSION_DIGEST_BYTES];
    struct spec spec = {0};

    digest_input(src, b, input);
    if (src->input_known && !memcmp(input, src->input, sizeof input))
        return SOURCE_SAME;
    if (!src->certs)
        src->certs = spec_cert_new();
    spec_problems_free(&src->problems);
    src->input_known = false;
    hex_sha256(b->data, b->len, src->seen_revision);
    if (spec_load_bytes(b->data, b->len, src->certs, &spec, &src->problems))
        return SOURCE_REFUSED;
    memcpy(src->revision, src->seen_revision, sizeof src->revision);
    memcpy(src->input, input, sizeof input);
    /* The digest does not speak of files that are named for the first time. */
    src->input_known = !take_files(src, &spec);
    take_candidates(src, &spec);
    spec_free(&spec);
    return SOURCE_NEW;
}

enum source_result source_read(struct source *src)
{
    struct spec_problems problems = {0};
    struct stat st = {0};
    struct buf b;
    enum source_result result = SOURCE_REFUSED;

    buf_init(&b, SPEC_MAX_BYTES);
    (void)!stat(src->path, &st); /* where that fails, reading says why */
    if (!spec_read(src->path, &b, &problems)) {
        if (emptied_in_place(src, &st, &b))
            spec_problem_add(
                &problems, (struct spec_pos){0}, NULL,
                "it was emptied in place; to serve nothing, write a line `---` or replace the file");
        else
            result = load_bytes(src, &b);
    }
    if (problems.count) {
        spec_problems_free(&src->problems);
        src->problems = problems;
        src->seen_revision[0] = '\0';
        src->input_known = false;
    }
    if (result != SOURCE_REFUSED) { /* the same bytes may stand in another file */
        src->read_once = true;
        src->inode = st.st_ino;
        src->had_bytes = b.len > 0;
    }
    if (b.data)
        explicit_bzero(b.data, b.len);
    buf_free(&b);
    return result;
}

void source_done(struct source *src)
{
    free_candidates(src->candidates, src->candidate_count);
    free_files(src);
    spec_cert_free(src->certs);
    spec_problems_free(&src->problems);
}
