/* The coordinate check (lab/coord.h): slopes; muP is flat where the standard parametrization grows, tied or
 * not, with heads of a given width or a given number of heads; equal runs; what is refused. */
#include "lab/coord.h"
#include "check.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static device *cpu;
static char file[] = "/tmp/keel-coord-XXXXXX";
static const char yaml[] =
    "model: {layers: 2, width: 64, context: 32, tie_head: false, attention: {heads: 4}, ffn: {width: 128},\n"
    "        norm: {affine: none}}\n"
    "train: {optimizer: {lr: 1e-2, weight_decay: 0}}\n";

static void test_slope(void **state)
{
    (void)state;
    const i64 x[] = {16, 32, 64, 128};
    const double flat[] = {3, 3, 3, 3}, root[] = {4, 5.656854249492381, 8, 11.313708498984761},
                 inverse[] = {8, 4, 2, 1}, bent[] = {1, 2, 2, 1}, bad[] = {1, 0, 1, 1},
                 worse[] = {1, 1, NAN, 1};
    assert_true(fabs(coord_slope(x, flat, 4)) < 1e-15);
    assert_true(fabs(coord_slope(x, root, 4) - 0.5) < 1e-14);
    assert_true(fabs(coord_slope(x, inverse, 4) + 1) < 1e-14);
    assert_true(fabs(coord_slope(x, bent, 4)) < 1e-15);
    assert_true(isnan(coord_slope(x, bad, 4)) && isnan(coord_slope(x, worse, 4)));
}

static status check(const char *const *with, i64 n, const i64 *widths, i64 n_widths, arena *a, coord_arm *arm)
{
    coord_options o = {.config = file,
                       .overrides = with,
                       .n_overrides = n,
                       .widths = widths,
                       .n_widths = n_widths,
                       .steps = 10,
                       .seeds = 1,
                       .device = cpu,
                       .isa = device_about(cpu)->level};
    return coord_check(&o, a, arm);
}

static const coord_kind *kind(const coord_arm *arm, const char *name)
{
    for (i64 k = 0; k < arm->n_kinds; k++)
        if (!strcmp(arm->kind[k].name, name)) return &arm->kind[k];
    fail_msg("no %s", name);
    return NULL;
}

static void test_flat(void **state)
{
    (void)state;
    static const char *const with[][2] = {{"model.bias=false", "model.tie_head=false"},
                                          {"model.bias=false", "model.tie_head=true"},
                                          {"model.attention.head_width=16", "model.attention.kv_heads=2"},
                                          {"train.transfer.kind=mup", "train.transfer.base_width=64"}};
    const i64 widths[] = {64, 128, 256};
    for (i64 k = 0; k < COUNT(with); k++) {
        coord_arm arm[COORD_ARMS];
        arena *a;
        assert_ok(arena_open(&a));
        assert_ok(check(with[k], 2, widths, 3, a, arm));
        assert_string_equal(arm[0].transfer, "none");
        assert_string_equal(arm[1].transfer, "mup");
        assert_false(arm[0].flat);
        assert_true(kind(&arm[0], "ffn.joint")->slope > 0.5 && kind(&arm[0], "logits")->slope > 0.2);
        for (i64 i = 0; i < arm[1].n_kinds; i++) {
            const coord_kind *x = &arm[1].kind[i];
            double bound = strcmp(x->name, "logits") ? COORD_FLAT : 0.2; // 0.1 by width 512
            if (!(fabs(x->slope) < bound)) fail_msg("%s: %s %g", with[k][0], x->name, x->slope);
        }
        assert_true(kind(&arm[0], "embedding")->change[0] > 0); // rows move alike in both
        arena_close(a);
    }
}

/* At the base width both arms are one training; equal checks give equal bits. */
static void test_same(void **state)
{
    (void)state;
    const i64 widths[] = {32, 64};
    coord_arm x[COORD_ARMS], y[COORD_ARMS];
    arena *a;
    assert_ok(arena_open(&a));
    assert_ok(check(NULL, 0, widths, 2, a, x));
    assert_ok(check(NULL, 0, widths, 2, a, y));
    assert_int_equal(x[0].n_kinds, x[1].n_kinds);
    for (i64 k = 0; k < x[0].n_kinds; k++) {
        assert_string_equal(x[0].kind[k].name, x[1].kind[k].name);
        assert_true(x[0].kind[k].change[0] == x[1].kind[k].change[0]);
        assert_true(x[0].kind[k].size[0] == x[1].kind[k].size[0] && x[0].kind[k].size[0] > 0);
        assert_memory_equal(x[1].kind[k].change, y[1].kind[k].change, 2 * sizeof(double));
    }
    arena_close(a);
}

/* A rate that breaks the wide model is no flat one. */
static void test_divergence(void **state)
{
    (void)state;
    const i64 widths[] = {32, 64};
    const char *with[] = {"train.optimizer.lr=1e2", "train.clip=0", "model.norm.kind=none"};
    coord_arm arm[COORD_ARMS];
    arena *a;
    assert_ok(arena_open(&a));
    assert_ok(check(with, 3, widths, 2, a, arm));
    assert_false(arm[0].flat);
    arena_close(a);
}

static void refused(const char *const *with, i64 n, const i64 *widths, i64 n_widths, err_code code,
                    const char *message)
{
    coord_arm arm[COORD_ARMS];
    arena *a;
    assert_ok(arena_open(&a));
    assert_fails(check(with, n, widths, n_widths, a, arm), code, message);
    arena_close(a);
}

static void test_refused(void **state)
{
    (void)state;
    const i64 one[] = {64}, falling[] = {64, 32}, odd[] = {32, 50};
    refused(NULL, 0, one, 1, ERR_USAGE, "1 width; a slope needs two");
    refused(NULL, 0, falling, 2, ERR_USAGE, "width 32 comes after 64; name widths in ascending order");
    char message[300];
    snprintf(
        message, sizeof message,
        "train.transfer.kind none, width 50: %s:1: model.attention.heads is 4 at width 64; with "
        "model.attention.head_width given, the heads go with the width, and at 50 they were no whole number",
        file);
    refused((const char *[]){"model.attention.head_width=16"}, 1, odd, 2, ERR_CONFIG, message);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slope),      cmocka_unit_test(test_flat),    cmocka_unit_test(test_same),
        cmocka_unit_test(test_divergence), cmocka_unit_test(test_refused),
    };
    int f = mkstemp(file);
    if (f < 0 || write(f, yaml, strlen(yaml)) != (ssize_t)strlen(yaml)) return 1;
    close(f);
    assert_ok(device_open(&(device_options){.threads = 1}, &cpu));
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(cpu);
    unlink(file);
    return bad;
}
