/* tidegate-controller: flags, the loop, the end. */
#include "base/log.h"
#include "options.h"
#include "pages.h"
#include "reconcile.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct controller {
    struct loop loop;
    struct loop_fd signals;
    uint32_t signals_watched;
    struct reconcile *reconcile;
    bool stopping;
};

static void on_stopped(void *arg)
{
    struct controller *c = arg;

    c->loop.stop = true;
}

static void on_signal(struct loop_fd *f, uint32_t events)
{
    struct controller *c = (struct controller *)((char *)f - offsetof(struct controller, signals));
    struct signalfd_siginfo info;

    (void)events;
    if (read(f->fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    log_msg(LOG_INFO, "stop", "SIG%s", sigabbrev_np((int)info.ssi_signo));
    if (c->stopping) {
        c->loop.stop = true;
        return;
    }
    c->stopping = true;
    reconcile_stop(c->reconcile, on_stopped, c);
}

static int begin_signals(struct controller *c, struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    c->signals = (struct loop_fd){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = on_signal};
    if (c->signals.fd < 0)
        return err_set(err, ERR_IO, "signalfd: %s", strerror(errno));
    return loop_watch(&c->loop, &c->signals, &c->signals_watched, EPOLLIN, err);
}

static void flush_log(struct loop *l)
{
    (void)l;
    log_flush();
}

static int serve(const struct options *o, struct controller *c, struct err *err)
{
    struct kube_config *config = NULL;
    struct pages *pages = NULL;
    int failed = -1;

    if (kube_config_new(&c->loop, o->kubeconfig, &config, err))
        return -1;
    c->reconcile = reconcile_new(o, &c->loop, config, err);
    if (c->reconcile)
        pages = pages_new(reconcile_view(c->reconcile), o->admin, o->health, err);
    if (pages) {
        pages_run(pages, &c->loop);
        failed = 0;
    }
    pages_free(pages);
    reconcile_free(c->reconcile);
    kube_config_free(config);
    return failed;
}

int main(int argc, char **argv)
{
    struct options o = options_parse(argc, argv);
    struct controller c = {.signals.fd = -1};
    struct err err;
    int failed;

    if (o.exit)
        return o.exit_code;
    log_init(o.log_level);
    /* The proxy runs as the same user and sees this process, but is not to reach its token by /proc/PID/root, nor its memory. */
    prctl(PR_SET_DUMPABLE, 0);
    if (loop_init(&c.loop, &err)) {
        log_msg(LOG_ERROR, "start", "%s", err.msg);
        return 1;
    }
    c.loop.turn_end = flush_log;
    failed = begin_signals(&c, &err) || serve(&o, &c, &err);
    if (failed)
        log_msg(LOG_ERROR, "start", "%s", err.msg);
    if (c.signals.fd >= 0)
        close(c.signals.fd);
    loop_done(&c.loop);
    log_flush();
    return failed ? 1 : 0;
}
