/* options.h - the command line of tidegate-proxy
 * Shape:   argv -> struct options; --help and --version are answered here
 * Owner:   strings borrow from argv
 * Errors:  a sentence on stderr that names the flag and what would be right; options_parse says exit code 2 then
 * Limits:  none
 * Threads: before any */
#ifndef PROXY_RUN_OPTIONS_H
#define PROXY_RUN_OPTIONS_H

#include "base/log.h"

#include <stdbool.h>

enum options_action { OPTIONS_SERVE = 0, OPTIONS_CHECK, OPTIONS_CONNECT, OPTIONS_EXIT };

struct options {
    enum options_action action;
    int exit_code; /* of OPTIONS_EXIT */
    const char *config;
    const char *connect_url;
    enum log_level log_level;
};

struct options options_parse(int argc, char **argv);

#endif
