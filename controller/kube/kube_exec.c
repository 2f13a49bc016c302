#include "kube/kube_exec.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/need.h"
#include "kube/kube_config.h"
#include "kube/kube_creds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXEC_INFO "KUBERNETES_EXEC_INFO"
#define REAP_MS   1000 /* how long kube_exec_free waits for what it has killed */

extern char **environ;

struct kube_exec {
    struct loop *loop;
    const struct kube_plugin *plugin;
    void (*done)(void *arg, const struct kube_credential *got, const struct err *failed);
    void *arg;
    pid_t pid;    /* 0: none; a process that is not reaped yet keeps its number */
    bool running; /* `done` has not been called for it */
    struct loop_fd ended, out;
    struct loop_timer limit;
    struct loop_task not_started;
    struct err failure; /* of not_started */
    struct buf bytes;
    struct loop_dead dead;
};

/* ---- what it wrote ---- */

/* RFC 3339, with a fraction or without. -1: not a time. */
static int64_t time_ms(const char *text)
{
    struct tm tm = {0}, zone = {0};
    const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

    if (p && *p == '.')
        p += 1 + strspn(p + 1, "0123456789");
    p = p ? strptime(p, "%z", &zone) : NULL;
    if (!p || *p)
        return -1;
    return ((int64_t)timegm(&tm) - zone.tm_gmtoff) * 1000;
}

static int lifetime(const json_t *status, struct kube_credential *c, struct err *err)
{
    const char *at = json_string_value(json_object_get(status, "expirationTimestamp"));
    struct timespec now;
    int64_t left;

    if (!at)
        return 0;
    left = time_ms(at);
    if (left < 0)
        return err_set(err, ERR_INVALID, "its expirationTimestamp is no time as RFC 3339 writes it");
    clock_gettime(CLOCK_REALTIME, &now);
    left -= (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    c->ends = true;
    c->life_ms = left > 0 ? (uint64_t)left : 0;
    return 0;
}

/* Empty is absent. */
static const char *text(const json_t *in, const char *key)
{
    const char *v = json_string_value(json_object_get(in, key));

    return v && *v ? v : NULL;
}

/* The texts of *out borrow from `root`. */
static int credential(const struct kube_exec *e, const json_t *root, struct kube_credential *out,
                      struct err *err)
{
    const json_t *status = json_object_get(root, "status");
    const char *kind = text(root, "kind"), *version = text(root, "apiVersion");
    struct kube_credential c = {
        .token = text(status, "token"),
        .cert_pem = text(status, "clientCertificateData"),
        .key_pem = text(status, "clientKeyData"),
    };

    if (!kind || strcmp(kind, "ExecCredential") != 0)
        return err_set(err, ERR_INVALID, "it gave no ExecCredential");
    if (!version || strcmp(version, e->plugin->api_version) != 0)
        return err_set(err, ERR_INVALID, "it gave another apiVersion than %s", e->plugin->api_version);
    if (!json_is_object(status))
        return err_set(err, ERR_INVALID, "it gave no status");
    if (!c.token && !c.cert_pem && !c.key_pem)
        return err_set(err, ERR_INVALID, "it gave neither a token nor a client certificate");
    if (c.token && !kube_creds_token_ok(c.token))
        return err_set(err, ERR_INVALID, "its token holds a blank or a byte that cannot stand in a header");
    if (!c.cert_pem != !c.key_pem)
        return err_set(err, ERR_INVALID, "it gave a client certificate or a key, and not both");
    if (c.cert_pem && !kube_creds_pair_ok(c.cert_pem, strlen(c.cert_pem), c.key_pem, strlen(c.key_pem)))
        return err_set(err, ERR_INVALID, "its client certificate and key are no pair");
    if (lifetime(status, &c, err))
        return -1;
    *out = c;
    return 0;
}

/* ---- its end ---- */

static void close_fd(struct loop_fd *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static void forget_bytes(struct kube_exec *e)
{
    if (e->bytes.data)
        explicit_bzero(e->bytes.data, e->bytes.cap);
    buf_free(&e->bytes);
}

/* The process may be there still; it is reaped when it ends. */
static void fail(struct kube_exec *e, const struct err *failed)
{
    struct err err = *failed;

    err_prefix(&err, "exec plugin %s", e->plugin->command);
    loop_timer_clear(&e->limit);
    close_fd(&e->out);
    forget_bytes(e);
    e->running = false;
    e->done(e->arg, NULL, &err);
}

/* The whole group: a script's children too; and itself, should it have left its group. A process that is not reaped keeps
 * its number from being given away. */
static void end_it(struct kube_exec *e)
{
    if (!e->pid)
        return;
    kill(-e->pid, SIGKILL);
    kill(e->pid, SIGKILL);
}

static void take(struct kube_exec *e)
{
    struct kube_credential c;
    json_error_t where;
    json_t *root = json_loadb((const char *)e->bytes.data, e->bytes.len, JSON_REJECT_DUPLICATES, &where);
    struct err err;

    /* where.text quotes what stands near. */
    if (!root)
        err_set(&err, ERR_SYNTAX, "what it wrote is not JSON (line %d, column %d)", where.line, where.column);
    if (!root || credential(e, root, &c, &err)) {
        json_decref(root);
        fail(e, &err);
        return;
    }
    loop_timer_clear(&e->limit);
    close_fd(&e->out);
    e->running = false;
    e->done(e->arg, &c, NULL);
    forget_bytes(e);
    json_decref(root);
}

/* False: it has failed by that. */
static bool drain(struct kube_exec *e)
{
    for (;;) {
        ssize_t n;

        if (buf_reserve(&e->bytes, 1)) {
            struct err err;

            end_it(e);
            err_set(&err, ERR_LIMIT, "it wrote more than %u bytes", KUBE_EXEC_BYTES);
            fail(e, &err);
            return false;
        }
        n = read(e->out.fd, e->bytes.data + e->bytes.len, e->bytes.cap - e->bytes.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        e->bytes.len += (size_t)n;
    }
}

static void on_out(struct loop_fd *f, uint32_t events)
{
    struct kube_exec *e = (struct kube_exec *)((char *)f - offsetof(struct kube_exec, out));

    (void)events;
    (void)drain(e);
}

static void on_ended(struct loop_fd *f, uint32_t events)
{
    struct kube_exec *e = (struct kube_exec *)((char *)f - offsetof(struct kube_exec, ended));
    struct err err = {0};
    int status = 0;
    pid_t got = e->pid ? waitpid(e->pid, &status, WNOHANG) : 0;

    (void)events;
    if (got == 0 || (got < 0 && errno == EINTR))
        return;
    e->pid = 0;
    close_fd(&e->ended);
    if (!e->running || !drain(e))
        return;
    if (got > 0 && WIFEXITED(status) && !WEXITSTATUS(status)) {
        take(e);
        return;
    }
    if (got < 0)
        err_set(&err, ERR_IO, "waitpid: %s", strerror(errno));
    else if (WIFEXITED(status))
        err_set(&err, ERR_INVALID, "it ended with code %d; run it by hand to see why", WEXITSTATUS(status));
    else
        err_set(&err, ERR_INVALID, "signal %d ended it", WTERMSIG(status));
    fail(e, &err);
}

static void on_limit(struct loop_timer *t)
{
    struct kube_exec *e = (struct kube_exec *)((char *)t - offsetof(struct kube_exec, limit));
    struct err err;

    end_it(e);
    err_set(&err, ERR_LIMIT, "it took more than %d ms", KUBE_CONFIG_EXEC_MS);
    fail(e, &err);
}

static void on_not_started(struct loop_task *t)
{
    struct kube_exec *e = (struct kube_exec *)((char *)t - offsetof(struct kube_exec, not_started));

    fail(e, &e->failure);
}

/* ---- its start ---- */

/* Is the variable `pair` set anew by one of those? */
static bool is_set_in(char *const *env, const char *pair)
{
    size_t name = strcspn(pair, "=") + 1;

    for (; env && *env; env++)
        if (!strncmp(*env, pair, name))
            return true;
    return false;
}

static char *info(const struct kube_exec *e, json_t *cluster)
{
    json_t *root = need(json_pack("{s:s, s:s, s:{s:b}}", "apiVersion", e->plugin->api_version, "kind",
                                  "ExecCredential", "spec", "interactive", 0));
    char *json, *pair;

    if (cluster)
        json_object_set(json_object_get(root, "spec"), "cluster", cluster);
    json = need(json_dumps(root, JSON_COMPACT));
    pair = need_printf(EXEC_INFO "=%s", json);
    free(json);
    json_decref(root);
    return pair;
}

/* Ours, the plugin's over it, EXEC_INFO over all. The array is the caller's, its texts are borrowed. */
static char **environment(const struct kube_plugin *plugin, char *exec_info)
{
    size_t n = 0, count = 2;
    char **all;

    for (char *const *p = environ; *p; p++)
        count++;
    for (char *const *p = plugin->env; p && *p; p++)
        count++;
    all = need(calloc(count, sizeof *all));
    for (char **p = environ; *p; p++)
        if (!is_set_in(plugin->env, *p) && strncmp(*p, EXEC_INFO "=", sizeof EXEC_INFO) != 0)
            all[n++] = *p;
    for (char **p = plugin->env; p && *p; p++)
        if (!is_set_in(p + 1, *p) && strncmp(*p, EXEC_INFO "=", sizeof EXEC_INFO) != 0)
            all[n++] = *p;
    all[n] = exec_info;
    return all;
}

static char **arguments(const struct kube_plugin *plugin)
{
    size_t n = 0;
    char **all;

    for (char *const *p = plugin->args; p && *p; p++)
        n++;
    all = need(calloc(n + 2, sizeof *all));
    all[0] = plugin->command;
    if (n)
        memcpy(all + 1, plugin->args, n * sizeof *all);
    return all;
}

/* stdin empty, stdout ours, stderr dropped, nothing else; no signal blocked or ignored; a process group of its own. */
static int spawn(struct kube_exec *e, int out, char *const argv[], char *const env[])
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int r;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    r = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    if (!r)
        r = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!r)
        r = posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (!r)
        r = posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
    if (!r) {
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setsigdefault(&attr, &all);
        posix_spawnattr_setpgroup(&attr, 0);
        posix_spawnattr_setflags(&attr,
                                 POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
        r = posix_spawnp(&e->pid, e->plugin->command, &files, &attr, argv, env);
    }
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (r)
        e->pid = 0;
    return r;
}

static int start(struct kube_exec *e, json_t *cluster, struct err *err)
{
    cleanup_free char *exec_info = info(e, cluster);
    cleanup_free char **env = environment(e->plugin, exec_info);
    cleanup_free char **argv = arguments(e->plugin);
    cleanup_close int write_end = -1;
    int ends[2], r;

    if (pipe2(ends, O_CLOEXEC))
        return err_set(err, ERR_IO, "pipe: %s", strerror(errno));
    e->out.fd = ends[0];
    write_end = ends[1];
    if (fcntl(e->out.fd, F_SETFL, O_NONBLOCK))
        return err_set(err, ERR_IO, "fcntl: %s", strerror(errno));
    r = spawn(e, write_end, argv, env);
    if (r)
        return err_set(err, r == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s", strerror(r));
    e->ended.fd = pidfd_open(e->pid, 0);
    if (e->ended.fd < 0)
        return err_set(err, ERR_IO, "pidfd_open: %s", strerror(errno));
    return loop_add(e->loop, &e->ended, EPOLLIN, err) || loop_add(e->loop, &e->out, EPOLLIN, err) ? -1 : 0;
}

/* After a kill: the process is gone at once, unless the kernel itself is stuck. */
static void reap(struct kube_exec *e)
{
    struct pollfd p = {.fd = e->ended.fd, .events = POLLIN};

    if (!e->pid)
        return;
    end_it(e);
    poll(&p, 1, REAP_MS);
    waitpid(e->pid, NULL, WNOHANG);
    e->pid = 0;
}

void kube_exec_start(struct kube_exec *e, json_t *cluster)
{
    if (e->running || e->pid)
        return;
    e->running = true;
    buf_init(&e->bytes, KUBE_EXEC_BYTES);
    if (!start(e, cluster, &e->failure)) {
        loop_timer_set(e->loop, &e->limit, loop_clock_ms() + KUBE_CONFIG_EXEC_MS);
        return;
    }
    reap(e);
    close_fd(&e->ended);
    close_fd(&e->out);
    loop_task_add(e->loop, &e->not_started);
}

bool kube_exec_running(const struct kube_exec *e)
{
    return e->running;
}

struct kube_exec *
kube_exec_new(struct loop *l, const struct kube_plugin *plugin,
              void (*done)(void *arg, const struct kube_credential *got, const struct err *failed), void *arg)
{
    struct kube_exec *e = need(calloc(1, sizeof *e));

    e->loop = l;
    e->plugin = plugin;
    e->done = done;
    e->arg = arg;
    e->ended = (struct loop_fd){.fd = -1, .ready = on_ended};
    e->out = (struct loop_fd){.fd = -1, .ready = on_out};
    e->limit.fire = on_limit;
    e->not_started.run = on_not_started;
    return e;
}

static void release(struct loop_dead *d)
{
    free((char *)d - offsetof(struct kube_exec, dead));
}

void kube_exec_free(struct kube_exec *e)
{
    if (!e)
        return;
    reap(e);
    loop_timer_clear(&e->limit);
    loop_task_clear(e->loop, &e->not_started);
    close_fd(&e->ended);
    close_fd(&e->out);
    forget_bytes(e);
    e->dead.release = release;
    loop_free_later(e->loop, &e->dead);
}
