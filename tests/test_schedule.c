/* Learning-rate schedules: tables, closed forms, warm-up conventions, phases, refusals. */
#include "check.h"
#include "optim/schedule.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static schedule read_schedule(const char *fields, i64 steps)
{
    char yaml[600];
    config *c;
    schedule s;
    snprintf(yaml, sizeof yaml, "train: {steps: 9, optimizer: {lr: 1}, schedule: {%s}}\n", fields);
    assert_ok(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c));
    assert_ok(schedule_from(c, steps, 1000, &s));
    config_close(c);
    return s;
}

static void refused(const char *fields, i64 steps, const char *message)
{
    char yaml[600];
    config *c;
    schedule s;
    snprintf(yaml, sizeof yaml, "train:\n  optimizer: {lr: 1}\n  schedule: {%s}\n", fields);
    assert_ok(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c));
    assert_fails(schedule_from(c, steps, 1000, &s), ERR_CONFIG, message);
    config_close(c);
}

/* ---- the curve */

static void test_table(void **state)
{
    (void)state;
    static const struct {
        double phi, at[9]; // x = 0.1 to 0.9
    } rows[] = {
        {0.25, {.9969, .9870, .9686, .9381, .8889, .8085, .6750, .4579, .1671}},
        {0.5, {.9938, .9743, .9391, .8834, .8000, .6786, .5094, .2969, .0912}},
        {1, {.9876, .9499, .8851, .7912, .6667, .5136, .3418, .1743, .0478}},
        {2, {.9755, .9045, .7939, .6545, .5000, .3455, .2061, .0955, .0245}},
        {5, {.9410, .7912, .6064, .4311, .2857, .1743, .0941, .0405, .0099}},
        {10, {.8886, .6545, .4351, .2748, .1667, .0955, .0494, .0207, .0050}},
    };
    for (i64 i = 0; i < COUNT(rows); i++)
        for (int k = 0; k < 9; k++)
            assert_true(fabs(uba_curve(rows[i].phi, 0.1 * (k + 1)) - rows[i].at[k]) < 5.1e-5);
}

static void test_invariants(void **state)
{
    (void)state;
    for (int k = 0; k <= 1000; k++) {
        double x = k / 1000.0;
        assert_true(fabs(uba_curve(2, x) - (1 + cos(acos(-1) * x)) / 2) <= 1e-15); // cosine
        assert_true(uba_curve(0, x) == 1);                                         // constant
    }
    for (double phi = 1e-6; phi < 1.1e6; phi *= 10) {
        double last = 1;
        assert_true(uba_curve(phi, 0) == 1 && fabs(uba_curve(phi, 1)) < 1e-15 / phi);
        assert_true(fabs(uba_curve(phi, 0.5) - 2 / (2 + phi)) < 1e-15);
        for (int k = 0; k <= 1000; k++) {
            double x = k / 1000.0, f = uba_curve(phi, x);
            assert_true(isfinite(f) && f >= 0 && f <= last);
            assert_true(fabs(f + uba_curve(4 / phi, 1 - x) - 1) < 1e-13); // duality
            last = f;
        }
    }
}

/* The mean of f over a run is 1/(1 + sqrt(phi/2)) within 1/T: a sum of a falling function from 1 to 0. */
static void test_mean(void **state)
{
    (void)state;
    static const double phis[] = {0, 0.05, 0.25, 1, 2, 7, 100};
    static const i64 lengths[] = {10, 100, 3000};
    for (i64 i = 0; i < COUNT(phis); i++)
        for (i64 k = 0; k < COUNT(lengths); k++) {
            char fields[100];
            snprintf(fields, sizeof fields, "kind: uba, phi: %g, warmup: 0 steps, floor: 0.2", phis[i]);
            schedule s = read_schedule(fields, lengths[k]);
            double sum = 0;
            for (i64 t = 0; t < lengths[k]; t++) sum += (schedule_at(&s, t) - 0.2) / 0.8;
            assert_true(fabs(sum / (double)lengths[k] - 1 / (1 + sqrt(phis[i] / 2))) <=
                        1.0001 / (double)lengths[k]);
        }
}

/* Where the family comes from: gradient descent on a quadratic with curvatures 1 to 50, step sizes the
 * curve's at the Chebyshev nodes. The worst contraction is least at phi = 2 x 50. */
static void test_quadratic(void **state)
{
    (void)state;
    static const double phi[] = {100, 90, 110, 50}, wanted[] = {6.7252e-3, 4.2347e-2, 8.4754e-3, 9.53e2};
    for (i64 i = 0; i < COUNT(phi); i++) {
        double worst = 0;
        for (int c = 0; c <= 49000; c++) {
            double curvature = 1 + c / 1000.0, product = 1;
            for (int k = 1; k <= 20; k++) {
                double eta = 1 / 50.0 + (1 - 1 / 50.0) * uba_curve(phi[i], (2 * k - 1) / 40.0);
                product *= 1 - eta * curvature;
            }
            worst = fmax(worst, fabs(product));
        }
        assert_true(fabs(worst - wanted[i]) <= 1e-3 * wanted[i]);
    }
}

/* ---- whole schedules */

/* T = 1000, W = 100, peak 1, end 0.1, offset 1. */
static void test_golden(void **state)
{
    (void)state;
    static const i64 steps[] = {100, 325, 550, 775, 999};
    static const struct {
        const char *fields;
        double at[5];
    } rows[] = {
        {"kind: cosine", {1, .868198, .550000, .231802, .100003}},
        {"kind: uba, phi: 2", {1, .868198, .550000, .231802, .100003}},
        {"kind: linear", {1, .775000, .550000, .325000, .101000}},
        {"kind: uba, phi: 0.25", {1, .981103, .900000, .620667, .100022}},
        {"kind: uba, phi: 0.5", {1, .962984, .820000, .466284, .100011}},
        {"kind: uba, phi: 1", {1, .928892, .700000, .329931, .100005}},
        {"kind: uba, phi: 5", {1, .729841, .357143, .157800, .100001}},
        {"kind: uba, phi: 10", {1, .584427, .250000, .129859, .100001}},
        {"kind: constant", {1, 1, 1, 1, 1}},
        {"kind: rex", {1, .871429, .700000, .460000, .101998}},
        {"kind: poly, power: 2", {1, .606250, .325000, .156250, .100001}},
        {"kind: poly, power: 1", {1, .775000, .550000, .325000, .101000}},
        {"kind: inv_sqrt", {.995037, .553849, .426014, .358979, .316228}},
        // 0.1 + 0.9 exp(-2 x): x = 0, 1/4, 1/2, 3/4, 0.99889
        {"kind: exponential, rate: 2", {1, .645878, .431091, .300817, .222073}},
        {"kind: step, milestones: [32%, 60%], gamma: 0.5", {1, .5, .5, .25, .25}},
        {"kind: table, points: [{at: 100 steps, lr: 1}, {at: 550 steps, lr: 0.5}, {at: 775 steps, lr: 0.1}]",
         {1, .75, .5, .1, .1}},
        {"kind: piecewise, phases: [{until: 550 steps, curve: constant}, {until: 100%, curve: cosine}]",
         {1, 1, 1, .55, .100011}},
        {"kind: cosine_then_const, until: 550 steps", {1, .55, .1, .1, .1}},
    };
    for (i64 i = 0; i < COUNT(rows); i++) {
        char fields[200];
        snprintf(fields, sizeof fields, "%s, warmup: 10%%", rows[i].fields);
        schedule s = read_schedule(fields, 1000);
        assert_true(schedule_at(&s, 0) == 0.01 && schedule_at(&s, 49) == 0.5 && schedule_at(&s, 99) == 1);
        for (int k = 0; k < 5; k++) assert_true(fabs(schedule_at(&s, steps[k]) - rows[i].at[k]) <= 6e-7);
    }
}

/* T_dec = 200 of T = 1000. */
static void test_wsd(void **state)
{
    (void)state;
    static const i64 steps[] = {800, 850, 900, 950, 999};
    static const struct {
        const char *shape;
        double at[5];
    } rows[] = {
        {"linear", {1, .775, .55, .325, .1045}},
        {"exp", {1, .562341, .316228, .177828, .101158}},
        {"cosine", {1, .868198, .55, .231802, .100056}},
        {"mirror_cosine", {1, .681802, .55, .418198, .108944}},
        {"one_minus_sqrt", {1, .55, .363604, .220577, .102253}},
        {"square", {1, .94375, .775, .49375, .108977}},
        {"inverse", {1, .307692, .181818, .129032, .100452}},
        {"halflife, half_life: 50 steps", {1, .5, .25, .125, .063373}}, // 2^(-199/50)
    };
    for (i64 i = 0; i < COUNT(rows); i++) {
        char fields[120];
        snprintf(fields, sizeof fields, "kind: wsd, warmup: 10%%, decay: 200 steps, shape: %s",
                 rows[i].shape);
        schedule s = read_schedule(fields, 1000);
        assert_true(schedule_at(&s, 99) == 1 && schedule_at(&s, 100) == 1 && schedule_at(&s, 799) == 1);
        for (int k = 0; k < 5; k++) assert_true(fabs(schedule_at(&s, steps[k]) - rows[i].at[k]) <= 6e-7);
    }
}

/* Cycles, rises of their own, the schedule without an end. */
static void test_shapes(void **state)
{
    (void)state;
    schedule s = read_schedule("kind: onecycle, up: 0.25, div: 20, final_div: 100", 400);
    assert_true(s.warmup == 0 && schedule_at(&s, 0) == 0.05 && schedule_at(&s, 100) == 1);
    assert_true(fabs(schedule_at(&s, 50) - 0.525) < 1e-12);  // half the rise
    assert_true(fabs(schedule_at(&s, 250) - 0.505) < 1e-12); // half the fall
    s = read_schedule("kind: cyclic, period: 100 steps, floor: 0.2", 400);
    assert_true(fabs(schedule_at(&s, 0) - 0.2) < 1e-15 && schedule_at(&s, 100) == 1);
    assert_true(fabs(schedule_at(&s, 150) - 0.6) < 1e-12 && schedule_at(&s, 300) == 1);
    s = read_schedule(
        "kind: cosine_cycles, period: 100 steps, growth: 2, gamma: 0.5, floor: 0.1, warmup: 0 steps", 700);
    assert_true(schedule_at(&s, 0) == 1 && fabs(schedule_at(&s, 50) - 0.55) < 1e-12);
    assert_true(schedule_at(&s, 100) == 0.5 && fabs(schedule_at(&s, 200) - 0.3) < 1e-12);
    assert_true(schedule_at(&s, 300) == 0.25);
    s = read_schedule("kind: infinite, warmup: 100 steps, until: 300 steps, constant: 0.4, floor: 0.1, "
                      "decay: 200 steps",
                      1000);
    assert_true(schedule_at(&s, 100) == 1 && fabs(schedule_at(&s, 200) - 0.7) < 1e-12);
    assert_true(schedule_at(&s, 300) == 0.4 && schedule_at(&s, 799) == 0.4 && schedule_at(&s, 800) == 0.4);
    assert_true(fabs(schedule_at(&s, 900) - 0.2) < 1e-12);
    for (i64 t = 0; t + 1 < 1000; t++) // no jump larger than the warm-up's step
        assert_true(fabs(schedule_at(&s, t + 1) - schedule_at(&s, t)) <= 0.01 + 1e-12);
    s = read_schedule("kind: jagged, period: 100 steps, rewarm: 10 steps, warmup: 0 steps", 1000);
    schedule smooth = read_schedule("kind: cosine, warmup: 0 steps", 1000);
    for (i64 t = 0; t < 1000; t++) {
        double rise = t >= 100 && t % 100 < 10 ? (double)(t % 100 + 1) / 10 : 1;
        assert_true(schedule_at(&s, t) == schedule_at(&smooth, t) * rise);
    }
    s = read_schedule("kind: uba, phi: 1, grid: chebyshev, warmup: 0 steps, floor: 0", 10);
    for (i64 t = 0; t < 10; t++)
        assert_true(fabs(schedule_at(&s, t) - uba_curve(1, (2 * (double)t + 1) / 20)) < 1e-15);
}

static void test_sums(void **state)
{
    (void)state;
    schedule s = read_schedule("kind: linear, floor: 0, warmup: 0 steps", 4); // 1, 3/4, 1/2, 1/4
    assert_true(fabs(schedule_sum(&s, 3, 1) - 2.5) < 1e-15 && fabs(schedule_sum(&s, 2, 2) - 1.8125) < 1e-15);
}

static void test_warmup(void **state)
{
    (void)state;
    schedule s = read_schedule("warmup: 4 steps", 10); // step 0 is not lost, step W - 1 has the peak
    for (i64 t = 0; t < 4; t++) assert_true(schedule_at(&s, t) == (double)(t + 1) / 4);
    assert_true(schedule_at(&s, 4) == 1 && schedule_at(&s, 5) < 1);
    s = read_schedule("warmup: 4 steps, warmup_offset: 0", 10); // the other convention: 0 at step 0
    for (i64 t = 0; t < 5; t++) assert_true(schedule_at(&s, t) == (double)t / 4);
    s = read_schedule("warmup: 4 steps, warmup_start: 0.2, warmup_offset: 0", 10);
    assert_true(schedule_at(&s, 0) == 0.2 && fabs(schedule_at(&s, 2) - 0.6) < 1e-15 &&
                schedule_at(&s, 4) == 1);
    s = read_schedule("warmup: 4 steps, warmup_start: 0.2", 10);
    assert_true(fabs(schedule_at(&s, 0) - 0.4) < 1e-15 && schedule_at(&s, 3) == 1);
    s = read_schedule("warmup: 0 steps", 10);
    assert_true(s.warmup == 0 && schedule_at(&s, 0) == 1);
    s = read_schedule("warmup: 4k tokens", 10); // 1,000 tokens a step
    assert_int_equal(s.warmup, 4);
    static const char *const kinds[] = {"kind: cosine", "kind: linear", "kind: constant", "kind: uba"};
    for (i64 k = 0; k < COUNT(kinds); k++) { // nothing but warm-up; one step
        char fields[100];
        snprintf(fields, sizeof fields, "%s, warmup: 100%%", kinds[k]);
        s = read_schedule(fields, 10);
        for (i64 t = 0; t < 10; t++) assert_true(schedule_at(&s, t) == (double)(t + 1) / 10);
        s = read_schedule(kinds[k], 1);
        assert_true(schedule_at(&s, 0) == 1);
    }
}

static void test_floor(void **state)
{
    (void)state;
    static const char *const kinds[] = {"kind: cosine", "kind: linear", "kind: uba"};
    static const double floors[] = {0, 0.1, 0.5, 1};
    for (i64 k = 0; k < COUNT(kinds); k++)
        for (i64 f = 0; f < COUNT(floors); f++) {
            char fields[100];
            snprintf(fields, sizeof fields, "%s, floor: %g, warmup: 0 steps", kinds[k], floors[f]);
            schedule s = read_schedule(fields, 500);
            double last = 1;
            for (i64 t = 0; t < 500; t++) {
                double now = schedule_at(&s, t);
                assert_true(now <= last && now >= floors[f] &&
                            (now > floors[f] || floors[f] == 1)); // never 0
                last = now;
            }
            assert_true(last <= floors[f] + (1 - floors[f]) / 499);
        }
}

static void test_phases(void **state)
{
    (void)state;
    schedule both =
        read_schedule("kind: uba, floor: 0.25, warmup: 0 steps, "
                      "phases: [{until: 40%, phi: 5}, {until: 100%, phi: 0.5, peak: 0.5, end: 0.125}]",
                      1000);
    schedule first = read_schedule("kind: uba, floor: 0.25, warmup: 0 steps, phi: 5", 400);
    schedule second =
        read_schedule("kind: uba, floor: 0.25, warmup: 0 steps, phi: 0.5", 600); // of twice the size
    for (i64 t = 0; t < 400; t++) assert_true(schedule_at(&both, t) == schedule_at(&first, t));
    for (i64 t = 0; t < 600; t++) assert_true(schedule_at(&both, 400 + t) == schedule_at(&second, t) / 2);
    // Equal ends: phases one after another are each the whole schedule at its own length.
    schedule three = read_schedule("kind: uba, phi: 1, warmup: 10 steps, "
                                   "phases: [{until: 110 steps}, {until: 60%}, {until: 100%}]",
                                   300);
    i64 starts[] = {10, 110, 180, 300};
    for (int k = 0; k < 3; k++) {
        schedule one = read_schedule("kind: uba, phi: 1, warmup: 0 steps", starts[k + 1] - starts[k]);
        for (i64 t = starts[k]; t < starts[k + 1]; t++)
            assert_true(schedule_at(&three, t) == schedule_at(&one, t - starts[k]));
    }
    assert_true(schedule_at(&three, 0) == 0.1);
    schedule one = read_schedule("kind: uba, phi: 1, phases: [{until: 100%}]", 300);
    schedule none = read_schedule("kind: uba, phi: 1", 300);
    for (i64 t = 0; t < 300; t++) assert_true(schedule_at(&one, t) == schedule_at(&none, t));
}

static void test_refusals(void **state)
{
    (void)state;
    refused("warmup: 400 steps", 399,
            "c.yaml:3: train.schedule.warmup is 400 steps, longer than the run (399 steps)");
    refused("warmup: 2M tokens", 10,
            "c.yaml:3: train.schedule.warmup is 2000 steps, longer than the run (10 steps)");
    refused(
        "kind: uba, phases: [{until: 60%}, {until: 50%}, {until: 100%}]", 100,
        "c.yaml:3: train.schedule.phases item 2 ends at step 50, but the one before (or the warm-up) at 60");
    refused(
        "kind: uba, phases: [{until: 60%}, {until: 60%}]", 100,
        "c.yaml:3: train.schedule.phases item 2 ends at step 60, but the one before (or the warm-up) at 60");
    refused(
        "kind: uba, warmup: 20 steps, phases: [{until: 10%}, {until: 100%}]", 100,
        "c.yaml:3: train.schedule.phases item 1 ends at step 10, but the one before (or the warm-up) at 20");
    refused("kind: uba, phases: [{until: 50%}, {until: 90%}]", 100,
            "c.yaml:3: train.schedule.phases end at step 90 of 100; let the last one be until 100%");
    refused("kind: uba, phases: [{until: 1 steps}, {until: 2 steps}, {until: 3 steps}, {until: 4 steps}, "
            "{until: 5 steps}, {until: 6 steps}, {until: 7 steps}, {until: 8 steps}, {until: 9 steps}, "
            "{until: 10 steps}, {until: 11 steps}, {until: 12 steps}, {until: 13 steps}, {until: 14 steps}, "
            "{until: 15 steps}, {until: 16 steps}, {until: 100%}]",
            100, "c.yaml:3: train.schedule.phases has 17 items; at most 16");
    refused("kind: wsd, warmup: 90 steps, decay: 20 steps", 100,
            "c.yaml:3: train.schedule.decay is 20 steps; it must be from 1 to the 10 after the warm-up");
    refused(
        "kind: wsd, shape: exp, floor: 0", 100,
        "c.yaml:3: train.schedule.floor is 0: the shape exp (floor^u) never gets there; take linear, or a "
        "floor above 0");
    refused("kind: infinite, until: 90%", 100,
            "c.yaml:3: train.schedule.until is step 90, after the last fall begins (80)");
    refused("kind: table, points: [{at: 50%}, {at: 50%}]", 100,
            "c.yaml:3: train.schedule.points item 2 is at step 50, not after the one before it (50)");
    refused("kind: step, milestones: []", 100,
            "c.yaml:3: train.schedule.milestones is empty; this kind of schedule needs it");
    refused("kind: piecewise, phases: []", 100,
            "c.yaml:3: train.schedule.phases is empty; kind piecewise is made of its items");
    refused("kind: uba, phases: [{until: 200 steps}]", 100,
            "c.yaml:3: train.schedule.phases end at step 200 of 100; let the last one be until 100%");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),     cmocka_unit_test(test_invariants), cmocka_unit_test(test_mean),
        cmocka_unit_test(test_quadratic), cmocka_unit_test(test_golden),     cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_wsd),       cmocka_unit_test(test_shapes),     cmocka_unit_test(test_sums),
        cmocka_unit_test(test_floor),     cmocka_unit_test(test_phases),     cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
