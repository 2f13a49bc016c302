/* err.h - what went wrong, said once, by value
 * Shape:   a code for callers that branch and a message for people; context is put in front on the way up
 * Owner:   the caller's stack; nothing to free
 * Errors:  err_set and err_prefix return -1 so that `return err_set(...)` is the whole error path
 * Limits:  ERR_MSG_BYTES; a longer message is cut
 * Threads: any */
#ifndef PROXY_BASE_ERR_H
#define PROXY_BASE_ERR_H

#define ERR_MSG_BYTES 512

enum err_code {
    ERR_NONE = 0,
    ERR_IO,        /* a system call or a file */
    ERR_SYNTAX,    /* input that does not parse */
    ERR_INVALID,   /* input that parses and makes no sense */
    ERR_NOT_FOUND, /* a name, file or object that is not there */
    ERR_LIMIT,     /* a bound was reached */
};

struct err {
    enum err_code code;
    char msg[ERR_MSG_BYTES];
};

/* Fallible functions return 0 or -1, take `struct err *err` last (never NULL) and leave outputs alone on -1. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "fmt: what was there" */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
