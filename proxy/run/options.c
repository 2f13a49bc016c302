#include "run/options.h"

#include "admin/http.h"
#include "spec/spec_values.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#ifndef TIDEGATE_VERSION
#define TIDEGATE_VERSION "unknown"
#endif

static const char usage[] =
    "Usage: tidegate-proxy [--config FILE] [--run-dir DIR] [--workers N] [--admin ADDR:PORT] [--health "
    "ADDR:PORT]\n"
    "                      [--max-drain DURATION] [--deny-local-backends] [--log-level LEVEL]\n"
    "       tidegate-proxy --check [--config FILE]\n"
    "       tidegate-proxy --stop --run-dir DIR [--delay DURATION]\n"
    "       tidegate-proxy --connect URL\n"
    "\n"
    "Relays WebSocket connections as the WebSocketServer documents of FILE say.\n"
    "\n"
    "  --config FILE         the documents (default /run/tidegate/servers.yaml)\n"
    "  --run-dir DIR         hold DIR's lock and write status.json there; a FILE that is missing or wrong at "
    "the start\n"
    "                        is waited for then (default: no directory, and such a FILE exits 1)\n"
    "  --workers N|auto      processes that serve, 1 to 256 (default auto: as many as there are CPUs for "
    "us)\n"
    "  --admin ADDR:PORT     metrics, status and the live page; off for none (default 127.0.0.1:9901)\n"
    "  --health ADDR:PORT    /healthz and /readyz alone; off for none (default off)\n"
    "  --max-drain DURATION  no drain takes longer (default: as the documents say)\n"
    "  --deny-local-backends\n"
    "                        dial no loopback, link-local or metadata address, whatever name leads there\n"
    "  --log-level LEVEL     debug, info, warn or error (default info); the log is JSON lines on stderr\n"
    "  --check               validate the documents, print every problem as FILE:LINE:COLUMN, exit 0 or 1\n"
    "  --stop                end the proxy that holds DIR's lock by TERM and wait until it is gone; exit 0 "
    "then\n"
    "  --delay DURATION      before that, wait while it serves on (default 0s)\n"
    "  --connect URL         open ws:// or wss:// URL, Ping, await the Pong, close; exit 0 when all went "
    "well\n"
    "  --version             print the version\n"
    "  --help                print this\n"
    "\n"
    "An empty ADDR (:9901) means all addresses. A DURATION is written as 300ms, 5s or 1m30s.\n";

enum flag {
    FLAG_CONFIG = 1,
    FLAG_RUN_DIR,
    FLAG_WORKERS,
    FLAG_ADMIN,
    FLAG_HEALTH,
    FLAG_MAX_DRAIN,
    FLAG_DENY_LOCAL,
    FLAG_LOG_LEVEL,
    FLAG_CHECK,
    FLAG_STOP,
    FLAG_DELAY,
    FLAG_CONNECT,
    FLAG_WORKER,
    FLAG_VERSION,
    FLAG_HELP,
};

static const struct option flags[] = {
    {"config", required_argument, NULL, FLAG_CONFIG},
    {"run-dir", required_argument, NULL, FLAG_RUN_DIR},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"admin", required_argument, NULL, FLAG_ADMIN},
    {"health", required_argument, NULL, FLAG_HEALTH},
    {"max-drain", required_argument, NULL, FLAG_MAX_DRAIN},
    {"deny-local-backends", no_argument, NULL, FLAG_DENY_LOCAL},
    {"log-level", required_argument, NULL, FLAG_LOG_LEVEL},
    {"check", no_argument, NULL, FLAG_CHECK},
    {"stop", no_argument, NULL, FLAG_STOP},
    {"delay", required_argument, NULL, FLAG_DELAY},
    {"connect", required_argument, NULL, FLAG_CONNECT},
    {"worker", required_argument, NULL, FLAG_WORKER},
    {"version", no_argument, NULL, FLAG_VERSION},
    {"help", no_argument, NULL, FLAG_HELP},
    {NULL, 0, NULL, 0},
};

static const char *const action_flags[] = {
    [OPTIONS_CHECK] = "--check",
    [OPTIONS_CONNECT] = "--connect",
    [OPTIONS_STOP] = "--stop",
    [OPTIONS_WORKER] = "--worker",
};

static struct options leave(int code)
{
    return (struct options){.action = OPTIONS_EXIT, .exit_code = code};
}

/* The parsers below return 0, or -1 after a sentence on stderr. */
__attribute__((format(printf, 1, 2))) static int wrong(const char *fmt, ...)
{
    va_list ap;

    fputs("tidegate-proxy: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return -1;
}

static int parse_action(struct options *o, enum options_action action)
{
    if (o->action != OPTIONS_SERVE && o->action != action)
        return wrong("%s and %s: use one of them at a time", action_flags[o->action], action_flags[action]);
    o->action = action;
    return 0;
}

static int parse_path(const char *flag, const char *text, const char **out)
{
    if (!*text)
        return wrong("%s: the path is empty; give a directory", flag);
    *out = text;
    return 0;
}

static int parse_workers(const char *text, unsigned *out)
{
    uint64_t n = 0;
    struct err err;

    if (strcmp(text, "auto") != 0 && spec_value_uint(text, strlen(text), 1, OPTIONS_MAX_WORKERS, &n, &err))
        return wrong("--workers %s: use auto or a number from 1 to %d", text, OPTIONS_MAX_WORKERS);
    *out = (unsigned)n;
    return 0;
}

static int parse_worker(struct options *o, const char *text)
{
    uint64_t n;
    struct err err;

    if (spec_value_uint(text, strlen(text), 0, OPTIONS_MAX_WORKERS - 1, &n, &err))
        return wrong("--worker: %s", err.msg);
    o->worker = (unsigned)n;
    return parse_action(o, OPTIONS_WORKER);
}

static int parse_duration(const char *flag, const char *text, bool zero_ok, uint32_t *out)
{
    struct err err;

    if (spec_value_duration(text, strlen(text), zero_ok, out, &err))
        return wrong("%s %s: %s", flag, text, err.msg);
    return 0;
}

static int parse_address(const char *flag, const char *text, const char **out)
{
    bool off = !strcmp(text, "off");
    struct err err;

    if (!off && http_check_address(text, &err))
        return wrong("%s %s: use off, or an address and a port like 127.0.0.1:9901, [::1]:9901 or :9901",
                     flag, text);
    *out = off ? NULL : text;
    return 0;
}

static int parse_flag(struct options *o, enum flag flag, const char *text)
{
    switch (flag) {
    case FLAG_CONFIG: o->config = text; return 0;
    case FLAG_RUN_DIR: return parse_path("--run-dir", text, &o->run_dir);
    case FLAG_WORKERS: return parse_workers(text, &o->workers);
    case FLAG_ADMIN: return parse_address("--admin", text, &o->admin);
    case FLAG_HEALTH: return parse_address("--health", text, &o->health);
    case FLAG_MAX_DRAIN: return parse_duration("--max-drain", text, false, &o->max_drain_ms);
    case FLAG_DENY_LOCAL: o->deny_local = true; return 0;
    case FLAG_LOG_LEVEL:
        return log_level_parse(text, &o->log_level)
                   ? 0
                   : wrong("--log-level %s: use debug, info, warn or error", text);
    case FLAG_CHECK: return parse_action(o, OPTIONS_CHECK);
    case FLAG_STOP: return parse_action(o, OPTIONS_STOP);
    case FLAG_DELAY: return parse_duration("--delay", text, true, &o->stop_delay_ms);
    case FLAG_CONNECT: o->connect_url = text; return parse_action(o, OPTIONS_CONNECT);
    case FLAG_WORKER: return parse_worker(o, text);
    default: fputs("Try `tidegate-proxy --help`.\n", stderr); return -1;
    }
}

struct options options_parse(int argc, char **argv)
{
    struct options o = {
        .config = "/run/tidegate/servers.yaml", .admin = "127.0.0.1:9901", .log_level = LOG_INFO};
    bool delay = false;
    int flag;

    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == FLAG_VERSION) {
            printf("tidegate-proxy %s\n", TIDEGATE_VERSION);
            return leave(0);
        }
        if (flag == FLAG_HELP) {
            fputs(usage, stdout);
            return leave(0);
        }
        if (parse_flag(&o, (enum flag)flag, optarg))
            return leave(2);
        delay |= flag == FLAG_DELAY;
    }
    if (optind < argc) {
        wrong("%s: unexpected; every argument is a flag, see --help", argv[optind]);
        return leave(2);
    }
    if (delay && o.action != OPTIONS_STOP) {
        wrong("--delay: only --stop has one; add --stop or leave it out");
        return leave(2);
    }
    if (o.action == OPTIONS_STOP && !o.run_dir) {
        wrong("--stop: give --run-dir DIR, the directory of the proxy that is to end");
        return leave(2);
    }
    return o;
}
