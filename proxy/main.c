/* tidegate-proxy: flags, the spec, then the worker. */
#include "base/log.h"
#include "run/connect.h"
#include "run/options.h"
#include "run/stop.h"
#include "run/worker.h"
#include "spec/spec.h"

#include <stdio.h>

static int load(const struct options *o, struct spec *spec)
{
    struct spec_problems problems = {0};
    int r = spec_load(o->config, spec, &problems);

    spec_problems_print(&problems, o->config, stderr);
    spec_problems_free(&problems);
    return r;
}

static int serve(const struct options *o)
{
    struct spec spec = {0};
    struct err err;
    int r = 1;

    if (load(o, &spec))
        return 1;
    log_init(o->log_level);
    if (worker_run(&spec, &err))
        log_msg(LOG_ERROR, "fatal", "%s", err.msg);
    else
        r = 0;
    spec_free(&spec);
    return r;
}

int main(int argc, char **argv)
{
    struct options o = options_parse(argc, argv);
    struct spec spec = {0};
    int r;

    switch (o.action) {
    case OPTIONS_CHECK:
        r = load(&o, &spec) ? 1 : 0;
        spec_free(&spec);
        return r;
    case OPTIONS_STOP: return stop_main(&o);
    case OPTIONS_CONNECT: return connect_main(o.connect_url);
    case OPTIONS_SERVE: worker_block_signals(); return serve(&o);
    case OPTIONS_WORKER: return 2;
    default: return o.exit_code;
    }
}
