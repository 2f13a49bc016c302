#include "base/file.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_read(const char *path, struct buf *out, struct err *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its writer. */
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    size_t before = out->len;

    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st))
        return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_IO, "%s: not a regular file", path);
    for (;;) {
        ssize_t n;

        if (buf_reserve(out, 1)) {
            uint8_t more;

            if (read(fd, &more, 1) == 0)
                return 0;
            out->len = before;
            return err_set(err, ERR_LIMIT, "%s: larger than %zu bytes", path, out->max);
        }
        n = read(fd, out->data + out->len, out->cap - out->len);
        if (n == 0)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            out->len = before;
            return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
        }
        out->len += (size_t)n;
    }
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return fsync(fd);
}

/* "dir/name" in its two parts; the directory is opened, so that both names are looked up in the same one. */
static int open_directory(const char *path, const char **name, int *fd, struct err *err)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;

    *name = slash ? slash + 1 : path;
    if (len >= sizeof dir || strlen(*name) + sizeof ".tmp" > NAME_MAX)
        return err_set(err, ERR_LIMIT, "%s: %s", path, strerror(ENAMETOOLONG));
    memcpy(dir, path, len);
    dir[len] = '\0';
    *fd = open(!slash ? "." : len ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    return 0;
}

int file_replace(const char *path, const void *bytes, size_t len, mode_t mode, struct err *err)
{
    cleanup_close int dir = -1, fd = -1;
    char tmp[NAME_MAX + 1];
    const char *name;

    if (open_directory(path, &name, &dir, err))
        return -1;
    snprintf(tmp, sizeof tmp, "%s.tmp", name);
    /* What a killed writer left, or somebody planted. */
    unlinkat(dir, tmp, 0);
    fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return err_set(err, ERR_IO, "%s.tmp: %s", path, strerror(errno));
    if (write_all(fd, bytes, len) || renameat(dir, tmp, dir, name)) {
        err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
        unlinkat(dir, tmp, 0);
        return -1;
    }
    if (fsync(dir))
        return err_set(err, ERR_IO, "the directory of %s: %s", path, strerror(errno));
    return 0;
}
