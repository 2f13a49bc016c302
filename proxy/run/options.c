#include "run/options.h"

#include <getopt.h>
#include <stdio.h>

#ifndef TIDEGATE_VERSION
#define TIDEGATE_VERSION "unknown"
#endif

static const char usage[] =
    "Usage: tidegate-proxy [--config FILE] [--log-level LEVEL]\n"
    "       tidegate-proxy --check [--config FILE]\n"
    "       tidegate-proxy --connect URL\n"
    "\n"
    "Relays WebSocket connections as the WebSocketServer documents of FILE say.\n"
    "\n"
    "  --config FILE      the documents (default /run/tidegate/servers.yaml)\n"
    "  --check            validate them, print every problem as FILE:LINE:COLUMN, exit 0 or 1\n"
    "  --connect URL      open ws:// or wss:// URL, Ping, await the Pong, close; exit 0 when all went well\n"
    "  --log-level LEVEL  debug, info, warn or error (default info); the log is JSON lines on stderr\n"
    "  --version          print the version\n"
    "  --help             print this\n";

static struct options leave(int code)
{
    return (struct options){.action = OPTIONS_EXIT, .exit_code = code};
}

struct options options_parse(int argc, char **argv)
{
    enum { CONFIG = 1, CHECK, CONNECT, LOG_LEVEL, VERSION, HELP };
    static const struct option flags[] = {
        {"config", required_argument, NULL, CONFIG},
        {"check", no_argument, NULL, CHECK},
        {"connect", required_argument, NULL, CONNECT},
        {"log-level", required_argument, NULL, LOG_LEVEL},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    struct options o = {.config = "/run/tidegate/servers.yaml", .log_level = LOG_INFO};
    int flag;

    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        switch (flag) {
        case CONFIG: o.config = optarg; break;
        case CHECK: o.action = OPTIONS_CHECK; break;
        case CONNECT:
            o.action = OPTIONS_CONNECT;
            o.connect_url = optarg;
            break;
        case LOG_LEVEL:
            if (!log_level_parse(optarg, &o.log_level)) {
                fprintf(stderr, "tidegate-proxy: --log-level %s: use debug, info, warn or error\n", optarg);
                return leave(2);
            }
            break;
        case VERSION: printf("tidegate-proxy %s\n", TIDEGATE_VERSION); return leave(0);
        case HELP: fputs(usage, stdout); return leave(0);
        default: fputs("Try `tidegate-proxy --help`.\n", stderr); return leave(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "tidegate-proxy: %s: unexpected; every argument is a flag, see --help\n",
                argv[optind]);
        return leave(2);
    }
    return o;
}
