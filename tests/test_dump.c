/* keel dump's library: what it writes is what the double interpreter and the program compute; every bad file
 * of tokens is refused with its line; a plan that does not fit is refused before anything is taken. */
#include "model_case.h"
#include "base/file.h"
#include "eval/dump.h"
#include "format/safetensors.h"
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/keel-dump-XXXXXX";
static char tokens[64], weights[64], out[64];

static int make_folder(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(tokens, sizeof tokens, "%s/t", folder);
    snprintf(weights, sizeof weights, "%s/w", folder);
    snprintf(out, sizeof out, "%s/g", folder);
    return 0;
}
static int remove_folder(void **state)
{
    (void)state;
    assert_ok(tree_remove(folder));
    return 0;
}

static void write_tokens(const char *text, size_t bytes)
{
    file_writer *w;
    assert_ok(file_create(tokens, &w));
    assert_ok(file_write(w, text, bytes));
    assert_ok(file_commit(w));
}

/* ---- files of tokens */
static void test_tokens(void **state)
{
    (void)state;
    static const char text[] = "1 2\t 60\r\n 0  4 5 \n7 8 9"; // blanks of all kinds, no newline at the end
    static const i32 want[] = {1, 2, 60, 0, 4, 5, 7, 8, 9};
    token_rows t;
    write_tokens(text, sizeof text - 1);
    assert_ok(token_rows_read(tokens, &(token_limits){.vocab = 61, .longest = 3}, &t));
    assert_int_equal(t.rows, 3);
    assert_int_equal(t.tokens, 3);
    assert_memory_equal(t.id, want, sizeof want);
    token_rows_free(&t);
}

static void test_bad_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        const char *message;
    } bad[] = {
#define BAD(text, message) {text, sizeof text - 1, message}
        BAD("", ": is empty; write token ids, a sequence a line"),
        BAD("\n", ":1: the line is empty; every line is a sequence of token ids"),
        BAD("1 2\n  \n", ":2: the line is empty; every line is a sequence of token ids"),
        BAD("1 2\n\n3 4\n", ":2: the line is empty; every line is a sequence of token ids"),
        BAD("1\n", ":1: one id has no next id to predict; give at least two"),
        BAD("1 2 3\n1 2 3\n1 2\n", ":3: 2 ids, but line 1 has 3; all lines must be of one length"),
        BAD("1 2\n1 2 3\n", ":2: 3 ids, but line 1 has 2; all lines must be of one length"),
        BAD("1 2 3 4 5\n", ":1: 5 ids; the model has positions for 4 (model.context)"),
        BAD("1 2\n3 61\n", ":2: id 61 is beyond the model's vocabulary of 61"),
        BAD("1 99999999999999999999", ":1: id 99999999999999999999 is beyond the model's vocabulary of 61"),
        BAD("1 -1", ":1: '-1' is no token id; ids are whole numbers from 0 to 60"),
        BAD("1 2.0", ":1: '2.0' is no token id; ids are whole numbers from 0 to 60"),
        BAD("1 2\nthe quick", ":2: 'the' is no token id; ids are whole numbers from 0 to 60"),
        BAD("1 2\0 3", ":1: '2?' is no token id; ids are whole numbers from 0 to 60"),
        BAD("1,2,3,4,5,6,7,8,9,10,11,12,13",
            ":1: '1,2,3,4,5,6,7,8,9,10,11,...' is no token id; ids are whole "
            "numbers from 0 to 60"),
        BAD("\xff\xfe 1", ":1: '?\?' is no token id; ids are whole numbers from 0 to 60"),
    };
    for (i64 i = 0; i < COUNT(bad); i++) {
        char message[200];
        token_rows t;
        write_tokens(bad[i].text, bad[i].bytes);
        snprintf(message, sizeof message, "%s%s", tokens, bad[i].message);
        assert_fails(token_rows_read(tokens, &(token_limits){.vocab = 61, .longest = 4}, &t), ERR_INPUT,
                     message);
        assert_null(t.id);
    }
}

/* ---- what is written */

/* A case of two rows without documents: its weights in WEIGHTS, its tokens as token_rows. */
static void prepare(runner *r, model_case m, const runner_options *o, case_rows *x, token_rows *t)
{
    runner_options ready = *o;
    rows_make(x, 2, 9, (i32[]){0, -1, 0, -1}, 4);
    ready.shape = case_shape(x, MODE_TRAIN, o->shape.act);
    ready.backward = true;
    runner_open(r, m, NULL, 0, &ready);
    st_entry *e = arena_array(r->arena, st_entry, r->s->n);
    for (i64 i = 0; i < r->s->n; i++) {
        const stored *p = &r->s->entry[i];
        bool index = p->dtype == DT_I32; // a constant
        e[i] = (st_entry){.name = p->path,
                          .dtype = index ? ST_I32 : ST_F32,
                          .n_dims = p->ndim,
                          .data = p->role == ROLE_PARAM ? (void *)p->master : p->data};
        for (int k = 0; k < p->ndim; k++) e[i].dims[k] = p->dim[k];
    }
    assert_ok(st_save(weights, e, r->s->n, NULL, 0, NULL));
    runner_rows(r, x);
    *t = (token_rows){x->token, x->rows, x->tokens};
}

static const st_entry *entry_like(const st_file *f, const char *name, st_dtype type, const tensor *t)
{
    const st_entry *e = st_find(f, name);
    if (!e) fail_msg("%s is not there", name);
    assert_int_equal(e->dtype, type);
    assert_int_equal(e->n_dims, t->ndim);
    for (int k = 0; k < t->ndim; k++) assert_int_equal(e->dims[k], t->dim[k]);
    return e;
}

static void test_double(void **state)
{
    (void)state;
    for (i64 k = 0; k < COUNT(model_cases); k++) {
        runner r;
        case_rows x;
        token_rows t;
        st_file *f;
        dump_result result;
        prepare(&r, model_cases[k], &(runner_options){.oracle = true}, &x, &t);
        runner_oracle(&r);
        assert_ok(dump_write(r.c, weights, &t, &(dump_options){.out = out}, &result));
        assert_ok(st_open(out, &f));
        assert_int_equal(st_count(f), 3 + r.s->n_params);
        assert_int_equal(result.gradients, r.s->n_params);
        assert_string_equal(st_metadata(f, "precision"), "f64");
        const st_entry *e = entry_like(f, "logits", ST_F64, r.m.logits);
        assert_memory_equal(e->data, oracle_data(r.o, r.m.logits), (size_t)e->bytes);
        for (i64 i = 0; i < r.s->n_params; i++) {
            char name[128];
            const tensor *p = g_find(r.m.g, r.s->entry[i].path);
            snprintf(name, sizeof name, "grad.%s", p->path);
            e = entry_like(f, name, ST_F64, p);
            assert_memory_equal(e->data, oracle_data(r.o, p->grad), (size_t)e->bytes);
        }
        double sum = 0, loss, objective;
        for (i64 i = 0; i < 18; i++) sum += oracle_data(r.o, r.m.loss)[i];
        memcpy(&loss, st_find(f, "loss")->data, sizeof loss);
        memcpy(&objective, st_find(f, "objective")->data, sizeof objective);
        assert_true(loss == sum / 16 && loss == result.loss);
        assert_true(objective == *oracle_data(r.o, r.m.objective));
        bool more = config_number(r.c, "model.head.z_loss") > 0 || config_is(r.c, "model.ffn.kind", "moe") ||
                    config_count(r.c, "model.head.predict") > 1 ||
                    config_number(r.c, "model.memory.aux_weight") > 0;
        assert_int_equal(fabs(objective - loss) > 1e-6, more);
        st_close(f);
        runner_close(&r);
    }
}

static void test_programs(void **state)
{
    (void)state;
    device *d;
    assert_ok(device_open(&(device_options){0}, &d));
    isa level = device_about(d)->level;
    for (dtype act = DT_F32; act <= DT_BF16; act++) {
        runner r;
        case_rows x;
        token_rows t;
        st_file *f;
        dump_result result;
        prepare(&r, llama_like,
                &(runner_options){.shape = {.act = act}, .device = d, .level = level, .fuse = true}, &x, &t);
        runner_program(&r);
        assert_ok(dump_write(r.c, weights, &t,
                             &(dump_options){.out = out, .device = d, .isa = level, .act = act}, &result));
        assert_ok(st_open(out, &f));
        assert_string_equal(st_metadata(f, "precision"), dtype_name(act));
        const st_entry *e = entry_like(f, "logits", ST_F32, r.m.logits);
        assert_memory_equal(e->data, runner_logits(&r), (size_t)e->bytes);
        for (i64 i = 0; i < r.s->n_params; i++) {
            char name[128];
            snprintf(name, sizeof name, "grad.%s", r.s->entry[i].path);
            e = entry_like(f, name, ST_F32, g_find(r.m.g, r.s->entry[i].path));
            assert_memory_equal(e->data, r.s->entry[i].grad, (size_t)e->bytes);
        }
        st_close(f);
        runner_close(&r);
    }
    device_close(d);
}

static void talk(void *context, const char *line) { snprintf(context, 200, "%s", line); }

static void test_too_big(void **state)
{
    (void)state;
    runner r;
    case_rows x;
    token_rows t;
    dump_result result;
    char said[200] = "", message[200];
    prepare(&r, gpt2_like, &(runner_options){0}, &x, &t);
    assert_ok(tree_remove(out));
    assert_ok(
        dump_write(r.c, weights, &t, &(dump_options){.out = out, .talk = talk, .context = said}, &result));
    assert_memory_equal(said, "dump: 2 sequences of 9 tokens, ", 31);
    assert_ok(tree_remove(out));
    snprintf(message, sizeof message,
             "2 sequences of 9 tokens need %.2f GiB in double, this machine has 0.00; give fewer or shorter "
             "sequences, or --precision=f32",
             (double)result.bytes / (1 << 30));
    assert_fails(
        dump_write(r.c, weights, &t, &(dump_options){.out = out, .memory = result.bytes - 1}, &result),
        ERR_MEMORY, message);
    assert_false(path_exists(out));
    runner_close(&r);
}

/* Every allocation and write that fails gives an error, nothing at OUT, and (under ASan) no leak. */
static void test_faults(void **state)
{
    (void)state;
    static const fault_kind kinds[] = {FAULT_ALLOC, FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME};
    runner r;
    case_rows x;
    token_rows t;
    dump_result result;
    prepare(&r, llama_like, &(runner_options){0}, &x, &t);
    for (i64 kind = 0; kind < COUNT(kinds); kind++)
        for (i64 k = 1;; k++) {
            assert_ok(tree_remove(out));
            fault_set(kinds[kind], k);
            status s = dump_write(r.c, weights, &t, &(dump_options){.out = out}, &result);
            bool reached = fault_count(kinds[kind]) >= k;
            fault_set(kinds[kind], 0);
            if (!reached) assert_ok(s);
            if (!reached) break;
            assert_non_null(s);
            status_drop(s);
            if (kinds[kind] != FAULT_FSYNC)
                assert_false(path_exists(out));          // the folder's sync comes after the rename
            k += kinds[kind] == FAULT_ALLOC ? k / 4 : 0; // every tensor is one: thin them out
        }
    runner_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),   cmocka_unit_test(test_bad_tokens), cmocka_unit_test(test_double),
        cmocka_unit_test(test_programs), cmocka_unit_test(test_too_big),    cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
