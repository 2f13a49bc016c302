#include "relay/stats.h"

/* What gateways and backends answer; the rest is counted together. */
static const int statuses[STATS_STATUSES - 1] = {
    101, 200, 204, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 413, 414, 421, 422, 426, 429, 431, 500, 501, 502, 503, 504, 505, 0,
};

size_t stats_status_index(int status)
{
    for (size_t i = 0; i < STATS_STATUSES - 1; i++)
        if (statuses[i] == status)
            return i;
    return STATS_STATUSES - 1;
}

int stats_status_of(size_t index)
{
    return index < STATS_STATUSES - 1 ? statuses[index] : -1;
}

size_t stats_close_index(unsigned code)
{
    if (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006)
        return code - 1000;
    if (code >= 3000 && code <= 4999)
        return code < 4000 ? 15 : 16;
    return 17;
}

const char *stats_close_label(size_t index)
{
    static const char *const labels[STATS_CLOSES] = {
        "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008",
        "1009", "1010", "1011", "1012", "1013", "1014", "3xxx", "4xxx", "none",
    };

    return index < STATS_CLOSES ? labels[index] : "none";
}

uint64_t stats_bucket_us(size_t index)
{
    static const uint64_t bounds[STATS_BUCKETS - 1] = {
        1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000,
    };

    return index < STATS_BUCKETS - 1 ? bounds[index] : UINT64_MAX;
}

void stats_handshake_took(struct stats_cell *c, uint64_t us)
{
    size_t i = 0;

    while (us > stats_bucket_us(i))
        i++;
    stats_add(&c->handshake_buckets[i], 1);
    stats_add(&c->handshake_us, us);
}

const char *stats_who_label(enum stats_who who)
{
    static const char *const labels[STATS_WHOS] = {"client", "backend", "gateway"};

    return labels[who];
}

const char *stats_kind_label(enum frame_kind kind)
{
    static const char *const labels[FRAME_KINDS] = {"text", "binary", "ping", "pong", "close"};

    return labels[kind];
}

const char *stats_limit_label(enum stats_limit limit)
{
    static const char *const labels[STATS_LIMITS] = {
        "max_connections", "max_connections_per_ip", "handshakes_per_second", "descriptors", "memory",
        "draining",
    };

    return labels[limit];
}
