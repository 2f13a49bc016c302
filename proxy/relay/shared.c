#include "relay/shared.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define LINE 64

static size_t round_up(size_t n)
{
    return (n + LINE - 1) / LINE * LINE;
}

static size_t workers_at(void)
{
    return round_up(sizeof(struct shared_head)) + round_up(SHARED_SLOTS * sizeof(struct shared_slot));
}

static size_t worker_bytes(uint32_t ip_entries)
{
    return round_up(sizeof(struct shared_worker)) + round_up(ip_entries * sizeof(struct shared_ip)) +
           SHARED_SLOTS * sizeof(struct stats_cell);
}

static int map(struct shared *s, int fd, size_t bytes, struct err *err)
{
    s->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (s->base == MAP_FAILED)
        return err_set(err, ERR_IO, "shared memory of %zu bytes: %s", bytes, strerror(errno));
    s->bytes = bytes;
    s->head = s->base;
    s->slots = (struct shared_slot *)((char *)s->base + round_up(sizeof(struct shared_head)));
    return 0;
}

/* Four entries for each connection that a worker can hold (two descriptors each), so that probes stay short. */
static uint32_t ip_entries_for(uint64_t fd_limit)
{
    uint32_t n = 1024;

    while (n < fd_limit * 2 && n < 1u << 22)
        n *= 2;
    return n;
}

int shared_new(struct shared *s, unsigned workers, uint64_t fd_limit, int *fd, struct err *err)
{
    uint32_t ip_entries = ip_entries_for(fd_limit);
    size_t bytes = workers_at() + workers * worker_bytes(ip_entries);
    int f = memfd_create("tidegate-shared", MFD_CLOEXEC);

    if (f < 0 || ftruncate(f, (off_t)bytes)) {
        err_set(err, ERR_IO, "shared memory: %s", strerror(errno));
        if (f >= 0)
            close(f);
        return -1;
    }
    if (map(s, f, bytes, err)) {
        close(f);
        return -1;
    }
    s->head->workers = workers;
    s->head->ip_entries = ip_entries;
    if (getrandom(s->head->ip_seed, sizeof s->head->ip_seed, 0) != sizeof s->head->ip_seed ||
        shared_ticket_rotate(s, err) || shared_ticket_rotate(s, err)) {
        err_set(err, ERR_IO, "getrandom: %s", strerror(errno));
        shared_done(s);
        close(f);
        return -1;
    }
    *fd = f;
    return 0;
}

int shared_map(struct shared *s, int fd, struct err *err)
{
    off_t bytes = lseek(fd, 0, SEEK_END);

    if (bytes < (off_t)workers_at())
        return err_set(err, ERR_IO, "shared memory: not the master's");
    return map(s, fd, (size_t)bytes, err);
}

void shared_done(struct shared *s)
{
    if (s->base)
        munmap(s->base, s->bytes);
    *s = (struct shared){0};
}

static char *worker_block(const struct shared *s, unsigned worker)
{
    return (char *)s->base + workers_at() + worker * worker_bytes(s->head->ip_entries);
}

struct shared_worker *shared_worker(const struct shared *s, unsigned worker)
{
    return (struct shared_worker *)worker_block(s, worker);
}

struct shared_ip *shared_ips(const struct shared *s, unsigned worker)
{
    return (struct shared_ip *)(worker_block(s, worker) + round_up(sizeof(struct shared_worker)));
}

struct stats_cell *shared_cell(const struct shared *s, unsigned worker, unsigned slot)
{
    char *cells = (char *)shared_ips(s, worker) + round_up(s->head->ip_entries * sizeof(struct shared_ip));

    return (struct stats_cell *)cells + slot;
}

int shared_slot_find(const struct shared *s, const char *name)
{
    for (int i = 0; i < SHARED_SLOTS; i++)
        if (atomic_load(&s->slots[i].used) && !strcmp(s->slots[i].name, name))
            return i;
    return -1;
}

int shared_slot_take(struct shared *s, const char *name)
{
    int at = shared_slot_find(s, name);

    for (int i = 0; at < 0 && i < SHARED_SLOTS; i++)
        if (!atomic_load(&s->slots[i].used)) {
            strncpy(s->slots[i].name, name, SPEC_MAX_NAME);
            atomic_store(&s->slots[i].used, 1);
            at = i;
        }
    return at;
}

void shared_slot_free(struct shared *s, unsigned slot)
{
    atomic_store(&s->slots[slot].used, 0);
    for (unsigned w = 0; w < s->head->workers; w++)
        memset(shared_cell(s, w, slot), 0, sizeof(struct stats_cell));
    memset(s->slots[slot].name, 0, sizeof s->slots[slot].name);
    atomic_store(&s->slots[slot].next_handshake_us, 0);
}

/* Its whole pages are given back, which a look at each entry would do the opposite of; no tag is needed any more. */
static void clear_ips(const struct shared *s, unsigned worker)
{
    struct shared_ip *entries = shared_ips(s, worker);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)entries;
    uintptr_t to = (uintptr_t)(entries + s->head->ip_entries);
    uintptr_t first = (from + page - 1) / page * page, last = to / page * page;

    if (last <= first || madvise((void *)first, last - first, MADV_REMOVE)) {
        memset(entries, 0, to - from);
        return;
    }
    memset(entries, 0, first - from);
    memset((void *)last, 0, to - last);
}

void shared_worker_clear(struct shared *s, unsigned worker)
{
    struct shared_worker *w = shared_worker(s, worker);

    for (unsigned i = 0; i < SHARED_SLOTS; i++)
        if (atomic_load(&s->slots[i].used)) {
            atomic_store(&shared_cell(s, worker, i)->connections, 0);
            atomic_store(&shared_cell(s, worker, i)->handshakes, 0);
            atomic_store(&shared_cell(s, worker, i)->admitted, 0);
        }
    clear_ips(s, worker);
    atomic_store(&w->pairs, 0);
    atomic_store(&w->server_objects, 0);
}

int shared_ticket_rotate(struct shared *s, struct err *err)
{
    struct shared_ticket_key *keys = s->head->ticket_keys, fresh;

    if (getrandom(&fresh, sizeof fresh, 0) != sizeof fresh)
        return err_set(err, ERR_IO, "getrandom: %s", strerror(errno));
    atomic_fetch_add(&s->head->ticket_sequence, 1);
    atomic_thread_fence(memory_order_seq_cst);
    memmove(keys + 1, keys, (SHARED_TICKET_KEYS - 1) * sizeof *keys);
    keys[0] = fresh;
    explicit_bzero(&fresh, sizeof fresh);
    atomic_thread_fence(memory_order_seq_cst);
    atomic_fetch_add(&s->head->ticket_sequence, 1);
    return 0;
}

void shared_ticket_keys(const struct shared *s, struct shared_ticket_key out[SHARED_TICKET_KEYS])
{
    uint32_t before, after;
    int tries = 1000;

    /* A master that died while it wrote leaves the number odd for good. What is read then is no less secret: at worst
     * a ticket does not open. */
    do {
        before = atomic_load(&s->head->ticket_sequence);
        atomic_thread_fence(memory_order_seq_cst);
        memcpy(out, s->head->ticket_keys, sizeof s->head->ticket_keys);
        atomic_thread_fence(memory_order_seq_cst);
        after = atomic_load(&s->head->ticket_sequence);
    } while ((before != after || before & 1) && --tries);
}
