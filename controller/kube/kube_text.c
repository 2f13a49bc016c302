#include "kube/kube_text.h"

#include "base/json.h"
#include "base/need.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

char *kube_text(const char *text, size_t max)
{
    const uint8_t *p = (const uint8_t *)(text ? text : "");
    size_t left = strlen((const char *)p), len = 0;
    char *out = need(malloc((left < max ? left : max) + 1));

    while (left && len < max) {
        size_t take = json_plain_len(p, left < max - len ? left : max - len);
        char escaped[8];

        if (!take)
            json_escape(p, left, escaped, &take);
        if (len + take > max)
            break;
        if (take == 1 && *p >= 0x80)
            out[len] = '?';
        else
            memcpy(out + len, p, take);
        len += take;
        p += take;
        left -= take;
    }
    out[len] = '\0';
    return out;
}

static struct timespec now(struct tm *tm)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, tm);
    return ts;
}

void kube_time_micro(char out[KUBE_TIME_BYTES])
{
    struct tm tm;
    long micros = now(&tm).tv_nsec / 1000;
    size_t n = strftime(out, KUBE_TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);

    snprintf(out + n, KUBE_TIME_BYTES - n, ".%06ldZ", micros);
}

void kube_time(char out[KUBE_TIME_BYTES])
{
    struct tm tm;

    now(&tm);
    strftime(out, KUBE_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

uint64_t kube_time_nanos(void)
{
    struct tm tm;
    struct timespec ts = now(&tm);

    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}
