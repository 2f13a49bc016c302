#include "kube/kube_context.h"
#include "kube/kube_yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (so)
        return;
    fprintf(stderr, "fuzz_kubeconfig: %s\n", what);
    abort();
}

/* Short and of printable ASCII: then it is YAML as well, and says the same. */
static void reads_back(const uint8_t *data, size_t size)
{
    struct err err = {0};
    json_t *v = kube_yaml_load("f", data, size, &err), *again;
    char *text;
    size_t n = 0;

    must(v || (err.code && !strncmp(err.msg, "f:", 2)), "refused without a reason");
    text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    while (text && text[n] >= ' ' && text[n] < 0x7f)
        n++;
    if (text && !text[n] && n < 1000) {
        again = kube_yaml_load("f", (const uint8_t *)text, n, &err);
        must(again && json_equal(v, again), "what was read says something else as JSON");
        json_decref(again);
    }
    free(text);
    json_decref(v);
}

static void sane(const struct kube_context *c)
{
    must(!strncmp(c->server, "https://", 8) && c->server[8] && c->server[strlen(c->server) - 1] != '/',
         "server");
    must(!kube_source_given(&c->cert) == !kube_source_given(&c->key), "half a pair");
    must(!(c->insecure && kube_source_given(&c->ca)), "insecure with a CA");
    must(!(c->plugin.command && kube_source_given(&c->token)), "a plugin and a token");
    must(!c->plugin.command || c->plugin.api_version, "a plugin of no version");
    must(!c->ca.path || strchr(c->ca.path, '/'), "a path without its folder");
}

/* Two files, split at the first NUL. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *split = size ? memchr(data, '\0', size) : NULL;
    size_t first = split ? (size_t)(split - data) : size;
    struct kube_contexts all = {0};
    struct kube_context c;
    struct err err = {0};

    reads_back(data, first);
    if (!kube_contexts_add(&all, "/a/config", data, first, &err) &&
        (!split || !kube_contexts_add(&all, "config", split + 1, size - first - 1, &err)) &&
        !kube_contexts_current(&all, &c, &err)) {
        sane(&c);
        kube_context_free(&c);
    } else {
        must(err.code && err.msg[0], "refused without a reason");
    }
    kube_contexts_free(&all);
    return 0;
}
