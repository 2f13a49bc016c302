#include "relay/limit.h"

#include "relay/closing.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND_US 1000000u

static uint64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND_US + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32) + v[3];
    v[2] += v[1];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

/* SipHash-2-4: whoever picks addresses that meet in one entry would have to know the key. */
static uint64_t hash(const uint64_t key[2], const uint64_t *words, size_t count)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                     key[1] ^ 0x7465646279746573};

    for (size_t i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)count * 8 << 56;

        v[3] ^= word;
        sip_round(v);
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Never 0, which is an entry that was never used. */
static uint64_t tag_of(const struct shared *s, unsigned slot, const struct in6_addr *client)
{
    uint64_t words[3] = {0, 0, slot}, tag;

    /* The host half of an IPv6 address is the client's to choose. */
    memcpy(words, client->s6_addr, IN6_IS_ADDR_V4MAPPED(client) ? 16 : 8);
    tag = hash(s->head->ip_seed, words, 3);
    return tag ? tag : 1;
}

/* This worker's entry for the tag, taken if need be; NULL: none is free in reach. */
static struct shared_ip *own_entry(const struct shared *s, unsigned worker, uint64_t tag)
{
    struct shared_ip *table = shared_ips(s, worker), *unused = NULL;

    for (uint64_t i = 0; i < LIMIT_PROBES; i++) {
        struct shared_ip *e = &table[(tag + i) & (s->head->ip_entries - 1)];
        uint64_t here = atomic_load(&e->tag);

        if (here == tag)
            return e;
        if (!unused && !atomic_load(&e->count))
            unused = e;
        if (!here)
            break; /* never used: nothing was ever put behind it */
    }
    if (unused)
        atomic_store(&unused->tag, tag);
    return unused;
}

static uint64_t count_of(const struct shared *s, unsigned worker, uint64_t tag)
{
    struct shared_ip *table = shared_ips(s, worker);

    for (uint64_t i = 0; i < LIMIT_PROBES; i++) {
        struct shared_ip *e = &table[(tag + i) & (s->head->ip_entries - 1)];
        uint64_t here = atomic_load(&e->tag), count;

        if (!here)
            break;
        if (here != tag)
            continue;
        count = atomic_load(&e->count);
        /* Taken over meanwhile: then it was 0 for this tag. */
        return atomic_load(&e->tag) == tag ? count : 0;
    }
    return 0;
}

/* Counts first and adds up then: of all that are counted, the last one to come sees all the others. */
static bool take_place(const struct shared *s, const struct server *server, uint32_t max)
{
    uint64_t sum = 0;

    atomic_fetch_add(&server->cell->admitted, 1);
    for (unsigned w = 0; max && w < s->head->workers; w++)
        sum += atomic_load(&shared_cell(s, w, server->slot)->admitted);
    if (sum <= max)
        return true;
    atomic_fetch_sub(&server->cell->admitted, 1);
    return false;
}

/* The same for an address. */
static bool take_address(struct pair *p, const struct in6_addr *client, uint32_t max)
{
    const struct shared *s = &p->relay->shared;
    uint64_t tag = tag_of(s, p->server->slot, client), sum = 0;
    struct shared_ip *e = own_entry(s, p->relay->worker, tag);

    if (!e)
        return true;
    atomic_fetch_add(&e->count, 1);
    for (unsigned w = 0; w < s->head->workers; w++)
        sum += count_of(s, w, tag);
    if (sum > max) {
        atomic_fetch_sub(&e->count, 1);
        return false;
    }
    p->ip_entry = (uint32_t)(e - shared_ips(s, p->relay->worker)) + 1;
    return true;
}

/* GCRA: *next_us is when the next handshake would be due if all came evenly; it may be up to a second ahead. */
static bool keep_pace(_Atomic uint64_t *next_us, uint32_t per_second)
{
    uint64_t now = now_us(), step = SECOND_US / per_second, next = atomic_load(next_us), from;

    do {
        from = next > now ? next : now;
        if (from + step > now + SECOND_US)
            return false;
    } while (!atomic_compare_exchange_weak(next_us, &next, from + step));
    return true;
}

static void refuse(const struct pair *p, enum stats_limit limit, uint64_t value, struct limit_refusal *out)
{
    static const struct {
        const char *said;
        unsigned retry_after_s;
        const char *why; /* with the value behind it unless that is 0 */
    } texts[] = {
        [STATS_MAX_CONNECTIONS] = {"the server has reached its limit of connections", 5,
                                   "limits.maxConnections"},
        [STATS_MAX_CONNECTIONS_PER_IP] = {"your address has reached its limit of connections", 5,
                                          "limits.maxConnectionsPerIP"},
        [STATS_HANDSHAKES_PER_SECOND] = {"the server has reached its limit of new connections a second", 1,
                                         "limits.handshakesPerSecond"},
        [STATS_DESCRIPTORS] = {"the gateway has reached its limit of connections", 5,
                               "connections that this worker's descriptors allow"},
        [STATS_MEMORY] = {"the gateway is short of memory", 5, "memory is short"},
    };

    stats_add(&p->server->cell->limited[limit], 1);
    out->said = texts[limit].said;
    out->retry_after_s = texts[limit].retry_after_s;
    if (value)
        snprintf(out->why, sizeof out->why, "%s: %llu", texts[limit].why, (unsigned long long)value);
    else
        snprintf(out->why, sizeof out->why, "%s", texts[limit].why);
}

bool limit_admit(struct pair *p, const struct in6_addr *client, struct limit_refusal *out)
{
    struct relay *r = p->relay;
    const struct spec_server *spec = p->server->spec;
    uint64_t max_tunnels = stats_read(&r->me->max_tunnels);
    char text[ADDR_TEXT_BYTES];
    uint32_t pace = spec->limits.handshakes_per_second;
    uint32_t max = spec->limits.max_connections, max_per_ip = spec->limits.max_connections_per_ip;

    if (atomic_load(&r->shared.head->pressure) >= SHARED_REFUSE) {
        refuse(p, STATS_MEMORY, 0, out);
    } else if (r->admitted >= max_tunnels) {
        refuse(p, STATS_DESCRIPTORS, max_tunnels, out);
    } else if (pace && !keep_pace(&r->shared.slots[p->server->slot].next_handshake_us, pace)) {
        refuse(p, STATS_HANDSHAKES_PER_SECOND, pace, out);
    } else if (!take_place(&r->shared, p->server, max)) {
        refuse(p, STATS_MAX_CONNECTIONS, max, out);
    } else if (max_per_ip && !take_address(p, client, max_per_ip)) {
        atomic_fetch_sub(&p->server->cell->admitted, 1);
        refuse(p, STATS_MAX_CONNECTIONS_PER_IP, max_per_ip, out);
        snprintf(out->why + strlen(out->why), sizeof out->why - strlen(out->why), " for %s",
                 addr_ip_text(client, text));
    } else {
        p->admitted = true;
        r->admitted++;
    }
    return p->admitted;
}

void limit_release(struct pair *p)
{
    if (!p->admitted)
        return;
    p->admitted = false;
    p->relay->admitted--;
    if (p->ip_entry)
        atomic_fetch_sub(&shared_ips(&p->relay->shared, p->relay->worker)[p->ip_entry - 1].count, 1);
    p->ip_entry = 0;
    atomic_fetch_sub(&p->server->cell->admitted, 1);
}

uint64_t limit_max_tunnels(uint64_t fd_limit, unsigned in_use)
{
    uint64_t reserve = fd_limit / 20;

    if (reserve < 16)
        reserve = 16;
    if (reserve > 1024)
        reserve = 1024;
    return fd_limit >= in_use + reserve + 2 ? (fd_limit - in_use - reserve) / 2 : 1;
}

void limit_shed(struct relay *r)
{
    size_t left = r->pair_count / 100;
    uint64_t now = r->loop.now_ms;
    struct pair *p, *next;

    if (left < LIMIT_SHED_MIN)
        left = LIMIT_SHED_MIN;
    for (p = LIST_FIRST(&r->pairs); p && left; p = next) {
        next = LIST_NEXT(p, link);
        if (p->handshake || p->end_ms || now < p->client.active_ms + LIMIT_SHED_IDLE_MS ||
            now < p->backend.active_ms + LIMIT_SHED_IDLE_MS)
            continue;
        stats_add(&p->server->cell->limited[STATS_MEMORY], 1);
        closing_ours(p, "the gateway is short of memory", PAIR_CLOSE_MS);
        closing_settle(p);
        left--;
    }
}
