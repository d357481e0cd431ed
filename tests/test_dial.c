/* The dial: the law's published values, shapes near a size, what it sets and leaves, refusals. */
#include "check.h"
#include "train/dial.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static void test_law(void **state)
{
    (void)state;
    static const struct {
        double n, d, lr, batch;
    } rows[] = {{1e8, 2e9, 2.537e-3, 1.187e5},
                {1e9, 2e10, 9.960e-4, 4.419e5},
                {1e9, 1e11, 1.632e-3, 1.108e6},
                {7e9, 1.4e12, 9.166e-4, 4.999e6}};
    for (i64 i = 0; i < COUNT(rows); i++) {
        assert_true(fabs(dial_lr(rows[i].n, rows[i].d) / rows[i].lr - 1) < 4e-4);
        assert_true(fabs(dial_batch(rows[i].d) / rows[i].batch - 1) < 4e-4);
    }
}

/* Within a quarter of the size asked for, and neither thread nor plate. */
static void test_shapes(void **state)
{
    (void)state;
    for (double size = 3e6; size < 2e10; size *= 1.3) {
        dial_shape s = dial_shape_for(size, 16384);
        double d = (double)s.width, f = (double)round_up((8 * s.width + 2) / 3, 64);
        assert_true(s.parameters == (double)s.layers * (4 * d * d + 3 * d * f) + 16384 * d);
        assert_true(fabs(log(s.parameters / size)) < 0.25);
        assert_true(s.width % 64 == 0 && s.heads == s.width / 64);
        double ratio = d / (double)s.layers;
        assert_true(ratio >= 10 && ratio <= 160);
    }
}

static config *parse(const char *yaml)
{
    config *c;
    assert_ok(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c));
    return c;
}

static void refused(const char *yaml, const char *message)
{
    device *d;
    config *c = parse(yaml);
    assert_ok(device_open(&(device_options){0}, &d));
    assert_fails(dial_apply(c, d, NULL, NULL), ERR_CONFIG, message);
    device_close(d);
    config_close(c);
}

static void test_apply(void **state)
{
    (void)state;
    device *d;
    assert_ok(device_open(&(device_options){0}, &d));
    config *c = parse("model: {size: 10M}\ndata: {vocab: 16Ki}\n");
    assert_ok(dial_apply(c, d, NULL, NULL));
    dial_shape s = dial_shape_for(1e7, 16384);
    assert_int_equal(config_count(c, "model.layers"), s.layers);
    assert_int_equal(config_count(c, "model.width"), s.width);
    assert_int_equal(config_count(c, "train.tokens"), (i64)(20 * s.parameters));
    assert_int_equal(config_count(c, "train.batch_tokens") % config_count(c, "model.context"), 0);
    double law = dial_lr(s.inner, 20 * s.parameters);
    assert_true(fabs(config_number(c, "train.optimizer.lr") / fmin(law, 1e-2) - 1) < 0.05); // two digits
    config_close(c);
    // What is given stays; a budget takes the place of the derived tokens.
    c = parse("model: {size: 10M, width: 128}\ntrain: {steps: 7, optimizer: {lr: 0.5}}\n");
    assert_ok(dial_apply(c, d, NULL, NULL));
    assert_int_equal(config_count(c, "model.width"), 128);
    assert_true(config_number(c, "train.optimizer.lr") == 0.5 && config_is(c, "train.tokens", "none"));
    config_close(c);
    // Compute chooses the size: C = 120 N^2.
    c = parse("model: {size: auto}\ntrain: {flops: 1.2e16}\ndata: {vocab: 4Ki}\n");
    assert_ok(dial_apply(c, d, NULL, NULL));
    assert_int_equal(config_count(c, "model.size"), 10000000);
    config_close(c);
    c = parse("train: {time: 2 h}\n"); // without a size a budget never changes the shape
    u64 before = config_hash(c);
    assert_ok(dial_apply(c, d, NULL, NULL));
    assert_true(config_hash(c) == before);
    config_close(c);
    device_close(d);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("model: {size: auto}\ntrain: {tokens: 1M}\n",
            "c.yaml:1: model.size is auto, which needs a budget of compute: train.time or train.flops");
    refused("model: {size: 50k}\n", "c.yaml:1: model.size is 5e+04 parameters; it must be from 1e5 to 1e11");
    refused("model: {size: 1M}\ndata: {vocab: 64Ki}\n",
            "c.yaml:1: model.size is 1e+06 parameters, but 65536 words alone take most of that: the nearest "
            "shape has 4.3e+06; set a smaller data.vocab");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_law),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_apply),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
