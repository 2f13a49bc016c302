/* loop.h - an epoll loop: ready descriptors, deadlines, work for the next turn
 * Shape:   a turn = wait -> ready callbacks -> due timers -> tasks -> free what died in this turn
 * Units:   *_ms of CLOCK_MONOTONIC; now_ms is read once a turn; timers fire up to LOOP_TICK_MS late, never early
 * Owner:   loop_fd, loop_timer, loop_task and loop_dead are embedded in their owners, who outlive the turn: an owner
 *          is freed through loop_free_later only, so that an event already fetched finds its memory
 * Errors:  loop_init and loop_add by struct err; nothing else fails
 * Limits:  LOOP_EVENTS a wait; a stream socket is registered once, edge-triggered, for good (loop_add); loop_watch is
 *          for descriptors that a library owns
 * Threads: the loop's own
 * Source:  epoll(7); `sock` explains what edge-triggered asks of a reader */
#ifndef PROXY_BASE_LOOP_H
#define PROXY_BASE_LOOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/queue.h>

#define LOOP_EVENTS  512
#define LOOP_TICK_MS 32
#define LOOP_SLOTS   1024

struct loop_fd {
    int fd; /* -1: closed; events that were fetched before are dropped */
    void (*ready)(struct loop_fd *f, uint32_t events);
};

struct loop_timer {
    LIST_ENTRY(loop_timer) link;
    uint64_t at_ms; /* 0: not set */
    void (*fire)(struct loop_timer *t);
};
LIST_HEAD(loop_timers, loop_timer);

struct loop_task {
    TAILQ_ENTRY(loop_task) link;
    bool queued;
    uint64_t turn; /* in which it was queued */
    void (*run)(struct loop_task *t);
};
TAILQ_HEAD(loop_tasks, loop_task);

struct loop_dead {
    SLIST_ENTRY(loop_dead) link;
    void (*release)(struct loop_dead *d);
};
SLIST_HEAD(loop_deads, loop_dead);

struct loop {
    int epoll_fd;
    bool stop;
    uint64_t now_ms;
    uint64_t tick; /* the last one swept */
    uint64_t turn;
    int ready_count; /* descriptors in this turn: how busy it is */
    struct loop_timers slots[LOOP_SLOTS];
    uint64_t used[LOOP_SLOTS / 64]; /* a bit for each slot that may hold timers */
    struct loop_tasks tasks;
    struct loop_deads dead;
    void (*turn_end)(struct loop *l); /* may be NULL */
};

/* CLOCK_MONOTONIC now; l->now_ms stands still within a turn. */
uint64_t loop_clock_ms(void);
__attribute__((warn_unused_result)) int loop_init(struct loop *l, struct err *err);
void loop_done(struct loop *l);
/* Turns until loop->stop is set. */
void loop_run(struct loop *l);
/* One turn that waits for at most wait_ms (-1: without limit). For whoever has a wait of its own, in which epoll_fd
 * stands beside others: loop_turn(l, 0) when it is readable or after loop_wait_ms. */
void loop_turn(struct loop *l, int wait_ms);
/* How long nothing is due: 0 with tasks, -1 without timers. */
int loop_wait_ms(const struct loop *l);

/* Edge-triggered for `events`; closing the descriptor ends it. */
__attribute__((warn_unused_result)) int loop_add(struct loop *l, struct loop_fd *f, uint32_t events,
                                                 struct err *err);
/* Level-triggered, for `events` from now on; 0 ends it. `watched` is the caller's note of what it asked last. */
__attribute__((warn_unused_result)) int loop_watch(struct loop *l, struct loop_fd *f, uint32_t *watched,
                                                   uint32_t events, struct err *err);
/* Fires at or after at_ms. Moves a timer that is set. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ms);
void loop_timer_clear(struct loop_timer *t);
/* Runs in the next turn, after the descriptors that are ready then. Queued once however often it is asked for. */
void loop_task_add(struct loop *l, struct loop_task *t);
void loop_task_clear(struct loop *l, struct loop_task *t);
void loop_free_later(struct loop *l, struct loop_dead *d);

#endif
