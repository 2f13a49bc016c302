#include "options.h"

#include "admin/http.h"
#include "kube/kube_path.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TIDEGATE_VERSION
#define TIDEGATE_VERSION "unknown"
#endif

static const char usage[] =
    "Usage: tidegate-controller [--mode gateway|sidecar] [--kubeconfig FILE] [--namespace NAME]... "
    "[--secret-namespace NAME]...\n"
    "                           [--run-dir DIR] [--gateway NAME] [--leader-elect] [--lease NAME] [--service "
    "NAME]\n"
    "                           [--allow-local-backends] [--pod-labels FILE] [--secrets-dir DIR]\n"
    "                           [--admin ADDR:PORT] [--health ADDR:PORT] [--log-level LEVEL]\n"
    "\n"
    "Watches WebSocketServer objects and what they refer to, writes servers.yaml for the tidegate-proxy "
    "beside it, and\n"
    "reports what that proxy did as conditions and Events.\n"
    "\n"
    "  --mode gateway|sidecar  serve the objects of a gateway, or those that select this pod (default "
    "gateway)\n"
    "  --kubeconfig FILE       the API server and as whom (default: $KUBECONFIG, the service account of the "
    "pod, "
    "~/.kube/config)\n"
    "  --namespace NAME        watch this namespace alone; may be repeated (default: all; a sidecar: its "
    "own)\n"
    "  --secret-namespace NAME read Secrets of this namespace alone; may be repeated (default: as "
    "--namespace)\n"
    "  --run-dir DIR           shared with the proxy (default /run/tidegate)\n"
    "  --gateway NAME          serve objects with this gatewayName (default tidegate)\n"
    "  --leader-elect          only the holder of the Lease writes status, Events and the Service; needs "
    "POD_NAMESPACE\n"
    "  --lease NAME            the Lease, in POD_NAMESPACE (default: tidegate-controller-GATEWAY)\n"
    "  --service NAME          keep the ports of this Service of POD_NAMESPACE in step with the servers\n"
    "  --allow-local-backends  let objects name loopback, link-local and metadata addresses as backends\n"
    "  --pod-labels FILE       the pod's labels, as the downward API writes them (sidecar)\n"
    "  --secrets-dir DIR       the pod's Secrets, a folder each (sidecar; default /etc/tidegate/secrets)\n"
    "  --admin ADDR:PORT       /healthz, /readyz and /metrics; off for none (default 127.0.0.1:9902)\n"
    "  --health ADDR:PORT      /healthz and /readyz alone; off for none (default off)\n"
    "  --log-level LEVEL       debug, info, warn or error (default info); the log is JSON lines on stderr\n"
    "  --version               print the version\n"
    "  --help                  print this\n"
    "\n"
    "An empty ADDR (:9902) means all addresses. POD_NAME and POD_NAMESPACE in the environment name the "
    "pod.\n";

enum flag {
    FLAG_MODE = 1,
    FLAG_KUBECONFIG,
    FLAG_NAMESPACE,
    FLAG_SECRET_NAMESPACE,
    FLAG_RUN_DIR,
    FLAG_GATEWAY,
    FLAG_LEADER_ELECT,
    FLAG_LEASE,
    FLAG_SERVICE,
    FLAG_ALLOW_LOCAL,
    FLAG_POD_LABELS,
    FLAG_SECRETS_DIR,
    FLAG_ADMIN,
    FLAG_HEALTH,
    FLAG_LOG_LEVEL,
    FLAG_VERSION,
    FLAG_HELP,
};

static const struct option flags[] = {
    {"mode", required_argument, NULL, FLAG_MODE},
    {"kubeconfig", required_argument, NULL, FLAG_KUBECONFIG},
    {"namespace", required_argument, NULL, FLAG_NAMESPACE},
    {"secret-namespace", required_argument, NULL, FLAG_SECRET_NAMESPACE},
    {"run-dir", required_argument, NULL, FLAG_RUN_DIR},
    {"gateway", required_argument, NULL, FLAG_GATEWAY},
    {"leader-elect", no_argument, NULL, FLAG_LEADER_ELECT},
    {"lease", required_argument, NULL, FLAG_LEASE},
    {"service", required_argument, NULL, FLAG_SERVICE},
    {"allow-local-backends", no_argument, NULL, FLAG_ALLOW_LOCAL},
    {"pod-labels", required_argument, NULL, FLAG_POD_LABELS},
    {"secrets-dir", required_argument, NULL, FLAG_SECRETS_DIR},
    {"admin", required_argument, NULL, FLAG_ADMIN},
    {"health", required_argument, NULL, FLAG_HEALTH},
    {"log-level", required_argument, NULL, FLAG_LOG_LEVEL},
    {"version", no_argument, NULL, FLAG_VERSION},
    {"help", no_argument, NULL, FLAG_HELP},
    {NULL, 0, NULL, 0},
};

bool options_includes(const struct options_namespaces *in, const char *ns)
{
    bool all = !in || !in->count, found = false;

    for (size_t i = 0; !all && !found && i < in->count; i++)
        found = !strcmp(in->names[i], ns);
    return all || found;
}

const struct options_namespaces *options_secrets(const struct options *o)
{
    return o->secret_namespaces.count ? &o->secret_namespaces : &o->namespaces;
}

static struct options leave(int code)
{
    return (struct options){.exit = true, .exit_code = code};
}

/* The parsers below return 0, or -1 after a sentence on stderr. */
__attribute__((format(printf, 1, 2))) static int wrong(const char *fmt, ...)
{
    va_list ap;

    fputs("tidegate-controller: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return -1;
}

static int parse_mode(const char *text, bool *sidecar)
{
    *sidecar = !strcmp(text, "sidecar");
    return *sidecar || !strcmp(text, "gateway") ? 0 : wrong("--mode %s: use gateway or sidecar", text);
}

static int parse_path(const char *flag, const char *text, const char **out)
{
    if (!*text)
        return wrong("%s: the path is empty; leave the flag out or name a file", flag);
    *out = text;
    return 0;
}

static int parse_name(const char *flag, const char *text, const char **out)
{
    if (!kube_path_name_ok(text))
        return wrong("%s %s: no name of an object; use lower case letters, digits, '-' and '.'", flag, text);
    *out = text;
    return 0;
}

static int parse_namespace(const char *flag, const char *text, struct options_namespaces *out)
{
    if (!kube_path_label_ok(text))
        return wrong("%s %s: no name of a namespace; use lower case letters, digits and '-'", flag, text);
    if (out->count && options_includes(out, text))
        return 0;
    if (out->count == OPTIONS_MAX_NAMESPACES)
        return wrong("%s: more than %d; leave the flag out instead", flag, OPTIONS_MAX_NAMESPACES);
    out->names[out->count++] = text;
    return 0;
}

static int parse_address(const char *flag, const char *text, const char **out)
{
    bool off = !strcmp(text, "off");
    struct err err;

    if (!off && http_check_address(text, &err))
        return wrong("%s %s: use off, or an address and a port like 127.0.0.1:9902, [::1]:9902 or :9902",
                     flag, text);
    *out = off ? NULL : text;
    return 0;
}

static int parse_flag(struct options *o, enum flag flag, const char *text)
{
    switch (flag) {
    case FLAG_MODE: return parse_mode(text, &o->sidecar);
    case FLAG_KUBECONFIG: return parse_path("--kubeconfig", text, &o->kubeconfig);
    case FLAG_NAMESPACE: return parse_namespace("--namespace", text, &o->namespaces);
    case FLAG_SECRET_NAMESPACE: return parse_namespace("--secret-namespace", text, &o->secret_namespaces);
    case FLAG_RUN_DIR: return parse_path("--run-dir", text, &o->run_dir);
    case FLAG_GATEWAY: return parse_name("--gateway", text, &o->gateway);
    case FLAG_LEADER_ELECT: o->leader_elect = true; return 0;
    case FLAG_LEASE: return parse_name("--lease", text, &o->lease);
    case FLAG_SERVICE: return parse_name("--service", text, &o->service);
    case FLAG_ALLOW_LOCAL: o->allow_local_backends = true; return 0;
    case FLAG_POD_LABELS: return parse_path("--pod-labels", text, &o->pod_labels);
    case FLAG_SECRETS_DIR: return parse_path("--secrets-dir", text, &o->secrets_dir);
    case FLAG_ADMIN: return parse_address("--admin", text, &o->admin);
    case FLAG_HEALTH: return parse_address("--health", text, &o->health);
    case FLAG_LOG_LEVEL:
        return log_level_parse(text, &o->log_level)
                   ? 0
                   : wrong("--log-level %s: use debug, info, warn or error", text);
    default: fputs("Try `tidegate-controller --help`.\n", stderr); return -1;
    }
}

/* POD_NAMESPACE, where it is needed, is a name. */
static int check_pod(struct options *o)
{
    const char *who = o->leader_elect ? "--leader-elect" : o->service ? "--service" : NULL;

    if (o->pod_namespace && !kube_path_label_ok(o->pod_namespace))
        return wrong("POD_NAMESPACE=%s: no name of a namespace", o->pod_namespace);
    if (o->pod_name && !kube_path_name_ok(o->pod_name))
        return wrong("POD_NAME=%s: no name of a pod", o->pod_name);
    if (who && !o->pod_namespace)
        return wrong("%s: set POD_NAMESPACE to the namespace that it is in", who);
    return 0;
}

static int check_modes(struct options *o)
{
    if (!o->sidecar && (o->pod_labels || o->secrets_dir))
        return wrong("%s: only --mode sidecar has it", o->pod_labels ? "--pod-labels" : "--secrets-dir");
    if (o->sidecar && (o->leader_elect || o->service))
        return wrong("%s: a sidecar writes nothing; leave it out",
                     o->leader_elect ? "--leader-elect" : "--service");
    if (o->sidecar && o->secret_namespaces.count)
        return wrong("--secret-namespace: a sidecar reads no Secrets; mount them, see --secrets-dir");
    if (o->sidecar && o->namespaces.count > 1)
        return wrong("--namespace: a sidecar watches one, that of its pod");
    if (o->sidecar && !o->pod_labels)
        return wrong("--mode sidecar: give --pod-labels FILE, the pod's labels by the downward API");
    if (o->lease && !o->leader_elect)
        return wrong("--lease: add --leader-elect or leave it out");
    if (!o->secrets_dir)
        o->secrets_dir = "/etc/tidegate/secrets";
    return check_pod(o);
}

static const char *from_environment(const char *name)
{
    const char *text = getenv(name);

    return text && *text ? text : NULL;
}

struct options options_parse(int argc, char **argv)
{
    struct options o = {.run_dir = "/run/tidegate",
                        .gateway = "tidegate",
                        .admin = "127.0.0.1:9902",
                        .log_level = LOG_INFO,
                        .pod_name = from_environment("POD_NAME"),
                        .pod_namespace = from_environment("POD_NAMESPACE")};
    int flag;

    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == FLAG_VERSION) {
            printf("tidegate-controller %s\n", TIDEGATE_VERSION);
            return leave(0);
        }
        if (flag == FLAG_HELP) {
            fputs(usage, stdout);
            return leave(0);
        }
        if (parse_flag(&o, (enum flag)flag, optarg))
            return leave(2);
    }
    if (optind < argc) {
        wrong("%s: unexpected; every argument is a flag, see --help", argv[optind]);
        return leave(2);
    }
    return check_modes(&o) ? leave(2) : o;
}
