/* options.h - the command line of tidegate-proxy
 * Shape:   argv -> struct options; --help and --version are answered here
 * Units:   *_ms milliseconds
 * Owner:   strings borrow from argv
 * Errors:  a sentence on stderr that names the flag and what would be right; options_parse says exit code 2 then
 * Limits:  OPTIONS_MAX_WORKERS; durations SPEC_MAX_DURATION_MS
 * Threads: before any
 * Source:  design.md 4 "proxy flags" */
#ifndef PROXY_RUN_OPTIONS_H
#define PROXY_RUN_OPTIONS_H

#include "base/log.h"

#include <stdint.h>

#define OPTIONS_MAX_WORKERS 256

enum options_action {
    OPTIONS_SERVE = 0,
    OPTIONS_CHECK,
    OPTIONS_CONNECT,
    OPTIONS_STOP,
    OPTIONS_WORKER, /* the hidden --worker INDEX: what the master starts */
    OPTIONS_EXIT,
};

struct options {
    enum options_action action;
    int exit_code; /* of OPTIONS_EXIT */
    const char *config;
    const char *run_dir; /* NULL: none; OPTIONS_STOP always has one */
    const char *connect_url;
    const char *admin;      /* [ADDR]:PORT, NULL: off */
    const char *health;     /* the same */
    unsigned workers;       /* 0: auto */
    unsigned worker;        /* of OPTIONS_WORKER: 0 .. OPTIONS_MAX_WORKERS - 1 */
    uint32_t max_drain_ms;  /* 0: no cap */
    bool deny_local;        /* --deny-local-backends */
    uint32_t stop_delay_ms; /* of OPTIONS_STOP */
    enum log_level log_level;
};

struct options options_parse(int argc, char **argv);

#endif
