#include "base/loop.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t loop_clock_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int loop_init(struct loop *l, struct err *err)
{
    memset(l, 0, sizeof *l);
    TAILQ_INIT(&l->tasks);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0)
        return err_set(err, ERR_IO, "epoll_create1: %s", strerror(errno));
    l->now_ms = loop_clock_ms();
    l->tick = l->now_ms / LOOP_TICK_MS;
    return 0;
}

static void release_dead(struct loop *l)
{
    struct loop_dead *d;

    while ((d = SLIST_FIRST(&l->dead))) {
        SLIST_REMOVE_HEAD(&l->dead, link);
        d->release(d);
    }
}

void loop_done(struct loop *l)
{
    release_dead(l);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    l->epoll_fd = -1;
}

int loop_add(struct loop *l, struct loop_fd *f, uint32_t events, struct err *err)
{
    struct epoll_event ev = {.events = events | EPOLLET, .data.ptr = f};

    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, f->fd, &ev))
        return err_set(err, ERR_IO, "epoll_ctl: %s", strerror(errno));
    return 0;
}

int loop_watch(struct loop *l, struct loop_fd *f, uint32_t *watched, uint32_t events, struct err *err)
{
    struct epoll_event ev = {.events = events, .data.ptr = f};
    int op = !events ? EPOLL_CTL_DEL : *watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (events == *watched)
        return 0;
    if (epoll_ctl(l->epoll_fd, op, f->fd, &ev))
        return err_set(err, ERR_IO, "epoll_ctl: %s", strerror(errno));
    *watched = events;
    return 0;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ms)
{
    uint64_t tick = at_ms / LOOP_TICK_MS + 1;
    size_t slot;

    loop_timer_clear(t);
    /* A time that has passed fires in the next sweep, not a whole round later. */
    if (tick <= l->tick)
        tick = l->tick + 1;
    slot = tick % LOOP_SLOTS;
    t->at_ms = at_ms ? at_ms : 1;
    LIST_INSERT_HEAD(&l->slots[slot], t, link);
    l->used[slot / 64] |= UINT64_C(1) << slot % 64;
}

void loop_timer_clear(struct loop_timer *t)
{
    if (!t->at_ms)
        return;
    LIST_REMOVE(t, link);
    t->at_ms = 0;
}

void loop_task_add(struct loop *l, struct loop_task *t)
{
    if (t->queued)
        return;
    t->queued = true;
    t->turn = l->turn;
    TAILQ_INSERT_TAIL(&l->tasks, t, link);
}

void loop_task_clear(struct loop *l, struct loop_task *t)
{
    if (!t->queued)
        return;
    t->queued = false;
    TAILQ_REMOVE(&l->tasks, t, link);
}

void loop_free_later(struct loop *l, struct loop_dead *d)
{
    SLIST_INSERT_HEAD(&l->dead, d, link);
}

/* Timers of one slot; those of a later round of the wheel stay. A callback may set and clear any timer. */
static void sweep_slot(struct loop *l, size_t slot)
{
    struct loop_timers later = LIST_HEAD_INITIALIZER(later);
    struct loop_timer *t;

    l->used[slot / 64] &= ~(UINT64_C(1) << slot % 64);
    while ((t = LIST_FIRST(&l->slots[slot]))) {
        LIST_REMOVE(t, link);
        if (t->at_ms > l->now_ms) {
            LIST_INSERT_HEAD(&later, t, link);
            continue;
        }
        t->at_ms = 0;
        t->fire(t);
    }
    while ((t = LIST_FIRST(&later))) {
        LIST_REMOVE(t, link);
        LIST_INSERT_HEAD(&l->slots[slot], t, link);
        l->used[slot / 64] |= UINT64_C(1) << slot % 64;
    }
}

static void sweep(struct loop *l)
{
    uint64_t tick = l->now_ms / LOOP_TICK_MS, from = l->tick + 1;

    if (tick <= l->tick)
        return;
    if (tick - l->tick > LOOP_SLOTS)
        from = tick - LOOP_SLOTS + 1;
    l->tick = tick;
    for (; from <= tick; from++)
        if (l->used[from % LOOP_SLOTS / 64] & UINT64_C(1) << from % 64)
            sweep_slot(l, from % LOOP_SLOTS);
}

/* Only what was queued before this point of the turn: a task that asks again gets its turn after the descriptors
 * that are ready then, so a flood does not keep the others waiting. */
static void run_tasks(struct loop *l)
{
    struct loop_task *t;

    l->turn++;
    while ((t = TAILQ_FIRST(&l->tasks)) && t->turn != l->turn) {
        TAILQ_REMOVE(&l->tasks, t, link);
        t->queued = false;
        t->run(t);
    }
}

int loop_wait_ms(const struct loop *l)
{
    uint64_t first = l->tick + 1;

    if (!TAILQ_EMPTY(&l->tasks))
        return 0;
    for (uint64_t i = 0; i <= LOOP_SLOTS / 64; i++) {
        size_t word = (first / 64 + i) % (LOOP_SLOTS / 64);
        uint64_t bits = l->used[word];

        if (i == 0)
            bits &= ~UINT64_C(0) << first % 64;
        if (bits) {
            uint64_t due = ((first / 64 + i) * 64 + (uint64_t)__builtin_ctzll(bits)) * LOOP_TICK_MS;

            return due > l->now_ms ? (int)(due - l->now_ms) : 0;
        }
    }
    return -1;
}

void loop_turn(struct loop *l, int wait_ms)
{
    struct epoll_event events[LOOP_EVENTS];
    int n = epoll_wait(l->epoll_fd, events, LOOP_EVENTS, wait_ms);

    l->now_ms = loop_clock_ms();
    l->ready_count = n > 0 ? n : 0;
    for (int i = 0; i < n; i++) {
        struct loop_fd *f = events[i].data.ptr;

        if (f->fd >= 0)
            f->ready(f, events[i].events);
    }
    sweep(l);
    run_tasks(l);
    release_dead(l);
    if (l->turn_end)
        l->turn_end(l);
}

void loop_run(struct loop *l)
{
    while (!l->stop)
        loop_turn(l, loop_wait_ms(l));
}
