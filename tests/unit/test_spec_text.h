/* test_spec_text.h - texts of specs and what --check prints of them, for the tests of the spec
 * Shape:   text -> printed problems ("" when there are none) and the spec
 * Owner:   the caller frees what it gets (free, spec_free)
 * Errors:  cmocka's asserts
 * Threads: one */
#ifndef TESTS_UNIT_TEST_SPEC_TEXT_H
#define TESTS_UNIT_TEST_SPEC_TEXT_H

#include "spec/spec.h"

#include "test_spec_pem.h"

#include <stdio.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
/* What every document here needs, on three lines; its own fields follow from line 4. */
#define HEAD "kind: WebSocketServer\nname: a\nport: 10020\n"
#define BASE HEAD "backend: ws://localhost:3001\n"

/* As --check prints them; they are freed. Not inlined: gcc 12 takes the stream's pointer to `text` for a dangling one. */
__attribute__((noinline, unused)) static char *printed_and_freed(struct spec_problems *p)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    assert_non_null(to);
    spec_problems_print(p, "F", to);
    fclose(to);
    spec_problems_free(p);
    return text;
}

/* What --check would print for these bytes, but for the name of the file. */
static inline char *problems_of(const char *text, size_t len, struct spec *out)
{
    struct spec_problems p = {0};
    struct spec s = {0};

    if (spec_parse((const uint8_t *)text, len, &s, &p) == 0 && spec_read_files(&s, &p) == 0 &&
        spec_check(&s, &p) == 0)
        assert_int_equal(p.count, 0);
    else
        assert_true(p.count > 0 || p.cut);
    if (out)
        *out = s;
    else
        spec_free(&s);
    return printed_and_freed(&p);
}

static inline void assert_good(const char *text, struct spec *out)
{
    char *printed = problems_of(text, strlen(text), out);

    if (*printed)
        fail_msg("%s", printed);
    free(printed);
}

/* Exactly one problem, at this place, with these words. */
static inline void assert_problem_of(const char *text, size_t len, const char *where, const char *because)
{
    char *printed = problems_of(text, len, NULL), *end = strchr(printed, '\n');

    if (!end || end[1])
        fail_msg("for\n%s\nnot one problem but:\n%s", text, printed);
    if (strncmp(printed, where, strlen(where)) != 0 || !strstr(printed, because))
        fail_msg("for\n%s\nno \"%s ... %s\" in: %s", text, where, because, printed);
    free(printed);
}

static inline void assert_problem(const char *text, const char *where, const char *because)
{
    assert_problem_of(text, strlen(text), where, because);
}

/* A document from a pattern whose %s are filled in order. */
__attribute__((format(printf, 1, 2))) static inline char *text_of(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    assert_true(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    return text;
}

static inline char *temp_file(const char *content)
{
    char *path = join("/tmp/test_spec.XXXXXX", "");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
    return path;
}

/* spec_load of a file with this text, printed. */
static inline char *loaded(const char *text, struct spec *s)
{
    char *path = temp_file(text);
    struct spec_problems p = {0};
    int rc = spec_load(path, s, &p);

    assert_int_equal(rc, p.count ? -1 : 0);
    unlink(path);
    free(path);
    return printed_and_freed(&p);
}

#endif
