/* TEMPORARY: parts of other branches */
#include "base/buf.h"
#include "kube/kube_backoff.h"
#include "kube/kube_path.h"
#include "wss.h"
#include <ctype.h>
#include <string.h>
__attribute__((weak)) bool kube_path_name_ok(const char *n)
{
    size_t l = strlen(n);
    if (!l || l > 253)
        return false;
    for (; *n; n++)
        if (!islower((unsigned char)*n) && !isdigit((unsigned char)*n) && *n != '-' && *n != '.')
            return false;
    return !strstr(n - l, "..");
}
__attribute__((weak)) bool kube_path_label_ok(const char *n)
{
    return kube_path_name_ok(n) && strlen(n) < 64;
}
__attribute__((weak)) char *kube_path(const char *g, const char *v, const char *ns, const char *pl,
                                      const char *name, const char *sub)
{
    return need_printf("/%s%s/%s%s%s/%s%s%s%s%s", *g ? "apis/" : "api", g, v, ns ? "/namespaces/" : "",
                       ns ? ns : "", pl, name ? "/" : "", name ? name : "", sub ? "/" : "", sub ? sub : "");
}
__attribute__((weak)) void kube_path_query(char **p, const char *k, const char *v)
{
    char *n = need_printf("%s%c%s=%s", *p, strchr(*p, '?') ? '&' : '?', k, v);
    free(*p);
    *p = n;
}
__attribute__((weak)) uint32_t kube_backoff_next(struct kube_backoff *b, uint64_t now, uint32_t ra,
                                                 uint32_t rnd)
{
    (void)now;
    (void)ra;
    (void)rnd;
    b->next_ms = b->next_ms ? b->next_ms * 2 : 800;
    if (b->next_ms > 30000)
        b->next_ms = 30000;
    return b->next_ms;
}
__attribute__((weak)) const char *wss_condition_label(enum wss_condition_type t)
{
    static const char *const l[] = {"Accepted", "ResolvedRefs", "Programmed", "Ready"};
    return l[t];
}
__attribute__((weak)) const char *wss_status_label(enum wss_condition_status t)
{
    static const char *const l[] = {"Unknown", "True", "False"};
    return l[t];
}
