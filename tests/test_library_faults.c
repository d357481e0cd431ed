/* The library when memory is out or a disk fails: every allocation, write, sync and rename of a handle's life
 * fails in turn; each time the call says so, and the same handle then does what was asked. */
#include "base/file.h"
#include "toy_data.h"
#include <keel/keel.h>

static const char yaml[] = "model: {layers: 1, width: 32, context: 16, attention: {heads: 2}, vocab: 64}\n"
                           "train: {batch_tokens: 32, steps: 20, precision: f32}\n";
static i32 tokens[32], targets[32];
static const keel_rows rows = {.rows = 2, .tokens = tokens, .targets = targets};

static const keel_machine alone = {.threads =
                                       1}; // hundreds of lives: threads that wait for each other are slow

typedef struct life { // what a handle's calls came to
    double loss, nats;
    i64 made;
} life;

/* Every call, in order, until one fails. A call may be made again: what was done stays done. */
static keel_status live(keel_model *m, const char *folder, life *out)
{
    keel_step_result r;
    keel_generated g;
    keel_generate_options o = {.max_tokens = 3};
    keel_status s = keel_configure(m, yaml, strlen(yaml), NULL, 0);
    if (!s) s = keel_step(m, &rows, &r);
    if (!s) out->loss = r.loss;
    if (!s) s = keel_score_tokens(m, tokens, 10, 5, &out->nats);
    if (!s) s = keel_generate_tokens(m, tokens, 4, &o, &g);
    if (!s) out->made = g.tokens;
    if (!s) s = keel_save(m, folder);
    return s ? s : keel_open(m, folder);
}

static void every_allocation(void **state)
{
    (void)state;
    life right, now;
    keel_model *m = keel_new(&alone);
    assert_int_equal(live(m, toy_path("right"), &right), KEEL_OK);
    keel_free(m);
    i64 k = 1;
    for (bool done = false; !done; k++) {
        fault_set(FAULT_ALLOC, k);
        m = keel_new(&alone);
        keel_status s = m ? live(m, toy_path("there"), &now) : KEEL_ERROR_MEMORY;
        done = fault_count(FAULT_ALLOC) < k;
        fault_set(FAULT_ALLOC, 0);
        assert_int_equal(s, done ? KEEL_OK : KEEL_ERROR_MEMORY);
        if (m && !done) assert_true(*keel_message(m) != 0);
        if (m) assert_int_equal(live(m, toy_path("there"), &now), KEEL_OK);
        if (m) assert_true(now.loss == right.loss && now.nats == right.nats && now.made == right.made);
        keel_free(m);
    }
    assert_true(k > 20);
}

static void every_write(void **state)
{
    (void)state;
    static const fault_kind kinds[] = {FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME};
    keel_step_result r;
    for (i64 i = 0; i < COUNT(kinds); i++) {
        i64 k = 1;
        for (bool done = false; !done; k++) {
            const char *folder = toy_path("disk");
            keel_model *m = keel_new(&alone), *n = keel_new(&alone);
            assert_int_equal(keel_configure(m, yaml, strlen(yaml), NULL, 0), KEEL_OK);
            assert_int_equal(keel_step(m, &rows, &r), KEEL_OK);
            fault_set(kinds[i], k);
            keel_status s = keel_save(m, folder);
            done = fault_count(kinds[i]) < k;
            fault_set(kinds[i], 0);
            assert_int_equal(s, done ? KEEL_OK : KEEL_ERROR_IO);
            keel_status there = keel_open(n, folder); // whole or not at all
            assert_true(there == KEEL_OK || (there == KEEL_ERROR_INPUT && !done));
            assert_int_equal(keel_save(m, folder), KEEL_OK);
            assert_int_equal(keel_open(n, folder), KEEL_OK);
            assert_int_equal(keel_step(n, &rows, &r), KEEL_OK);
            assert_int_equal(r.step, 2);
            keel_free(m);
            keel_free(n);
            assert_ok(tree_remove(folder));
        }
        assert_true(k > 2);
    }
}

static int open_folder(void **state)
{
    (void)state;
    for (int i = 0; i < 32; i++) tokens[i] = i % 7, targets[i] = (i + 1) % 7;
    toy_open();
    return 0;
}
static int close_folder(void **state)
{
    (void)state;
    toy_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(every_write),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
