#include "render_share.h"

#include "test_objects.h"

/* The weights of items of so many endpoints each, none of them in two; weights[i] is that of each endpoint of items[i]. */
struct item {
    uint32_t weight;
    size_t endpoints;
};

static size_t weigh(const struct item *items, size_t count, uint32_t *weights)
{
    struct spec_backend backends[SPEC_MAX_LIST] = {0};
    struct render_shares s = {0};
    size_t all = 0;

    for (size_t i = 0; i < count; i++) {
        bool in[SPEC_MAX_LIST] = {false};

        for (size_t j = 0; j < items[i].endpoints; j++)
            in[all++] = true;
        render_share_add(&s, in, items[i].weight);
    }
    render_share_weights(&s, backends, all);
    all = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < items[i].endpoints; j++)
            assert_int_equal(backends[all + j].weight, backends[all].weight);
        weights[i] = items[i].endpoints ? backends[all].weight : 0;
        all += items[i].endpoints;
    }
    return all;
}

static void an_item_has_its_weight_however_many_endpoints_it_has(void **state)
{
    static const struct {
        struct item items[4];
        uint32_t expected[4];
    } cases[] = {
        {{{1, 1}, {1, 3}}, {3, 1}},
        {{{1, 3}, {1, 1}}, {1, 3}},
        {{{1, 4}}, {1}},
        {{{90, 3}, {10, 1}}, {3, 1}},
        {{{1, 2}, {1, 3}, {1, 4}}, {6, 4, 3}},
        {{{5, 5}, {1, 1}, {0, 7}}, {1, 1, 0}},
        {{{2, 1}, {4, 1}}, {1, 2}},
        {{{1000000, 1}, {1000000, 3}}, {3, 1}},
        {{{1, 0}, {7, 2}}, {0, 1}},
        {{{0, 3}, {0, 1}}, {0, 0}},
        {{{1, 127}, {1, 128}, {1, 1}}, {128, 127, 16256}},
        {{{1000, 1}, {1, 255}}, {255000, 1}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t got[4] = {0};

        weigh(cases[i].items, 4, got);
        for (int j = 0; j < 4; j++)
            if (got[j] != cases[i].expected[j])
                fail_msg("case %zu, item %d: %u, not %u", i, j, got[j], cases[i].expected[j]);
    }
}

/* Where whole numbers to 1,000,000 cannot say it: nobody is forgotten, nobody has too much, and near is near. */
static void shares_of_very_different_size_are_rounded(void **state)
{
    static const struct item far[] = {{1000000, 1}, {1, 255}};
    /* Their least common multiple has 13 digits. */
    static const struct item primes[] = {{1, 2},  {1, 3},  {1, 5},  {1, 7},  {1, 11}, {1, 13},
                                         {1, 17}, {1, 19}, {1, 23}, {1, 29}, {1, 31}, {1, 37}};
    uint32_t got[COUNT(primes)];

    (void)state;
    assert_int_equal(weigh(far, COUNT(far), got), 256);
    assert_int_equal(got[0], SPEC_MAX_WEIGHT);
    assert_int_equal(got[1], 1);
    weigh(primes, COUNT(primes), got);
    assert_int_equal(got[0], SPEC_MAX_WEIGHT);
    for (size_t i = 0; i < COUNT(primes); i++) {
        double share = (double)got[i] * (double)primes[i].endpoints / (2.0 * SPEC_MAX_WEIGHT);

        if (share < 0.9999 || share > 1.0001)
            fail_msg("of %zu endpoints: %.6f of its share", primes[i].endpoints, share);
    }
}

static void an_endpoint_of_two_items_has_its_part_of_both(void **state)
{
    struct spec_backend backends[3] = {0};
    struct render_shares s = {0};

    (void)state;
    render_share_add(&s, (bool[SPEC_MAX_LIST]){true, true, false}, 1);
    render_share_add(&s, (bool[SPEC_MAX_LIST]){false, true, true}, 3);
    render_share_add(&s, (bool[SPEC_MAX_LIST]){false, false, true}, 0);
    render_share_weights(&s, backends, 3);
    assert_int_equal(backends[0].weight, 1);
    assert_int_equal(backends[1].weight, 4);
    assert_int_equal(backends[2].weight, 3);
}

/* Whatever they are, each item's sum is to the next one's as their weights, to a thousandth. */
static void drawn_items_keep_their_proportions(void **state)
{
    uint64_t seed = 88172645463325252u;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct item items[6];
        uint32_t got[6];
        double per[6], sum = 0, weights = 0;

        for (size_t i = 0; i < 6; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            items[i] = (struct item){(uint32_t)(seed % 100) + 1, (size_t)(seed >> 20) % 40 + 1};
        }
        weigh(items, 6, got);
        for (size_t i = 0; i < 6; i++) {
            assert_in_range(got[i], 1, SPEC_MAX_WEIGHT);
            sum += per[i] = (double)got[i] * (double)items[i].endpoints;
            weights += items[i].weight;
        }
        for (size_t i = 0; i < 6; i++) {
            double off = per[i] / sum * weights / items[i].weight - 1;

            if (off > 0.001 || off < -0.001)
                fail_msg("round %d, item %zu: off by %.5f", round, i, off);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_has_its_weight_however_many_endpoints_it_has),
        cmocka_unit_test(shares_of_very_different_size_are_rounded),
        cmocka_unit_test(an_endpoint_of_two_items_has_its_part_of_both),
        cmocka_unit_test(drawn_items_keep_their_proportions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
