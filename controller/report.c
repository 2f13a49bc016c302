#include "report.h"

#include "base/log.h"
#include "base/need.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What is remembered of an object from one pass to the next. */
struct note {
    char *full_name, *ns, *name, *uid;
    bool seen;        /* in this pass */
    bool served;      /* it has a document */
    uint64_t version; /* of the document that `programmed` speaks of */
    enum status_programmed programmed;
    char *message;              /* of it, NULL: none */
    char *said[WSS_CONDITIONS]; /* "False Invalid": what the last Event said; NULL: none yet */
    int64_t warned_generation;  /* for which the warnings were given */
    bool said_taken;
};

struct report {
    struct report_parts parts;
    struct note *notes; /* by full_name */
    size_t count, room;
};

/* Notes */

static void note_done(struct note *n)
{
    for (size_t i = 0; i < WSS_CONDITIONS; i++)
        free(n->said[i]);
    free(n->full_name);
    free(n->ns);
    free(n->name);
    free(n->uid);
    free(n->message);
}

static size_t note_place(const struct report *r, const char *full_name, bool *found)
{
    size_t low = 0, high = r->count;

    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(r->notes[middle].full_name, full_name);

        if (!order) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static char *copy(const char *text)
{
    return need(strdup(text ? text : ""));
}

/* An object that was made anew under its old name is another one. */
static struct note *note_of(struct report *r, const struct wss *w)
{
    bool found;
    size_t at = note_place(r, w->full_name, &found);

    if (found && strcmp(r->notes[at].uid, w->uid ? w->uid : "") != 0) {
        note_done(&r->notes[at]);
    } else if (!found) {
        if (r->count == r->room) {
            r->room = r->room ? 2 * r->room : 64;
            r->notes = need(realloc(r->notes, r->room * sizeof *r->notes));
        }
        memmove(&r->notes[at + 1], &r->notes[at], (r->count - at) * sizeof *r->notes);
        r->count++;
    } else {
        return &r->notes[at];
    }
    r->notes[at] = (struct note){
        .full_name = copy(w->full_name), .ns = copy(w->ns), .name = copy(w->name), .uid = copy(w->uid)};
    return &r->notes[at];
}

static void sweep(struct report *r)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->count; i++) {
        struct note *n = &r->notes[i];

        if (n->seen) {
            n->seen = false;
            r->notes[kept++] = *n;
            continue;
        }
        if (r->parts.status)
            status_forget(r->parts.status, n->ns, n->name);
        note_done(n);
    }
    r->count = kept;
}

/* What the proxy says */

static void set_programmed(struct note *n, enum status_programmed programmed, const char *message)
{
    char *text = message ? copy(message) : NULL;

    free(n->message);
    n->message = text;
    n->programmed = programmed;
}

static void judge_echo(struct note *n, const struct render_verdict *v, const struct echo_server *echo)
{
    switch (echo ? echo->state : ECHO_ABSENT) {
    case ECHO_ACTIVE: set_programmed(n, v->newest ? STATUS_PROG_ACTIVE : STATUS_PROG_STALE, NULL); break;
    case ECHO_STALE: set_programmed(n, STATUS_PROG_STALE, echo->message); break;
    case ECHO_FAILED: set_programmed(n, STATUS_PROG_FAILED, echo->message); break;
    case ECHO_DRAINING:
    case ECHO_ABSENT: set_programmed(n, STATUS_PROG_PENDING, NULL); break;
    }
}

/* A proxy that was started again runs nothing yet; after a while that is no longer a restart. */
static bool runs_nothing(struct publish *p, const char **why)
{
    return !*publish_echo(p)->revision && publish_late(p, why);
}

/* A document that is not confirmed yet is pending; one that did not change keeps what was said of it while the proxy runs it. */
static void judge_programmed(struct report *r, struct note *n, const struct render_verdict *v)
{
    const char *why;

    n->served = v->served;
    if (!v->served) {
        set_programmed(n, STATUS_PROG_FAILED, NULL);
        n->version = 0;
    } else if (publish_confirmed(r->parts.publish)) {
        judge_echo(n, v, publish_server(r->parts.publish, n->full_name));
        n->version = v->version;
    } else if (n->version == v->version && !runs_nothing(r->parts.publish, &why)) {
        if (n->programmed == STATUS_PROG_ACTIVE && !v->newest)
            set_programmed(n, STATUS_PROG_STALE, NULL);
        else if (n->programmed == STATUS_PROG_STALE && v->newest && !n->message)
            set_programmed(n, STATUS_PROG_ACTIVE, NULL);
    } else if (publish_late(r->parts.publish, &why)) {
        bool older = n->version && *publish_echo(r->parts.publish)->revision;

        set_programmed(n, older ? STATUS_PROG_STALE : STATUS_PROG_FAILED, why);
    } else {
        set_programmed(n, STATUS_PROG_PENDING, NULL);
    }
}

/* Events; a sidecar may write none, so its log tells instead */

static void say(struct report *r, const struct wss *w, bool warning, const char *reason, const char *note)
{
    struct kube_ref about = {.api_version = WSS_GROUP "/" WSS_VERSION,
                             .kind = WSS_KIND,
                             .ns = w->ns,
                             .name = w->name,
                             .uid = w->uid,
                             .resource_version = w->resource_version};

    if (!r->parts.events) {
        log_msg(warning ? LOG_WARN : LOG_INFO, "object", "%s: %s: %s", w->full_name, reason, note);
        return;
    }
    kube_event(r->parts.events, &about, warning, reason, "Reconcile", note);
}

static bool same_text(const char *a, const char *b)
{
    return !strcmp(a ? a : "", b ? b : "");
}

/* What an object's own conditions say already was said by whoever wrote them. Ready follows from the others. */
static void say_transitions(struct report *r, struct note *n, const struct wss *w,
                            const struct status_wanted *wanted)
{
    for (size_t i = 0; i < WSS_READY; i++) {
        const struct render_condition *c = &wanted->conditions[i];
        const struct wss_condition *stored = &w->conditions[i];
        char *text;
        bool known;

        if (c->status == WSS_UNKNOWN)
            continue;
        text = need_printf("%s %s", wss_status_label(c->status), c->reason);
        known = same_text(n->said[i], text) ||
                (r->parts.events && !n->said[i] && stored->present && stored->status == c->status &&
                 same_text(stored->reason, c->reason));
        free(n->said[i]);
        n->said[i] = text;
        /* That refs resolve is no news unless they did not before. */
        if (known || (i == WSS_RESOLVED_REFS && c->status == WSS_TRUE &&
                      !(stored->present && stored->status == WSS_FALSE)))
            continue;
        say(r, w, c->status == WSS_FALSE, c->reason, c->message);
    }
}

static void say_warnings(struct report *r, struct note *n, const struct wss *w,
                         const struct render_verdict *v)
{
    bool news = n->warned_generation != w->generation && w->observed_generation != w->generation;

    n->warned_generation = w->generation;
    if (news && v->warn_inline_key)
        say(r, w, true, "InlineKey",
            "the object holds a private key, which anyone who can get it can read; keep it in a Secret and "
            "refer to that: "
            "spec.tls.secretRef, spec.backendTLS.secretRef");
}

static void say_port(struct report *r, struct note *n, const struct wss *w, bool taken, const char *why)
{
    if (taken && !n->said_taken)
        say(r, w, true, "ServicePortTaken", why);
    n->said_taken = taken;
}

/* A pass */

static void report_object(struct report *r, const struct wss *w, const struct render_verdict *v)
{
    struct note *n = note_of(r, w);
    struct status_facts facts = {.verdict = v};
    struct status_wanted wanted = {0};
    bool tells = !r->parts.events || r->parts.leads(r->parts.arg), taken = false;

    n->seen = true;
    judge_programmed(r, n, v);
    facts.programmed = n->programmed;
    facts.programmed_message = n->message;
    if (r->parts.ports && v->part == RENDER_OURS) {
        enum ports_state state =
            v->served ? ports_state(r->parts.ports, v->port, &facts.service_message) : PORTS_PENDING;

        facts.service_managed = true;
        facts.service_port = state;
        taken = state == PORTS_TAKEN;
    }
    if (!status_judge(&facts, &wanted)) {
        if (r->parts.status)
            status_forget(r->parts.status, w->ns, w->name);
        return;
    }
    if (tells) {
        say_transitions(r, n, w, &wanted);
        say_warnings(r, n, w, v);
        say_port(r, n, w, taken, facts.service_message);
    }
    if (r->parts.status)
        status_want(r->parts.status, w, &wanted);
    status_wanted_free(&wanted);
}

static int by_number(const void *a, const void *b)
{
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

static void want_ports(struct report *r, const struct render *rendered)
{
    size_t count = render_count(rendered), n = 0;
    uint16_t *ports = need(calloc(count + 1, sizeof *ports));

    for (size_t i = 0; i < count; i++) {
        const struct render_verdict *v = render_at(rendered, i);

        if (v->served && v->part == RENDER_OURS)
            ports[n++] = v->port;
    }
    qsort(ports, n, sizeof *ports, by_number);
    ports_want(r->parts.ports, ports, n);
    free(ports);
}

void report_one(struct report *r, const struct wss *w, const struct render_verdict *v)
{
    report_object(r, w, v);
    note_of(r, w)->seen = false; /* a pass sweeps by it */
}

void report_pass(struct report *r, struct store *s, const struct render *rendered)
{
    if (r->parts.ports)
        want_ports(r, rendered);
    for (size_t i = 0; i < store_count(s); i++) {
        const struct store_object *o = store_at(s, i);
        const struct render_verdict *v = render_find(rendered, o->wss.ns, o->wss.name);

        if (v && o->dirty) /* the verdict is on an older generation than the object's: a render is due */
            note_of(r, &o->wss)->seen = true;
        else if (v)
            report_object(r, &o->wss, v);
    }
    sweep(r);
}

void report_servers(const struct report *r, void (*each)(void *arg, const char *server, bool programmed),
                    void *arg)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->notes[i].served)
            each(arg, r->notes[i].full_name, r->notes[i].programmed == STATUS_PROG_ACTIVE);
}

struct report *report_new(const struct report_parts *parts)
{
    struct report *r = need(calloc(1, sizeof *r));

    r->parts = *parts;
    return r;
}

void report_free(struct report *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++)
        note_done(&r->notes[i]);
    free(r->notes);
    free(r);
}
