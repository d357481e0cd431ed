/* The configuration: layers, messages, round trips, the tables themselves, and every example of the
 * documents. */
#include "base/file.h"
#include "lab/experiment.h"
#include "config/parts.h"
#include "check.h"
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static status parse(const char *yaml, const char *const *overrides, i64 n, config **out)
{
    *out = NULL;
    return config_parse("c.yaml", yaml, strlen(yaml), overrides, n, out);
}

static config *good_with(const char *yaml, const char *override)
{
    config *c;
    status s = parse(yaml, &override, override != NULL, &c);
    assert_ok(s);
    return c;
}

static config *good(const char *yaml) { return good_with(yaml, NULL); }

static void check_message(status s, const char *expected)
{
    assert_non_null(s);
    assert_string_equal(s->message, expected);
    status_drop(s);
}

static void bad(const char *yaml, const char *expected)
{
    config *c;
    check_message(parse(yaml, NULL, 0, &c), expected);
    assert_null(c);
}

static void bad_override(const char *override, const char *expected)
{
    config *c;
    check_message(parse("", &override, 1, &c), expected);
}

/* load(write(c)) == c, text and hash. */
static void check_round_trip(const config *c)
{
    text first = {0}, second = {0};
    config_write(c, &first);
    config *again = good(first.data);
    config_write(again, &second);
    assert_string_equal(first.data, second.data);
    assert_true(config_hash(c) == config_hash(again));
    config_close(again);
    text_free(&first);
    text_free(&second);
}

/* ---- tables */
static void test_rows(void **state)
{
    (void)state;
    key_list all;
    arena *a;
    assert_ok(arena_open(&a));
    config_keys(&all);
    for (i64 i = 0; i < all.n; i++) {
        const config_key *k = all.rows[i];
        config_value value;
        yaml_node *node = &(yaml_node){.kind = YAML_SCALAR, .text = k->initial};
        for (i64 j = 0; j < i; j++) assert_string_not_equal(k->path, all.rows[j]->path);
        assert_true(k->help && *k->help && k->initial);
        if (k->type == KEY_LIST || k->type == KEY_NUMBERS ||
            k->type == KEY_CHOICES) { // as it would be written
            text t = {0};
            value_write(k, k->initial, &t);
            assert_ok(yaml_read_value(a, "row", t.data, &node));
            text_free(&t);
        }
        status s = value_read(a, k, node, "row", &value);
        assert_ok(s);
        assert_string_equal(value.text, k->initial); // defaults are canonical
        if (!k->only) continue;
        const char *kind_path = arena_printf(a, "%.*s", (int)strcspn(k->only, "="), k->only);
        const config_key *kind = config_find_key(kind_path);
        assert_true(kind && kind->type == KEY_CHOICE);
        for (const char *p = strchr(k->only, '=') + 1; *p; p += strcspn(p, " "), p += *p == ' ')
            assert_true(word_in(kind->choices, arena_printf(a, "%.*s", (int)strcspn(p, " "), p)));
    }
    arena_close(a);
}

static void test_presets(void **state)
{
    (void)state;
    for (const config_preset *p = config_next_preset(NULL); p; p = config_next_preset(p)) {
        char setting[256];
        snprintf(setting, sizeof setting, "%s=%s", p->key, p->value);
        config *c = good_with("", setting);
        assert_true(config_is(c, p->key, p->value));
        check_round_trip(c);
        config_close(c);
    }
    config *c = good("model: {preset: gpt2-124m}\n");
    assert_int_equal(config_count(c, "model.layers"), 12);
    assert_int_equal(config_count(c, "model.width"), 768);
    assert_int_equal(config_count(c, "model.vocab"), 50257);
    assert_int_equal(config_count(c, "train.batch_tokens"), 32768);
    assert_true(config_number(c, "train.optimizer.lr") == 6e-4);
    assert_true(config_is(c, "model.norm.affine", "scale_bias"));
    assert_string_equal(config_where(c, "model.width"), "preset gpt2-124m: model.width");
    config_close(c);
}

/* ---- layers */
static void test_precedence(void **state)
{
    (void)state;
    config *c =
        good_with("model:\n  preset: llama-10m\n  width: 320\ntrain: {tokens: 2M}\n", "model.context=128");
    assert_int_equal(config_count(c, "model.layers"), 8);    // preset over default
    assert_int_equal(config_count(c, "model.width"), 320);   // file over preset
    assert_int_equal(config_count(c, "model.context"), 128); // command line over preset
    assert_string_equal(config_where(c, "model.layers"), "preset llama-10m: model.layers");
    assert_string_equal(config_where(c, "model.width"), "c.yaml:3: model.width");
    assert_string_equal(config_where(c, "model.context"), "command line: model.context");
    assert_string_equal(config_where(c, "model.dropout"), "default: model.dropout");
    assert_true(config_given(c, "model.layers") && !config_given(c, "model.dropout"));
    check_message(config_refuse(c, "model.width", "is %d; it must be a multiple of 3", 320),
                  "c.yaml:3: model.width is 320; it must be a multiple of 3");
    check_round_trip(c);
    config_close(c);
    c = good_with("model: {width: 100, preset: llama-10m}\n",
                  "model.preset=gpt2-350m"); // presets stay weaker
    assert_int_equal(config_count(c, "model.width"), 100);
    assert_int_equal(config_count(c, "model.layers"), 24);
    config_close(c);
    c = good("model: {preset: gpt2-124m, norm: {preset: olmo2}}\n"); // norm presets come after model presets
    assert_string_equal(config_text(c, "model.norm.attn"), "out");
    assert_true(config_number(c, "model.head.z_loss") == 1e-5);
    check_round_trip(c);
    config_close(c);
}

static void test_getters(void **state)
{
    (void)state;
    double betas[2], share;
    config *c = good(
        "model: {tie_head: false, bias: qkv, norm: {attn: [out, pre], ffn: []}, attention: {scale: 0.25}}\n"
        "train: {optimizer: {betas: [0.8, 9e-1]}, time: 4 min}\n"
        "data: {train: [a, {path: b c, weight: 2.5}], validation: 2.5%, document: \"\\n##\\t\\\"\"}\n");
    config_numbers(c, "train.optimizer.betas", betas, 2);
    assert_true(betas[0] == 0.8 && betas[1] == 0.9);
    assert_false(config_flag(c, "model.tie_head"));
    assert_int_equal(config_choice(c, "model.bias"), 2);
    assert_string_equal(config_text(c, "model.norm.attn"), "pre out"); // in the row's order
    assert_true(config_has_choice(c, "model.norm.attn", "out"));
    assert_false(config_has_choice(c, "model.norm.attn", "post"));
    assert_false(config_has_choice(c, "model.norm.ffn", "pre"));
    assert_true(config_number(c, "model.attention.scale") == 0.25);
    assert_true(isnan(config_number(c, "train.epochs")));
    assert_int_equal(config_count(c, "model.vocab"), -1);
    assert_true(config_is(c, "model.vocab", "auto"));
    assert_true(config_seconds(c, "train.time") == 240);
    assert_int_equal(config_items(c, "data.train"), 2);
    assert_string_equal(config_item(c, "data.train", 0, "path"), "a");
    assert_string_equal(config_item(c, "data.train", 0, "weight"), "auto");
    assert_string_equal(config_item(c, "data.train", 1, "path"), "b c");
    assert_true(config_item_number(c, "data.train", 1, "weight") == 2.5);
    assert_true(config_share(c, "data.validation", &share) && fabs(share - 0.025) < 1e-15);
    assert_string_equal(config_text(c, "data.document"), "\n##\t\"");
    check_round_trip(c);
    config_close(c);
    c = good_with("data: {train: corpus, validation: held/out.txt}\n", "model.norm.ffn=none");
    assert_int_equal(config_items(c, "data.train"), 1);
    assert_string_equal(config_item(c, "data.train", 0, "path"), "corpus");
    assert_false(config_share(c, "data.validation", &share));
    assert_string_equal(config_text(c, "model.norm.ffn"), "");
    check_round_trip(c);
    config_close(c);
}

static void test_spans(void **state)
{
    (void)state;
    static const struct {
        const char *span;
        i64 steps;
    } cases[] = {{"400 steps", 400}, {"1 step", 1},     {"0%", 0},       {"3%", 30},         {"0.01%", 1},
                 {"100%", 1000},     {"2M tokens", 61}, {"1 tokens", 1}, {"32Ki tokens", 1}, {"none", 0}};
    for (i64 i = 0; i < COUNT(cases); i++) {
        char override[64];
        snprintf(override, sizeof override, "train.checkpoint.every=%s", cases[i].span);
        config *c = good_with("", override);
        assert_int_equal(config_span(c, "train.checkpoint.every", 1000, 32768), cases[i].steps);
        check_round_trip(c);
        config_close(c);
    }
    bad_override("train.checkpoint.every=400",
                 "command line: train.checkpoint.every is '400'; it must be a span (like "
                 "400 steps, 2M tokens, 3%), or none");
    bad_override("train.schedule.warmup=101%",
                 "command line: train.schedule.warmup is '101%'; it must be a span (like "
                 "400 steps, 2M tokens, 3%)");
}

/* ---- model.override */
static void test_override(void **state)
{
    (void)state;
    static const bool in_first[10] = {[0] = true, [6] = true, [7] = true, [8] = true, [9] = true};
    config *c = good("model:\n  layers: 10\n  override:\n"
                     "  - layers: \"0,6-8,-1\"\n    norm: {attn: [pre, out], eps: 1e-3}\n"
                     "  - {layers: [7], norm.eps: 0.5, attention: {window: 64}}\n");
    for (i64 layer = 0; layer < 10; layer++) {
        double eps = layer == 7 ? 0.5 : in_first[layer] ? 1e-3 : 1e-5;
        assert_int_equal(config_has_choice_at(c, layer, "model.norm.attn", "out"), in_first[layer]);
        assert_true(config_number_at(c, layer, "model.norm.eps") == eps);
        assert_int_equal(config_count_at(c, layer, "model.attention.window"), layer == 7 ? 64 : -1);
    }
    assert_string_equal(config_text(c, "model.norm.attn"), "pre"); // the model's own
    assert_string_equal(config_where_at(c, 0, "model.norm.eps"), "c.yaml:5: model.norm.eps");
    assert_string_equal(config_where_at(c, 1, "model.norm.eps"), "default: model.norm.eps");
    check_message(config_refuse_at(c, 0, "model.norm.eps", "is %g", 1e-3),
                  "c.yaml:5: model.norm.eps is 0.001");
    check_message(config_refuse_at(c, 1, "model.norm.eps", "is %g", 1e-5),
                  "default: model.norm.eps is 1e-05");
    check_round_trip(c);
    config_close(c);
    c = good("model: {override: [{layers: all, ffn: {kind: mlp}}]}\n");
    assert_true(config_is_at(c, 11, "model.ffn.kind", "mlp") && config_is(c, "model.ffn.kind", "gated"));
    check_round_trip(c);
    config_close(c);
    bad("model: {override: [{layers: 12, norm: {eps: 1}}]}\n",
        "c.yaml:1: model.override[].layers is '12', but the model has 12 layers, 0 to 11 (-1 is the last)");
    bad("model: {override: [{layers: \"-13\"}]}\n",
        "c.yaml:1: model.override[].layers is '-13', but the model has 12 layers, 0 to 11 (-1 is the last)");
    bad("model: {override: [{layers: \"8-6\"}]}\n",
        "c.yaml:1: model.override[].layers is '8-6'; it must be layers (like all, \"0,3,6-8\", -1)");
    bad("model:\n  override:\n  - {layers: 0, width: 3}\n",
        "c.yaml:3: model.width cannot differ between layers; norm, residual, attention and ffn keys can (not "
        "norm.preset)");
    bad("model:\n  override:\n  - {layers: 0, norm: {atn: pre}}\n",
        "c.yaml:3: unknown key model.norm.atn; did you mean model.norm.attn?");
    bad("model: {override: [{norm: {eps: 1}, norm.eps: 2}]}\n",
        "c.yaml:1: model.norm.eps is here a second time; keep one of them");
}

/* ---- kinds and budgets */
static void test_kinds(void **state)
{
    (void)state;
    bad("train:\n  schedule:\n    phi: 2\n    kind: linear\n",
        "c.yaml:3: train.schedule.phi belongs to train.schedule.kind uba or piecewise, and that is linear; "
        "choose it or "
        "remove the "
        "key");
    bad("train:\n  schedule: {kind: constant, floor: 0}\n",
        "c.yaml:2: train.schedule.floor belongs to train.schedule.kind cosine or linear or uba or wsd "
        "or poly or exponential or rex or cyclic or cosine_cycles or cosine_then_const or infinite or jagged "
        "or "
        "piecewise, and that is constant; "
        "choose it or remove the key");
    config *c = good_with("train: {schedule: {kind: uba, phi: 2}}\n", "train.schedule.kind=linear");
    assert_string_equal(config_text(c, "train.schedule.phi"), "0.5"); // the replaced kind's key fell back
    check_round_trip(c);
    config_close(c);
    bad_override("train.schedule.phi=2",
                 "command line: train.schedule.phi belongs to train.schedule.kind uba or piecewise, and "
                 "that is cosine; choose it or remove the key");
}

static void test_budget(void **state)
{
    (void)state;
    budget b;
    config *c = good("train: {tokens: 20M}\n");
    assert_ok(config_budget(c, &b));
    assert_true(b.kind == BUDGET_TOKENS && b.value == 20e6);
    config_close(c);
    c = good_with("train: {tokens: 20M}\n", "train.time=2 h"); // the command line's replaces the file's
    assert_ok(config_budget(c, &b));
    assert_true(b.kind == BUDGET_TIME && b.value == 7200);
    assert_ok(config_set(c, "train.steps", "1234", "train.time")); // what Keel computes replaces both
    assert_ok(config_budget(c, &b));
    assert_true(b.kind == BUDGET_STEPS && b.value == 1234);
    assert_string_equal(config_where(c, "train.steps"), "train.time: train.steps");
    check_round_trip(c);
    config_close(c);
    c = good("");
    check_message(config_budget(c, &b), "train: no length is given; set one of train.tokens, train.steps, "
                                        "train.epochs, train.time, train.flops (like train.time=\"4 min\")");
    config_close(c);
    c = good("train:\n  tokens: 1M\n  epochs: 1\n");
    check_message(config_budget(c, &b),
                  "c.yaml:3: train.epochs is set beside c.yaml:2: train.tokens; keep exactly "
                  "one of tokens, steps, epochs, time, flops");
    config_close(c);
}

static void test_set(void **state)
{
    (void)state;
    config *c = good("");
    assert_ok(config_set(c, "model.vocab", "16Ki", "tokenizer"));
    assert_int_equal(config_count(c, "model.vocab"), 16384);
    assert_string_equal(config_where(c, "model.vocab"), "tokenizer: model.vocab");
    assert_ok(config_set(c, "model.vocab", "8Ki", "tokenizer"));
    check_message(config_set(c, "model.vocab", "many", "tokenizer"),
                  "tokenizer: model.vocab is 'many'; it must be a whole number from 1 to 16777216, or auto");
    assert_int_equal(config_count(c, "model.vocab"), 8192); // a refused value changes nothing
    config_close(c);
}

/* ---- messages */
static const char *const messages[][2] = {
    {"model:\n  widht: 3\n", "c.yaml:2: unknown key model.widht; did you mean model.width?"},
    {"train:\n  lr: 3\n", "c.yaml:2: unknown key train.lr; did you mean train.optimizer.lr?"},
    {"model: {atention: {heads: 3}}\n",
     "c.yaml:1: unknown key model.atention; did you mean model.attention?"},
    {"model: {zzz: 3}\n", "c.yaml:1: unknown key model.zzz; 'keel config explain model' lists the keys"},
    {"trian: {}\n", "c.yaml:1: unknown key trian; did you mean train?"},
    {"model: 3\n", "c.yaml:1: model is a group of keys, not a value; 'keel config explain model' lists them"},
    {"\nquant: {bits: 4}\n", "c.yaml:2: the block quant is reserved for a later version; remove it"},
    {"model: {ffn: {kind: mow}}\n", "c.yaml:1: model.ffn.kind is 'mow'; it must be gated, mlp or moe"},
    {"model: {norm: {attn: [pre, off]}}\n",
     "c.yaml:1: model.norm.attn is 'off'; it must be a list of stream, pre, out, post"},
    {"model: {norm: {attn: [pre, pre]}}\n", "c.yaml:1: model.norm.attn names 'pre' twice; once is enough"},
    {"model: {width: 0}\n", "c.yaml:1: model.width is '0'; it must be a whole number from 1 to 65536"},
    {"model: {width: 1.5}\n", "c.yaml:1: model.width is '1.5'; it must be a whole number from 1 to 65536"},
    {"model: {width: [3]}\n", "c.yaml:1: model.width is 'a list'; it must be a whole number from 1 to 65536"},
    {"model: {width: {a: 3}}\n",
     "c.yaml:1: model.width is 'a map'; it must be a whole number from 1 to 65536"},
    {"model: {width: }\n",
     "c.yaml:1: model.width has no value; it must be a whole number from 1 to 65536, or leave the key out"},
    {"model: {dropout: .nan}\n", "c.yaml:1: model.dropout is '.nan'; it must be a number from 0 to 0.99"},
    {"model: {dropout: 1e999}\n", "c.yaml:1: model.dropout is '1e999'; it must be a number from 0 to 0.99"},
    {"model: {tie_head: yes}\n", "c.yaml:1: model.tie_head is 'yes'; it must be true or false"},
    {"train: {optimizer: {betas: [0.9]}}\n",
     "c.yaml:1: train.optimizer.betas is 'a list of 1'; it must be a list of 2 numbers from 0 to 0.9999999"},
    {"train: {time: 4}\n",
     "c.yaml:1: train.time is '4'; it must be a time from 1 s (like 90 s, 4 min, 2 h, 1 d), or none"},
    {"data: {validation: 60%}\n",
     "c.yaml:1: data.validation is '60%'; it must be a share from 0% to 50%, or a path"},
    {"data: {train: [{pth: a}]}\n",
     "c.yaml:1: unknown key data.train[].pth; did you mean data.train[].path?"},
    {"data: {train: [[a]]}\n", "c.yaml:1: data.train holds a list in a list; remove one pair of [ ]"},
    {"data: {train: [{}]}\n", "c.yaml:1: data.train has an empty item; remove it"},
    {"model:\n  width: 3\n  width: 4\n", "c.yaml:3: width is here a second time; keep one of them"},
    {"model.width: 3\nmodel:\n  width: 4\n", "c.yaml:3: model.width is here a second time; keep one of them"},
    {"model:\n\twidth: 3\n", "c.yaml:2: a tab indents; YAML indents by spaces"},
    {"model:\n  width: \xff\n", "c.yaml:2: not UTF-8 text; save the file as UTF-8"},
    {"a: \x01\n", "c.yaml:1: a control character; remove it, or write it as an escape in \"quotes\""},
    {"data: {tokenizer: \"a\\0b\"}\n", "c.yaml:1: a control character in a text; remove the escape"},
    {"a: &x 3\nb: *x\n", "c.yaml:1: anchors and aliases (& and *) are not used here; write the value out"},
    {"a: *x\n", "c.yaml:1: anchors and aliases (& and *) are not used here; write the value out"},
    {"model: {width: !!int 3}\n", "c.yaml:1: tags (!) are not used here; write the plain value"},
    {"--- {}\n--- {}\n", "c.yaml:2: a second document begins; a configuration is one"},
    {"? [a]\n: 3\n", "c.yaml:1: a key must be a word, like width"},
    {"- a\n", "c.yaml: not a map of keys; begin with model:, train: or data:"},
    {"words\n", "c.yaml: not a map of keys; begin with model:, train: or data:"},
    {"model: {width: 3\n", "c.yaml:2: not valid YAML: missing comma in flow mapping"},
};

static void test_messages(void **state)
{
    (void)state;
    const char *twice[] = {"model.width=3", "model.width=4"};
    config *c;
    for (i64 i = 0; i < COUNT(messages); i++) bad(messages[i][0], messages[i][1]);
    bad_override("model.width", "'model.width' is not a setting; write key=value, like train.steps=100");
    bad_override("model.width=",
                 "command line: model.width has no value; it must be a whole number from 1 to 65536, "
                 "or leave the key out");
    check_message(parse("", twice, 2, &c),
                  "command line: model.width is here a second time; keep one of them");
    check_message(config_parse("c.yaml", "a: \0", 4, NULL, 0, &c),
                  "c.yaml:1: a control character; remove it, or write it as an escape in \"quotes\"");
    check_message(config_load("/no/such.yaml", NULL, 0, &c), "/no/such.yaml: No such file or directory");
}

/* Shapes that make naive readers recurse, square or allocate without end. */
static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        const char *unit, *expected;
    } cases[] = {
        {"[", "c.yaml:1: nested deeper than 16; no key is"},
        {"{a: ", "c.yaml:1: nested deeper than 16; no key is"},
        {"- ", "c.yaml:1: nested deeper than 16; no key is"},
        {"? ", "c.yaml:1: a key must be a word, like width"},
        {"&a ", "c.yaml:1: anchors and aliases (& and *) are not used here; write the value out"},
        {"\"", "c.yaml:1: not valid YAML: invalid trailing content after double-quoted scalar"},
        {"x", "c.yaml: not a map of keys; begin with model:, train: or data:"},
        {"- a\n", "c.yaml:1001: over 1000 entries side by side; is it a configuration?"},
    };
    text t = {0};
    for (i64 i = 0; i < COUNT(cases); i++) {
        t.bytes = 0;
        while (t.bytes < 300000) text_add(&t, "%s", cases[i].unit);
        bad(t.data, cases[i].expected);
    }
    t.bytes = 0;
    for (i64 i = 0; i < 80000; i++) text_add(&t, "k%lld: 1\n", (long long)i);
    bad(t.data, "c.yaml:1001: over 1000 entries side by side; is it a configuration?");
    while (t.bytes <= YAML_LARGEST) text_add(&t, "#");
    bad(t.data, "c.yaml: over 1 MiB; is it a configuration?");
    text_free(&t);
}

/* Every prefix of a file, and every byte replaced, is loaded or refused in one line; nothing crashes or
 * hangs. */
static void test_mutations(void **state)
{
    (void)state;
    static const char bytes[] =
        "\t\n\"'[]{}:,-#&*!|>%@`?~0 \x7f\x80\xc3"; // its end, a zero, stands for the prefix
    char yaml[] = "model: {preset: llama-10m, override: [{layers: \"0,-1\", norm: {attn: [pre]}}]}\n"
                  "train:\n  tokens: 2M\n  optimizer: {betas: [0.9, 0.95]}\n"
                  "  schedule: {kind: uba, phases: [{until: 9%}]}\n"
                  "data:\n  train:\n  - a b\n  - {path: 'c', weight: 2}\n";
    i64 loaded = 0, refused = 0;
    config_close(good(yaml));
    for (size_t i = 0; i < sizeof yaml - 1; i++)
        for (size_t j = 0; j < sizeof bytes; j++) {
            config *c;
            char kept = yaml[i];
            yaml[i] = bytes[j];
            status s = config_parse("c.yaml", yaml, bytes[j] ? sizeof yaml - 1 : i, NULL, 0, &c);
            yaml[i] = kept;
            refused += s != OK;
            loaded += s == OK;
            if (s) {
                assert_null(strchr(s->message, '\n'));
                status_drop(s);
                continue;
            }
            check_round_trip(c);
            config_close(c);
        }
    assert_true(loaded > 100 && refused > 1000);
}

static void test_strings(void **state)
{
    (void)state;
    static const char *const strings[] = {"a b",      "-a",
                                          "null",     "~",
                                          "true",     "12",
                                          "a: b",     "a #b",
                                          "#",        "[x",
                                          "\"",       "\\n",
                                          "\xc3\xa9", "'",
                                          "%",        "@",
                                          "a,",       "a]",
                                          "C:\\x",    ".",
                                          "a\tb",     "\xe2\x80\xa8|\xe2\x80\xa9",
                                          "\xc2\x85", "\xef\xbb\xbfx"};
    const config_key *k = config_find_key("data.tokenizer");
    for (i64 i = 0; i < COUNT(strings); i++) {
        config *c = good("");
        text quoted = {0};
        value_write(k, strings[i], &quoted);
        assert_ok(config_set(c, "data.tokenizer", quoted.data, "test"));
        assert_string_equal(config_text(c, "data.tokenizer"), strings[i]);
        check_round_trip(c);
        config_close(c);
        text_free(&quoted);
    }
    config *c = good_with("", "data.tokenizer=a: \\n #b"); // the command line's text stands as it is
    assert_string_equal(config_text(c, "data.tokenizer"), "a: \\n #b");
    check_round_trip(c);
    config_close(c);
}

static void test_hash(void **state)
{
    (void)state;
    config *a = good("train: {batch_tokens: 32Ki}\nmodel: {norm: {attn: [out, pre]}, dropout: 0.10}\n");
    config *b = good("model: {dropout: 1e-1, norm: {attn: [pre, out]}}\n");
    config *c = good("model: {dropout: 0.2, norm: {attn: [pre, out]}}\n");
    assert_true(config_hash(a) == config_hash(b));
    assert_true(config_hash(a) != config_hash(c));
    config_close(a);
    config_close(b);
    config_close(c);
}

/* ---- documents */
static void test_reference(void **state)
{
    (void)state;
    text page = {0};
    char *data;
    size_t bytes;
    config_reference(&page);
    assert_ok(file_read(KEEL_SOURCE "/docs/configuration.md", &data, &bytes));
    if (strcmp(data, page.data)) fail_msg("stale: run  keel config reference > docs/configuration.md");
    mem_free(data);
    text_free(&page);
}

static i64 load_example(const char *name, const char *yaml, size_t bytes)
{
    config *c;
    status s = config_parse(name, yaml, bytes, NULL, 0, &c);
    assert_ok(s);
    check_round_trip(c);
    config_close(c);
    return 1;
}

/* Loads the ```yaml blocks of a page that hold a configuration: one of the blocks at the start of a line. */
static i64 load_fences(const char *name, const char *page)
{
    i64 n = 0;
    for (const char *p = page; (p = strstr(p, "```yaml\n"));) {
        const char *start = p + 8, *end = strstr(start, "```");
        assert_non_null(end);
        text block = {0};
        text_add_bytes(&block, p + 7, (size_t)(end - start) + 1); // with the newline before it
        if (strstr(block.data, "\nmodel:") || strstr(block.data, "\ntrain:") || strstr(block.data, "\ndata:"))
            n += load_example(name, start, (size_t)(end - start));
        text_free(&block);
        p = end + 3;
    }
    return n;
}

/* Files under configs/lab are experiments, but for the configuration they share. */
static bool is_experiment(const char *path)
{
    return strstr(path, "/configs/lab/") && !strstr(path, "/base.yaml");
}

static i64 check_experiment(const char *path)
{
    experiment *e;
    config *c;
    assert_ok(experiment_load(path, NULL, &e));
    for (i64 arm = 0; arm < e->n_arms; arm++) {
        lab_setting *set;
        const char *words[256];
        i64 n;
        experiment_settings(e->arena, e, arm, NULL, 0, &set, &n);
        for (i64 i = 0; i < n; i++) words[i] = arena_printf(e->arena, "%s=%s", set[i].key, set[i].value);
        assert_ok(config_load(e->base, words, n, &c));
        config_close(c);
    }
    experiment_close(e);
    return 1;
}

static void test_examples(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/configs/*.yaml", "/configs/*/*.yaml", "/docs/*.md",
                                           "/README.md"};
    i64 files = 0, fences = 0;
    for (i64 i = 0; i < COUNT(patterns); i++) {
        char pattern[1024];
        glob_t found;
        snprintf(pattern, sizeof pattern, "%s%s", KEEL_SOURCE, patterns[i]);
        if (glob(pattern, 0, NULL, &found)) continue;
        for (size_t f = 0; f < found.gl_pathc; f++) {
            char *data;
            size_t bytes;
            if (is_experiment(found.gl_pathv[f])) {
                files += check_experiment(found.gl_pathv[f]);
                continue;
            }
            assert_ok(file_read(found.gl_pathv[f], &data, &bytes));
            if (i < 2)
                files += load_example(found.gl_pathv[f], data, bytes);
            else
                fences += load_fences(found.gl_pathv[f], data);
            mem_free(data);
        }
        globfree(&found);
    }
    assert_true(files >= 1 && fences >= 1); // configs/ and the reference page have some
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),     cmocka_unit_test(test_presets), cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_getters),  cmocka_unit_test(test_spans),   cmocka_unit_test(test_override),
        cmocka_unit_test(test_kinds),    cmocka_unit_test(test_budget),  cmocka_unit_test(test_set),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_hostile), cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_strings),  cmocka_unit_test(test_hash),    cmocka_unit_test(test_reference),
        cmocka_unit_test(test_examples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
