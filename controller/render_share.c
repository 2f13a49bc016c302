#include "render_share.h"

#define EXACT 0x1p40 /* below it whole numbers survive the divisions above them */

static uint64_t divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

void render_share_add(struct render_shares *s, const bool in[SPEC_MAX_LIST], uint32_t weight)
{
    size_t among = 0;

    for (size_t i = 0; i < SPEC_MAX_LIST; i++)
        among += in[i];
    if (!among || !weight)
        return;
    for (size_t i = 0; i < SPEC_MAX_LIST; i++)
        if (in[i])
            s->of[i] += (double)weight / (double)among;
    if (s->unit < 1)
        s->unit = 1;
    if (s->unit < EXACT) { /* the least common multiple */
        uint64_t times = among / divisor((uint64_t)s->unit, among);

        s->unit *= (double)times;
    }
}

void render_share_weights(const struct render_shares *s, struct spec_backend *backends, size_t count)
{
    uint64_t parts[SPEC_MAX_LIST], common = 0, largest = 0;
    double most = 0, scale;

    for (size_t i = 0; i < count; i++)
        most = s->of[i] > most ? s->of[i] : most;
    scale = most * s->unit < EXACT ? s->unit : EXACT / most;
    for (size_t i = 0; i < count; i++) {
        parts[i] = (uint64_t)(s->of[i] * scale + 0.5);
        common = divisor(parts[i], common);
        largest = parts[i] > largest ? parts[i] : largest;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t part = common ? parts[i] / common : 0, top = common ? largest / common : 0;

        if (top > SPEC_MAX_WEIGHT)
            part = (part * SPEC_MAX_WEIGHT + top / 2) / top;
        backends[i].weight = parts[i] && !part ? 1 : (uint32_t)part;
    }
}
