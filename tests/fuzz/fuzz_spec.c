#include "spec/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (so)
        return;
    fprintf(stderr, "fuzz_spec: %s\n", what);
    abort();
}

/* A worker cuts what was emitted at these lines. */
static size_t documents_of(const struct buf *b)
{
    size_t n = 0;

    for (size_t i = 0; i + 4 <= b->len; i++)
        n += (!i || b->data[i - 1] == '\n') && !memcmp(b->data + i, "---\n", 4);
    return n;
}

/* What parses, emits; what was emitted parses to the same. Files are never opened: spec_parse does not. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spec_problems problems = {0};
    struct spec s, back;
    struct buf out;
    struct err err;

    if (spec_parse(data, size, &s, &problems)) {
        must(problems.count > 0, "refused without a problem");
        spec_problems_free(&problems);
        return 0;
    }
    must(!problems.count, "taken with a problem");
    buf_init(&out, SPEC_MAX_EMIT_BYTES);
    must(!spec_emit(&s, &out, &err), err.msg);
    must(!spec_parse(out.data, out.len, &back, &problems), "what was emitted does not parse");
    must(documents_of(&out) == s.count, "a line that looks like a document's start");
    must(s.count == back.count, "another number of servers");
    for (size_t i = 0; i < s.count; i++)
        must(spec_server_equal(&s.servers[i], &back.servers[i]), "a server differs");
    (void)spec_check(&s, &problems);
    spec_problems_free(&problems);
    spec_free(&s);
    spec_free(&back);
    buf_free(&out);
    return 0;
}
