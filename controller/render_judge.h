/* render_judge.h - one object -> its document, or why there is none
 * Shape:   part (ours, sidecars', not ours) -> rules of the object -> references -> YAML, parsed back and checked by the proxy's own parser
 * Owner:   render_judge ... render_judged_free; `text` and `grants` may be taken out of it
 * Errors:  in accepted and resolved
 * Limits:  those of spec.h
 * Threads: the loop's
 * Source:  as render.h */
#ifndef CONTROLLER_RENDER_JUDGE_H
#define CONTROLLER_RENDER_JUDGE_H

#include "render_refs.h"
#include "spec/spec_cert.h"

struct render_judged {
    enum render_part part;
    struct render_condition accepted, resolved;
    uint8_t *text; /* NULL: no good document; it may hold keys */
    size_t len;
    uint16_t port;
    struct render_grant *grants; /* what the document rests on */
    size_t grant_count;
};

void render_judge(const struct render_rules *rules, const struct store *s, const struct wss *w,
                  struct spec_cert *certs, struct render_judged *out);
void render_judged_free(struct render_judged *j);

#endif
