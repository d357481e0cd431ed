/* loader: the order is a permutation, positions resume exactly, ranks see one global batch, masks fall where
 * documents meet. */
#include "data/loader.h"
#include "data/order.h"
#include "data/pack.h"
#include "data/quota.h"
#include "base/random.h"
#include "base/text.h"
#include "toy_data.h"
#include <math.h>

static int setup(void **state) { return (void)state, toy_open(), 0; }
static int teardown(void **state) { return (void)state, toy_close(), 0; }

static void check_bijection(i64 n, u64 seed, i64 epoch)
{
    u8 *seen = calloc((size_t)n, 1);
    double distance = 0;
    for (i64 i = 0; i < n; i++) {
        i64 at = order_at(seed, epoch, n, i);
        assert_in_range(at, 0, n - 1);
        assert_false(seen[at]);
        seen[at] = 1;
        distance += (double)llabs(at - i);
    }
    free(seen);
    if (n >= 1000) { // a random permutation moves by n / 3 on average, give or take n / sqrt(10 n)
        distance /= (double)n * (double)n;
        assert_true(distance > 0.3 && distance < 0.37);
    }
}

static void test_order(void **state)
{
    (void)state;
    static const i64 sizes[] = {1, 2, 3, 4, 5, 1000, ((i64)1 << 20) + 7};
    for (i64 i = 0; i < COUNT(sizes); i++)
        for (i64 epoch = 0; epoch < (sizes[i] > 1000 ? 1 : 3); epoch++) check_bijection(sizes[i], 7, epoch);
    i64 same_epoch = 0, same_seed = 0;
    for (i64 i = 0; i < 1000; i++) {
        same_epoch += order_at(7, 0, 1000, i) == order_at(7, 1, 1000, i);
        same_seed += order_at(7, 0, 1000, i) == order_at(8, 0, 1000, i);
    }
    assert_true(same_epoch < 10 && same_seed < 10); // 1 is expected
}

/* ---- a corpus of DOCUMENTS documents of different lengths, in small shards */

static dataset *make_dataset(int documents)
{
    text all = {0};
    for (int i = 0; i < documents; i++) {
        for (int k = 0; k < 3 + i * 7 % 31; k++) text_add(&all, "%c", 'a' + (i + k) % 26);
        text_add(&all, " the\n\n");
    }
    const char *path = toy_file("corpus", all.data, all.bytes);
    text_free(&all);
    return toy_dataset("shards", path, "blank_line", "10%", 150);
}

enum { T = 16, ROWS = 3 };
typedef struct arrays {
    i32 tokens[8 * T], targets[8 * T], doc_start[8 * T], position[8 * T];
    batch b;
} arrays;

static arrays *new_arrays(void)
{
    arrays *a = calloc(1, sizeof *a);
    a->b = (batch){
        .tokens = a->tokens, .targets = a->targets, .doc_start = a->doc_start, .position = a->position};
    return a;
}

static const loader_options shuffled = {.context = T,
                                        .rows = ROWS,
                                        .seed = 3,
                                        .shuffle = true,
                                        .document_mask = true,
                                        .mask_boundary_loss = true};

/* Every sample once an epoch, and each row is what the definition says, checked against the stream itself. */
static void test_rows(void **state)
{
    (void)state;
    dataset *d = make_dataset(60);
    const i64 n = dataset_tokens(d, DATA_TRAIN), samples = (n - 1) / T;
    assert_true(dataset_shards(d, DATA_TRAIN) > 3);
    i32 *stream = malloc((size_t)n * 4);
    dataset_read(d, DATA_TRAIN, 0, n, stream);
    for (int variant = 0; variant < 4; variant++) {
        loader_options o = shuffled;
        o.rows = 1, o.document_mask = variant > 0, o.mask_boundary_loss = variant != 2,
        o.shuffle = variant != 3;
        loader *l;
        assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
        assert_int_equal(loader_samples(l), samples);
        arrays *a = new_arrays();
        u8 *seen = calloc((size_t)samples, 1);
        for (i64 g = 0; g < 2 * samples; g++) {
            assert_int_equal(loader_tell(l), g);
            assert_int_equal(loader_epoch(l), g / samples);
            loader_next(l, &a->b);
            assert_int_equal(a->b.index, g);
            i64 i = o.shuffle ? order_at(3, g / samples, samples, g % samples) : g % samples, at = i * T,
                start = 0, valid = 0, bytes = 0;
            seen[i]++;
            for (i64 t = 0; t < T; t++) {
                if (o.document_mask && t && stream[at + t - 1] == TOY_EOS) start = t;
                bool masked = o.document_mask && o.mask_boundary_loss && stream[at + t] == TOY_EOS;
                assert_int_equal(a->tokens[t], stream[at + t]);
                assert_int_equal(a->targets[t], masked ? -1 : stream[at + t + 1]);
                assert_int_equal(a->doc_start[t], start);
                assert_int_equal(a->position[t], t - start);
                valid += !masked;
                if (!masked)
                    bytes += stream[at + t + 1] == TOY_THE ? 3 : stream[at + t + 1] == TOY_EOS ? 0 : 1;
            }
            assert_int_equal(a->b.n_valid, valid);
            assert_int_equal(a->b.bytes, bytes);
            assert_int_equal(a->b.rows, 1);
        }
        for (i64 i = 0; i < samples; i++) assert_int_equal(seen[i], 2);
        free(seen);
        free(a);
        loader_close(l);
    }
    free(stream);
    dataset_close(d);
}

/* The masks of one row, by hand. Documents "ab", "c", "the": a b # c # T #, T = 6. */
static void test_mask_by_hand(void **state)
{
    (void)state;
    dataset *d = toy_dataset("shards", toy_text("text", "ab|c|the"), "|", "0", 0);
    loader_options o = {.context = 6, .rows = 1, .document_mask = true, .mask_boundary_loss = true};
    loader *l;
    arrays *a = new_arrays();
    assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
    loader_next(l, &a->b);
    assert_memory_equal(a->tokens, ((i32[]){'a', 'b', TOY_EOS, 'c', TOY_EOS, TOY_THE}), 24);
    assert_memory_equal(a->targets, ((i32[]){'b', TOY_EOS, -1, TOY_EOS, -1, TOY_EOS}), 24);
    assert_memory_equal(a->doc_start, ((i32[]){0, 0, 0, 3, 3, 5}), 24);
    assert_memory_equal(a->position, ((i32[]){0, 1, 2, 0, 1, 0}), 24);
    assert_int_equal(a->b.n_valid, 4);
    assert_int_equal(a->b.bytes, 1);
    loader_close(l);
    o.mask_boundary_loss = false;
    assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
    a->b.doc_start = a->b.position = NULL; // may be left out
    loader_next(l, &a->b);
    assert_memory_equal(a->targets, ((i32[]){'b', TOY_EOS, 'c', TOY_EOS, TOY_THE, TOY_EOS}), 24);
    assert_int_equal(a->b.bytes, 1 + 1 + 3);
    loader_close(l);
    free(a);
    dataset_close(d);
}

/* Stop anywhere, close, open again, seek: the same batches, bit for bit, over the end of an epoch too. */
static void test_resume(void **state)
{
    (void)state;
    dataset *d = make_dataset(40);
    loader *l, *again;
    enum { CALLS = 40 };
    arrays *all[CALLS], *a = new_arrays();
    assert_ok(loader_open(d, DATA_TRAIN, &shuffled, &l));
    assert_true(loader_samples(l) < CALLS * ROWS / 2);
    i64 at[CALLS];
    for (int i = 0; i < CALLS; i++) {
        at[i] = loader_tell(l);
        all[i] = new_arrays();
        loader_next(l, &all[i]->b);
    }
    for (int stop = 0; stop < CALLS; stop++) {
        assert_ok(loader_open(d, DATA_TRAIN, &shuffled, &again));
        if (stop % 3) loader_next(again, &a->b); // what was read ahead must not come out
        assert_ok(loader_seek(again, at[stop]));
        for (int i = stop; i < CALLS; i++) {
            assert_int_equal(loader_tell(again), at[i]);
            loader_next(again, &a->b);
            assert_memory_equal(a->tokens, all[i]->tokens, sizeof a->tokens * ROWS / 8);
            assert_memory_equal(a->targets, all[i]->targets, sizeof a->tokens * ROWS / 8);
            assert_memory_equal(a->doc_start, all[i]->doc_start, sizeof a->tokens * ROWS / 8);
            assert_memory_equal(a->position, all[i]->position, sizeof a->tokens * ROWS / 8);
            assert_int_equal(a->b.n_valid, all[i]->b.n_valid);
            assert_int_equal(a->b.bytes, all[i]->b.bytes);
        }
        loader_close(again);
    }
    for (int i = 0; i < 2000; i++) assert_ok(loader_seek(l, i * 7 % 90)); // seeks that race with the thread
    assert_ok(loader_seek(l, at[5]));
    loader_next(l, &a->b);
    assert_memory_equal(a->tokens, all[5]->tokens, sizeof a->tokens * ROWS / 8);
    assert_fails(loader_seek(l, -1), ERR_INPUT,
                 "data position -1: must be 0 or more; the checkpoint is of another program or damaged");
    loader_close(l);
    for (int i = 0; i < CALLS; i++) free(all[i]);
    free(a);
    dataset_close(d);
}

/* A step of 8 samples, by 1, 2 or 4 ranks and 1, 2, 4 calls: the same rows, and the same position after it.
 */
static void test_ranks(void **state)
{
    (void)state;
    dataset *d = make_dataset(40);
    enum { STEPS = 9, G = 8 };
    i32 *rows = malloc(sizeof(i32) * STEPS * G * T);
    int seen[STEPS * G] = {0};
    for (int ranks = 1; ranks <= 4; ranks *= 2)
        for (int calls = 1; calls * ranks <= G; calls *= 2)
            for (int rank = 0; rank < ranks; rank++) {
                loader_options o = shuffled;
                o.ranks = ranks, o.rank = rank, o.rows = G / ranks / calls;
                loader *l;
                arrays *a = new_arrays();
                assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
                for (int step = 0; step < STEPS; step++) {
                    for (int call = 0; call < calls; call++) {
                        loader_next(l, &a->b);
                        for (i64 r = 0; r < o.rows; r++) {
                            i64 g = a->b.index + r;
                            assert_in_range(g, step * G, step * G + G - 1);
                            if (ranks == 1 && calls == 1)
                                memcpy(rows + g * T, a->tokens + r * T, T * sizeof(i32));
                            else {
                                assert_memory_equal(rows + g * T, a->tokens + r * T, T * sizeof(i32));
                                seen[g]++;
                            }
                        }
                    }
                    assert_int_equal(loader_tell(l), (step + 1) * G);
                }
                loader_close(l);
                free(a);
            }
    // Seen again once for each other (ranks, calls): 3 + 3 + 2 with ranks 1, 2, 4.
    for (i64 g = 0; g < STEPS * G; g++) assert_int_equal(seen[g], 3 + 3 + 2);
    free(rows);
    dataset_close(d);
}

/* One epoch in order: every target once, the last batch padded, then nothing. */
static void test_once(void **state)
{
    (void)state;
    dataset *d = make_dataset(30);
    loader_options o = {.context = T, .rows = 7, .once = true, .document_mask = true};
    loader *l;
    arrays *a = new_arrays();
    assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
    i64 rows = 0, valid = 0, samples = loader_samples(l);
    assert_true(samples % 7 != 0);
    for (;;) {
        loader_next(l, &a->b);
        if (!a->b.rows) break;
        for (i64 t = a->b.rows * T; t < 7 * T; t++) {
            assert_int_equal(a->tokens[t], TOY_EOS);
            assert_int_equal(a->targets[t], -1);
            assert_int_equal(a->position[t], t % T);
        }
        rows += a->b.rows, valid += a->b.n_valid;
    }
    assert_int_equal(rows, samples);
    assert_int_equal(valid, samples * T);
    loader_close(l);
    free(a);
    dataset_close(d);
}

static void test_refusals(void **state)
{
    (void)state;
    dataset *d = toy_dataset("shards", toy_text("text", "nine char"), "file", "0", 0); // 10 tokens
    loader *l;
    loader_options o = {.context = 10, .rows = 1};
    char wanted[512];
    snprintf(wanted, sizeof wanted,
             "%s: its train split has 10 tokens, a sample needs 11 (context + 1); give more text, a smaller "
             "context or a larger data.validation",
             toy_path("shards"));
    assert_fails(loader_open(d, DATA_TRAIN, &o, &l), ERR_INPUT, wanted);
    snprintf(wanted, sizeof wanted,
             "%s: its validation split has 0 tokens, a sample needs 11 (context + 1); give more text, a "
             "smaller context or a larger data.validation",
             toy_path("shards"));
    assert_fails(loader_open(d, DATA_VALIDATION, &o, &l), ERR_INPUT, wanted);
    o.context = 0;
    assert_fails(loader_open(d, DATA_TRAIN, &o, &l), ERR_CONFIG,
                 "context is 0; it must be from 1 to 2^24 tokens");
    o = (loader_options){.context = 1, .rows = 0};
    assert_fails(loader_open(d, DATA_TRAIN, &o, &l), ERR_CONFIG, "rows a call: 0; it must be from 1 to 2^20");
    o = (loader_options){.context = 1, .rows = 1, .ranks = 2, .rank = 2};
    assert_fails(loader_open(d, DATA_TRAIN, &o, &l), ERR_CONFIG,
                 "rank 2 of 2; it must be from 0 to ranks - 1");
    o = (loader_options){.context = 9, .rows = 1};
    assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
    assert_int_equal(loader_samples(l), 1);
    loader_close(l);
    for (i64 k = 1; k <= 4; k++) { // every allocation, and the thread
        fault_set(FAULT_ALLOC, k);
        status s = loader_open(d, DATA_TRAIN, &o, &l);
        fault_set(FAULT_ALLOC, 0);
        assert_non_null(s);
        assert_int_equal(s->code, ERR_MEMORY);
        status_drop(s);
    }
    dataset_close(d);
}

/* ---- packing */

static void test_best_fit(void **state)
{
    (void)state;
    static const i32 length[] = {7, 5, 4, 4, 3, 3, 2, 2};
    static const i64 wanted[] = {0, 1, 1, 2, 0, 2, 2, 3}; // {7,3} {5,4} {4,3,2} {2}
    i64 bin[8], bins;
    assert_ok(best_fit(length, 8, 10, bin, &bins));
    assert_int_equal(bins, 4);
    assert_memory_equal(bin, wanted, sizeof wanted);
    assert_ok(best_fit(length, 0, 10, bin, &bins));
    assert_int_equal(bins, 0);
    // Against the plain definition: sort, then look at every bin.
    for (u64 seed = 0; seed < 200; seed++) {
        enum { MOST = 300 };
        const i64 n = (i64)(random_bits(seed, 1, 0, 0) % MOST),
                  room = 1 + (i64)(random_bits(seed, 1, 0, 1) % 200);
        i32 item[MOST];
        i64 got[MOST], left[MOST], order[MOST], open = 0;
        for (i64 i = 0; i < n; i++)
            item[i] = 1 + (i32)(random_bits(seed, 2, 0, (u64)i) % (u64)room), order[i] = i;
        for (i64 i = 1; i < n; i++) // a stable insertion sort
            for (i64 k = i; k && item[order[k]] > item[order[k - 1]]; k--) {
                i64 swap = order[k];
                order[k] = order[k - 1], order[k - 1] = swap;
            }
        assert_ok(best_fit(item, n, room, got, &bins));
        for (i64 k = 0; k < n; k++) {
            i64 best = -1;
            for (i64 b = 0; b < open; b++)
                if (left[b] >= item[order[k]] && (best < 0 || left[b] < left[best])) best = b;
            if (best < 0) left[best = open++] = room;
            left[best] -= item[order[k]];
            assert_int_equal(got[order[k]], best);
        }
        assert_int_equal(open, bins);
    }
}

/* Every token once an epoch, targets within documents alone, few tokens of padding; and the kept table is the
 * same. */
static void test_packed_rows(void **state)
{
    (void)state;
    dataset *d = make_dataset(60);
    loader_options o = shuffled;
    o.best_fit = true, o.rows = 1, o.shuffle = false;
    arrays *a = new_arrays(), *again = new_arrays();
    loader *l, *kept;
    assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
    char table[512];
    snprintf(table, sizeof table, "%s/rows-%d.bin", dataset_folder(d), T);
    assert_true(path_exists(table));
    assert_ok(loader_open(d, DATA_TRAIN, &o, &kept));
    const i64 all = dataset_tokens(d, DATA_TRAIN), rows = loader_samples(l);
    row_table r;
    u8 *seen = calloc((size_t)all, 1);
    assert_ok(rows_open(d, -1, T, &r));
    assert_int_equal(r.rows, rows);
    for (i64 row = 0; row < rows; row++) {
        i64 t = 0, n_valid = 0;
        loader_next(l, &a->b);
        loader_next(kept, &again->b);
        assert_memory_equal(a->tokens, again->tokens, T * sizeof(i32));
        for (i64 p = r.first[row]; p < r.first[row + 1]; p++)
            for (i64 i = 0; i < r.tokens[p]; i++, t++) {
                i32 here[2] = {0};
                const i64 at = r.at[p] + i;
                dataset_read(d, DATA_TRAIN, at, MIN(2, all - at), here);
                assert_false(seen[at]++);
                assert_int_equal(a->tokens[t], here[0]);
                assert_int_equal(a->targets[t],
                                 here[0] == TOY_EOS ? -1 : here[1]); // within the document alone
                assert_int_equal(a->position[t], i);
                assert_int_equal(a->doc_start[t], t - i);
                n_valid += here[0] != TOY_EOS;
            }
        for (i64 start = t; t < T; t++) {
            assert_true(a->tokens[t] == TOY_EOS && a->targets[t] == -1);
            assert_true(a->doc_start[t] == start && a->position[t] == t - start);
        }
        assert_int_equal(a->b.n_valid, n_valid);
    }
    for (i64 i = 0; i < all; i++) assert_int_equal(seen[i], 1); // every token once
    assert_true(rows <= (all + T - 1) / T * 11 / 9 + 1);
    free(seen);
    rows_close(&r);
    loader_close(l);
    loader_close(kept);

    // A damaged table is made again, whatever byte it is.
    for (i64 at = 0; at < 200; at += 7) {
        FILE *f = fopen(table, "r+");
        fseek(f, at, SEEK_SET);
        int c = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(c ^ 0x11, f);
        fclose(f);
        assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
        assert_int_equal(loader_samples(l), rows);
        loader_close(l);
    }
    // Without the masks the next document's first token is the target of the end of the one before.
    o.document_mask = false;
    assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
    i64 crossed = 0;
    for (i64 row = 0; row < rows; row++) {
        loader_next(l, &a->b);
        for (i64 t = 0; t + 1 < T; t++)
            if (a->tokens[t] == TOY_EOS && a->targets[t] >= 0)
                assert_int_equal(a->targets[t], a->tokens[t + 1]), crossed++;
    }
    assert_true(crossed > 0);
    loader_close(l);
    assert_fails(loader_open(d, DATA_VALIDATION, &o, &l), ERR_CONFIG,
                 "mixtures and packing are for the train split");
    free(a);
    free(again);
    dataset_close(d);
}

/* ---- mixtures */

static void test_quota(void **state)
{
    (void)state;
    static const double two[] = {0.7, 0.3};
    quota q, far;
    i64 source, nth;
    assert_ok(quota_open(two, 2, &q));
    assert_int_equal(q.unit[0], 700000);
    static const i64 wanted[] = {0, 1, 0, 0, 0, 1, 0, 0, 1, 0}; // at the fifth both are due: the first
    i64 used[QUOTA_SOURCES] = {0};
    for (i64 i = 0; i < 10; i++) {
        quota_at(&q, i, &source, &nth);
        assert_int_equal(nth, used[source]++);
        assert_int_equal(source, wanted[i]);
    }
    for (i64 k = 2; k <= 12; k++) { // every beginning holds every share, within the theorem's bound
        double weight[QUOTA_SOURCES];
        for (i64 j = 0; j < k; j++) weight[j] = 1 + (double)(random_bits((u64)k, 3, 0, (u64)j) % 1000);
        assert_ok(quota_open(weight, k, &q));
        memset(used, 0, sizeof used);
        for (i64 n = 0; n < 20000; n++) {
            quota_at(&q, n, &source, &nth);
            assert_int_equal(nth, used[source]++);
            for (i64 j = 0; j < k; j++) {
                double due = (double)q.unit[j] / QUOTA_UNITS * (double)(n + 1) - (double)used[j];
                assert_true(fabs(due) <= 1 - 1 / (2.0 * (double)k - 2) + 1e-9);
            }
        }
    }
    // Any position, asked at once or walked to; also beyond a million turns, and going back.
    assert_ok(quota_open((double[]){3, 2, 1}, 3, &q));
    assert_ok(quota_open((double[]){3, 2, 1}, 3, &far));
    static const i64 places[] = {5, 999999, 1000000, 1000001, 2500000, 3, (i64)1 << 40};
    for (i64 i = 0; i < COUNT(places); i++) {
        i64 s2, n2;
        quota_at(&q, places[i], &source, &nth);
        if (places[i] % QUOTA_UNITS) quota_at(&far, places[i] - 1, &s2, &n2);
        quota_at(&far, places[i], &s2, &n2);
        assert_true(source == s2 && nth == n2);
    }
    assert_fails(quota_open(two, 0, &q), ERR_CONFIG, "a mixture of 0 sources; it must have 1 to 64");
    assert_fails(quota_open((double[]){1, 0}, 2, &q), ERR_CONFIG,
                 "weight 2 of the mixture is 0 of 1 in all; it must be at least a millionth");
    assert_fails(quota_open((double[]){1e9, 1}, 2, &q), ERR_CONFIG,
                 "weight 2 of the mixture is 1 of 1e+09 in all; it must be at least a millionth");
}

static void repeat_text(const char *name, char letter, int n)
{
    text t = {0};
    for (int i = 0; i < n; i++) text_add(&t, "%c%c%c%c\n", letter, letter, letter, letter);
    toy_file(name, t.data, t.bytes);
    text_free(&t);
}

static i64 source_of_row(const i32 *tokens)
{
    while (*tokens < 'A' || *tokens > 'C') tokens++; // a newline, or an end of text
    return *tokens - 'A';
}

/* Three texts, each of one letter: shares are exact, every source has its own epochs, and any position
 * resumes. */
static void test_mixture(void **state)
{
    (void)state;
    enum { N = 300 };
    repeat_text("a", 'A', 100), repeat_text("b", 'B', 40), repeat_text("c", 'C', 1000);
    char path[3][512], out[512];
    for (int i = 0; i < 3; i++)
        snprintf(path[i], sizeof path[i], "%s", toy_path((const char *[]){"a", "b", "c"}[i]));
    const char *const train[] = {path[0], path[1], path[2]};
    token_source source = toy_tokens();
    dataset *d;
    snprintf(out, sizeof out, "%s", toy_path("mix"));
    assert_ok(dataset_build(
        &(build_options){.train = train, .train_count = 3, .validation = "0", .out = out, .mixture = true},
        &source, NULL));
    assert_ok(dataset_open(out, &d));
    assert_int_equal(dataset_sources(d), 3);
    i64 start, tokens;
    dataset_source(d, 1, &start, &tokens);
    assert_true(start == 501 && tokens == 201);
    static const double weight[] = {0.5, 0.3, 0.2};
    for (int packed = 0; packed < 2; packed++) {
        loader_options o = shuffled;
        o.rows = 1, o.weight = weight, o.weights = 3, o.best_fit = packed;
        loader *l;
        arrays *a = new_arrays();
        i32(*seen)[T] = calloc(N, sizeof *seen);
        i64 used[3] = {0};
        assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
        assert_true(loader_source_epochs(l, 1, N) > 5); // 90 rows of 12 samples
        for (i64 i = 0; i < N; i++) {
            loader_next(l, &a->b);
            memcpy(seen[i], a->tokens, sizeof seen[i]);
            used[source_of_row(a->tokens)]++;
            for (int j = 0; j < 3; j++) assert_true(fabs((double)used[j] - weight[j] * (double)(i + 1)) < 1);
        }
        assert_true(used[0] == N / 2 && used[1] == N * 3 / 10 && used[2] == N / 5);
        for (i64 at = 0; at < N; at += 37) { // resumed anywhere, forwards and backwards
            assert_ok(loader_seek(l, N - 1 - at));
            loader_next(l, &a->b);
            assert_memory_equal(a->tokens, seen[N - 1 - at], sizeof seen[0]);
        }
        loader_close(l);
        o.rows = 2, o.ranks = 3, o.rank = 1; // a rank's share of the same batches
        assert_ok(loader_open(d, DATA_TRAIN, &o, &l));
        for (i64 step = 0; step < 10; step++) {
            loader_next(l, &a->b);
            assert_int_equal(a->b.index, step * 6 + 2);
            assert_memory_equal(a->tokens, seen[step * 6 + 2], sizeof seen[0]);
            assert_memory_equal(a->tokens + T, seen[step * 6 + 3], sizeof seen[0]);
        }
        loader_close(l);
        free(seen);
        free(a);
    }
    loader_options o = shuffled;
    loader *l;
    char wanted[1024];
    o.weight = weight, o.weights = 2;
    snprintf(wanted, sizeof wanted, "%s: 2 weights for 3 sources of data: a weight for each", out);
    assert_fails(loader_open(d, DATA_TRAIN, &o, &l), ERR_CONFIG, wanted);
    o.weights = 3, o.context = 300;
    snprintf(wanted, sizeof wanted,
             "%s: source 2 of the mixture in its train split has 201 tokens, a sample needs 301 (context + "
             "1); give more "
             "text, a smaller context or a larger data.validation",
             out);
    assert_fails(loader_open(d, DATA_TRAIN, &o, &l), ERR_INPUT, wanted);
    dataset_close(d);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_order),       TEST(test_rows),  TEST(test_mask_by_hand), TEST(test_resume),
        TEST(test_ranks),       TEST(test_once),  TEST(test_refusals),     TEST(test_best_fit),
        TEST(test_packed_rows), TEST(test_quota), TEST(test_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
