#include "base/file.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
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
