/* render_share.h - the weight of each item of `backends`, divided among the endpoints that stand for it
 * Shape:   one call an item with the backends that it became, then the weights of all: an endpoint has its part of what it is an
 *          endpoint of, so that each item gets its share of the connections, however many endpoints it has
 * Units:   weights are whole numbers without a common divisor, 1 to SPEC_MAX_WEIGHT; 0 where all its items have 0
 * Owner:   the caller; nothing is allocated
 * Errors:  none; only shares of very different size are rounded, to one part in SPEC_MAX_WEIGHT of the largest
 * Limits:  SPEC_MAX_LIST backends
 * Threads: any
 * Source:  Gateway API, weight of a BackendRef: that of the Service, not of each of its endpoints */
#ifndef CONTROLLER_RENDER_SHARE_H
#define CONTROLLER_RENDER_SHARE_H

#include "spec/spec.h"

struct render_shares {
    double of[SPEC_MAX_LIST];
    double unit; /* each is a whole number of 1/unit; 0: none yet */
};

/* in[i]: backends[i] is of this item. */
void render_share_add(struct render_shares *s, const bool in[SPEC_MAX_LIST], uint32_t weight);
void render_share_weights(const struct render_shares *s, struct spec_backend *backends, size_t count);

#endif
