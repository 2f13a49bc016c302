#include "run/reload.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/need.h"
#include "run/source.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A server that is gone from the file while connections of it are left. */
struct leaving {
    char *name;
    int slot;
    uint64_t generation; /* the first one without it */
};

struct reload {
    struct source source;
    struct ports *ports;
    struct shared *shared;
    struct status *status;
    struct plan plan;
    struct leaving *leaving;
    size_t leaving_count;
    uint8_t effective[VERSION_DIGEST_BYTES];
    bool behind; /* the plan could not be handed on */
    uint64_t generation;
    int spec_fd;
    uint32_t longest_drain_ms;
};

struct reload *reload_new(const char *path, struct ports *ports, struct shared *shared, struct status *status,
                          struct err *err)
{
    struct reload *r = calloc(1, sizeof *r);

    if (!r) {
        err_set(err, ERR_LIMIT, "out of memory");
        return NULL;
    }
    *r = (struct reload){
        .source.path = path, .ports = ports, .shared = shared, .status = status, .spec_fd = -1};
    return r;
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
    source_done(&r->source);
    free_errors(r->status);
    free_servers(r->status);
    plan_free(&r->plan);
    for (size_t i = 0; i < r->leaving_count; i++)
        free(r->leaving[i].name);
    free(r->leaving);
    if (r->spec_fd >= 0)
        close(r->spec_fd);
    free(r);
}

/* `FILE:12:7: server "a": port: ...`; without a file, or without a place in it, less in front. */
static char *problem_line(const char *file, const struct spec_problem *p)
{
    char pos[32] = "";

    if (p->pos.line)
        snprintf(pos, sizeof pos, "%u:%u: ", p->pos.line, p->pos.column);
    return need_printf("%s%s%s%s%s%s%s", file ? file : "",
                       !file    ? ""
                       : pos[0] ? ":"
                                : ": ",
                       pos, p->server ? "server \"" : "", p->server ? p->server : "", p->server ? "\": " : "",
                       p->text);
}

/* The plan's own findings, ports that cannot be had, become problems like those of the file. */
static void add_port_problems(struct reload *r)
{
    for (size_t i = 0; i < r->plan.count; i++) {
        const struct plan_entry *e = &r->plan.entries[i];

        if (e->message && !strncmp(e->message, "port: ", 6))
            for (size_t k = 0; k < r->source.candidate_count; k++)
                if (r->source.candidates[k].version && !strcmp(r->source.candidates[k].name, e->name))
                    spec_problem_add(&r->source.problems, (struct spec_pos){0}, e->name, "%s", e->message);
    }
}

/* True when it says something else than before. */
static bool report(struct reload *r, bool refused)
{
    struct status *s = r->status;
    size_t count =
        r->source.problems.count < STATUS_MAX_ERRORS ? r->source.problems.count : STATUS_MAX_ERRORS;
    enum status_result result = refused                    ? STATUS_REFUSED
                                : r->source.problems.count ? STATUS_PARTIAL
                                                           : STATUS_APPLIED;
    bool changed = result != s->seen.result || count != s->seen.error_count;
    char **errors = need(calloc(count + 1, sizeof *errors));

    for (size_t i = 0; i < count; i++) {
        errors[i] = problem_line(NULL, &r->source.problems.items[i]);
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
    for (size_t i = 0; i < r->source.problems.count && i < RELOAD_LOG_LINES; i++) {
        cleanup_free char *line = problem_line(r->source.path, &r->source.problems.items[i]);

        log_msg(LOG_ERROR, "spec", "%s", line);
    }
    if (r->status->seen.result == STATUS_REFUSED)
        log_msg(LOG_ERROR, "reload", "%s is refused; what was served before goes on", r->source.path);
}

void reload_print_problems(const struct reload *r, FILE *to)
{
    spec_problems_print(&r->source.problems, r->source.path, to);
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
        out->backend = v->backend ? need(strdup(v->backend)) : NULL;
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

/* A name keeps its slot, and its counters, while it is served or drains; also when what comes back under it is wrong. */
static void assign_slots(struct reload *r, struct plan *next)
{
    for (size_t i = 0; i < next->count; i++) {
        struct plan_entry *e = &next->entries[i];
        const struct plan_entry *old = plan_find(&r->plan, e->name);

        e->slot = old && old->slot >= 0 ? old->slot : shared_slot_find(r->shared, e->name);
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

static int write_docs(int fd, const struct plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct version *v = p->entries[i].serves;

        for (size_t done = 0; v && done < v->doc_len;) {
            ssize_t n = write(fd, v->doc + done, v->doc_len - done);

            if (n <= 0)
                return -1;
            done += (size_t)n;
        }
    }
    return 0;
}

static int write_spec(const struct plan *p, struct err *err)
{
    int fd = memfd_create("tidegate-spec", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd >= 0 && !write_docs(fd, p) &&
        !fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        return fd;
    err_set(err, ERR_IO, "the effective spec: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
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

    plan_make(&r->plan, r->source.candidates, r->source.candidate_count, r->ports, &next);
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

bool reload_read(struct reload *r, bool log)
{
    struct status *s = r->status;
    enum source_result result = source_read(&r->source);
    bool changed, news;

    if (result == SOURCE_SAME)
        return false;
    changed = result == SOURCE_NEW && plan_next(r);
    if (result == SOURCE_NEW)
        add_port_problems(r);
    /* A reading that finds what the last one found is no news. */
    news = report(r, result == SOURCE_REFUSED) || changed ||
           strcmp(s->seen.revision, r->source.seen_revision) != 0;
    memcpy(s->seen.revision, r->source.seen_revision, sizeof s->seen.revision);
    if (news) {
        s->reloads[s->seen.result]++;
        if (log)
            log_problems(r);
    }
    return changed;
}

static void drop_port_problems(struct reload *r)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->source.problems.count; i++) {
        struct spec_problem *p = &r->source.problems.items[i];

        if (p->pos.line || !p->server) {
            r->source.problems.items[kept++] = *p;
        } else {
            free(p->server);
            free(p->text);
        }
    }
    r->source.problems.count = kept;
}

bool reload_again(struct reload *r)
{
    size_t before = r->source.problems.count;
    bool changed = plan_next(r);

    drop_port_problems(r);
    add_port_problems(r);
    if (r->status->seen.result != STATUS_REFUSED && report(r, false) && r->source.problems.count > before)
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
        !strcmp(r->status->revision, r->source.revision))
        return false;
    memcpy(r->status->revision, r->source.revision, sizeof r->source.revision);
    r->status->applied_at = time(NULL);
    log_msg(LOG_INFO, "applied", "revision %.12s, servers: %zu", r->source.revision, r->plan.count);
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
    cleanup_free const char **paths = need(calloc(r->source.file_count + 1, sizeof(char *)));
    struct err err;

    paths[0] = r->source.path;
    for (size_t i = 0; i < r->source.file_count; i++)
        paths[i + 1] = r->source.files[i];
    if (watch_set(w, paths, r->source.file_count + 1, &err))
        log_msg(LOG_ERROR, "reload", "%s", err.msg);
}

uint32_t reload_longest_drain_ms(const struct reload *r)
{
    return r->longest_drain_ms;
}
