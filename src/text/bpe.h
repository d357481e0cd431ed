/* bpe: merging the bytes of one piece into tokens by a list of merges.
 *
 *     bpe_scratch scratch = {0};                       // one a thread
 *     i32 ids[64];                                     // room for one id a byte
 *     i64 n;
 *     TRY(bpe_encode(&b, &scratch, piece, length, ids, &n));
 *     bpe_scratch_free(&scratch);
 */
#pragma once
#include "base/base.h"

/* "left right -> id", of this rank. An open-addressing slot; free when rank is BPE_NO_RANK. */
typedef struct bpe_merge {
    u32 left, right, rank;
    i32 id;
} bpe_merge;
#define BPE_NO_RANK UINT32_MAX

typedef struct bpe {
    bpe_merge *slots; // a power of two of them, at most half taken
    u64 mask;         // slots - 1
    i32 byte_id[256]; // -1: the vocabulary lacks this byte
} bpe;

typedef struct bpe_scratch {
    void *nodes, *heap;
    size_t nodes_capacity, heap_capacity;
} bpe_scratch;

/* Slots that hold MERGES merges. */
u64 bpe_slots_for(i64 merges);
/* Marks all slots free. */
void bpe_clear(bpe *b);
/* False when the pair has a merge already. */
bool bpe_add(bpe *b, bpe_merge merge);
/* The merge of a pair; NULL when there is none. */
const bpe_merge *bpe_find(const bpe *b, u32 left, u32 right);

/* The ids of the N bytes at PIECE into IDS (room for N), *count of them. Repeatedly merges the adjacent pair
 * of lowest rank, the leftmost on ties. ERR_INPUT when the vocabulary lacks a byte; ERR_MEMORY. */
status bpe_encode(const bpe *b, bpe_scratch *scratch, const u8 *piece, size_t n, i32 *ids, i64 *count) MUST;
/* The two ways behind bpe_encode; tests compare them. bpe_encode_scan works in IDS, in O(n^2). */
status bpe_encode_scan(const bpe *b, const u8 *piece, size_t n, i32 *ids, i64 *count) MUST; // n <= 128
status bpe_encode_heap(const bpe *b, bpe_scratch *scratch, const u8 *piece, size_t n, i32 *ids, i64 *count)
    MUST;
void bpe_scratch_free(bpe_scratch *scratch);
