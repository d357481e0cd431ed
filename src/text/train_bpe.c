/* Training byte-level BPE: see train_bpe.h; the merges are learned in merge_learner.c.
 *
 * Counting is parallel: documents are gathered into batches, long ones cut where no piece can span, each
 * thread counts the segments it gets in tables of its own, and behind every batch the tables are added up, a
 * shard a thread. Memory is that of the distinct words. When their estimate passes the cap, rare words are
 * forgotten, those seen once first (Manku and Motwani's lossy counting, VLDB 2002): batches are the same for
 * any number of threads, so what is forgotten is too. The estimate charges a word what counting it and
 * learning from it take (WORD_BYTES + PLACE_BYTES a byte; measured: 55 % of that on English). */
#include "text/train_bpe.h"
#include "text/byte_alphabet.h"
#include "text/grow.h"
#include "text/merge_learner.h"
#include "text/pattern.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"
#include "text/word_count.h"
#include <omp.h>
#include <string.h>
#include <time.h>

enum { SHARDS = 16, SEGMENT = 256 << 10, WORD_BYTES = 112, PLACE_BYTES = 40 };
static const i64 LEAST_MEMORY = 16 << 20, GREATEST_BATCH = 16 << 20;

typedef struct segment {
    const char *text; // NULL: at AT in the trainer's pending text
    size_t at, bytes;
} segment;

typedef struct worker {
    splitter *splitter;
    word_table shard[SHARDS];
    u64 pieces;
    status failed;
} worker;

struct bpe_trainer {
    bpe_options o;
    int threads;
    size_t batch_bytes;
    pattern *pattern;
    worker *worker; // [threads]
    word_table shard[SHARDS];
    segment *segment;
    size_t segments, segment_capacity, gathered; // in this batch; bytes
    char *pending;                               // copies of short documents
    size_t pending_bytes, pending_capacity;
    bpe_stats stats;
};

static const char *const default_special = "<|endoftext|>";

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The bytes of a merge that would be spelled like SPECIAL, into OUT (room for its length); -1: none would. */
static i64 spelled_bytes(const char *special, u8 *out)
{
    return alphabet_decode(special, strlen(special), out);
}

static status check_special(const bpe_options *o, i64 i)
{
    const char *s = o->specials[i];
    size_t n = strlen(s);
    if (!n) return fail(ERR_CONFIG, "special token %lld is empty", (long long)i + 1);
    if (n > 1024) return fail(ERR_CONFIG, "special token '%.20s...' has %zu bytes; at most 1024", s, n);
    if (utf8_valid((const u8 *)s, n) != n)
        return fail(ERR_CONFIG, "special token %lld is not valid UTF-8", (long long)i + 1);
    u8 bytes[1024];
    if (spelled_bytes(s, bytes) == 1)
        return fail(ERR_CONFIG,
                    "special token '%s' is spelled like a byte of the alphabet: choose a longer one", s);
    for (i64 j = 0; j < i; j++)
        if (!strcmp(s, o->specials[j])) return fail(ERR_CONFIG, "special token '%s' is given twice", s);
    return OK;
}

static status check_options(const bpe_options *o)
{
    for (i64 i = 0; i < o->special_count; i++) TRY(check_special(o, i));
    i64 least = o->special_count + 256;
    if (o->vocab < least || o->vocab > MAX_VOCAB)
        return fail(ERR_CONFIG, "a vocabulary of %lld; it must be %lld (256 bytes + %lld special) to %d",
                    (long long)o->vocab, (long long)least, (long long)o->special_count, MAX_VOCAB);
    if (o->memory_bytes < LEAST_MEMORY)
        return fail(ERR_CONFIG, "tokenizer_memory is %lld bytes; at least %lld (16Mi)",
                    (long long)o->memory_bytes, (long long)LEAST_MEMORY);
    if (o->threads < 1 || o->threads > 4096) return fail(ERR_CONFIG, "%d threads; 1 to 4096", o->threads);
    if (o->min_frequency < 1)
        return fail(ERR_CONFIG, "min_frequency is %lld; at least 1", (long long)o->min_frequency);
    return OK;
}

status bpe_trainer_open(const bpe_options *options, bpe_trainer **out)
{
    bpe_options o = *options;
    if (!o.vocab) o.vocab = 16384;
    if (!o.specials) o.specials = &default_special, o.special_count = 1;
    if (!o.pattern) o.pattern = "gpt2";
    if (!o.threads) o.threads = omp_get_max_threads();
    if (!o.memory_bytes) o.memory_bytes = (i64)2 << 30;
    if (!o.min_frequency) o.min_frequency = 2;
    TRY(check_options(&o));
    bpe_trainer *b;
    TRY(mem_alloc(sizeof *b, "tokenizer trainer", &b));
    b->o = o;
    b->threads = o.threads;
    b->batch_bytes = (size_t)MIN(o.memory_bytes / 64, GREATEST_BATCH);
    status s = pattern_open(o.pattern, &b->pattern);
    if (!s) s = mem_alloc((size_t)b->threads * sizeof(worker), "tokenizer trainer", &b->worker);
    for (int t = 0; t < b->threads && !s; t++) s = splitter_open(b->pattern, &b->worker[t].splitter);
    if (s)
        bpe_trainer_close(b);
    else
        *out = b;
    return s;
}

void bpe_trainer_close(bpe_trainer *b)
{
    if (!b) return;
    for (int t = 0; t < b->threads && b->worker; t++) {
        splitter_close(b->worker[t].splitter);
        for (int k = 0; k < SHARDS; k++) word_table_free(&b->worker[t].shard[k]);
    }
    for (int k = 0; k < SHARDS; k++) word_table_free(&b->shard[k]);
    mem_free(b->worker);
    pattern_close(b->pattern);
    mem_free(b->segment);
    mem_free(b->pending);
    mem_free(b);
}

/* ---- where a text may be cut */
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Whether the character that ends before AT is visible: ASCII, or of three bytes (but for white space). */
static bool ink_before(const char *text, size_t at)
{
    if (at && text[at - 1] > ' ' && text[at - 1] < 127) return true;
    if (at < 3) return false;
    const u8 *c = (const u8 *)text + at - 3;
    return c[0] >= 0xE3 && utf8_character(c, 3) == 3 && !(c[0] == 0xE3 && c[1] == 0x80 && c[2] == 0x80);
}

size_t bpe_safe_cut(const char *text, size_t n, size_t from)
{
    // A single blank before a letter opens a piece; a single newline between ink and a letter is one, or ends
    // one.
    for (size_t at = MAX(from, (size_t)1); at + 1 < n; at++) {
        if (text[at] == ' ' && is_letter(text[at + 1]) && ink_before(text, at)) return at;
        bool opens = is_letter(text[at]) ||
                     ((u8)text[at] >= 0xE4 && utf8_character((const u8 *)text + at, n - at) == 3);
        if (opens && text[at - 1] == '\n' && ink_before(text, at - 1)) return at;
    }
    return n;
}

/* ---- counting */
/* Counts pieces of the text the worker's splitter is at, until its end or until STOP bytes and more are read.
 */
static status count_pieces(worker *w, size_t stop, size_t *got)
{
    for (*got = 0; *got < stop;) {
        const u8 *piece;
        size_t bytes;
        TRY(splitter_next(w->splitter, &piece, &bytes));
        if (!bytes) break;
        u64 hash = word_hash(piece, bytes);
        w->pieces++;
        *got += bytes;
        TRY(word_table_add(&w->shard[hash >> 60], hash, piece, bytes, 1));
    }
    return OK;
}
_Static_assert(SHARDS == 16, "four bits of the hash choose the shard");

static status add_shard(bpe_trainer *b, int k)
{
    for (int t = 0; t < b->threads; t++) {
        word_table *from = &b->worker[t].shard[k];
        for (u64 i = 0; i < from->slots; i++) {
            const word_slot *w = &from->slot[i];
            const u8 *bytes = from->bytes + w->at;
            if (w->count)
                TRY(word_table_add(&b->shard[k], word_hash(bytes, w->length), bytes, w->length, w->count));
        }
        word_table_clear(from);
    }
    return OK;
}

static u64 estimate(const bpe_trainer *b)
{
    u64 bytes = 0;
    for (int k = 0; k < SHARDS; k++) bytes += b->shard[k].words * WORD_BYTES + b->shard[k].used * PLACE_BYTES;
    return bytes;
}

static u64 table_bytes(const word_table *t) { return t->slots * sizeof(word_slot) + t->bytes_capacity; }

static void note_memory(bpe_trainer *b)
{
    u64 bytes = b->pending_capacity + b->segment_capacity * sizeof(segment);
    for (int k = 0; k < SHARDS; k++) {
        bytes += table_bytes(&b->shard[k]);
        for (int t = 0; t < b->threads; t++) bytes += table_bytes(&b->worker[t].shard[k]);
    }
    b->stats.working_bytes = MAX(b->stats.working_bytes, bytes);
}

static status forget_rare(bpe_trainer *b)
{
    for (u64 floor = 1; estimate(b) > (u64)b->o.memory_bytes / 2; floor *= 2)
        for (int k = 0; k < SHARDS; k++)
            TRY(word_table_prune(&b->shard[k], floor, &b->stats.words_dropped, &b->stats.pieces_dropped));
    return OK;
}

static status first_failure(bpe_trainer *b)
{
    status s = OK;
    for (int t = 0; t < b->threads; t++) {
        if (s)
            status_drop(b->worker[t].failed);
        else
            s = b->worker[t].failed;
        b->worker[t].failed = OK;
    }
    return s;
}

/* Adds the workers' tables to the trainer's and keeps those within the cap. */
static status settle(bpe_trainer *b)
{
    note_memory(b);
    TRY(first_failure(b));
#pragma omp parallel for schedule(dynamic, 1) num_threads(b->threads)
    for (int k = 0; k < SHARDS; k++) {
        worker *w = &b->worker[omp_get_thread_num()];
        if (!w->failed) w->failed = add_shard(b, k);
    }
    note_memory(b);
    TRY(first_failure(b));
    if (estimate(b) > (u64)b->o.memory_bytes) TRY(forget_rare(b));
    if (b->o.progress) b->o.progress(b->o.context, "counting", (i64)b->stats.bytes, 0);
    return OK;
}

static status count_batch(bpe_trainer *b)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(b->threads)
    for (size_t i = 0; i < b->segments; i++) {
        worker *w = &b->worker[omp_get_thread_num()];
        const segment *g = &b->segment[i];
        if (w->failed) continue;
        splitter_start(w->splitter, g->text ? g->text : b->pending + g->at, g->bytes);
        size_t got;
        w->failed = count_pieces(w, SIZE_MAX, &got);
    }
    b->segments = b->gathered = b->pending_bytes = 0;
    return settle(b);
}

/* A stretch without a safe place to cut, longer than a batch: one thread, settling as often as batches do. */
static status count_uncut(bpe_trainer *b, const char *text, size_t n)
{
    size_t got;
    TRY(count_batch(b)); // what came before, so that the order of the text holds
    splitter_start(b->worker[0].splitter, text, n);
    do {
        TRY(count_pieces(&b->worker[0], b->batch_bytes, &got));
        TRY(settle(b));
    } while (got >= b->batch_bytes);
    return OK;
}

static status gather(bpe_trainer *b, segment g)
{
    TRY(grow(&b->segment, &b->segment_capacity, b->segments + 1, sizeof g, "segments of text"));
    b->segment[b->segments++] = g;
    b->gathered += g.bytes;
    return OK;
}

status bpe_trainer_add(bpe_trainer *b, const char *text, size_t n)
{
    double start = seconds_now();
    b->stats.documents++;
    b->stats.bytes += n;
    if (n && n <= SEGMENT) { // copied, so that many short documents share a batch
        TRY(grow(&b->pending, &b->pending_capacity, b->pending_bytes + n, 1, "documents"));
        memcpy(b->pending + b->pending_bytes, text, n);
        TRY(gather(b, (segment){NULL, b->pending_bytes, n}));
        b->pending_bytes += n;
        if (b->gathered >= b->batch_bytes) TRY(count_batch(b));
    } else {
        for (size_t at = 0, end; at < n; at = end) {
            end = n - at > SEGMENT ? bpe_safe_cut(text, n, at + SEGMENT) : n;
            if (end - at > MAX(b->batch_bytes, (size_t)2 * SEGMENT))
                TRY(count_uncut(b, text + at, end - at));
            else
                TRY(gather(b, (segment){text + at, 0, end - at}));
            if (b->gathered >= b->batch_bytes) TRY(count_batch(b));
        }
        if (n) TRY(count_batch(b)); // TEXT is the caller's again
    }
    b->stats.count_seconds += seconds_now() - start;
    return OK;
}

/* ---- the tokenizer */
static void fill_tokens(const bpe_trainer *b, const learner_options *o, const learned *l, tokenizer *t)
{
    for (i64 i = 0; i < b->o.special_count; i++) {
        char *content = arena_strdup(t->a, b->o.specials[i]);
        size_t n = strlen(content);
        u8 *bytes = arena_alloc(t->a, n);
        bool same = spelled_bytes(content, bytes) == (i64)n && !memcmp(bytes, content, n);
        t->added[i] = (added_token){.id = (i32)i, .special = true, .content = content, .bytes = n};
        t->token[i] = (token_bytes){content, n};
        t->spelled[i] = same ? SPELLED_ALPHABET : SPELLED_RAW;
    }
    for (int byte = 0; byte < 256; byte++) {
        t->token[o->byte_id[byte]] = (token_bytes){arena_copy(t->a, &(char){(char)byte}, 1), 1};
        t->spelled[o->byte_id[byte]] = SPELLED_ALPHABET;
    }
    for (i64 i = 0; i < l->merges; i++) {
        learned_merge m = l->merge[i];
        t->merge[i] = (merge_rule){m.left, m.right, m.id};
        if (t->token[m.id].data) continue;
        token_bytes left = t->token[m.left], right = t->token[m.right];
        char *joined = arena_alloc(t->a, left.bytes + right.bytes);
        memcpy(joined, left.data, left.bytes);
        memcpy(joined + left.bytes, right.data, right.bytes);
        t->token[m.id] = (token_bytes){joined, left.bytes + right.bytes};
        t->spelled[m.id] = SPELLED_ALPHABET;
    }
}

static status build(bpe_trainer *b, const learner_options *o, const learned *l, tokenizer **out)
{
    tokenizer *t;
    TRY(tokenizer_new(o->first_id + l->ids, l->merges, b->o.special_count, &t));
    fill_tokens(b, o, l, t);
    status s = tokenizer_add_stage(t, b->o.pattern, NULL);
    if (!s) s = tokenizer_make_shell(t);
    if (!s) s = tokenizer_finish(t, "trained tokenizer");
    if (s)
        tokenizer_close(t);
    else
        *out = t;
    return s;
}

static status reserve(const bpe_trainer *b, word_table *reserved)
{
    u8 bytes[1024];
    for (i64 i = 0; i < b->o.special_count; i++) {
        i64 n = spelled_bytes(b->o.specials[i], bytes);
        if (n > 0) TRY(word_table_add(reserved, word_hash(bytes, (size_t)n), bytes, (size_t)n, 1));
    }
    return OK;
}

static status learn_and_build(bpe_trainer *b, word_table *reserved, tokenizer **out)
{
    learner_options o = {.vocab = b->o.vocab,
                         .first_id = (i32)b->o.special_count + 256,
                         .reserved = reserved,
                         .min_frequency = (u64)b->o.min_frequency,
                         .memory_bytes = (u64)b->o.memory_bytes,
                         .progress = b->o.progress,
                         .context = b->o.context};
    for (int i = 0; i < 256; i++) o.byte_id[alphabet_byte_at(i)] = (i32)b->o.special_count + i;
    TRY(reserve(b, reserved));
    learned l;
    TRY(merges_learn(b->shard, SHARDS, &o, &l));
    status s = build(b, &o, &l, out);
    b->stats.merges = l.merges;
    b->stats.vocab = o.first_id + l.ids;
    b->stats.tokens = l.tokens;
    b->stats.working_bytes = MAX(b->stats.working_bytes, l.peak_bytes);
    learned_free(&l);
    return s;
}

status bpe_trainer_finish(bpe_trainer *b, tokenizer **out, bpe_stats *stats)
{
    double start = seconds_now();
    if (b->segments) TRY(count_batch(b));
    double counted = seconds_now();
    b->stats.count_seconds += counted - start;
    for (int t = 0; t < b->threads; t++) {
        b->stats.pieces += b->worker[t].pieces;
        for (int k = 0; k < SHARDS; k++) word_table_free(&b->worker[t].shard[k]);
    }
    for (int k = 0; k < SHARDS; k++) b->stats.words += b->shard[k].words;
    for (int k = 0; k < SHARDS; k++)
        for (u64 i = 0; i < b->shard[k].slots; i++)
            b->stats.counted_bytes += b->shard[k].slot[i].count * b->shard[k].slot[i].length;
    word_table reserved = {0};
    status s = learn_and_build(b, &reserved, out);
    word_table_free(&reserved);
    b->stats.merge_seconds = seconds_now() - counted;
    if (stats) *stats = b->stats;
    return s;
}
