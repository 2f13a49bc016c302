#include "kube/kube_path.h"
#include "kube/kube_reflect_in.h"

#include "base/need.h"

#include <stdlib.h>
#include <string.h>

void kube_find_forget(struct kube_reflect *r)
{
    for (size_t i = 0; i < r->version_count; i++)
        free(r->versions[i]);
    r->version_count = r->version_at = 0;
    r->doubt = false;
}

/* Where a search begins. */
static enum kube_step first_step(const struct kube_reflect *r)
{
    return r->fixed_version ? KUBE_STEP_LIST : KUBE_STEP_GROUP;
}

/* `certain`: the API server itself lists it no more, so its objects are gone too (a deleted CRD takes them along). */
static void be_absent(struct kube_reflect *r, bool certain)
{
    if (certain && r->holds) {
        r->holds = false;
        free(r->resume);
        r->resume = NULL;
        r->sink.begin(r->sink.arg);
        r->sink.end(r->sink.arg);
    }
    /* A kind of no fixed version is one that a cluster may do without. */
    kube_reflect_note(r, r->fixed_version || r->holds ? LOG_WARN : LOG_INFO, "find",
                      certain || !r->holds ? "the API does not know this kind"
                                           : "the API did not find this kind; what was known is kept");
    kube_reflect_be(r, KUBE_REFLECT_ABSENT);
    kube_reflect_much_later(r, first_step(r), 0);
}

/* None of the versions has the plural. A 404 where there are objects to lose is not believed alone. */
static void not_found(struct kube_reflect *r)
{
    if (r->doubt && r->holds && *r->group)
        kube_reflect_go(r, KUBE_STEP_GROUPS);
    else
        be_absent(r, !r->doubt);
}

static void failed(struct kube_reflect *r, const struct kube_reply *reply, const char *why)
{
    kube_reflect_say(r, "find", why);
    if (reply->status == 401 || reply->status == 403) {
        kube_reflect_be(r, KUBE_REFLECT_FORBIDDEN);
        kube_reflect_much_later(r, first_step(r), reply->retry_after_s);
    } else {
        kube_reflect_later(r, first_step(r), reply->retry_after_s);
    }
}

static void try_version(struct kube_reflect *r)
{
    if (r->version_at < r->version_count)
        kube_reflect_go(r, KUBE_STEP_VERSION);
    else
        not_found(r);
}

/* The document, NULL: it was a failure and is dealt with. */
static json_t *document(struct kube_reflect *r, const struct kube_reply *reply, const char *kind)
{
    struct err err;
    json_t *doc;

    if (reply->end != KUBE_ANSWERED || reply->status != 200) {
        failed(r, reply, reply->why);
        return NULL;
    }
    r->counts.last_ms = r->loop->now_ms;
    doc = kube_doc_read(reply->body, reply->body_len, kind, &err);
    if (!doc)
        failed(r, reply, err.msg);
    return doc;
}

static bool answered_404(const struct kube_reply *reply)
{
    return reply->end == KUBE_ANSWERED && reply->status == 404;
}

static void on_group(void *arg, const struct kube_reply *reply)
{
    const char *names[KUBE_DOC_VERSIONS];
    struct kube_reflect *r = arg;
    json_auto_t *doc = NULL;

    r->call = NULL;
    kube_find_forget(r);
    if (answered_404(reply)) {
        r->doubt = true;
        not_found(r);
        return;
    }
    doc = document(r, reply, "APIGroup");
    if (!doc)
        return;
    r->version_count = kube_doc_versions(doc, names);
    for (size_t i = 0; i < r->version_count; i++)
        r->versions[i] = need(strdup(names[i]));
    try_version(r);
}

static void on_version(void *arg, const struct kube_reply *reply)
{
    struct kube_reflect *r = arg;
    json_auto_t *doc = NULL;

    r->call = NULL;
    if (answered_404(reply)) {
        r->doubt = true;
        r->version_at++;
        try_version(r);
        return;
    }
    doc = document(r, reply, "APIResourceList");
    if (!doc)
        return;
    if (!kube_doc_has_plural(doc, r->plural)) {
        r->version_at++;
        try_version(r);
        return;
    }
    free(r->version);
    r->version = need(strdup(r->versions[r->version_at]));
    if (r->fixed_version && !r->proved) {
        /* It is there by discovery and yet its path said 404 twice. */
        kube_reflect_say(r, "list", "the API lists this kind and does not find it");
        kube_reflect_much_later(r, KUBE_STEP_LIST, 0);
        return;
    }
    r->proved = false;
    kube_reflect_go(r, KUBE_STEP_LIST);
}

static void on_groups(void *arg, const struct kube_reply *reply)
{
    struct kube_reflect *r = arg;
    json_auto_t *doc = NULL;

    r->call = NULL;
    if (answered_404(reply)) {
        be_absent(r, false);
        return;
    }
    doc = document(r, reply, "APIGroupList");
    if (doc)
        be_absent(r, json_is_array(json_object_get(doc, "groups")) &&
                         !kube_doc_has_group(doc, r->group, r->fixed_version));
}

void kube_find_ask(struct kube_reflect *r)
{
    /* `/apis` and two names that are known to be harmless; kube_path is for what lies in a version. */
    if (r->step == KUBE_STEP_GROUPS)
        kube_reflect_get(r, need(strdup("/apis")), on_groups);
    else if (r->step == KUBE_STEP_GROUP)
        kube_reflect_get(r, need_printf("/apis/%s", r->group), on_group);
    else
        kube_reflect_get(
            r, need_printf("/%s%s/%s", *r->group ? "apis/" : "api", r->group, r->versions[r->version_at]),
            on_version);
}

void kube_find_again(struct kube_reflect *r)
{
    bool proved = r->proved;

    kube_find_forget(r);
    r->proved = false;
    if (r->fixed_version && !r->holds) {
        be_absent(r, false);
    } else if (r->fixed_version) {
        r->proved = proved;
        r->versions[0] = need(strdup(r->fixed_version));
        r->version_count = 1;
        kube_reflect_go(r, KUBE_STEP_VERSION);
    } else if (proved) {
        kube_reflect_go(r, KUBE_STEP_GROUP);
    } else {
        be_absent(r, false);
    }
}
