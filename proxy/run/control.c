#include "run/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union ancillary {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(CONTROL_FDS * sizeof(int))];
};

int control_send(int fd, const struct control *c, const int *fds, size_t count)
{
    union ancillary a;
    struct iovec iov = {.iov_base = (void *)c, .iov_len = sizeof *c};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    memset(&a, 0, sizeof a);
    if (count) {
        m.msg_control = &a;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        a.head.cmsg_level = SOL_SOCKET;
        a.head.cmsg_type = SCM_RIGHTS;
        a.head.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&a.head), fds, count * sizeof(int));
    }
    do
        n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof *c)
        return CONTROL_OK;
    /* ETOOMANYREFS: too many descriptors are under way; the receiver takes them out. */
    return n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS)
               ? CONTROL_AGAIN
               : CONTROL_GONE;
}

int control_recv(int fd, struct control *c, int fds[CONTROL_FDS], size_t *count)
{
    union ancillary a;
    struct iovec iov = {.iov_base = c, .iov_len = sizeof *c};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &a, .msg_controllen = sizeof a};
    ssize_t n;

    *count = 0;
    do
        n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? CONTROL_AGAIN : CONTROL_GONE;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
            *count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(h), *count * sizeof(int));
        }
    if (n == (ssize_t)sizeof *c)
        return CONTROL_OK;
    for (size_t i = 0; i < *count; i++)
        close(fds[i]);
    *count = 0;
    return CONTROL_GONE;
}
