/* word_count: how often each piece occurs: the input of BPE training, far smaller than the text.
 *
 *     word_table t = {0};
 *     TRY(word_table_add(&t, word_hash(p, n), p, n, 1));
 *     for (u64 i = 0; i < t.slots; i++)
 *         if (t.slot[i].count) use(t.bytes + t.slot[i].at, t.slot[i].length, t.slot[i].count);
 *     word_table_free(&t);
 */
#pragma once
#include "base/base.h"

typedef struct word_slot {
    u64 count; // 0: free
    u64 at;    // offset of the word in bytes
    u32 hash;  // the high half of its hash
    u32 length;
} word_slot;

typedef struct word_table {
    word_slot *slot; // open addressing; SLOTS is a power of two or 0
    u8 *bytes;
    u64 slots;
    u64 words, used; // distinct words, their bytes
    size_t bytes_capacity;
} word_table;

u64 word_hash(const u8 *word, size_t n);
/* Adds COUNT occurrences of a word. ERR_MEMORY; ERR_INPUT for a word of 4 GiB. */
status word_table_add(word_table *t, u64 hash, const u8 *word, size_t n, u64 count) MUST;
/* The slot of a word; NULL when it is not there. Valid until the next word is added. */
const word_slot *word_table_find(const word_table *t, u64 hash, const u8 *word, size_t n);
/* Forgets the words that occur at most FLOOR times; adds what they were to *words and *occurrences. */
status word_table_prune(word_table *t, u64 floor, u64 *words, u64 *occurrences) MUST;
void word_table_clear(word_table *t); // keeps the memory
void word_table_free(word_table *t);
