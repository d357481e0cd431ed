/* Experiments: the file and its refusals, results as lines, means, intervals, pairs and verdicts. */
#include "base/file.h"
#include "check.h"
#include "lab/experiment.h"
#include "lab/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/keel-experiment-XXXXXX";

static const char *put(const char *name, const char *content)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_ok(file_replace(path, content, strlen(content)));
    return path;
}

static experiment *load(const char *yaml, const char *scale)
{
    experiment *e;
    assert_ok(experiment_load(put("e.yaml", yaml), scale, &e));
    return e;
}

static const char good[] =
    "title: T\n"
    "base: b.yaml\n"
    "set: {model.layers: 2, train.steps: 9}\n"
    "arms:\n"
    "  a: {}\n"
    "  b: {model: {norm: {preset: sdd}}, model.override: [{layers: '0', norm.kind: layer}]}\n"
    "grid: {train.tokens: [1M, 2M], model.width: [64, 128]}\n"
    "baseline: a\n"
    "seeds: [3, 5]\n"
    "tune: {values: [1e-3, 2e-3], seeds: all}\n"
    "match: {by: parameters, key: model.ffn.width, multiple: 8}\n"
    "scales:\n"
    "  small: {}\n"
    "  spec: {set: {model.layers: 8}, seeds: 4}\n";

static void test_read(void **state)
{
    (void)state;
    experiment *e = load(good, NULL);
    assert_string_equal(e->name, "e");
    assert_string_equal(e->scale, "small");
    assert_int_equal(e->n_arms, 8);
    assert_int_equal(e->n_seeds, 2);
    assert_int_equal(e->seeds[1], 5);
    assert_string_equal(e->arms[3].name, "b, train.tokens=1M model.width=128");
    assert_int_equal(e->arms[3].baseline, 2); // a at the same point of the grid
    assert_int_equal(e->arms[2].baseline, 2);
    assert_string_equal(e->tune_key, "train.optimizer.lr");
    assert_true(e->tune_all_seeds && e->n_values == 2 && e->match == MATCH_PARAMETERS);
    char base[300];
    snprintf(base, sizeof base, "%s/b.yaml", folder);
    assert_string_equal(e->base, base);
    lab_setting *set;
    i64 n;
    experiment_settings(e->arena, e, 3, NULL, 0, &set, &n);
    // the arm's budget replaces that of all; a list is flow YAML
    assert_int_equal(n, 5);
    assert_string_equal(set[0].value, "2");
    assert_string_equal(set[1].key, "train.tokens");
    assert_string_equal(set[3].key, "model.norm.preset");
    assert_string_equal(set[4].value, "[{layers: \"0\", norm.kind: layer}]");
    assert_ok(experiment_override(e, "model.layers=3"));
    experiment_settings(e->arena, e, 0, NULL, 0, &set, &n);
    assert_string_equal(set[0].value, "3");
    char wanted[400];
    snprintf(wanted, sizeof wanted, "command line: model.width is what %s varies; change the file instead",
             e->path);
    assert_fails(experiment_override(e, "model.width=8"), ERR_CONFIG, wanted);
    assert_fails(experiment_override(e, "model.depth=8"), ERR_CONFIG,
                 "command line: no key 'model.depth'; 'keel config explain model' lists the keys");
    // the arms vary a budget: another one would be replaced by theirs in silence; so would a seed
    snprintf(wanted, sizeof wanted, "command line: train.steps is what %s varies; change the file instead",
             e->path);
    assert_fails(experiment_override(e, "train.steps=8"), ERR_CONFIG, wanted);
    snprintf(wanted, sizeof wanted,
             "command line: train.seed.init is what %s varies; change the file instead", e->path);
    assert_fails(experiment_override(e, "train.seed.init=8"), ERR_CONFIG, wanted);
    experiment_close(e);
    e = load(good, "spec");
    experiment_settings(e->arena, e, 0, NULL, 0, &set, &n);
    assert_string_equal(set[0].value, "8");
    assert_int_equal(e->n_seeds, 4);
    experiment_close(e);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *scale, *message;
    } rows[] = {
        {"arms: {a: {}, b: {}}\n", NULL, "1: names no baseline: which arm are the others compared with?"},
        {"arms: {a: {}}\nbaseline: a\n", NULL, "1: has one arm: nothing to compare it with"},
        {"baseline: a\n", NULL, "1: has neither arms nor a grid: nothing is compared"},
        {"arms: {a: {}, b: {}}\nbaseline: c\n", NULL, "1: baseline: no arm 'c'; there are: 'a', 'b'"},
        {"arms: {a: {}, b: {model.widht: 3}}\nbaseline: a\n", NULL,
         "1: no key 'model.widht'; did you mean model.width?"},
        {"arms: {a: {}, b: 7}\nbaseline: a\n", NULL, "1: expected settings, as {model.layers: 4}, not '7'"},
        {"arms: {a: {}, b: {}}\nbaseline: a\nseeds: 0\n", NULL,
         "3: seeds: '0' is no whole number from 1 to 64"},
        {"arms: {a: {}, b: {}}\nbaseline: a\nseeds: [1, 1]\n", NULL, "3: seeds: 1 stands there twice"},
        {"arms: {a: {}, b: {}}\nbaseline: a\ntune: {values: [1]}\n", NULL,
         "3: tune.values: expected a list of 2 to 32 values"},
        {"arms: {a: {}, b: {}}\nbaseline: a\ntune: {}\n", NULL, "3: tune: has no values"},
        {"arms: {a: {}, b: {train.optimizer.lr: 1}}\nbaseline: a\ntune: {values: [1, 2]}\n", NULL,
         " arm 'b' sets train.optimizer.lr, which the experiment tunes"},
        {"arms: {a: {}, b: {}}\nbaseline: a\nmatch: {by: size}\n", NULL,
         "3: match.by: expected none, parameters, flops_per_token or compute"},
        {"arms: {a: {}, b: {}}\nbaseline: a\nmatch: {by: compute}\n", NULL,
         "3: match: has no key to change, as model.ffn.width"},
        {"arms: {a: {}, b: {}}\nbaseline: a\n", "spec", "1: has no scales, so no 'spec'"},
        {"arms: {a: {}, b: {}}\nbaseline: a\nscales: {small: {}, big: {}}\n", "spec",
         "3: no scale 'spec'; there are: small big"},
        {"arms: {a: {}, b: {}}\nbaseline: a\ncolour: red\n", NULL,
         "3: an experiment: no 'colour'; there are: title question claim base set arms grid baseline seeds "
         "tune "
         "match trend layers scales"},
        {"grid: {model.width: 8}\nbaseline: a\n", NULL, "1: grid: model.width: expected a list of values"},
        {"- a\n", NULL, "1: expected a map of keys"},
        {"arms: {a: {}, b: {train.seed.init: 2}}\nbaseline: a\n", NULL,
         "1: train.seed.init is the experiment's to set: every run has a seed of its list seeds"},
        {"grid: {train.seed.data: [1, 2]}\nbaseline: a\n", NULL,
         "1: train.seed.data is the experiment's to set: every run has a seed of its list seeds"},
        {"arms: {a: {}, b: {train.steps: 7}}\nbaseline: a\ntune: {key: train.tokens, values: [1M, 2M]}\n",
         NULL, " arm 'b' sets train.tokens, which the experiment tunes"},
    };
    for (i64 i = 0; i < COUNT(rows); i++) {
        experiment *e;
        char wanted[512];
        const char *path = put("bad.yaml", rows[i].yaml);
        snprintf(wanted, sizeof wanted, "%s:%s", path, rows[i].message);
        assert_fails(experiment_load(path, rows[i].scale, &e), ERR_CONFIG, wanted);
    }
}

/* Two files of one folder are two experiments; a scale's tuning is its own. */
static void test_names(void **state)
{
    (void)state;
    experiment *e;
    assert_ok(experiment_load(put("norm.v2.yaml", "arms: {a: {}, b: {model.layers: 3}}\nbaseline: a\n"
                                                  "tune: {values: [1, 2], seeds: all}\n"
                                                  "scales: {small: {tune: {values: [3, 4]}}}\n"),
                              NULL, &e));
    assert_string_equal(e->name, "norm.v2");
    assert_string_equal(e->tune_values[0], "3");
    assert_false(e->tune_all_seeds);
    experiment_close(e);
}

/* Student's t at 97.5 %: 12.706 (1 degree), 4.30265 (2), 2.77645 (4): any table. */
static void test_means(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4, 5};
    lab_mean m = lab_mean_of(x, 5);
    assert_true(m.mean == 3 && fabs(m.se - sqrt(0.5)) < 1e-12);
    assert_true(fabs(m.half / m.se - 2.776445) < 1e-6);
    m = lab_mean_of(x, 3);
    assert_true(fabs(m.half / m.se - 4.302653) < 1e-6);
    assert_false(lab_resolved(&m)); // 2 +- 2.48
    m = lab_mean_of(x, 2);
    assert_true(fabs(m.half / m.se - 12.706205) < 1e-6);
    m = lab_mean_of(x, 4);
    assert_true(fabs(m.half / m.se - 3.182446) < 1e-6);
    double many[121];
    for (i64 i = 0; i < COUNT(many); i++) many[i] = (double)(i % 7);
    m = lab_mean_of(many, COUNT(many));
    assert_true(fabs(m.half / m.se - 1.979930) < 1e-6);
    m = lab_mean_of(x, 1);
    assert_true(m.mean == 1 && isnan(m.se) && !lab_resolved(&m));
    assert_true(isnan(lab_mean_of(x, 0).mean));
}

static lab_result made(const char *arm, const char *value, i64 seed, double bits, double rate)
{
    return (lab_result){.experiment = "e",
                        .scale = "",
                        .arm = arm,
                        .value = value,
                        .seed = seed,
                        .status = "done",
                        .message = "",
                        .identity = "0",
                        .code = "0.1",
                        .isa = "v4",
                        .host = "H",
                        .run = "r",
                        .settings = "",
                        .threads = 1,
                        .steps = 10,
                        .tokens = 1000,
                        .parameters = 5,
                        .active_parameters = 5,
                        .seconds = 1,
                        .tokens_per_s = rate,
                        .memory = 8,
                        .flops_per_token = 30,
                        .loss = 1,
                        .bits_per_byte = bits,
                        .processor_share = 1,
                        .session = 1};
}

static const char pair[] = "arms: {a: {}, b: {model.layers: 3}}\nbaseline: a\nseeds: 3\n";

static void test_verdicts(void **state)
{
    (void)state;
    arena *a;
    lab_table t;
    experiment *e = load(pair, NULL);
    assert_ok(arena_open(&a));
    double at[] = {0, 500, 1000}, falling[] = {3, 2, 1.5};
    lab_result r[6];
    for (i64 s = 0; s < 3; s++) {
        r[2 * s] = made("a", "", s + 1, 2 + 0.1 * (double)s, 100);
        r[2 * s + 1] = made("b", "", s + 1, 1.5 + 0.1 * (double)s + 0.001 * (double)(s - 1), 50);
        r[2 * s + 1].curve_tokens = at, r[2 * s + 1].curve_bits = falling, r[2 * s + 1].n_curve = 3;
    }
    lab_table_make(a, e, r, 6, &t);
    // differences -0.501, -0.5, -0.499: se 0.001/sqrt(3), t 4.302653; twice as slow: at half its tokens 2
    // bits
    assert_true(fabs(t.rows[1].difference.mean + 0.5) < 1e-12);
    assert_true(fabs(t.rows[1].difference.half - 4.302653 * 0.001 / sqrt(3)) < 1e-8);
    assert_string_equal(t.rows[1].verdict,
                        "better by 0.5000 ± 0.0025 bits/byte at equal tokens, 50 % slower; at "
                        "equal time better by 0.1000 ± 0.2484");
    assert_int_equal(t.n_notes, 1);
    arena_close(a);
    experiment_close(e);
}

static void test_gaps(void **state)
{
    (void)state;
    arena *a;
    lab_table t;
    text out = {0};
    experiment *e = load(pair, NULL);
    assert_ok(arena_open(&a));
    lab_result r[5] = {made("a", "", 1, 2, 100), made("a", "", 2, 2.1, 100), made("a", "", 3, 2.2, 100),
                       made("b", "", 1, 1.9, 100), made("b", "", 2, NAN, 100)};
    r[4].status = "diverged";
    r[3].code = "0.2";
    lab_table_make(a, e, r, 5, &t);
    // one pair, one divergence, one seed missing: nothing is averaged over it in silence
    assert_string_equal(t.rows[1].verdict,
                        "not resolved: one pair of runs (difference -0.1000), as fast; 1 of 3 "
                        "seeds diverged; 1 of 3 seeds are missing");
    lab_markdown(&t, &out);
    assert_non_null(strstr(out.data, "| b | 1.9000 (1 of 3) | -0.1000 | 100 |"));
    assert_non_null(strstr(out.data, "- The runs come from 2 versions of the code: 0.1, 0.2.\n"));
    assert_non_null(strstr(out.data, "- 1 runs are missing: the report is not complete.\n"));
    text_free(&out);
    assert_ok(lab_json(&t, &out));
    assert_non_null(strstr(out.data, "\"missing\": 1"));
    text_free(&out);
    assert_ok(lab_page(a, &t, &out));
    assert_non_null(strstr(out.data, "seeds diverged"));
    text_free(&out);
    arena_close(a);
    experiment_close(e);
}

static void test_tuning(void **state)
{
    (void)state;
    arena *a;
    lab_table t;
    experiment *e = load("arms: {a: {}, b: {model.layers: 3}}\nbaseline: a\nseeds: 2\n"
                         "tune: {values: [1, 2, 3]}\n",
                         NULL);
    assert_ok(arena_open(&a));
    lab_result r[] = {made("a", "1", 1, 2.0, 1), made("a", "2", 1, 1.8, 1), made("a", "3", 1, 1.9, 1),
                      made("a", "2", 2, 1.7, 1), made("b", "1", 1, 1.5, 1), made("b", "2", 1, 1.6, 1),
                      made("b", "3", 1, NAN, 1), made("b", "1", 2, 1.4, 1)};
    r[6].status = "diverged";
    lab_table_make(a, e, r, COUNT(r), &t);
    assert_int_equal(t.rows[0].chosen, 1);
    assert_false(t.rows[0].edge);
    assert_int_equal(t.rows[1].chosen, 0);
    assert_true(t.rows[1].edge); // the lowest tried: the best may lie outside
    assert_true(fabs(t.rows[1].difference.mean + 0.3) < 1e-12 && t.rows[1].difference.n == 2);
    arena_close(a);
    experiment_close(e);
}

static void add_bits(lab_result *r, double bits, const char *how)
{
    r->bits_per_byte = bits;
    r->status = how;
}

/* Of values that all lost a seed the one that lost fewest is chosen: two thirds of an arm are not "diverged".
 */
static void test_losses(void **state)
{
    (void)state;
    arena *a;
    lab_table t;
    text out = {0};
    experiment *e = load("arms: {a: {}, b: {model.layers: 3}}\nbaseline: a\nseeds: 3\n"
                         "tune: {values: [4, 1, 2], seeds: all}\n",
                         NULL);
    const char *const values[] = {"4", "1", "2"};
    lab_result r[18];
    assert_ok(arena_open(&a));
    for (i64 i = 0; i < 18; i++)
        r[i] = made(i < 9 ? "a" : "b", values[i % 3], i / 3 % 3 + 1, 2 + 0.1 * (double)(i % 3), 1);
    add_bits(&r[9], NAN, "diverged");
    add_bits(&r[10], NAN, "diverged");
    add_bits(&r[13], NAN, "diverged");
    add_bits(&r[11], NAN, "failed");
    r[11].message = "no space left";
    lab_table_make(a, e, r, 18, &t);
    assert_int_equal(t.rows[0].chosen, 0);
    assert_true(t.rows[0].edge); // 4 stands first and is the highest
    assert_int_equal(t.rows[1].chosen, 0);
    assert_int_equal(t.rows[1].cell.done, 2);
    assert_string_equal(t.rows[1].verdict, "not resolved at this scale: +0.0000 ± 0.0000 bits/byte at equal "
                                           "tokens (2 of 3 pairs), as fast; 1 of 3 seeds diverged");
    lab_markdown(&t, &out);
    assert_non_null(strstr(out.data, "- 1 of the runs that tune train.optimizer.lr are missing or failed: "));
    assert_non_null(strstr(out.data, "- Failed: b, 2, seed 1: no space left\n"));
    text_free(&out);
    for (i64 i = 9; i < 18; i++) add_bits(&r[i], NAN, "diverged");
    lab_table_make(a, e, r, 18, &t);
    assert_string_equal(t.rows[1].verdict, "diverged with every seed that was run (3)");
    arena_close(a);
    experiment_close(e);
}

/* Verdicts say what the runs had, not what the file wished; results of another file are told. */
static void test_unequal(void **state)
{
    (void)state;
    arena *a;
    lab_table t;
    experiment *e = load("arms: {a: {train.tokens: 1K}, b: {train.tokens: 2K}}\nbaseline: a\nseeds: 2\n"
                         "match: {by: parameters, key: model.ffn.width}\n",
                         NULL);
    lab_result r[4];
    assert_ok(arena_open(&a));
    for (i64 i = 0; i < 4; i++) {
        r[i] = made(i % 2 ? "b" : "a", "", i / 2 + 1, i % 2 ? 1 : 2, 1);
        r[i].tokens = i % 2 ? 2000 : 1000;
        r[i].settings = i % 2 ? "train.tokens=2K" : "train.tokens=1K";
    }
    lab_table_make(a, e, r, 4, &t);
    assert_string_equal(t.rows[1].verdict, "better by 1.0000 ± 0.0000 bits/byte at equal parameters and 2.00 "
                                           "times the tokens, as fast");
    assert_int_equal(t.n_notes, 1);
    r[1].parameters = r[3].parameters = 6;
    r[1].settings = "train.tokens=20K";
    lab_table_make(a, e, r, 4, &t);
    assert_string_equal(t.rows[1].verdict, "better by 1.0000 ± 0.0000 bits/byte at 1.20 times the parameters "
                                           "and 2.00 times the tokens, as fast");
    assert_string_equal(t.notes[1],
                        "1 of the runs had other settings than the experiment has now (b, seed 1: "
                        "not train.tokens=2K): run it again, or report it with the settings of then.");
    arena_close(a);
    experiment_close(e);
}

/* Values with line ends and bars stay in their line and cell. */
static void test_markdown(void **state)
{
    (void)state;
    arena *a;
    lab_table t;
    text out = {0};
    experiment *e = load("arms: {a: {}, b: {model.layers: 3}}\nbaseline: a\nseeds: 1\n"
                         "set: {data.document: \"x\\n|\"}\ntune: {key: data.field, values: [u|v, w]}\n",
                         NULL);
    assert_ok(arena_open(&a));
    lab_result r[] = {made("a", "u|v", 1, 2, 1), made("a", "w", 1, 3, 1)};
    lab_table_make(a, e, r, 2, &t);
    lab_markdown(&t, &out);
    assert_non_null(strstr(out.data, "\n| a | u\\|v | 2.0000 |"));
    assert_non_null(strstr(out.data, "- all arms: `data.document=x\\n|`\n"));
    text_free(&out);
    arena_close(a);
    experiment_close(e);
}

static void test_lines(void **state)
{
    (void)state;
    arena *a;
    lab_results all;
    assert_ok(arena_open(&a));
    double at[] = {1, 2}, bits[] = {3, NAN}, layers[] = {0.5};
    lab_result r = made("a \"b\"", "1e-3", 7, NAN, 12.5);
    r.curve_tokens = at, r.curve_bits = bits, r.n_curve = 2, r.layers = layers, r.n_layers = 1;
    const lab_result *list[] = {&r, &r};
    char path[256], wanted[400];
    snprintf(path, sizeof path, "%s/results.jsonl", folder);
    assert_ok(results_write(path, list, 2));
    assert_ok(results_read(a, path, &all));
    assert_int_equal(all.n, 2);
    assert_string_equal(all.item[1].arm, "a \"b\"");
    assert_true(all.item[1].seed == 7 && isnan(all.item[1].bits_per_byte) &&
                all.item[1].tokens_per_s == 12.5);
    assert_true(all.item[1].n_curve == 2 && all.item[1].curve_bits[0] == 3 &&
                isnan(all.item[1].curve_bits[1]));
    assert_true(all.item[1].n_layers == 1 && all.item[1].layers[0] == 0.5);
    put("results.jsonl", "{\"experiment\": 3}\n");
    snprintf(wanted, sizeof wanted, "%s:1: \"experiment\" is no text; is it a results.jsonl of keel lab run?",
             path);
    assert_fails(results_read(a, path, &all), ERR_FORMAT, wanted);
    put("results.jsonl", "\n{\"experiment\": \"e\"");
    status s = results_read(a, path, &all);
    assert_true(s && s->code == ERR_FORMAT && strstr(s->message, ":2: not JSON: "));
    status_drop(s);
    arena_close(a);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}
static int remove_folder(void **state)
{
    (void)state;
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),     cmocka_unit_test(test_refusals), cmocka_unit_test(test_means),
        cmocka_unit_test(test_verdicts), cmocka_unit_test(test_gaps),     cmocka_unit_test(test_tuning),
        cmocka_unit_test(test_lines),    cmocka_unit_test(test_names),    cmocka_unit_test(test_losses),
        cmocka_unit_test(test_unequal),  cmocka_unit_test(test_markdown),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
