/* The loss without a block: equal, to the bit, to that of the model which never had it, whatever norms and
 * connections there are; and to that of a block whose maps back to the stream are zero. */
#include "eval/drop_layers.h"
#include "toy_data.h"
#include "base/random.h"
#include <math.h>

static device *cpu;
static dataset *data;

static const char base[] =
    "model: {width: 32, context: 32, attention: {heads: 2}, vocab: 258, ffn: {width: 48}}\n"
    "train: {batch_tokens: 128, precision: f32}\n";

typedef struct opened {
    config *c;
    session *s;
} opened;

/* A model of LAYERS blocks with EXTRA (key=value or NULL), of random weights that depend on the names only.
 */
static opened open_model(i64 layers, const char *extra)
{
    opened m;
    char number[32];
    const char *given[] = {number, extra};
    snprintf(number, sizeof number, "model.layers=%lld", (long long)layers);
    assert_ok(config_parse("base", base, strlen(base), given, extra ? 2 : 1, &m.c));
    assert_ok(session_open(m.c, cpu, &(session_options){.isa = device_about(cpu)->level}, &m.s));
    session_start(m.s);
    for (i64 i = 0; i < m.s->store->n_params; i++) { // away from their start, where blocks matter little
        stored *e = &m.s->store->entry[i];
        u64 stream = random_stream(e->path);
        for (i64 k = 0; k < e->count; k++) e->master[k] += (float)(0.1 * random_normal(9, stream, 0, (u64)k));
    }
    store_sync(m.s->store);
    return m;
}
static void close_model(opened *m)
{
    session_close(m->s);
    config_close(m->c);
}

static double loss_of(session *s)
{
    evaluation e;
    assert_ok(train_evaluate(s, data, DATA_TRAIN, 2000, NULL, &e));
    return e.nats / (double)e.tokens;
}

/* Where weights start may depend on the number of layers. */
static void take_weights(session *to, const session *from)
{
    for (i64 i = 0; i < to->store->n_params; i++) {
        stored *e = &to->store->entry[i];
        memcpy(e->master, store_find(from->store, e->path)->master, sizeof(float) * (size_t)e->count);
    }
    store_sync(to->store);
}

static void drop(session *s, bool branches, arena *a, drop_result *r)
{
    drop_options o = {.split = DATA_TRAIN, .tokens = 2000, .branches = branches};
    assert_ok(eval_drop_layers(s, data, &o, a, r));
}

/* Without the last block. */
static void test_shorter_model(void **state)
{
    (void)state;
    static const char *const extra[] = {NULL,
                                        "model.norm.preset=post",
                                        "model.norm.preset=lns",
                                        "model.norm.preset=sdd",
                                        "model.norm.preset=olmo2",
                                        "model.residual.kind=hyper",
                                        "model.residual.kind=frac",
                                        "model.repeat.kind=phd",
                                        "model.ffn.kind=moe"};
    for (i64 k = 0; k < COUNT(extra); k++) {
        arena *a;
        drop_result r;
        assert_ok(arena_open(&a));
        opened three = open_model(3, extra[k]), two = open_model(2, extra[k]);
        take_weights(two.s, three.s);
        drop(three.s, false, a, &r);
        assert_int_equal(r.layers, 3);
        assert_true(r.loss == loss_of(three.s)); // and the session is as it was
        if (r.layer[2].block != loss_of(two.s))
            fail_msg("%s: %.17g, and of two layers %.17g", extra[k] ? extra[k] : "", r.layer[2].block,
                     loss_of(two.s));
        assert_true(r.layer[0].block != r.loss && r.layer[0].block != r.layer[2].block);
        assert_true(isnan(r.layer[0].attention) && isnan(r.layer[0].ffn));
        close_model(&two);
        close_model(&three);
        arena_close(a);
    }
}

static void zero(session *s, const char *path)
{
    stored *e = store_find(s->store, path);
    assert_non_null(e);
    memset(e->master, 0, sizeof(float) * (size_t)e->count);
}

/* A branch whose last map is zero adds nothing to a plain stream. */
static void test_zero_maps(void **state)
{
    (void)state;
    arena *a;
    drop_result r;
    assert_ok(arena_open(&a));
    opened m = open_model(2, NULL);
    drop(m.s, true, a, &r);
    zero(m.s, "blocks.0.attention.o.weight");
    assert_true(r.layer[0].attention == loss_of(m.s));
    zero(m.s, "blocks.0.ffn.down.weight");
    assert_true(r.layer[0].block == loss_of(m.s));
    close_model(&m);
    m = open_model(2, NULL);
    zero(m.s, "blocks.1.ffn.down.weight");
    assert_true(r.layer[1].ffn == loss_of(m.s));
    drop(m.s, true, a, &r);
    assert_true(r.layer[1].ffn == r.loss && r.layer[1].attention == r.layer[1].block);
    m.s->store->entry[0].master[0] = NAN; // diverged: a table of NaN says nothing
    store_sync(m.s->store);
    assert_fails(eval_drop_layers(m.s, data, &(drop_options){.split = DATA_TRAIN, .tokens = 2000}, a, &r),
                 ERR_NUMERIC, "the loss of the whole model is not finite; the weights have diverged");
    close_model(&m);
    arena_close(a);
}

/* A layer that reads the dropped feed-forward's input still does. */
static void test_memory(void **state)
{
    (void)state;
    arena *a;
    drop_result r;
    config *c;
    session *s;
    const char *given[] = {"model.layers=2", "model.memory.kind=pkm", "model.memory.spans=[0:1]",
                           "model.memory.keys=8"};
    assert_ok(arena_open(&a));
    assert_ok(config_parse("base", base, strlen(base), given, COUNT(given), &c));
    assert_ok(session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level}, &s));
    session_start(s);
    drop(s, true, a, &r);
    assert_true(isfinite(r.layer[0].block) && isfinite(r.layer[0].ffn) && isfinite(r.layer[1].ffn));
    session_close(s);
    config_close(c);
    arena_close(a);
}

static void test_stop(void **state)
{
    (void)state;
    volatile sig_atomic_t stop = 1;
    arena *a;
    drop_result r;
    assert_ok(arena_open(&a));
    opened m = open_model(2, NULL);
    assert_fails(eval_drop_layers(m.s, data, &(drop_options){.split = DATA_TRAIN, .stop = &stop}, a, &r),
                 ERR_STOPPED, "stopped while evaluating");
    close_model(&m);
    arena_close(a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shorter_model),
        cmocka_unit_test(test_zero_maps),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_stop),
    };
    static char text[8192];
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = (char)('a' + random_bits(1, 1, 0, i) % 20);
    toy_open();
    data = toy_dataset("shards", toy_text("text", text), "file", "0", 1 << 20);
    assert_ok(device_open(&(device_options){.threads = 1}, &cpu));
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(cpu);
    dataset_close(data);
    toy_close();
    return bad;
}
