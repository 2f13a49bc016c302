#include "base/rundir.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PID_FILE "proxy.pid"
/* Nobody else may open it: a read lock by another user would keep the proxy from starting. */
#define PID_MODE    0600
#define STATUS_FILE "status.json"
#define STATUS_MODE 0644
/* The holder may end between the attempt to lock and the question who it is. */
#define LOCK_TRIES 8
/* The holder may end, and another begin, between two questions. */
#define HOLDER_TRIES 8

/* proxy.pid, which must be a regular file; -2: there is none. */
static int open_pid_file(const char *dir, int flags, struct err *err)
{
    cleanup_close int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    int fd;

    if (dir_fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", dir, strerror(errno));
    fd = openat(dir_fd, PID_FILE, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, PID_MODE);
    if (fd < 0 && errno == ENOENT)
        return -2;
    if (fd < 0 && errno == ELOOP)
        return err_set(err, ERR_IO, "%s/" PID_FILE ": a symbolic link; remove it", dir);
    if (fd < 0)
        return err_set(err, ERR_IO, "%s/" PID_FILE ": %s", dir, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(err, ERR_IO, "%s/" PID_FILE ": not a regular file; remove it", dir);
    }
    return fd;
}

/* As rundir_holder, of an open proxy.pid. */
static int holder(int fd, const char *dir, pid_t *pid, struct err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_GETLK, &lock))
        return err_set(err, ERR_IO, "%s/" PID_FILE ": %s", dir, strerror(errno));
    if (lock.l_type == F_UNLCK)
        return 0;
    /* -1 is a lock of an open file description: no proxy has that, and nobody is to be signalled for it. */
    *pid = lock.l_pid > 0 ? lock.l_pid : 0;
    return 1;
}

static int take_lock(int fd, const char *dir, struct err *err)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        pid_t pid = 0;
        int held;

        if (!fcntl(fd, F_SETLK, &lock))
            return 0;
        if (errno != EACCES && errno != EAGAIN)
            return err_set(err, ERR_IO, "%s/" PID_FILE ": %s", dir, strerror(errno));
        held = holder(fd, dir, &pid, err);
        if (held < 0)
            return -1;
        if (held && pid)
            return err_set(err, ERR_IO, "%s is in use by process %ld", dir, (long)pid);
        if (held)
            return err_set(err, ERR_IO, "%s is in use by a process of another PID namespace", dir);
    }
    return err_set(err, ERR_IO, "%s is in use by others in turn", dir);
}

/* For people; the lock is what counts, so a full disk must not keep the proxy from serving. */
static void write_pid(int fd)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());

    if (!ftruncate(fd, 0))
        (void)!pwrite(fd, text, (size_t)len, 0);
}

int rundir_open(const char *dir, struct rundir *out, struct err *err)
{
    cleanup_free char *status = NULL;
    int fd;

    if (asprintf(&status, "%s/" STATUS_FILE, dir) < 0) {
        status = NULL;
        return err_set(err, ERR_LIMIT, "out of memory");
    }
    fd = open_pid_file(dir, O_RDWR | O_CREAT, err);
    if (fd == -2)
        return err_set(err, ERR_NOT_FOUND, "%s: %s", dir, strerror(ENOENT));
    if (fd < 0)
        return -1;
    if (take_lock(fd, dir, err)) {
        close(fd);
        return -1;
    }
    write_pid(fd);
    *out = (struct rundir){.lock_fd = fd, .status_path = STEAL(status)};
    return 0;
}

int rundir_write_status(const struct rundir *r, const void *bytes, size_t len, struct err *err)
{
    return file_replace(r->status_path, bytes, len, STATUS_MODE, err);
}

int rundir_keep(const struct rundir *r, struct err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(r->lock_fd, F_SETLK, &lock)
               ? err_set(err, ERR_IO, "the run dir's lock is lost: %s", strerror(errno))
               : 0;
}

void rundir_done(struct rundir *r)
{
    free(r->status_path);
    r->status_path = NULL;
}

void rundir_give_up(struct rundir *r)
{
    if (getpid() != 1 || r->lock_fd < 0)
        return;
    close(r->lock_fd);
    r->lock_fd = -1;
    for (int ms = 0; ms < RUNDIR_OTHERS_MS && !kill(-1, 0); ms += 10)
        usleep(10 * 1000);
}

int rundir_holder(const char *dir, pid_t *pid, struct err *err)
{
    int fd = open_pid_file(dir, O_RDONLY, err), held;

    if (fd < 0)
        return fd == -2 ? 0 : -1;
    held = holder(fd, dir, pid, err);
    close(fd);
    return held;
}

int rundir_open_holder(const char *dir, int *fd, pid_t *pid, struct err *err)
{
    for (int i = 0; i < HOLDER_TRIES; i++) {
        pid_t again = 0;
        int held = rundir_holder(dir, pid, err), opened;

        if (held <= 0)
            return held;
        if (!*pid)
            return err_set(
                err, ERR_IO,
                "%s is in use by a process of another PID namespace, which cannot be signalled from here",
                dir);
        opened = pidfd_open(*pid, 0);
        if (opened < 0 && errno != ESRCH)
            return err_set(err, ERR_IO, "process %ld: %s", (long)*pid, strerror(errno));
        if (opened < 0)
            continue;
        held = rundir_holder(dir, &again, err);
        if (held > 0 && again == *pid) {
            *fd = opened;
            return 0;
        }
        close(opened);
        if (held < 0)
            return -1;
    }
    return err_set(err, ERR_IO, "%s is in use by others in turn", dir);
}
