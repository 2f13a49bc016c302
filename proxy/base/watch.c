#include "base/watch.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What may have made, changed or taken a file. Not IN_MODIFY: half a file is no reason to look. */
#define EVENTS                                                                                               \
    (IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |  \
     IN_ONLYDIR)
#define EVENT_BYTES 4096
/* After a look that events asked for, they wait for so many times what it took. */
#define REST 8

struct stamp {
    int error; /* errno of stat; the rest is 0 then */
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec modified, changed;
};

struct entry {
    char *path;
    struct stamp now;
    struct stamp told;
    uint64_t since_ms; /* when `now` was first seen */
    bool whole;        /* `now` came by a rename: nobody writes there */
    bool unsure;       /* something may have been written since, behind the same stamp */
};

struct folder {
    char *path;
    int wd; /* -1: none */
};

struct watch {
    struct loop *loop;
    void (*changed)(void *arg);
    void *arg;
    struct loop_fd inotify;
    uint32_t inotify_watched;
    struct loop_timer poll, again;
    struct loop_task soon;
    struct loop_dead dead;
    struct entry *entries; /* sorted by path, each once */
    size_t entry_count;
    struct folder *folders; /* the same */
    size_t folder_count;
    bool warned;
    bool moved;         /* something was renamed into a watched directory since the last look */
    bool due;           /* a call is owed */
    bool forced;        /* by watch_now */
    uint64_t held_ms;   /* since when it waits for whoever writes; 0: it does not */
    uint64_t told_ms;   /* the last call */
    uint64_t rested_ms; /* until then events wait */
};

static struct stamp stamp_of(const char *path)
{
    struct stat st;

    if (stat(path, &st))
        return (struct stamp){.error = errno};
    return (struct stamp){.dev = st.st_dev,
                          .ino = st.st_ino,
                          .size = st.st_size,
                          .modified = st.st_mtim,
                          .changed = st.st_ctim};
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_file(const struct stamp *a, const struct stamp *b)
{
    return a->error == b->error && a->dev == b->dev && a->ino == b->ino;
}

static bool same(const struct stamp *a, const struct stamp *b)
{
    return same_file(a, b) && a->size == b->size && same_time(&a->modified, &b->modified) &&
           same_time(&a->changed, &b->changed);
}

/* Changed, and maybe not to its end yet. */
static bool in_writing(const struct entry *e, uint64_t now_ms)
{
    return !same(&e->now, &e->told) && !e->whole && now_ms - e->since_ms < WATCH_QUIET_MS;
}

/* An empty file is never taken for whole: as a spec it would mean no servers at all. */
static void check(struct entry *e, bool moved, uint64_t now_ms)
{
    struct stamp s = stamp_of(e->path);

    if (same(&s, &e->now))
        return;
    e->whole = moved && s.size > 0 && !same_file(&s, &e->now);
    e->now = s;
    e->since_ms = now_ms;
    e->unsure = true;
}

static void look_at(struct watch *w, uint64_t at_ms)
{
    if (!w->again.at_ms || w->again.at_ms > at_ms)
        loop_timer_set(w->loop, &w->again, at_ms);
}

static void look_soon(struct watch *w)
{
    if (loop_clock_ms() >= w->rested_ms)
        loop_task_add(w->loop, &w->soon);
    else
        look_at(w, w->rested_ms);
}

static void tell(struct watch *w, uint64_t now_ms)
{
    for (size_t i = 0; i < w->entry_count; i++) {
        struct entry *e = &w->entries[i];

        if (in_writing(e, now_ms)) {
            look_at(w, now_ms + WATCH_QUIET_MS);
            continue;
        }
        e->told = e->now;
        if (now_ms - e->since_ms >= WATCH_UNSURE_MS)
            e->unsure = false;
    }
    w->due = w->forced = false;
    w->held_ms = 0;
    w->told_ms = now_ms;
    w->changed(w->arg);
}

static void decide(struct watch *w, bool writing, uint64_t now_ms)
{
    if (!writing)
        w->held_ms = 0;
    else if (!w->held_ms)
        w->held_ms = now_ms;
    if (writing && now_ms - w->held_ms >= WATCH_HOLD_MS)
        w->due = true;
    else if (writing) {
        look_at(w, now_ms + WATCH_QUIET_MS);
        return;
    }
    if (!w->due && !w->forced)
        return;
    if (now_ms - w->told_ms < WATCH_PACE_MS)
        look_at(w, w->told_ms + WATCH_PACE_MS);
    else
        tell(w, now_ms);
}

/* By the clock, not by the turn: a slow turn would make half a file look quiet. */
static void look(struct watch *w, bool poll)
{
    uint64_t now_ms = loop_clock_ms(), end_ms;
    bool writing = false;

    for (size_t i = 0; i < w->entry_count; i++) {
        struct entry *e = &w->entries[i];

        check(e, w->moved, now_ms);
        if (in_writing(e, now_ms))
            writing = true;
        else if (!same(&e->now, &e->told) || (poll && e->unsure))
            w->due = true;
    }
    w->moved = false;
    end_ms = loop_clock_ms();
    w->rested_ms = end_ms + REST * (end_ms - now_ms);
    decide(w, writing, now_ms);
}

/* Asked for again, a directory keeps its watch, and one that was replaced gets a new one. */
static void watch_folders(struct watch *w)
{
    for (size_t i = 0; w->inotify.fd >= 0 && i < w->folder_count; i++) {
        struct folder *f = &w->folders[i];
        int wd = inotify_add_watch(w->inotify.fd, f->path, EVENTS);

        if (wd < 0 && (errno == ENOSPC || errno == ENOMEM) && !w->warned) {
            log_msg(LOG_WARN, "watch", "%s: inotify: %s; its files are polled each second instead", f->path,
                    strerror(errno));
            w->warned = true;
        }
        if (wd != f->wd && f->wd >= 0)
            inotify_rm_watch(w->inotify.fd, f->wd);
        f->wd = wd;
    }
}

static struct watch *of_member(void *member, size_t offset)
{
    return (struct watch *)(void *)((char *)member - offset);
}

static void on_poll(struct loop_timer *t)
{
    struct watch *w = of_member(t, offsetof(struct watch, poll));

    loop_timer_set(w->loop, t, loop_clock_ms() + WATCH_POLL_MS);
    /* First the watches: what changes behind a look is an event then. */
    watch_folders(w);
    look(w, true);
}

static void on_again(struct loop_timer *t)
{
    look(of_member(t, offsetof(struct watch, again)), false);
}

static void on_soon(struct loop_task *t)
{
    look(of_member(t, offsetof(struct watch, soon)), false);
}

/* One buffer a turn: a flood of events is the writers' matter, the loop has others. */
static void on_events(struct loop_fd *f, uint32_t events)
{
    struct watch *w = of_member(f, offsetof(struct watch, inotify));
    _Alignas(struct inotify_event) char bytes[EVENT_BYTES];
    ssize_t len = read(f->fd, bytes, sizeof bytes);

    (void)events;
    for (ssize_t at = 0; at < len;) {
        const struct inotify_event *e = (const struct inotify_event *)(const void *)(bytes + at);

        w->moved |= (e->mask & IN_MOVED_TO) != 0;
        at += (ssize_t)(sizeof *e + e->len);
    }
    if (len > 0)
        look_soon(w);
}

static int start_inotify(struct watch *w, struct err *err)
{
    w->inotify = (struct loop_fd){.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), .ready = on_events};
    if (w->inotify.fd >= 0)
        return loop_watch(w->loop, &w->inotify, &w->inotify_watched, EPOLLIN, err);
    log_msg(LOG_WARN, "watch", "inotify: %s; files are polled each second instead", strerror(errno));
    w->warned = true;
    return 0;
}

struct watch *watch_new(struct loop *l, void (*changed)(void *arg), void *arg, struct err *err)
{
    struct watch *w = calloc(1, sizeof *w);

    if (!w) {
        err_set(err, ERR_LIMIT, "out of memory");
        return NULL;
    }
    *w = (struct watch){.loop = l, .changed = changed, .arg = arg};
    w->poll.fire = on_poll;
    w->again.fire = on_again;
    w->soon.run = on_soon;
    if (start_inotify(w, err)) {
        close(w->inotify.fd);
        free(w);
        return NULL;
    }
    loop_timer_set(l, &w->poll, loop_clock_ms() + WATCH_POLL_MS);
    return w;
}

static void free_entries(struct entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(entries[i].path);
    free(entries);
}

static void free_folders(struct folder *folders, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(folders[i].path);
    free(folders);
}

/* Both structs begin with their path. */
static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, each path once; NULL: out of memory. */
static struct entry *make_entries(const char *const paths[], size_t *count)
{
    struct entry *entries = calloc(*count + 1, sizeof *entries);
    size_t n = 0;

    for (size_t i = 0; entries && i < *count; i++)
        if (!(entries[i].path = strdup(paths[i]))) {
            free_entries(entries, i);
            return NULL;
        }
    if (!entries)
        return NULL;
    qsort(entries, *count, sizeof *entries, by_path);
    for (size_t i = 0; i < *count; i++)
        if (n && !strcmp(entries[n - 1].path, entries[i].path))
            free(entries[i].path);
        else
            entries[n++] = entries[i];
    *count = n;
    return entries;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* The directories of the entries, in the same way. */
static struct folder *make_folders(const struct entry *entries, size_t entry_count, size_t *count)
{
    struct folder *folders = calloc(entry_count + 1, sizeof *folders);
    size_t n = 0;

    for (size_t i = 0; folders && i < entry_count; i++) {
        folders[i].wd = -1;
        if (!(folders[i].path = folder_of(entries[i].path))) {
            free_folders(folders, i);
            return NULL;
        }
    }
    if (!folders)
        return NULL;
    qsort(folders, entry_count, sizeof *folders, by_path);
    for (size_t i = 0; i < entry_count; i++)
        if (n && !strcmp(folders[n - 1].path, folders[i].path))
            free(folders[i].path);
        else
            folders[n++] = folders[i];
    *count = n;
    return folders;
}

/* Directories that stay keep their watch; the others' end. */
static void replace_folders(struct watch *w, struct folder *folders, size_t count)
{
    for (size_t i = 0; i < w->folder_count; i++) {
        struct folder *old = &w->folders[i];
        struct folder *kept = bsearch(old, folders, count, sizeof *folders, by_path);

        if (kept)
            kept->wd = old->wd;
        else if (old->wd >= 0)
            inotify_rm_watch(w->inotify.fd, old->wd);
    }
    free_folders(w->folders, w->folder_count);
    w->folders = folders;
    w->folder_count = count;
    watch_folders(w);
}

static void replace_entries(struct watch *w, struct entry *entries, size_t count)
{
    uint64_t now_ms = loop_clock_ms();

    for (size_t i = 0; i < count; i++) {
        char *path = entries[i].path;
        const struct entry *old =
            w->entry_count ? bsearch(&entries[i], w->entries, w->entry_count, sizeof *entries, by_path)
                           : NULL;

        if (old)
            entries[i] = *old;
        else
            entries[i] = (struct entry){.now = stamp_of(path), .since_ms = now_ms, .unsure = true};
        if (!old)
            entries[i].told = entries[i].now;
        entries[i].path = path;
    }
    free_entries(w->entries, w->entry_count);
    w->entries = entries;
    w->entry_count = count;
}

int watch_set(struct watch *w, const char *const paths[], size_t count, struct err *err)
{
    size_t folder_count = 0;
    struct entry *entries = make_entries(paths, &count);
    struct folder *folders = entries ? make_folders(entries, count, &folder_count) : NULL;

    if (!folders) {
        if (entries)
            free_entries(entries, count);
        return err_set(err, ERR_LIMIT, "out of memory");
    }
    replace_folders(w, folders, folder_count);
    replace_entries(w, entries, count);
    return 0;
}

void watch_now(struct watch *w)
{
    w->forced = true;
    look_soon(w);
}

static void on_dead(struct loop_dead *d)
{
    free(of_member(d, offsetof(struct watch, dead)));
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    if (w->inotify.fd >= 0)
        close(w->inotify.fd);
    w->inotify.fd = -1;
    loop_timer_clear(&w->poll);
    loop_timer_clear(&w->again);
    loop_task_clear(w->loop, &w->soon);
    free_entries(w->entries, w->entry_count);
    free_folders(w->folders, w->folder_count);
    w->entries = NULL;
    w->folders = NULL;
    w->entry_count = w->folder_count = 0;
    w->dead.release = on_dead;
    loop_free_later(w->loop, &w->dead);
}
