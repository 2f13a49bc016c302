#include "spec/spec.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (so)
        return;
    fprintf(stderr, "fuzz_spec: %s\n", what);
    abort();
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
    buf_init(&out, SPEC_MAX_BYTES);
    must(!spec_emit(&s, &out, &err), err.msg);
    must(!spec_parse(out.data, out.len, &back, &problems), "what was emitted does not parse");
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
