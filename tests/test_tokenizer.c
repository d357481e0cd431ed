/* Training and encoding: the vectors of the trainer's rule, the laws of encoding, special tokens, memory. */
#include "base/file.h"
#include "text/tokenizer_impl.h"
#include "text_case.h"
#include <stdio.h>
#include <stdlib.h>

/* "e+s es+t": the merges of T, spelled in bytes with '_' for a blank. */
static void spell_merges(const tokenizer *t, char *out)
{
    *out = 0;
    for (i64 i = 0; i < t->merges; i++) {
        token_bytes a = t->token[t->merge[i].left], b = t->token[t->merge[i].right],
                    c = t->token[t->merge[i].id];
        assert_int_equal(a.bytes + b.bytes, c.bytes);
        char *from = out;
        out += sprintf(out, "%s%.*s+%.*s", i ? " " : "", (int)a.bytes, a.data, (int)b.bytes, b.data);
        for (char *p = from + (i > 0); p < out; p++)
            if (*p == ' ') *p = '_';
    }
}

static void test_training_vectors(void **state)
{
    (void)state;
    char got[600];
    tokenizer *t = train_on(
        "low low low low low lower lower newest newest newest newest newest newest widest widest widest", 1,
        1 + 256 + 14);
    spell_merges(t, got);
    assert_string_equal(got,
                        "e+s es+t l+o lo+w e+w n+ew _+low _+new _new+est d+est i+dest w+idest _+widest e+r");
    assert_int_equal(tokenizer_vocab(t), 271);
    for (i64 i = 0; i < t->merges; i++) assert_int_equal(t->merge[i].id, 257 + i);
    tokenizer_close(t);

    t = train_on("aaaa aaa aa a", 1, 1000); // overlapping counts, greedy from the left; then no pair is left
    spell_merges(t, got);
    assert_string_equal(got, "a+a _+aa _+a aa+aa _aa+a");
    assert_int_equal(tokenizer_vocab(t), 262);
    tokenizer_close(t);

    bpe_trainer *b; // counts: are 2, is 2, all others 1
    static const char *const words[] = {"roses", "are", "red", "voilets", "are", "blue", "BERT",
                                        "is",    "big", "and", "so",      "is",  "GPT-2"};
    assert_ok(bpe_trainer_open(&(bpe_options){.vocab = 500, .min_frequency = 2}, &b));
    for (i64 i = 0; i < COUNT(words); i++) assert_ok(bpe_trainer_add(b, words[i], strlen(words[i])));
    bpe_stats stats;
    assert_ok(bpe_trainer_finish(b, &t, &stats));
    bpe_trainer_close(b);
    spell_merges(t, got);
    assert_string_equal(got, "r+e a+re i+s");
    assert_int_equal(stats.documents, 13);
    assert_int_equal(stats.pieces, 15); // GPT-2 is three
    assert_int_equal(stats.words, 13);
    tokenizer_close(t);
}

static void test_layout(void **state)
{
    (void)state;
    tokenizer *t = train_on("ab ab", 1, 258);
    assert_int_equal(tokenizer_special(t, "<|endoftext|>"), 0);
    assert_int_equal(tokenizer_special(t, "<|pad|>"), -1);
    assert_int_equal(tokenizer_decode(t, 1).data[0], '!');
    assert_int_equal((u8)tokenizer_decode(t, 256).data[0], 173);
    assert_null(tokenizer_decode(t, -1).data);
    assert_null(tokenizer_decode(t, 258).data);
    assert_string_equal(tokenizer_pattern(t), "gpt2");
    tokenizer_close(t);
}

/* The plain definition of training, without increments, against which the trainer is compared. */
static i64 naive_merges(const char *const *words, const u64 *counts, i64 n, i64 most, i64 least,
                        i32 (*merges)[2])
{
    i32 symbols[64][64];
    i64 length[64], made = 0;
    for (i64 w = 0; w < n; w++) {
        length[w] = (i64)strlen(words[w]);
        for (i64 i = 0; i < length[w]; i++) symbols[w][i] = (u8)words[w][i];
    }
    for (; made < most; made++) {
        i64 best = 0, left = 0, right = 0;
        for (i32 a = 0; a < 256 + made; a++)
            for (i32 b = 0; b < 256 + made; b++) {
                i64 count = 0;
                for (i64 w = 0; w < n; w++)
                    for (i64 i = 0; i + 1 < length[w]; i++)
                        if (symbols[w][i] == a && symbols[w][i + 1] == b) count += (i64)counts[w];
                if (count > best) best = count, left = a, right = b;
            }
        if (best < least) break;
        merges[made][0] = (i32)left, merges[made][1] = (i32)right;
        for (i64 w = 0; w < n; w++) {
            i64 to = 0;
            for (i64 i = 0; i < length[w]; i++, to++) {
                bool hit = i + 1 < length[w] && symbols[w][i] == left && symbols[w][i + 1] == right;
                symbols[w][to] = hit ? (i32)(256 + made) : symbols[w][i];
                i += hit;
            }
            length[w] = to;
        }
    }
    return made;
}

static void test_against_definition(void **state)
{
    (void)state;
    for (u64 seed = 0; seed < 30; seed++) {
        char words[12][20];
        const char *word[12];
        u64 counts[12];
        i32 merges[30][2];
        bpe_trainer *b;
        tokenizer *t;
        assert_ok(bpe_trainer_open(
            &(bpe_options){.vocab = 256 + 30, .min_frequency = 1, .specials = (const char *[]){NULL}}, &b));
        for (u64 w = 0; w < 12;
             w++) { // over "abc", so that pairs overlap and tie; distinct by their last letter
            u64 n = 1 + draw(seed, 100 + w, 17);
            for (u64 i = 0; i < n; i++) words[w][i] = (char)('a' + draw(seed, w * 64 + i, 3));
            words[w][n] = (char)('d' + w), words[w][n + 1] = 0;
            word[w] = words[w], counts[w] = 1 + draw(seed, 200 + w, 4);
            for (u64 c = 0; c < counts[w]; c++) assert_ok(bpe_trainer_add(b, words[w], n + 1));
        }
        assert_ok(bpe_trainer_finish(b, &t, NULL));
        bpe_trainer_close(b);
        i64 made = naive_merges(word, counts, 12, 30, 1, merges);
        // The two agree but where a string arises in a second way, which takes no new id: stop comparing
        // there.
        for (i64 i = 0; i < MIN(made, t->merges) && t->merge[i].id == 256 + i; i++) {
            char naive[2], trained[2];
            for (int side = 0; side < 2; side++) {
                i32 id = side ? t->merge[i].right : t->merge[i].left;
                naive[side] = 0, trained[side] = 0;
                if (merges[i][side] >= 256)
                    assert_int_equal(id, merges[i][side]);
                else {
                    naive[side] = (char)merges[i][side], trained[side] = t->token[id].data[0];
                    assert_int_equal(t->token[id].bytes, 1);
                    assert_int_equal(naive[side], trained[side]);
                }
            }
        }
        assert_true(t->merges >= 20);
        tokenizer_close(t);
    }
}

/* Text whose words follow a skewed law, so that merges are learned: N bytes at most. */
static size_t skewed_text(u64 seed, char *out, size_t n)
{
    size_t at = 0;
    for (u64 i = 0; at + 16 < n; i++) {
        u64 word = draw(seed, i, 1 + draw(seed, i + (1 << 20), 3000)), length = 2 + word % 7;
        for (u64 k = 0; k < length; k++) out[at++] = (char)('a' + (word * 31 + k * k * (word % 11 + 1)) % 26);
        out[at++] = i % 13 ? ' ' : '\n';
    }
    return at;
}

static void test_threads(void **state)
{
    (void)state;
    size_t room = 1500 << 10;
    char *text = malloc(room);
    size_t n = skewed_text(3, text, room);
    u64 hash = 0;
    for (int threads = 1; threads <= 8; threads *= 2) {
        bpe_stats stats;
        tokenizer *t = train_with((bpe_options){.vocab = 2000, .threads = threads}, text, n, &stats);
        assert_true(stats.words > 1000);
        assert_int_equal(stats.counted_bytes, n);
        if (threads == 1) hash = tokenizer_hash(t);
        assert_int_equal(tokenizer_hash(t), hash);
        token_list ids = {0};
        assert_ok(tokenizer_encode(t, text, n, SPECIAL_PLAIN, &ids));
        assert_int_equal(ids.count, stats.tokens); // training and encoding cut words alike
        token_list_free(&ids);
        tokenizer_close(t);
    }
    free(text);
}

/* More distinct words than the cap allows: rare ones go, the same for any number of threads. */
static void test_memory_cap(void **state)
{
    (void)state;
    size_t room = 4 << 20, n = 0;
    char *text = malloc(room);
    for (u64 i = 0; n + 32 < room; i++) {
        u64 word = i % 8 ? draw(5, i, (u64)1 << 40) : draw(5, i, 50);
        do text[n++] = (char)('a' + word % 26);
        while (word /= 26);
        text[n++] = ' ';
    }
    u64 hash = 0;
    for (int threads = 1; threads <= 3; threads += 2) {
        bpe_stats stats;
        tokenizer *t = train_with((bpe_options){.vocab = 400, .threads = threads, .memory_bytes = 16 << 20},
                                  text, n, &stats);
        assert_true(stats.words_dropped > 50000);
        assert_true(stats.pieces_dropped >= stats.words_dropped);
        assert_true(stats.words >= 50);
        assert_true(stats.working_bytes <= 16 << 20);
        if (threads == 1) hash = tokenizer_hash(t);
        assert_int_equal(tokenizer_hash(t), hash);
        tokenizer_close(t);
    }
    for (size_t i = 0; i < n; i++)
        text[i] = draw(6, i, 9) ? (char)('a' + draw(7, i, 26)) : '+'; // nowhere a safe place to cut
    assert_int_equal(bpe_safe_cut(text, n, 0), n);
    for (int threads = 1; threads <= 3; threads += 2) {
        bpe_stats stats;
        tokenizer *t = train_with((bpe_options){.vocab = 400, .threads = threads, .memory_bytes = 16 << 20},
                                  text, n, &stats);
        assert_true(stats.words_dropped > 10000);
        assert_true(stats.working_bytes <= 16 << 20);
        if (threads == 1) hash = tokenizer_hash(t);
        assert_int_equal(tokenizer_hash(t), hash);
        tokenizer_close(t);
    }
    free(text);
}

static tokenizer *shared_tokenizer(void)
{
    static char text[60000];
    size_t n = skewed_text(1, text, sizeof text / 2);
    random_text(11, text + n, sizeof text - n);
    return train_with((bpe_options){.vocab = 256 + 1 + 500, .min_frequency = 1}, text, sizeof text, NULL);
}

static void test_round_trip(void **state)
{
    (void)state;
    tokenizer *t = shared_tokenizer();
    encoder *e;
    assert_ok(encoder_open(t, &e));
    token_list ids = {0};
    char text[700];
    for (u64 seed = 0; seed < 3000; seed++) {
        size_t n = draw(seed, 5000, sizeof text);
        if (seed % 2)
            random_text(seed, text, n);
        else
            for (size_t i = 0; i < n; i++) text[i] = (char)draw(seed, i, 256);
        for (int mode = SPECIAL_PLAIN; mode <= SPECIAL_ALLOWED; mode++) {
            ids.count = 0;
            assert_ok(encoder_run(e, text, n, (special_mode)mode, &ids));
            assert_decodes(t, &ids, text, n);
        }
    }
    token_list_free(&ids);
    encoder_close(e);
    tokenizer_close(t);
}

/* The cache changes nothing, scan and heap agree, a text's ids are those of its pieces. */
static void test_ways_agree(void **state)
{
    (void)state;
    tokenizer *t = shared_tokenizer();
    encoder *e;
    splitter *s;
    bpe_scratch scratch = {0};
    token_list cached = {0};
    i32 scan[300], heap[300], fresh[4000];
    assert_ok(encoder_open(t, &e));
    assert_ok(splitter_open(t->stage[0].pattern, &s));
    for (u64 seed = 0; seed < 2000; seed++) {
        char text[300];
        i64 a, b, count = 0;
        size_t length = 1 + draw(seed, 9, 299), n = length;
        if (seed % 2)
            random_text(seed, text, n);
        else
            for (size_t i = 0; i < n; i++) text[i] = (char)('a' + draw(seed, i, 3));
        assert_ok(bpe_encode_heap(&t->bpe, &scratch, (u8 *)text, n, heap, &b));
        if (n <= 128) {
            assert_ok(bpe_encode_scan(&t->bpe, (u8 *)text, n, scan, &a));
            assert_int_equal(a, b);
            assert_memory_equal(scan, heap, (size_t)a * sizeof(i32));
        }
        splitter_start(s, text, n);
        for (const u8 *piece;;) {
            assert_ok(splitter_next(s, &piece, &n));
            if (!n) break;
            assert_ok(bpe_encode_heap(&t->bpe, &scratch, piece, n, fresh + count, &a));
            count += a;
        }
        for (int again = 0; again < 2; again++) {
            cached.count = 0;
            assert_ok(encoder_run(e, text, length, SPECIAL_PLAIN, &cached));
            assert_int_equal(cached.count, count);
            assert_memory_equal(cached.id, fresh, (size_t)count * sizeof(i32));
        }
    }
    token_list_free(&cached);
    bpe_scratch_free(&scratch);
    splitter_close(s);
    encoder_close(e);
    tokenizer_close(t);
}

static void test_stress(void **state)
{
    (void)state;
    tokenizer *t = train_on("xxxxxxxxxxxxxxxx aaaa 0000 ^^^^ 's's's      \n\n\n\n", 1, 400);
    size_t n = 1000000;
    char *text = malloc(n);
    token_list ids = {0};
    for (const char *c = "x^0as \n\xFF"; *c; c++) {
        memset(text, *c, n);
        ids.count = 0;
        assert_ok(tokenizer_encode(t, text, n, SPECIAL_PLAIN, &ids));
        assert_decodes(t, &ids, text, n);
    }
    tokenizer_close(t);
    for (size_t i = 0; i < n; i++) text[i] = (char)('a' + draw(2, i, 26)); // one word of a million letters
    t = train_with((bpe_options){.vocab = 4000}, text, n, NULL);
    assert_int_equal(tokenizer_vocab(t), 4000);
    tokenizer_close(t);
    token_list_free(&ids);
    free(text);
}

static void test_special_modes(void **state)
{
    (void)state;
    static const char *const specials[] = {"<|a|>", "<|a|>b", "<|endoftext|>", "\xC3\xA9 x"};
    tokenizer *t =
        train_with((bpe_options){.vocab = 300, .specials = specials, .special_count = 4}, "hi hi", 5, NULL);
    token_list ids = {0};
    const char *text = "hi<|a|>b<|a|><|endoftext|>\xC3\xA9 x<|";
    assert_ok(tokenizer_encode(t, text, strlen(text), SPECIAL_ALLOWED, &ids));
    i32 hi = ids.id[0]; // longest first: <|a|>b before <|a|>
    assert_int_equal(tokenizer_decode(t, hi).bytes, 2);
    assert_int_equal(ids.count, 7);
    assert_int_equal(ids.id[1], 1);
    assert_int_equal(ids.id[2], 0);
    assert_int_equal(ids.id[3], 2);
    assert_int_equal(ids.id[4], 3);
    assert_decodes(t, &ids, text, strlen(text));
    ids.count = 1; // appends, and takes back what a failure added
    assert_fails(tokenizer_encode(t, text, strlen(text), SPECIAL_FORBID, &ids), ERR_INPUT,
                 "the text holds the special token '<|a|>b' at byte 2: allow special tokens, or take them as "
                 "plain text");
    assert_int_equal(ids.count, 1);
    assert_ok(tokenizer_encode(t, "<|a|", 4, SPECIAL_FORBID, &ids));
    assert_int_equal(ids.count, 5);
    ids.count = 0;
    assert_ok(tokenizer_encode(t, text, strlen(text), SPECIAL_PLAIN, &ids));
    for (i64 i = 0; i < ids.count; i++) assert_true(ids.id[i] >= 4);
    assert_ok(tokenizer_encode(t, NULL, 0, SPECIAL_PLAIN, &ids));
    token_list_free(&ids);
    tokenizer_close(t);
}

/* No merge may spell a special token, or plain text would become one. */
static void test_reserved(void **state)
{
    (void)state;
    static const char *const specials[] = {"hello"};
    tokenizer *t =
        train_with((bpe_options){.vocab = 400, .min_frequency = 1, .specials = specials, .special_count = 1},
                   "hello hello hello", 17, NULL);
    token_list ids = {0};
    assert_ok(tokenizer_encode(t, "hello", 5, SPECIAL_PLAIN, &ids));
    assert_int_equal(ids.count, 2);
    for (i64 i = 0; i < t->merges; i++) assert_true(t->merge[i].id > 0);
    token_list_free(&ids);
    tokenizer_close(t);
}

static void test_bad_options(void **state)
{
    (void)state;
    bpe_trainer *b;
    const char *same[] = {"<a>", "<a>"}, *byte[] = {"\xC4\xA0"}, *broken[] = {"\xFF<"}, *empty[] = {""};
    assert_fails(bpe_trainer_open(&(bpe_options){.vocab = 256}, &b), ERR_CONFIG,
                 "a vocabulary of 256; it must be 257 (256 bytes + 1 special) to 16777216");
    assert_fails(bpe_trainer_open(&(bpe_options){.vocab = 1 << 25}, &b), ERR_CONFIG,
                 "a vocabulary of 33554432; it must be 257 (256 bytes + 1 special) to 16777216");
    assert_fails(bpe_trainer_open(&(bpe_options){.memory_bytes = 1000}, &b), ERR_CONFIG,
                 "tokenizer_memory is 1000 bytes; at least 16777216 (16Mi)");
    assert_fails(bpe_trainer_open(&(bpe_options){.threads = -1}, &b), ERR_CONFIG, "-1 threads; 1 to 4096");
    assert_fails(bpe_trainer_open(&(bpe_options){.min_frequency = -1}, &b), ERR_CONFIG,
                 "min_frequency is -1; at least 1");
    assert_fails(bpe_trainer_open(&(bpe_options){.pattern = "gpt3"}, &b), ERR_CONFIG,
                 "no pattern is named 'gpt3'; there are gpt2, cl100k, llama3, qwen2, o200k");
    assert_fails(bpe_trainer_open(&(bpe_options){.specials = same, .special_count = 2}, &b), ERR_CONFIG,
                 "special token '<a>' is given twice");
    assert_fails(bpe_trainer_open(&(bpe_options){.specials = byte, .special_count = 1}, &b), ERR_CONFIG,
                 "special token '\xC4\xA0' is spelled like a byte of the alphabet: choose a longer one");
    assert_fails(bpe_trainer_open(&(bpe_options){.specials = broken, .special_count = 1}, &b), ERR_CONFIG,
                 "special token 1 is not valid UTF-8");
    assert_fails(bpe_trainer_open(&(bpe_options){.specials = empty, .special_count = 1}, &b), ERR_CONFIG,
                 "special token 1 is empty");
}

/* Each allocation in turn fails: a clean status, no leak (under the sanitizer), and the next try works. */
static void test_no_memory(void **state)
{
    (void)state;
    char text[2000];
    size_t n = skewed_text(9, text, sizeof text);
    bool done = false;
    i64 k = 1;
    for (; !done; k++) {
        bpe_trainer *b = NULL;
        tokenizer *t = NULL;
        token_list ids = {0};
        fault_set(FAULT_ALLOC, k);
        status s = bpe_trainer_open(&(bpe_options){.vocab = 400, .threads = 1}, &b);
        if (!s) s = bpe_trainer_add(b, text, n);
        if (!s) s = bpe_trainer_finish(b, &t, NULL);
        if (!s) s = tokenizer_encode(t, text, n, SPECIAL_PLAIN, &ids);
        done = !s && fault_count(FAULT_ALLOC) < k;
        if (!done) assert_int_equal(s->code, ERR_MEMORY);
        status_drop(s);
        token_list_free(&ids);
        tokenizer_close(t);
        bpe_trainer_close(b);
    }
    fault_set(FAULT_ALLOC, 0);
    assert_true(k > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training_vectors),   cmocka_unit_test(test_layout),
        cmocka_unit_test(test_against_definition), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory_cap),         cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_ways_agree),         cmocka_unit_test(test_stress),
        cmocka_unit_test(test_special_modes),      cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_bad_options),        cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
