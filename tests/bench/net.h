/* net.h - what the three programs of the bench share: sockets on 127.0.0.1, the clock, options
 * Shape:   port -> non-blocking socket with TCP_NODELAY
 * Units:   *_ns nanoseconds of CLOCK_MONOTONIC; ports in host order
 * Owner:   a socket handed out is the caller's
 * Errors:  net_connect and net_accept return -1 with errno; all others end the program with a sentence
 * Threads: one */
#ifndef TESTS_BENCH_NET_H
#define TESTS_BENCH_NET_H

#include <stdint.h>

void net_fail(const char *what) __attribute__((noreturn));
uint64_t net_now_ns(void);
/* Descriptors up to the hard limit, and no SIGPIPE. */
void net_process_init(void);
/* Port 0: any free one; `*port` says which. */
int net_listen(uint16_t *port);
/* May still be connecting. */
int net_connect(uint16_t port);
int net_accept(int listener);
/* The unsigned number in `text`, at most `max`. */
uint64_t net_number(const char *option, const char *text, uint64_t max);

#endif
