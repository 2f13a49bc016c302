#include "status.h"

#include "base/need.h"
#include "kube/kube_text.h"

#include <stdlib.h>
#include <string.h>

static void say(struct render_condition *c, enum wss_condition_status status, const char *reason,
                const char *message)
{
    free(c->message);
    *c = (struct render_condition){status, reason, kube_text(message, STATUS_MESSAGE_BYTES)};
}

/* "a: b", or `a` alone. */
static void say_more(struct render_condition *c, enum wss_condition_status status, const char *reason,
                     const char *message, const char *why)
{
    char *text = need_printf("%s%s%s", message, why && *why ? ": " : ".", why ? why : "");

    say(c, status, reason, text);
    free(text);
}

static void copy(struct render_condition *to, const struct render_condition *from, const char *reason)
{
    say(to, from->status, from->reason ? from->reason : reason, from->message);
}

/* What of it the newest document does not say is said by an older one, or by none. */
static void judge_withheld(const struct status_facts *f, struct render_condition *c)
{
    const struct render_verdict *v = f->verdict;
    bool refused = v->accepted.status == WSS_FALSE;
    const char *where = refused ? "Accepted says what to correct" : "ResolvedRefs says what to correct";

    if (!refused && v->resolved.status != WSS_FALSE)
        say(c, WSS_UNKNOWN, "Pending", "Not looked at in full yet.");
    else if (!v->served)
        say_more(c, WSS_FALSE, "Invalid", "Nothing of it is served", where);
    else if (f->programmed == STATUS_PROG_FAILED)
        say_more(c, WSS_FALSE, "Invalid",
                 "This version is not used and the last good one is not served either", where);
    else
        say_more(c, WSS_FALSE, "Invalid", "The last good version keeps serving and this one is not used",
                 where);
}

static void judge_programmed(const struct status_facts *f, struct render_condition *c)
{
    const char *why = f->programmed_message;

    if (!f->verdict->served || !f->verdict->newest) {
        judge_withheld(f, c);
        return;
    }
    switch (f->programmed) {
    case STATUS_PROG_ACTIVE:
        say(c, WSS_TRUE, "Programmed", why ? why : "The proxy serves this version.");
        break;
    case STATUS_PROG_STALE:
        say_more(c, WSS_FALSE, "ReloadFailed",
                 "The last good version keeps serving, because the proxy did not take this one", why);
        break;
    case STATUS_PROG_FAILED:
        say_more(c, WSS_FALSE, "ReloadFailed", "The proxy does not serve it", why);
        break;
    case STATUS_PROG_PENDING: say(c, WSS_UNKNOWN, "Pending", why ? why : "Waiting for the proxy."); break;
    }
}

/* A False decides whatever is unknown beside it. */
static void judge_ready(const struct status_facts *f, struct render_condition *conditions)
{
    static const char *const reasons[] = {"NotAccepted", "RefsNotResolved", "NotProgrammed"};
    static const enum wss_condition_status order[] = {WSS_FALSE, WSS_UNKNOWN};
    bool sidecars = f->verdict->part == RENDER_SIDECARS;
    int parts = sidecars ? 1 : WSS_READY;
    struct render_condition *ready = &conditions[WSS_READY];

    for (size_t o = 0; o < sizeof order / sizeof *order; o++) {
        for (int i = 0; i < parts; i++)
            if (conditions[i].status == order[o]) {
                say_more(ready, order[o], reasons[i], wss_condition_label((enum wss_condition_type)i),
                         conditions[i].message);
                return;
            }
        if (order[o] == WSS_FALSE && !sidecars && f->service_managed && f->service_port != PORTS_PRESENT) {
            bool taken = f->service_port == PORTS_TAKEN;

            /* Before it is served, its port is not asked for. */
            if (!taken && conditions[WSS_PROGRAMMED].status != WSS_TRUE)
                continue;
            say_more(ready, WSS_FALSE, taken ? "ServicePortTaken" : "ServicePortPending",
                     "Its port is not in the gateway's Service", f->service_message);
            return;
        }
    }
    say(ready, WSS_TRUE, "Ready", sidecars ? conditions[WSS_ACCEPTED].message : "It takes connections.");
}

bool status_judge(const struct status_facts *facts, struct status_wanted *out)
{
    const struct render_verdict *v = facts->verdict;
    struct render_condition *c = out->conditions;

    *out = (struct status_wanted){.conditions = {{.reason = NULL}}};
    if (v->part == RENDER_NOT_OURS)
        return false;
    copy(&c[WSS_ACCEPTED], &v->accepted, "Pending");
    copy(&c[WSS_RESOLVED_REFS], &v->resolved, "Pending");
    if (v->part == RENDER_SIDECARS)
        say(&c[WSS_PROGRAMMED], WSS_TRUE, "Sidecar",
            "Sidecars of the selected pods serve it: see pod readiness.");
    else
        judge_programmed(facts, &c[WSS_PROGRAMMED]);
    judge_ready(facts, c);
    return true;
}

void status_wanted_free(struct status_wanted *w)
{
    for (int i = 0; i < WSS_CONDITIONS; i++) {
        free(w->conditions[i].message);
        w->conditions[i].message = NULL;
    }
}

static bool same_text(const char *a, const char *b)
{
    return !strcmp(a ? a : "", b ? b : "");
}

bool status_equal(const struct wss *w, const struct status_wanted *wanted)
{
    if (w->observed_generation != w->generation)
        return false;
    for (int i = 0; i < WSS_CONDITIONS; i++) {
        const struct wss_condition *has = &w->conditions[i];
        const struct render_condition *shall = &wanted->conditions[i];

        if (!has->present || has->status != shall->status || has->observed_generation != w->generation ||
            !same_text(has->reason, shall->reason) || !same_text(has->message, shall->message))
            return false;
    }
    return true;
}
