/* tidegate-proxy: flags, then the process that they ask for. */
#include "base/log.h"
#include "run/connect.h"
#include "run/master.h"
#include "run/options.h"
#include "run/stop.h"
#include "run/worker.h"
#include "spec/spec.h"

#include <stdio.h>

static int check(const struct options *o)
{
    struct spec_problems problems = {0};
    struct spec spec = {0};
    int r = spec_load(o->config, &spec, &problems);

    spec_problems_print(&problems, o->config, stderr);
    spec_problems_free(&problems);
    spec_free(&spec);
    return r ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct options o;

    master_block_signals(); /* first of all: a SIGHUP that comes early must not end it, nor a worker */
    o = options_parse(argc, argv);
    if (o.action != OPTIONS_SERVE && o.action != OPTIONS_WORKER)
        master_unblock_signals();
    switch (o.action) {
    case OPTIONS_CHECK: return check(&o);
    case OPTIONS_CONNECT: return connect_main(o.connect_url);
    case OPTIONS_STOP: return stop_main(&o);
    case OPTIONS_WORKER: log_init(o.log_level); return worker_main(o.worker, o.max_drain_ms, o.deny_local);
    case OPTIONS_SERVE: return master_run(&o);
    case OPTIONS_EXIT: break;
    }
    return o.exit_code;
}
