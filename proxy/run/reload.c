#include "run/reload.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A server that is gone from the file while connections of it are left. */
struct leaving {
    char *name;
    int slot;
    uint64_t generation; /* the first one without it */
};

struct reload {
    const char *path;
    struct ports *ports;
    struct shared *shared;
    struct status *status;

    bool read_once; /* a good file has been read */
    ino_t inode;    /* its inode, and whether it held anything */
    bool had_bytes;
    struct spec_problems problems; /* of the last reading */
    struct candidate *candidates;
    size_t candidate_count;
    char **files; /* that the spec names */
    size_t file_count;
    bool
        input_known; /* `input` tells what the last reading was made from: the file, and the files that it names */
    uint8_t input[VERSION_DIGEST_BYTES];
    char revision[STATUS_HEX_BYTES]; /* of what the plan was made from */

    struct plan plan;
    struct leaving *leaving;
    size_t leaving_count;
    uint8_t effective[VERSION_DIGEST_BYTES];
    bool behind; /* the plan could not be handed on */
    uint64_t generation;
    int spec_fd;
    uint32_t longest_drain_ms;
};

static void *need(void *p)
{
    if (!p) {
        log_msg(LOG_ERROR, "fatal", "out of memory");
        abort();
    }
    return p;
}

struct reload *reload_new(const char *path, struct ports *ports, struct shared *shared, struct status *status,
                          struct err *err)
{
    struct reload *r = calloc(1, sizeof *r);

    if (!r) {
        err_set(err, ERR_LIMIT, "out of memory");
        return NULL;
    }
    *r = (struct reload){.path = path, .ports = ports, .shared = shared, .status = status, .spec_fd = -1};
    return r;
}

static void free_candidates(struct reload *r)
{
    for (size_t i = 0; i < r->candidate_count; i++) {
        free(r->candidates[i].name);
        free(r->candidates[i].message);
        version_unref(r->candidates[i].version);
    }
    free(r->candidates);
    r->candidates = NULL;
    r->candidate_count = 0;
}

static void free_files(struct reload *r)
{
    for (size_t i = 0; i < r->file_count; i++)
        free(r->files[i]);
    free(r->files);
    r->files = NULL;
    r->file_count = 0;
}

static void free_errors(struct status *s)
{
    for (size_t i = 0; i < s->seen.error_count; i++)
        free(s->seen.errors[i]);
    free(s->seen.errors);
    s->seen.errors = NULL;
    s->seen.error_count = 0;
}

static void free_servers(struct status *s)
{
    for (size_t i = 0; i < s->server_count; i++) {
        free(s->servers[i].name);
        free(s->servers[i].message);
        free(s->servers[i].backend);
    }
    free(s->servers);
    s->servers = NULL;
    s->server_count = 0;
}

void reload_free(struct reload *r)
{
    if (!r)
        return;
    free_candidates(r);
    free_files(r);
    free_errors(r->status);
    free_servers(r->status);
    spec_problems_free(&r->problems);
    plan_free(&r->plan);
    for (size_t i = 0; i < r->leaving_count; i++)
        free(r->leaving[i].name);
    free(r->leaving);
    if (r->spec_fd >= 0)
        close(r->spec_fd);
    free(r);
}

static void hex_sha256(const void *bytes, size_t len, char out[STATUS_HEX_BYTES])
{
    uint8_t digest[SHA256_DIGEST_LENGTH];

    SHA256(bytes ? bytes : "", len, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* Reading */

/* The document that a problem belongs to: the last one that begins at or above it. */
static size_t document_of(const struct spec *s, const struct spec_problem *p)
{
    size_t at = 0;

    while (at + 1 < s->count && s->servers[at + 1].pos.line <= p->pos.line)
        at++;
    return at;
}

static void take_candidates(struct reload *r, struct spec *s)
{
    struct err err;

    free_candidates(r);
    r->candidates = need(calloc(s->count + 1, sizeof *r->candidates));
    r->candidate_count = s->count;
    for (size_t i = 0; i < s->count; i++) {
        struct candidate *c = &r->candidates[i];

        c->name = s->servers[i].name ? need(strdup(s->servers[i].name)) : NULL;
        if (s->servers[i].bad)
            continue;
        c->version = version_new(&s->servers[i], &err);
        if (!c->version)
            c->message = need(strdup(err.msg));
    }
    for (size_t i = 0; s->count && i < r->problems.count; i++) {
        struct candidate *c = &r->candidates[document_of(s, &r->problems.items[i])];

        if (!c->version && !c->message)
            c->message = need(strdup(r->problems.items[i].text));
    }
}

/* True when they are other ones than before. */
static bool take_files(struct reload *r, const struct spec *s)
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
    changed = count != r->file_count;
    for (size_t i = 0; i < count && !changed; i++)
        changed = strcmp(files[i], r->files[i]) != 0;
    free_files(r);
    r->files = files;
    r->file_count = count;
    return changed;
}

/* Of the spec's bytes and of what stands in the files that the last good one named. A watch calls more often than
 * something changes; equal input is not judged again. */
static void digest_input(const struct reload *r, const struct buf *spec, uint8_t out[VERSION_DIGEST_BYTES])
{
    size_t digests = (r->file_count + 1) * VERSION_DIGEST_BYTES;
    cleanup_free uint8_t *all = need(malloc(digests));

    SHA256(spec->data ? spec->data : (const uint8_t *)"", spec->len, all);
    for (size_t i = 0; i < r->file_count; i++) {
        uint8_t *to = all + (i + 1) * VERSION_DIGEST_BYTES;
        struct err err;
        struct buf b;

        buf_init(&b, SPEC_MAX_CA_BYTES);
        if (file_read(r->files[i], &b, &err))
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
static bool emptied_in_place(const struct reload *r, const struct stat *st)
{
    return r->read_once && r->had_bytes && st->st_ino == r->inode && !st->st_size;
}

enum reading { READ_SAME = 0, READ_NEW, READ_REFUSED };

/* Judges the bytes; the candidates are those of the file then. */
static int load_bytes(struct reload *r, const struct buf *b)
{
    uint8_t input[VERSION_DIGEST_BYTES];
    struct spec spec = {0};

    digest_input(r, b, input);
    if (r->input_known && !memcmp(input, r->input, sizeof input))
        return READ_SAME;
    spec_problems_free(&r->problems);
    r->input_known = false;
    hex_sha256(b->data, b->len, r->status->seen.revision);
    if (spec_load_bytes(b->data, b->len, &spec, &r->problems))
        return READ_REFUSED;
    memcpy(r->revision, r->status->seen.revision, sizeof r->revision);
    memcpy(r->input, input, sizeof input);
    /* The digest does not speak of files that are named for the first time. */
    r->input_known = !take_files(r, &spec);
    take_candidates(r, &spec);
    spec_free(&spec);
    return READ_NEW;
}

static int read_file(struct reload *r)
{
    struct spec_problems problems = {0};
    struct stat st = {0};
    struct buf b;
    int result = READ_REFUSED;

    buf_init(&b, SPEC_MAX_BYTES);
    if (!stat(r->path, &st) && emptied_in_place(r, &st))
        spec_problem_add(&problems, (struct spec_pos){0}, NULL,
                         "it was emptied in place; to serve nothing, write a line `---` or replace the file");
    else if (!spec_read(r->path, &b, &problems))
        result = load_bytes(r, &b);
    if (problems.count) {
        spec_problems_free(&r->problems);
        r->problems = problems;
        r->status->seen.revision[0] = '\0';
        r->input_known = false;
    }
    if (result == READ_NEW) {
        r->read_once = true;
        r->inode = st.st_ino;
        r->had_bytes = b.len > 0;
    }
    if (b.data)
        explicit_bzero(b.data, b.len);
    buf_free(&b);
    return result;
}

static char *problem_line(const char *file, const struct spec_problem *p)
{
    char pos[32] = "", *line = NULL;

    if (p->pos.line)
        snprintf(pos, sizeof pos, "%u:%u: ", p->pos.line, p->pos.column);
    if (asprintf(&line, "%s%s%s%s%s%s%s", file ? file : "", file ? ":" : "", file && !*pos ? " " : "", pos,
                 p->server ? "server \"" : "", p->server ? p->server : "", p->server ? "\": " : "") < 0)
        return need(NULL);
    line = need(realloc(line, strlen(line) + strlen(p->text) + 1));
    memcpy(line + strlen(line), p->text, strlen(p->text) + 1);
    return line;
}

/* The plan's own findings, ports that cannot be had, become problems like those of the file. */
static void add_port_problems(struct reload *r)
{
    for (size_t i = 0; i < r->plan.count; i++) {
        const struct plan_entry *e = &r->plan.entries[i];

        if (e->message && !strncmp(e->message, "port: ", 6))
            for (size_t k = 0; k < r->candidate_count; k++)
                if (r->candidates[k].version && !strcmp(r->candidates[k].name, e->name))
                    spec_problem_add(&r->problems, (struct spec_pos){0}, e->name, "%s", e->message);
    }
}

/* True when it says something else than before. */
static bool report(struct reload *r, bool refused)
{
    struct status *s = r->status;
    size_t count = r->problems.count < STATUS_MAX_ERRORS ? r->problems.count : STATUS_MAX_ERRORS;
    enum status_result result = refused             ? STATUS_REFUSED
                                : r->problems.count ? STATUS_PARTIAL
                                                    : STATUS_APPLIED;
    bool changed = result != s->seen.result || count != s->seen.error_count;
    char **errors = need(calloc(count + 1, sizeof *errors));

    for (size_t i = 0; i < count; i++) {
        errors[i] = problem_line(NULL, &r->problems.items[i]);
        changed = changed || strcmp(errors[i], s->seen.errors[i]) != 0;
    }
    free_errors(s);
    s->seen.errors = errors;
    s->seen.error_count = count;
    s->seen.result = result;
    return changed;
}

static void log_problems(const struct reload *r)
{
    for (size_t i = 0; i < r->problems.count && i < RELOAD_LOG_LINES; i++) {
        cleanup_free char *line = problem_line(r->path, &r->problems.items[i]);

        log_msg(LOG_ERROR, "spec", "%s", line);
    }
    if (r->status->seen.result == STATUS_REFUSED)
        log_msg(LOG_ERROR, "reload", "%s is refused; what was served before goes on", r->path);
}

void reload_print_problems(const struct reload *r, FILE *to)
{
    spec_problems_print(&r->problems, r->path, to);
}

/* The status of each server, from the plan. */

static void fill_servers(struct reload *r)
{
    struct status *s = r->status;
    size_t n = 0;

    free_servers(s);
    s->servers = need(calloc(r->plan.count + r->leaving_count + 1, sizeof *s->servers));
    for (size_t i = 0; i < r->plan.count; i++) {
        const struct plan_entry *e = &r->plan.entries[i];
        const struct version *v = e->serves;
        struct status_server *out = &s->servers[n++];

        *out = (struct status_server){.name = need(strdup(e->name)), .state = e->state, .slot = e->slot};
        out->message = e->message ? need(strdup(e->message)) : NULL;
        if (!v)
            continue;
        out->port = v->port;
        out->tls = v->tls;
        out->backend = need(strdup(v->backend));
        memcpy(out->cert_sha256, v->cert_sha256, sizeof out->cert_sha256);
        out->not_after = v->not_after;
    }
    for (size_t i = 0; i < r->leaving_count; i++)
        s->servers[n++] = (struct status_server){.name = need(strdup(r->leaving[i].name)),
                                                 .state = STATUS_DRAINING,
                                                 .message = need(strdup("removed from the file")),
                                                 .slot = r->leaving[i].slot};
    s->server_count = n;
}

/* Slots and the servers that leave */

static void stay(struct reload *r, const char *name)
{
    for (size_t i = 0; i < r->leaving_count; i++)
        if (!strcmp(r->leaving[i].name, name)) {
            free(r->leaving[i].name);
            r->leaving[i] = r->leaving[--r->leaving_count];
            return;
        }
}

static void leave(struct reload *r, const struct plan_entry *e)
{
    r->leaving = need(realloc(r->leaving, (r->leaving_count + 1) * sizeof *r->leaving));
    r->leaving[r->leaving_count++] =
        (struct leaving){.name = need(strdup(e->name)), .slot = e->slot, .generation = r->generation};
}

/* A name keeps its slot, and its counters, while it is served or drains. */
static void assign_slots(struct reload *r, struct plan *next)
{
    for (size_t i = 0; i < next->count; i++) {
        struct plan_entry *e = &next->entries[i];
        const struct plan_entry *old = plan_find(&r->plan, e->name);

        e->slot = old ? old->slot : -1;
        if (!e->serves || e->slot >= 0)
            continue;
        e->slot = shared_slot_take(r->shared, e->name);
        if (e->slot >= 0)
            continue;
        version_unref(e->serves);
        free(e->message);
        e->serves = NULL;
        e->state = STATUS_FAILED;
        e->message = need(strdup("no room while servers that were removed still drain; it is tried again"));
        next->port_trouble = true;
    }
}

/* Who leaves with this plan, and who is back. */
static void note_leaving(struct reload *r, const struct plan *before)
{
    for (size_t i = 0; i < r->plan.count; i++)
        if (r->plan.entries[i].slot >= 0)
            stay(r, r->plan.entries[i].name);
    for (size_t i = 0; i < before->count; i++)
        if (before->entries[i].slot >= 0 && !plan_find(&r->plan, before->entries[i].name))
            leave(r, &before->entries[i]);
}

/* The effective spec */

static int write_spec(const struct plan *p, struct err *err)
{
    cleanup_close int fd = memfd_create("tidegate-spec", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    for (size_t i = 0; fd >= 0 && i < p->count; i++) {
        const struct version *v = p->entries[i].serves;

        for (size_t done = 0; v && done < v->doc_len;) {
            ssize_t n = write(fd, v->doc + done, v->doc_len - done);

            if (n <= 0)
                return err_set(err, ERR_IO, "the effective spec: %s", strerror(errno));
            done += (size_t)n;
        }
    }
    if (fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        return err_set(err, ERR_IO, "the effective spec: %s", strerror(errno));
    int out = fd;

    fd = -1;
    return out;
}

static void digest_plan(const struct plan *p, uint8_t out[VERSION_DIGEST_BYTES])
{
    cleanup_free uint8_t *all = need(malloc(p->count * VERSION_DIGEST_BYTES + 1));
    size_t n = 0;

    for (size_t i = 0; i < p->count; i++)
        if (p->entries[i].serves)
            memcpy(all + VERSION_DIGEST_BYTES * n++, p->entries[i].serves->digest, VERSION_DIGEST_BYTES);
    SHA256(all, n * VERSION_DIGEST_BYTES, out);
}

static void note_drains(struct reload *r)
{
    for (size_t i = 0; i < r->plan.count; i++)
        if (r->plan.entries[i].serves && r->plan.entries[i].serves->drain_ms > r->longest_drain_ms)
            r->longest_drain_ms = r->plan.entries[i].serves->drain_ms;
}

/* The next plan becomes the plan. True when the workers have something to apply. */
static bool plan_next(struct reload *r)
{
    uint8_t digest[VERSION_DIGEST_BYTES];
    struct plan next, before = r->plan;
    struct err err;
    int fd = -1;
    bool changed;

    plan_make(&r->plan, r->candidates, r->candidate_count, r->ports, &next);
    assign_slots(r, &next);
    digest_plan(&next, digest);
    changed = !r->generation || memcmp(digest, r->effective, sizeof digest) != 0;
    r->behind = changed && (fd = write_spec(&next, &err)) < 0;
    if (r->behind) {
        log_msg(LOG_ERROR, "reload", "%s; trying again", err.msg);
        plan_free(&next);
        return false;
    }
    r->plan = next;
    if (changed) {
        if (r->spec_fd >= 0)
            close(r->spec_fd);
        r->spec_fd = fd;
        memcpy(r->effective, digest, sizeof digest);
        r->generation++;
    }
    note_leaving(r, &before);
    plan_free(&before);
    note_drains(r);
    ports_close_unwanted(r->ports, r->generation);
    fill_servers(r);
    return changed;
}

bool reload_read(struct reload *r)
{
    char before[STATUS_HEX_BYTES];
    int reading;
    bool changed;

    memcpy(before, r->status->seen.revision, sizeof before);
    reading = read_file(r);
    if (reading == READ_SAME)
        return false;
    changed = reading == READ_NEW && plan_next(r);
    if (reading == READ_NEW)
        add_port_problems(r);
    /* A reading that finds what the last one found is no news. */
    if (report(r, reading == READ_REFUSED) || changed || strcmp(before, r->status->seen.revision) != 0) {
        r->status->reloads[r->status->seen.result]++;
        log_problems(r);
    }
    return changed;
}

static void drop_port_problems(struct reload *r)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->problems.count; i++) {
        struct spec_problem *p = &r->problems.items[i];

        if (p->pos.line || !p->server) {
            r->problems.items[kept++] = *p;
        } else {
            free(p->server);
            free(p->text);
        }
    }
    r->problems.count = kept;
}

bool reload_again(struct reload *r)
{
    size_t before = r->problems.count;
    bool changed = plan_next(r);

    drop_port_problems(r);
    add_port_problems(r);
    if (r->status->seen.result != STATUS_REFUSED && report(r, false) && r->problems.count > before)
        log_problems(r);
    return changed;
}

bool reload_is_waiting(const struct reload *r)
{
    return r->plan.port_trouble || r->behind;
}

uint64_t reload_generation(const struct reload *r)
{
    return r->generation;
}

int reload_spec_fd(const struct reload *r)
{
    return r->spec_fd;
}

bool reload_applied(struct reload *r, uint64_t generation)
{
    if (!r->generation || r->behind || generation < r->generation ||
        !strcmp(r->status->revision, r->revision))
        return false;
    memcpy(r->status->revision, r->revision, sizeof r->revision);
    r->status->applied_at = time(NULL);
    log_msg(LOG_INFO, "applied", "revision %.12s, %zu servers", r->revision, r->plan.count);
    return true;
}

bool reload_forget(struct reload *r, uint64_t applied)
{
    bool any = false;

    for (size_t i = r->leaving_count; i-- > 0;) {
        struct leaving *l = &r->leaving[i];

        if (applied < l->generation || status_in_use(r->status, l->slot))
            continue;
        log_msg(LOG_INFO, "drained", "server \"%s\" is gone", l->name);
        shared_slot_free(r->shared, (unsigned)l->slot);
        free(l->name);
        *l = r->leaving[--r->leaving_count];
        any = true;
    }
    if (any)
        fill_servers(r);
    return any;
}

void reload_watch(const struct reload *r, struct watch *w)
{
    cleanup_free const char **paths = need(calloc(r->file_count + 1, sizeof(char *)));
    struct err err;

    paths[0] = r->path;
    for (size_t i = 0; i < r->file_count; i++)
        paths[i + 1] = r->files[i];
    if (watch_set(w, paths, r->file_count + 1, &err))
        log_msg(LOG_ERROR, "reload", "%s", err.msg);
}

uint32_t reload_longest_drain_ms(const struct reload *r)
{
    return r->longest_drain_ms;
}
