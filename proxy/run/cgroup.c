#include "run/cgroup.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES 8192

/* The directories of one controller: dir, and all above it down to the first `top` characters. */
struct place {
    char dir[PATH_MAX];
    size_t top;
    bool v1;
};

/* Is `word` an element of a list with commas? */
static bool lists(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (; list; list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL)
        if (!strncmp(list, word, len) && (list[len] == ',' || !list[len]))
            return true;
    return false;
}

static FILE *open_proc(const char *root, const char *name)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/proc/%s", root, name);
    return fopen(path, "re");
}

/* Our path in the hierarchy of that v1 controller, in the v2 one for "". False: we are in none. */
static bool own_path(const char *root, const char *controller, char path[PATH_MAX])
{
    FILE *f = open_proc(root, "self/cgroup");
    char *line = NULL;
    size_t cap = 0;
    bool found = false;

    /* 4:memory,hugetlb:/path */
    while (f && !found && getline(&line, &cap, f) > 0) {
        char *names = strchr(line, ':'), *where = names ? strchr(names + 1, ':') : NULL;

        if (!where)
            continue;
        *where++ = '\0';
        where[strcspn(where, "\n")] = '\0';
        found = lists(names + 1, controller) && snprintf(path, PATH_MAX, "%s", where) < PATH_MAX;
    }
    free(line);
    if (f)
        fclose(f);
    return found;
}

static bool is_octal(const char *p)
{
    return p[0] >= '0' && p[0] <= '3' && p[1] >= '0' && p[1] <= '7' && p[2] >= '0' && p[2] <= '7';
}

/* Spaces and the like stand as \040 in mountinfo. */
static void unescape(char *text)
{
    char *out = text;

    for (; *text; text++) {
        if (*text == '\\' && is_octal(text + 1)) {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + text[3] - '0');
            text += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

/* 36 35 98:0 /root/in/hierarchy /mount/point rw,noatime shared:1 - cgroup cgroup rw,memory */
static bool parse_mount(char *line, const char *controller, char **inside, char **point)
{
    char *behind = strstr(line, " - "), *words[8] = {NULL};

    if (!behind)
        return false;
    *behind = '\0';
    behind += strlen(" - ");
    behind[strcspn(behind, "\n")] = '\0';
    for (int i = 0; i < 5; i++)
        words[i] = strsep(&line, " ");
    for (int i = 5; i < 8; i++)
        words[i] = strsep(&behind, " ");
    if (!words[4] || !words[7])
        return false;
    *inside = words[3];
    *point = words[4];
    unescape(*inside);
    unescape(*point);
    return *controller ? !strcmp(words[5], "cgroup") && lists(words[7], controller)
                       : !strcmp(words[5], "cgroup2");
}

/* Where that hierarchy is mounted, and what part of it. */
static bool mount_of(const char *root, const char *controller, char point[PATH_MAX], char inside[PATH_MAX])
{
    FILE *f = open_proc(root, "self/mountinfo");
    char *line = NULL, *at, *part;
    size_t cap = 0;
    bool found = false;

    while (f && !found && getline(&line, &cap, f) > 0)
        found = parse_mount(line, controller, &part, &at) &&
                snprintf(point, PATH_MAX, "%s%s", root, at) < PATH_MAX &&
                snprintf(inside, PATH_MAX, "%s", part) < PATH_MAX;
    free(line);
    if (f)
        fclose(f);
    return found;
}

/* `file` is one that every directory of the hierarchy has below its root. */
static bool find_place(const char *root, const char *controller, const char *file, struct place *out)
{
    char own[PATH_MAX], point[PATH_MAX], inside[PATH_MAX], probe[PATH_MAX + NAME_MAX];
    size_t len;

    if (!own_path(root, controller, own) || !mount_of(root, controller, point, inside))
        return false;
    out->v1 = *controller;
    out->top = strlen(point);
    /* Below the part that is mounted: what is left of the path; a path outside of it ("/..") is not seen. */
    len = strcmp(inside, "/") ? strlen(inside) : 0;
    if (!strncmp(own, inside, len) && (own[len] == '/' || !own[len]) && !strstr(own, "/..") &&
        snprintf(out->dir, PATH_MAX, "%s%s", point, own + len) < PATH_MAX) {
        snprintf(probe, sizeof probe, "%s/%s", out->dir, file);
        if (!access(probe, F_OK))
            return true;
    }
    snprintf(out->dir, PATH_MAX, "%s", point);
    return true;
}

/* One directory up; false at the mount point. */
static bool go_up(struct place *p)
{
    char *slash = strrchr(p->dir, '/');

    if (strlen(p->dir) <= p->top || !slash)
        return false;
    *slash = '\0';
    return strlen(p->dir) >= p->top;
}

static int open_file(const struct place *p, const char *name)
{
    char path[PATH_MAX + NAME_MAX];

    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool read_text(int fd, char text[FILE_BYTES])
{
    ssize_t n = fd < 0 ? -1 : pread(fd, text, FILE_BYTES - 1, 0);

    if (n < 0)
        return false;
    text[n] = '\0';
    return true;
}

/* The number that a text begins with; it then stands behind it. "max", -1 and what else is no number: false. */
static bool take_number(const char **text, uint64_t *out)
{
    const char *from = *text + strspn(*text, " \t");
    char *end;

    if (*from < '0' || *from > '9')
        return false;
    errno = 0;
    *out = strtoull(from, &end, 10);
    *text = end;
    return !errno;
}

static bool read_number(int fd, uint64_t *out)
{
    char text[FILE_BYTES];
    const char *at = text;

    return read_text(fd, text) && take_number(&at, out);
}

/* v2: "150000 100000" or "max 100000". v1: two files. False: no quota. */
static bool read_quota(const struct place *p, uint64_t *quota, uint64_t *period)
{
    cleanup_close int quota_fd = open_file(p, p->v1 ? "cpu.cfs_quota_us" : "cpu.max");
    cleanup_close int period_fd = p->v1 ? open_file(p, "cpu.cfs_period_us") : -1;
    char text[FILE_BYTES];
    const char *at = text;

    if (!read_text(quota_fd, text) || !take_number(&at, quota))
        return false;
    return (p->v1 ? read_number(period_fd, period) : take_number(&at, period)) && *quota && *period;
}

unsigned cgroup_cpus_at(const char *root, unsigned cpus)
{
    struct place p;
    uint64_t quota, period;

    if (!find_place(root, "cpu", "cpu.cfs_quota_us", &p) && !find_place(root, "", "cpu.max", &p))
        return cpus ? cpus : 1;
    do {
        if (read_quota(&p, &quota, &period) && (quota - 1) / period + 1 < cpus)
            cpus = (unsigned)((quota - 1) / period + 1);
    } while (go_up(&p));
    return cpus ? cpus : 1;
}

unsigned cgroup_cpus(void)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    /* It fails on machines with more processors than the set holds. */
    if (!sched_getaffinity(0, sizeof set, &set))
        online = CPU_COUNT(&set);
    return cgroup_cpus_at("", online > 0 ? (unsigned)online : 1);
}

/* "name value" in a file of such lines. */
static uint64_t stat_value(const char *text, const char *name)
{
    size_t len = strlen(name);
    uint64_t n;

    while (text) {
        const char *at = text + len;

        if (!strncmp(text, name, len) && *at == ' ' && take_number(&at, &n))
            return n;
        text = strchr(text, '\n');
        if (text)
            text++;
    }
    return 0;
}

static uint64_t machine_bytes(const char *root)
{
    char path[PATH_MAX], text[FILE_BYTES];
    cleanup_close int fd = -1;
    const char *at = text + strlen("MemTotal:");
    uint64_t kib;

    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return read_text(fd, text) && !strncmp(text, "MemTotal:", strlen("MemTotal:")) && take_number(&at, &kib)
               ? kib * 1024
               : 0;
}

/* UINT64_MAX: none. */
static uint64_t read_limit(int fd, uint64_t machine)
{
    uint64_t n;

    return read_number(fd, &n) && (!machine || n <= machine) ? n : UINT64_MAX;
}

void cgroup_memory_open_at(struct cgroup_memory *m, const char *root)
{
    struct place p, best;
    uint64_t lowest = UINT64_MAX;
    const char *limit_file = "memory.limit_in_bytes";

    *m = (struct cgroup_memory){-1, -1, -1, false, machine_bytes(root)};
    if (!find_place(root, "memory", limit_file, &p)) {
        limit_file = "memory.max";
        if (!find_place(root, "", limit_file, &p))
            return;
    }
    best = p;
    do {
        cleanup_close int fd = open_file(&p, limit_file);
        uint64_t limit = read_limit(fd, m->machine_bytes);

        if (limit < lowest) {
            lowest = limit;
            best = p;
        }
    } while (go_up(&p));
    m->v1 = best.v1;
    m->limit_fd = open_file(&best, limit_file);
    m->usage_fd = open_file(&best, m->v1 ? "memory.usage_in_bytes" : "memory.current");
    m->stat_fd = open_file(&best, "memory.stat");
}

void cgroup_memory_open(struct cgroup_memory *m)
{
    cgroup_memory_open_at(m, "");
}

void cgroup_memory_close(struct cgroup_memory *m)
{
    int *fds[] = {&m->limit_fd, &m->usage_fd, &m->stat_fd};

    for (int i = 0; i < 3; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

bool cgroup_memory_read(const struct cgroup_memory *m, uint64_t *limit_bytes, uint64_t *used_bytes)
{
    char text[FILE_BYTES];
    uint64_t limit = read_limit(m->limit_fd, m->machine_bytes), usage, inactive = 0;

    if (limit == UINT64_MAX || !read_number(m->usage_fd, &usage))
        return false;
    if (read_text(m->stat_fd, text))
        inactive = stat_value(text, m->v1 ? "total_inactive_file" : "inactive_file");
    *limit_bytes = limit;
    *used_bytes = usage > inactive ? usage - inactive : 0;
    return true;
}

enum shared_pressure cgroup_pressure(enum shared_pressure before, uint64_t limit_bytes, uint64_t used_bytes)
{
    uint64_t percent = limit_bytes / 100;

    if (used_bytes >= percent * (before == SHARED_SHED ? 96 : 98))
        return SHARED_SHED;
    if (used_bytes >= percent * (before == SHARED_CALM ? 95 : 93))
        return SHARED_REFUSE;
    return SHARED_CALM;
}
