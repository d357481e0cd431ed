/* Mixture of experts: the worked examples of routing, counting and its losses; what experts make equal to a
 * dense layer; capacity, in training only; counts over the micro-batches of a step and the bias that a commit
 * moves, through a checkpoint; what is refused. That gradients, programs, recomputation, generation and dumps
 * agree is shown with the other models (moe-like, moe-bias-like of model_case.h), formulas by `keel op
 * check`. */
#include "model_case.h"
#include "cpu_case.h"
#include "optim/optimizer.h"
#include "train/expert_load.h"
#include "train/save.h"
#include "train/session.h"
#include <stdlib.h>
#include <unistd.h>

#define close_to(x, want, limit)                                                                             \
    do {                                                                                                     \
        double x_ = (x), want_ = (want);                                                                     \
        if (!(fabs(x_ - want_) <= (limit))) fail_msg("%s is %.9g, not %.9g", #x, x_, want_);                 \
    } while (0)

/* ---- a router by itself: four tokens, three experts, two of them chosen */

typedef struct router {
    arena *arena;
    graph *g;
    tensor *z, *targets, *inverse, *given, *ids, *counts, *tally, *micro, *whole, *zloss, *fixed;
    program *p;
    oracle *o;
    i64 rows;
} router;

static const double example[12] = {2, 1, 0, 0, 1, .5, 1, -1, 0, .2, .1, .3};

/* Losses of weight 1 by: the micro-batch's counts, the step's so far, counts that are given. */
static void router_open(router *r, i64 rows)
{
    *r = (router){.rows = rows};
    assert_ok(arena_open(&r->arena));
    graph *g = r->g = graph_new(r->arena, &(graph_options){0});
    r->z = g_input(g, "z", DT_F32, 2, (i64[]){rows, 3});
    r->targets = g_input(g, "targets", DT_I32, 1, &rows);
    r->inverse = g_input(g, "inverse", DT_F32, 1, (i64[]){1});
    r->given = g_input(g, "given", DT_F32, 1, (i64[]){3});
    r->ids = g_out(g_node(g, OP_moe_route, IN(r->z), WITH({"k", 2})), 1);
    tensor *slot = g_out(g_node(g, OP_moe_plan, IN(r->ids), WITH({"experts", 3})), 2);
    node *n = g_node(g, OP_moe_count, IN(r->ids, slot, r->targets), WITH({"experts", 3}));
    r->tally = g_into_tally(g, n, 0, "tokens");
    g_into_tally(g, n, 1, "dropped");
    r->counts = g_out(g_node(g, OP_moe_count, IN(r->ids, slot, r->targets), WITH({"experts", 3})), 0);
    r->micro = g_out(g_node(g, OP_moe_balance, IN(r->z, r->counts, r->targets, r->inverse), NO_ATTRS), 0);
    r->whole = g_out(g_node(g, OP_moe_balance, IN(r->z, r->tally, r->targets, r->inverse), NO_ATTRS), 0);
    r->fixed = g_out(g_node(g, OP_moe_balance, IN(r->z, r->given, r->targets, r->inverse), NO_ATTRS), 0);
    r->zloss = g_out(g_node(g, OP_moe_z_loss, IN(r->z, r->targets, r->inverse), NO_ATTRS), 0);
    tensor *const kept[] = {r->ids, r->counts, r->micro, r->whole, r->zloss, r->fixed};
    for (i64 i = 0; i < COUNT(kept); i++) kept[i]->keep = true;
    assert_ok(graph_status(g));
    assert_ok(graph_verify(g));
    assert_ok(
        program_open(g, NULL, &(program_options){.device = cpu, .isa = device_about(cpu)->level}, &r->p));
    assert_ok(oracle_open(g, &r->o));
    program_zero_tallies(r->p);
}
static void router_close(router *r)
{
    oracle_close(r->o);
    program_close(r->p);
    graph_close(r->g);
    arena_close(r->arena);
}

/* Tokens FIRST .. of the example, with counts GIVEN, 1/INVERSE tokens in the step. */
static void router_run(router *r, i64 first, const double *given, double inverse)
{
    for (i64 i = 0; i < 3 * r->rows; i++) {
        ((float *)program_data(r->p, r->z))[i] = (float)example[3 * first + i];
        oracle_data(r->o, r->z)[i] = example[3 * first + i];
    }
    for (i64 i = 0; i < r->rows; i++) ((i32 *)program_data(r->p, r->targets))[i] = 0;
    for (i64 i = 0; i < r->rows; i++) oracle_data(r->o, r->targets)[i] = 0;
    for (i64 i = 0; i < 3; i++) {
        ((float *)program_data(r->p, r->given))[i] = (float)given[i];
        oracle_data(r->o, r->given)[i] = given[i];
    }
    *(float *)program_data(r->p, r->inverse) = (float)inverse;
    *oracle_data(r->o, r->inverse) = inverse;
    program_run(r->p, &(step_info){0}, PHASE_FORWARD);
    assert_ok(oracle_run(r->o, &(step_info){0}, false));
}
static double number(const router *r, const tensor *t) { return (double)*(float *)program_data(r->p, t); }

static void test_example(void **state)
{
    (void)state;
    static const int ids[] = {0, 1, 1, 2, 0, 2, 2, 0}, counts[] = {3, 2, 3};
    router r;
    router_open(&r, 4);
    router_run(&r, 0, (double[]){3, 2, 3}, 0.25);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(((i32 *)program_data(r.p, r.ids))[i], ids[i]);
        assert_int_equal((int)oracle_data(r.o, r.ids)[i], ids[i]);
    }
    for (int e = 0; e < 3; e++) {
        assert_int_equal((int)((float *)program_data(r.p, r.counts))[e], counts[e]);
        assert_int_equal((int)((float *)program_data(r.p, r.tally))[e], counts[e]);
        assert_int_equal((int)oracle_data(r.o, r.tally)[e], counts[e]);
    }
    tensor *const same[] = {r.micro, r.whole, r.fixed};
    for (int i = 0; i < 3; i++) {
        close_to(number(&r, same[i]), 1.017952, 1e-6);
        close_to(*oracle_data(r.o, same[i]), 1.017952, 1e-6);
    }
    close_to(number(&r, r.zloss), 3.074071, 1e-5);
    close_to(*oracle_data(r.o, r.zloss), 3.074071, 1e-6);
    router_close(&r);
}

/* Micro-batches {0, 1} and {2, 3}: by their own counts 1.119362 together; by those of the whole batch what
 * the whole batch has, 1.017952; by those so far only the last one has seen all. */
static void test_example_in_two(void **state)
{
    (void)state;
    static const double all[] = {3, 2, 3};
    router r;
    double micro = 0, fixed = 0, whole[2], zloss = 0, last = 0;
    router_open(&r, 2);
    for (int half = 0; half < 2; half++) {
        router_run(&r, 2 * half, all, 0.25);
        micro += number(&r, r.micro);
        fixed += number(&r, r.fixed);
        zloss += number(&r, r.zloss);
        whole[half] = number(&r, r.whole);
        last = number(&r, r.fixed);
        close_to(number(&r, r.micro), *oracle_data(r.o, r.micro), 1e-6);
    }
    close_to(micro, 1.119362, 1e-6);
    close_to(fixed, 1.017952, 1e-6);
    close_to(zloss, 3.074071, 1e-5);
    close_to(whole[1], last, 1e-7);
    for (int e = 0; e < 3; e++) assert_int_equal((int)((float *)program_data(r.p, r.tally))[e], (int)all[e]);
    program_zero_tallies(r.p);
    router_run(&r, 0, all, 0.25);
    close_to(number(&r, r.whole), whole[0], 0);
    close_to(number(&r, r.whole), number(&r, r.micro), 0);
    router_close(&r);
}

/* A row of NaN chooses somebody all the same: two experts there are, not one twice. */
static void test_nan(void **state)
{
    (void)state;
    router r;
    router_open(&r, 4);
    for (int i = 0; i < 12; i++)
        ((float *)program_data(r.p, r.z))[i] = i < 6 ? NAN : i < 9 ? INFINITY : -INFINITY;
    program_run(r.p, &(step_info){0}, PHASE_FORWARD);
    for (int t = 0; t < 4; t++) {
        const i32 *ids = (i32 *)program_data(r.p, r.ids) + 2 * t;
        assert_true(ids[0] >= 0 && ids[0] < 3 && ids[1] >= 0 && ids[1] < 3 && ids[0] != ids[1]);
    }
    router_close(&r);
}

/* ---- experts and dense layers */

static const model_case dense = {.name = "dense",
                                 .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, bias: true,\n"
                                         "        attention: {heads: 4}, ffn: {width: 48}}\n"};
static const model_case routed = {
    .name = "routed",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, bias: true, attention: {heads: 4},\n"
            "        ffn: {kind: moe, width: 48, experts: 4, top_k: 2}}\n"};

/* Weights of TO from FROM, by name: experts are copies of the dense layer's (or zero where ROUTED is false,
 * and shared experts take them). */
static void upcycle(const runner *from, runner *to, bool into_routed)
{
    static const char *const parts[] = {".ffn.experts.", ".ffn.shared."};
    for (i64 i = 0; i < to->s->n_params; i++) {
        stored *e = &to->s->entry[i];
        char path[128] = "";
        for (int k = 0; k < 2; k++) {
            const char *at = strstr(e->path, parts[k]);
            if (at)
                snprintf(path, sizeof path, "%.*s.ffn.%s", (int)(at - e->path), e->path,
                         at + strlen(parts[k]));
        }
        bool expert = strstr(e->path, parts[0]);
        const stored *d = store_find(from->s, *path ? path : e->path);
        if (!d) continue; // the router
        for (i64 k = 0; k < e->count; k++)
            e->master[k] = expert && !into_routed ? 0 : d->master[k % d->count];
    }
    store_sync(to->s);
}

static void run_case(runner *r, model_case m, const char *const *overrides, i64 n, const case_rows *x,
                     mode how)
{
    runner_open(r, m, overrides, n,
                &(runner_options){.shape = case_shape(x, how, DT_F32),
                                  .device = cpu,
                                  .backward = how == MODE_TRAIN,
                                  .level = device_about(cpu)->level});
    runner_rows(r, x);
}

/* The largest difference of logits between the dense model and the one of experts made from it. */
static double apart(const char *const *overrides, i64 n, bool into_routed)
{
    case_rows x;
    runner a, b;
    double worst = 0;
    rows_mixed(&x);
    run_case(&a, dense, NULL, 0, &x, MODE_TRAIN);
    run_case(&b, routed, overrides, n, &x, MODE_TRAIN);
    upcycle(&a, &b, into_routed);
    runner_program(&a);
    runner_program(&b);
    for (i64 i = 0; i < count(a.m.logits); i++)
        worst = fmax(worst, fabs((double)runner_logits(&a)[i] - (double)runner_logits(&b)[i]));
    runner_close(&a);
    runner_close(&b);
    return worst;
}

/* Copies of one expert with weights that sum to one are that expert; raw weights do not. Shared experts
 * beside routed ones that answer 0 are the dense layer. */
static void test_dense_layer(void **state)
{
    (void)state;
    assert_true(apart(NULL, 0, true) <= 2e-6);
    assert_true(apart((const char *[]){"model.ffn.router=sigmoid"}, 1, true) <= 2e-6);
    assert_true(apart((const char *[]){"model.ffn.router=softmax_raw"}, 1, true) > 1e-3);
    assert_true(apart((const char *[]){"model.ffn.shared=3", "model.ffn.width=16"}, 2, false) <= 2e-6);
    assert_true(apart((const char *[]){"model.ffn.shared=1"}, 1, true) > 1e-3);
}

/* Experts cut in two, twice as many, twice as many chosen: as many parameters and multiply-adds (the router
 * apart), and all of them fewer than there are. */
static void test_fine_grained(void **state)
{
    (void)state;
    static const char *const fine[] = {"model.ffn.width=24", "model.ffn.experts=8", "model.ffn.top_k=4"};
    case_rows x;
    runner r[2];
    model_figures f[2];
    const i64 router = 2 * 32; // an expert's row, in two layers
    rows_mixed(&x);
    for (int i = 0; i < 2; i++) {
        run_case(&r[i], routed, fine, i ? 3 : 0, &x, MODE_TRAIN);
        model_about(&r[i].m, r[i].c, x.tokens, &f[i]);
        runner_close(&r[i]);
    }
    const i64 biases[2] = {2 * 4 * (2 * 48 + 32), 2 * 8 * (2 * 24 + 32)};
    assert_int_equal(f[1].parameters - biases[1] - 8 * router, f[0].parameters - biases[0] - 4 * router);
    assert_int_equal(f[1].matmul_parameters - 8 * router, f[0].matmul_parameters - 4 * router);
    assert_int_equal(f[0].parameters - f[0].active_parameters, 2 * 2 * 3 * 32 * 48); // two of four idle
}

/* Only the layers that say so have experts, and the terms of the objective are means over those. */
static void test_some_layers(void **state)
{
    (void)state;
    static const model_case some = {
        .name = "some",
        .yaml =
            "model: {layers: 3, width: 32, vocab: 61, context: 12, attention: {heads: 4}, ffn: {width: 48},\n"
            "        override: [{layers: 1-2, ffn: {kind: moe, width: 16, experts: 3, router_z: 0.5,\n"
            "                    balance: none}}]}\n"};
    case_rows x;
    runner r;
    i64 losses = 0;
    rows_mixed(&x);
    run_case(&r, some, NULL, 0, &x, MODE_TRAIN);
    assert_null(store_find(r.s, "blocks.0.ffn.router.weight"));
    assert_non_null(store_find(r.s, "blocks.0.ffn.up.weight"));
    for (int l = 1; l < 3; l++) {
        char path[64];
        snprintf(path, sizeof path, "blocks.%d.ffn.experts.up.weight", l);
        const stored *e = store_find(r.s, path);
        assert_non_null(e);
        assert_true(e->ndim == 3 && e->dim[0] == 3 && e->dim[1] == 16 && e->dim[2] == 32);
        assert_int_equal(e->param.kind, PARAM_EXPERT);
    }
    for (i64 i = 0; i < r.m.g->n_nodes; i++)
        if (r.m.g->nodes[i]->op == OP_moe_z_loss) {
            losses++;
            close_to(attr(r.m.g->nodes[i], "weight"), 0.25, 0);
        }
    assert_int_equal(losses, 2);
    runner_close(&r);
}

/* ---- capacity */

static double drops(const char *factor, mode how, float *logits)
{
    case_rows x;
    runner r;
    double all = 0;
    rows_mixed(&x);
    run_case(&r, routed, &factor, 1, &x, how);
    program_zero_tallies(r.p);
    program_run(r.p, &(step_info){.seed = 1}, PHASE_FORWARD);
    for (i64 i = 0; i < r.m.g->n_tensors; i++) {
        const tensor *t = r.m.g->tensors[i];
        if (t->role == ROLE_TALLY && strstr(t->path, ".router.dropped"))
            all += (double)*(float *)program_data(r.p, t);
    }
    memcpy(logits, runner_logits(&r), (size_t)count(r.m.logits) * sizeof *logits);
    runner_close(&r);
    return all;
}

static void test_capacity(void **state)
{
    (void)state;
    static float plain[33 * CASE_VOCAB], other[33 * CASE_VOCAB];
    assert_true(drops("model.ffn.capacity_factor=0", MODE_TRAIN, plain) == 0);
    assert_true(drops("model.ffn.capacity_factor=2", MODE_TRAIN, other) == 0); // factor E / k: room for all
    assert_memory_equal(plain, other, sizeof plain);
    assert_true(drops("model.ffn.capacity_factor=0.5", MODE_TRAIN, other) > 0);
    assert_true(memcmp(plain, other, sizeof plain) != 0);
    drops("model.ffn.capacity_factor=0.5", MODE_EVALUATE, other); // never outside training
    assert_memory_equal(plain, other, sizeof plain);
}

/* ---- steps */

static void session_of(session **s, config **c, model_case m, const char *const *overrides, i64 n)
{
    const char *all[8] = {"train.batch_tokens=48", "train.precision=f32"};
    for (i64 i = 0; i < n; i++) all[2 + i] = overrides[i];
    *c = case_config(m, all, 2 + n);
    assert_ok(session_open(*c, cpu,
                           &(session_options){.isa = device_about(cpu)->level, .dense_gradients = true}, s));
    session_start(*s);
}
static void four_rows(case_rows *x)
{
    rows_make(x, 4, CASE_CONTEXT, (i32[]){0, -1, 0, 5, -1, 0, 1, 8, -1, 0, 11, -1}, 9);
}
static step_batch batch_of(const case_rows *x)
{
    return (step_batch){x->token, x->target, x->start, x->position, x->rows, x->n_valid};
}

/* With capacity by sequence a step does not depend on its micro-batches, nor do counts and the share dropped.
 */
static void test_capacity_in_micro_batches(void **state)
{
    (void)state;
    static const char *const set[2][3] = {
        {"train.micro_batch=4", "model.ffn.capacity_factor=0.8", "model.ffn.balance=none"},
        {"train.micro_batch=1", "model.ffn.capacity_factor=0.8", "model.ffn.balance=none"}};
    session *s[2];
    config *c[2];
    case_rows x;
    double nats[2];
    expert_load l[2];
    four_rows(&x);
    step_batch b = batch_of(&x);
    for (int i = 0; i < 2; i++) {
        session_of(&s[i], &c[i], routed, set[i], 3);
        session_forward_backward(s[i], &b, 0, &nats[i]);
        assert_true(expert_load_read(s[i], &l[i]));
    }
    assert_true(l[0].dropped > 0 && l[0].dropped == l[1].dropped && l[0].load == l[1].load && l[0].load >= 1);
    close_to(nats[0], nats[1], 1e-6 * nats[1]);
    for (i64 p = 0; p < s[0]->store->n_params; p++) {
        const stored *e = &s[0]->store->entry[p];
        double off = relative_error_f32(e->grad, s[1]->store->entry[p].grad, e->count);
        if (!(off <= 5e-6)) fail_msg("%s: off by %g", e->path, off);
    }
    for (int i = 0; i < 2; i++) session_close(s[i]), config_close(c[i]);
}

static const float *bias_of(const session *s)
{
    return store_find(s->store, "blocks.0.ffn.router.bias")->data;
}

/* Counts add up over a step's micro-batches and start again with the next; the bias moves once a step, by the
 * sign of what is missing to the mean, and only when the step is taken. */
static void test_bias(void **state)
{
    (void)state;
    static const char *const set[] = {"train.micro_batch=1", "model.ffn.balance=bias",
                                      "model.ffn.bias_rate=0.5"};
    session *s;
    config *c;
    case_rows x;
    double nats, norm;
    float want[4] = {0};
    four_rows(&x);
    step_batch b = batch_of(&x);
    session_of(&s, &c, routed, set, 3);
    const float *tally = program_data(s->train_program, g_find(s->train.g, "blocks.0.ffn.router.tokens"));
    for (int step = 0; step < 3; step++) {
        double all = 0;
        session_forward_backward(s, &b, step, &nats);
        for (int e = 0; e < 4; e++) all += (double)tally[e];
        assert_int_equal((i64)all, 2 * x.n_valid);
        assert_memory_equal(bias_of(s), want, sizeof want);
        for (int e = 0; e < 4; e++) want[e] += 0.5f * (float)((tally[e] < all / 4) - (tally[e] > all / 4));
        session_update(s, step, 1e-3, 1e-3, &norm);
        assert_memory_equal(bias_of(s), want, sizeof want);
    }
    double before = session_evaluate(s, &(step_batch){x.token, x.target, x.start, x.position, 1, x.n_valid});
    float *bias = store_find(s->store, "blocks.0.ffn.router.bias")->data;
    for (int e = 0; e < 4; e++) bias[e] = e == 0 ? 9 : 0; // evaluation selects by it too
    double after = session_evaluate(s, &(step_batch){x.token, x.target, x.start, x.position, 1, x.n_valid});
    assert_true(before != after);
    for (int e = 0; e < 4; e++) bias[e] += 2; // the same for all: nothing changes
    close_to(session_evaluate(s, &(step_batch){x.token, x.target, x.start, x.position, 1, x.n_valid}), after,
             0);
    session_close(s);
    config_close(c);
}

/* The weights without the bias that goes with them are another model. */
static void check_without(store *into, const char *folder, const char *lost)
{
    char path[256], want[600];
    st_file *f;
    st_entry entry[64];
    i64 n = 0;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(st_open(path, &f));
    assert_true(st_count(f) <= COUNT(entry));
    for (i64 i = 0; i < st_count(f); i++)
        if (strcmp(st_at(f, i)->name, lost) != 0) entry[n++] = *st_at(f, i);
    assert_int_equal(n, st_count(f) - 1);
    snprintf(path, sizeof path, "%s/without.safetensors", folder);
    assert_ok(st_save(path, entry, n, NULL, 0, NULL));
    st_close(f);
    snprintf(want, sizeof want,
             "%s: has no %s, a state that training keeps beside the weights; without it the model computes "
             "something else: copy it from the file these weights come from",
             path, lost);
    assert_fails(load_weights(into, path), ERR_FORMAT, want);
}

/* A checkpoint holds the bias: a run that goes on from it takes the same next step to the bit. */
static void test_checkpoint(void **state)
{
    (void)state;
    static const char *const set[] = {"model.ffn.balance=bias", "model.ffn.router=sigmoid"};
    char folder[] = "/tmp/keel-moe-XXXXXX", *path, command[64];
    session *s[2];
    config *c[2];
    case_rows x;
    double nats, norm;
    checkpoint_store *store;
    run_state at = {.step = 2}, back;
    text given = {0};
    assert_non_null(mkdtemp(folder));
    four_rows(&x);
    step_batch b = batch_of(&x);
    for (int i = 0; i < 2; i++) session_of(&s[i], &c[i], routed, set, 2);
    for (int step = 0; step < 2; step++) {
        session_forward_backward(s[0], &b, step, &nats);
        session_update(s[0], step, 1e-2, 1e-2, &norm);
    }
    text_add(&given, "model: {}\n");
    assert_ok(checkpoint_open(folder, &(checkpoint_options){0}, &store));
    assert_ok(save_session(store, s[0], &at, &given, NULL, NULL, false));
    assert_ok(checkpoint_close(store));
    assert_ok(checkpoint_latest(folder, NULL, NULL, &path, &at.step));
    assert_ok(load_session(s[1], path, true, &back));
    assert_true(bias_of(s[0])[0] != 0);
    check_without(s[1]->store, path, "blocks.0.ffn.router.bias");
    assert_ok(load_session(s[1], path, true, &back));
    for (int i = 0; i < 2; i++) {
        session_forward_backward(s[i], &b, 2, &nats);
        session_update(s[i], 2, 1e-2, 1e-2, &norm);
    }
    assert_memory_equal(bias_of(s[0]), bias_of(s[1]), 4 * sizeof(float));
    assert_memory_equal(s[0]->store->master, s[1]->store->master,
                        (size_t)s[0]->store->elements * sizeof(float));
    free(path);
    text_free(&given);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 2; i++) session_close(s[i]), config_close(c[i]);
}

/* More experts than assignments: most have no token, no gradient, and stay as they are without decay. */
static void test_idle_experts(void **state)
{
    (void)state;
    static const char *const set[] = {"model.ffn.experts=200", "model.ffn.width=4", "model.ffn.balance=none",
                                      "train.optimizer.decay=[]", "train.micro_batch=4"};
    session *s;
    config *c;
    case_rows x;
    double nats, norm;
    i64 idle = 0;
    four_rows(&x);
    step_batch b = batch_of(&x);
    session_of(&s, &c, routed, set, 5);
    const stored *e = store_find(s->store, "blocks.0.ffn.experts.up.weight");
    float *before = malloc((size_t)e->count * sizeof *before);
    memcpy(before, e->master, (size_t)e->count * sizeof *before);
    session_forward_backward(s, &b, 0, &nats);
    session_update(s, 0, 1e-3, 1e-3, &norm);
    assert_true(isfinite(norm));
    for (i64 k = 0; k < 200; k++)
        idle += !memcmp(before + k * 128, e->master + k * 128, 128 * sizeof *before);
    assert_true(idle >= 200 - 96 && idle < 200);
    free(before);
    session_close(s);
    config_close(c);
}

static void test_decay(void **state)
{
    (void)state;
    static const struct {
        const char *listed;
        bool matrix, expert;
    } want[] = {{"train.optimizer.decay=[matrix]", true, true},
                {"train.optimizer.decay=[expert]", false, true},
                {"train.optimizer.decay=[gain]", false, false}};
    for (i64 i = 0; i < COUNT(want); i++) {
        optimizer o;
        config *c = case_config(routed, &want[i].listed, 1);
        assert_ok(optimizer_from(c, &o));
        assert_int_equal(o.decays[PARAM_MATRIX], want[i].matrix);
        assert_int_equal(o.decays[PARAM_EXPERT], want[i].expert);
        config_close(c);
    }
}

/* ---- what is refused */

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *set, *message;
    } bad[] = {
        {"model.ffn.top_k=5",
         "command line: model.ffn.top_k is 5, but there are 4 experts to choose from (model.ffn.experts)"},
        {"model.ffn.top_k=1", "command line: model.ffn.top_k is 1 and the router softmax_renorm: the weight "
                              "p / sum of the chosen p is 1 "
                              "whatever the logits, so the loss sends the router no gradient; use "
                              "model.ffn.router softmax_raw, or "
                              "top_k 2"},
    };
    for (i64 i = 0; i < COUNT(bad); i++) {
        case_rows x;
        arena *a;
        model m = {0};
        rows_mixed(&x);
        model_shape shape = case_shape(&x, MODE_TRAIN, DT_F32);
        assert_ok(arena_open(&a));
        config *c = case_config(routed, &bad[i].set, 1);
        assert_fails(model_build(a, c, &shape, &m), ERR_CONFIG, bad[i].message);
        config_close(c);
        arena_close(a);
    }
    static const char *const few = "model.ffn.experts=1";
    config *c = NULL;
    assert_fails(config_parse("routed", routed.yaml, strlen(routed.yaml), &few, 1, &c), ERR_CONFIG,
                 "command line: model.ffn.experts is '1'; it must be a whole number from 2 to 4096");
    assert_fails(
        config_parse("dense", "model: {ffn: {experts: 4}}\n", 27, NULL, 0, &c), ERR_CONFIG,
        "dense:1: model.ffn.experts belongs to model.ffn.kind moe, and that is gated; choose it or remove "
        "the key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),      cmocka_unit_test(test_example_in_two),
        cmocka_unit_test(test_nan),          cmocka_unit_test(test_dense_layer),
        cmocka_unit_test(test_fine_grained), cmocka_unit_test(test_some_layers),
        cmocka_unit_test(test_capacity),     cmocka_unit_test(test_capacity_in_micro_batches),
        cmocka_unit_test(test_bias),         cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_idle_experts), cmocka_unit_test(test_decay),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
