#include "kube/kube_doc.h"

#include "kube/kube_path.h"

#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text && *text ? text : NULL;
}

json_t *kube_doc_read(const uint8_t *bytes, size_t len, const char *kind_suffix, struct err *err)
{
    json_error_t why;
    /* Anybody who may write an annotation may put a \u0000 there: it must not stop the whole kind. */
    json_t *doc = json_loadb((const char *)bytes, len, JSON_ALLOW_NUL, &why);
    const char *kind = text_of(doc, "kind");
    size_t wanted = strlen(kind_suffix);

    if (!doc) {
        /* What jansson says quotes it, and it may be a Secret's. */
        err_set(err, ERR_SYNTAX, "the answer is no JSON from its byte %d on", why.position);
        return NULL;
    }
    if (kind && strlen(kind) >= wanted && !strcmp(kind + strlen(kind) - wanted, kind_suffix))
        return doc;
    err_set(err, ERR_INVALID, "the answer is of kind \"%.64s\", not \"%s%s\"", kind ? kind : "",
            strcmp(kind_suffix, "List") == 0 ? "..." : "", kind_suffix);
    json_decref(doc);
    return NULL;
}

int kube_doc_page(const json_t *doc, struct kube_page *page, struct err *err)
{
    struct kube_page p = {.items = json_object_get(doc, "items"), .version = kube_doc_version(doc)};
    json_t *item;
    size_t i;

    if (!json_is_array(p.items))
        return err_set(err, ERR_INVALID, "the items of the list are no array");
    json_array_foreach(p.items, i, item) if (!json_is_object(item)) return err_set(
        err, ERR_INVALID, "item %zu of the list is no object", i);
    /* "0" as a version means "any" to a watch: old objects would come back as new ones. */
    if (!p.version || !strcmp(p.version, "0"))
        return err_set(err, ERR_INVALID, "the list has no resourceVersion");
    p.more = text_of(json_object_get(doc, "metadata"), "continue");
    *page = p;
    return 0;
}

const char *kube_doc_version(const json_t *object)
{
    return text_of(json_object_get(object, "metadata"), "resourceVersion");
}

const char *kube_doc_name(const json_t *object)
{
    return text_of(json_object_get(object, "metadata"), "name");
}

static bool has_cause(const json_t *details, const char *reason)
{
    const json_t *causes = json_object_get(details, "causes");
    json_t *cause;
    size_t i;

    json_array_foreach(causes, i, cause)
    {
        const char *text = text_of(cause, "reason");

        if (text && !strcmp(text, reason))
            return true;
    }
    return false;
}

enum kube_doc_verdict kube_doc_status(const json_t *status, int code, uint32_t *retry_after_s)
{
    const json_t *details = json_object_get(status, "details");
    const char *reason = text_of(status, "reason");
    json_int_t seconds = json_integer_value(json_object_get(details, "retryAfterSeconds"));

    if (!code)
        code = (int)json_integer_value(json_object_get(status, "code"));
    if (!reason)
        reason = "";
    *retry_after_s = seconds > 0 && seconds < UINT32_MAX ? (uint32_t)seconds : 0;
    if (code == 410 || !strcmp(reason, "Expired") || !strcmp(reason, "Gone"))
        return KUBE_DOC_EXPIRED;
    /* The text is what servers before 1.19 said instead of a cause. */
    if (has_cause(details, "ResourceVersionTooLarge") ||
        (code == 504 && strstr(kube_doc_message(status), "Too large resource version")))
        return KUBE_DOC_TOO_NEW;
    if (code == 429 || !strcmp(reason, "TooManyRequests"))
        return KUBE_DOC_BUSY;
    return KUBE_DOC_FAILED;
}

const char *kube_doc_message(const json_t *status)
{
    const char *message = text_of(status, "message"), *reason = text_of(status, "reason");

    return message ? message : reason ? reason : "";
}

size_t kube_doc_versions(const json_t *group, const char *out[KUBE_DOC_VERSIONS])
{
    const char *preferred = text_of(json_object_get(group, "preferredVersion"), "version");
    const json_t *versions = json_object_get(group, "versions");
    json_t *version;
    size_t i, n = 0;

    if (preferred && kube_path_label_ok(preferred))
        out[n++] = preferred;
    json_array_foreach(versions, i, version)
    {
        const char *name = text_of(version, "version");

        if (n < KUBE_DOC_VERSIONS && name && kube_path_label_ok(name) &&
            (!preferred || strcmp(name, preferred) != 0))
            out[n++] = name;
    }
    return n;
}

/* An object of `array` whose `key` is `name`. */
static json_t *find(const json_t *array, const char *key, const char *name)
{
    json_t *object;
    size_t i;

    json_array_foreach(array, i, object)
    {
        const char *text = text_of(object, key);

        if (text && !strcmp(text, name))
            return object;
    }
    return NULL;
}

bool kube_doc_has_plural(const json_t *resources, const char *plural)
{
    return find(json_object_get(resources, "resources"), "name", plural);
}

bool kube_doc_has_group(const json_t *groups, const char *group, const char *version)
{
    const json_t *found = find(json_object_get(groups, "groups"), "name", group);

    return found && (!version || find(json_object_get(found, "versions"), "version", version));
}
