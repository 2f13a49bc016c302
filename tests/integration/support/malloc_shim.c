/* A library put in front of malloc, calloc and realloc: every N-th of those calls that the program itself makes (not the
 * libraries it uses) fails with ENOMEM, as any of them may do. Only in a process with --worker on its command line, and
 * only while the file named by MALLOC_SHIM_CONTROL is there: it holds N, so a start is spared. Each failure adds a line to
 * the file named by MALLOC_SHIM_REPORT: where in the program it was, for addr2line. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t len);
void *__libc_calloc(size_t count, size_t len);
void *__libc_realloc(void *p, size_t len);

static const char *control, *report;
static uintptr_t base, text_first, text_end; /* of the program */
static unsigned long calls;

/* The next ones behind us: those of a sanitizer, if there is one, which also knows what they gave. */
static void *(*next_malloc)(size_t len) = __libc_malloc;
static void *(*next_calloc)(size_t count, size_t len) = __libc_calloc;
static void *(*next_realloc)(void *p, size_t len) = __libc_realloc;
static bool resolved;

static void resolve(void)
{
    if (resolved)
        return;
    resolved = true; /* first: what dlsym itself takes comes from libc */
    void *m = dlsym(RTLD_NEXT, "malloc"), *c = dlsym(RTLD_NEXT, "calloc"), *r = dlsym(RTLD_NEXT, "realloc");

    if (m && c && r) {
        next_malloc = (void *(*)(size_t))m;
        next_calloc = (void *(*)(size_t, size_t))c;
        next_realloc = (void *(*)(void *, size_t))r;
    }
}

static int find_text(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];

        if (p->p_type == PT_LOAD && p->p_flags & PF_X) {
            text_first = base + p->p_vaddr;
            text_end = text_first + p->p_memsz;
        }
    }
    return 1; /* the first one is the program */
}

static bool is_worker(void)
{
    char words[4096];
    const int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? -1 : read(fd, words, sizeof words - 1);

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    words[n] = '\0';
    for (const char *word = words; word < words + n; word += strlen(word) + 1)
        if (!strcmp(word, "--worker"))
            return true;
    return false;
}

__attribute__((constructor)) static void begin(void)
{
    resolve();
    if (!is_worker())
        return;
    dl_iterate_phdr(find_text, NULL);
    report = getenv("MALLOC_SHIM_REPORT");
    control = getenv("MALLOC_SHIM_CONTROL");
}

/* N, 0 when nothing is to fail. */
static unsigned long every(void)
{
    char text[24];
    const int fd = open(control, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return strtoul(text, NULL, 10);
}

static bool fails(const void *caller)
{
    const uintptr_t at = (uintptr_t)caller;

    if (!control || at < text_first || at >= text_end)
        return false;
    const int kept = errno;
    const unsigned long n = every();
    const bool now = n && ++calls % n == 0;

    if (now && report) {
        char line[32];
        const int len = snprintf(line, sizeof line, "%#lx\n", (unsigned long)(at - base));
        const int fd = open(report, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0 && write(fd, line, (size_t)len) != len)
            abort();
        if (fd >= 0)
            close(fd);
    }
    errno = now ? ENOMEM : kept;
    return now;
}

void *malloc(size_t len)
{
    resolve();
    return fails(__builtin_return_address(0)) ? NULL : next_malloc(len);
}

void *calloc(size_t count, size_t len)
{
    resolve();
    return fails(__builtin_return_address(0)) ? NULL : next_calloc(count, len);
}

void *realloc(void *p, size_t len)
{
    resolve();
    return fails(__builtin_return_address(0)) ? NULL : next_realloc(p, len);
}
