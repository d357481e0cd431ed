/* memory_place: implicit value expansion, where an address of the grid of keys finds its value.
 *
 *   v = pi(address),  address = i keys + j;   row = (v mod N + shift) mod (rows of the table);  group = v / N
 *
 * N = keys^2 / expansion rows of the table are seen, so `expansion` addresses share a row, each in a group of
 * its own. pi is a fixed permutation of the grid, computed and not stored: a Feistel network on (i, j), four
 * rounds of i += F(j), j += F(i) mod keys, its rounds keyed by `shuffle` (0: pi is the identity). So it is
 * the same on every machine and after every load, and costs no memory.
 *
 * Source: implicit value expansion: UltraMem, arXiv:2411.12364; the paper stores a random permutation.
 */
#pragma once
#include "ops/op.h"

#define PLACE_ATTRS                                                                                          \
    {"keys", 1, 1, 46340, "keys a side: addresses are [0, keys^2)"},                                         \
        {"expansion", 1, 1, 64, "addresses that share a row, in groups"},                                    \
        {"shuffle", 0, 0, 1e9, "number of the permutation of addresses; 0: none"},                           \
    {                                                                                                        \
        "shift", 0, 0, 1e15, "rows of the table that are skipped, in a ring"                                 \
    }

typedef struct placing {
    i64 keys, seen, shift, rows; // seen: N
    u64 key;
} placing;
typedef struct value_place {
    i64 row, group; // row -1: no such address
} value_place;

static inline u64 place_mix(u64 x) // the finaliser of splitmix64
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static inline placing placing_of(const node *n, const tensor *table)
{
    i64 keys = (i64)attr(n, "keys"), rows = rows_of(table), shuffle = (i64)attr(n, "shuffle");
    return (placing){.keys = keys,
                     .seen = keys * keys / (i64)attr(n, "expansion"),
                     .shift = (i64)attr(n, "shift") % rows,
                     .rows = rows,
                     .key = shuffle ? place_mix((u64)shuffle * 0x9E3779B97F4A7C15u) | 1 : 0};
}

static inline i64 place_permute(const placing *p, i64 address)
{
    u32 n = (u32)p->keys, x[2] = {(u32)(address / n), (u32)(address % n)};
    for (u64 round = 0; p->key && round < 8; round++) {
        u64 hash = place_mix(p->key + ((u64)x[~round & 1] << 8 | round));
        u32 sum = x[round & 1] + (u32)((hash >> 32) * n >> 32);
        x[round & 1] = sum >= n ? sum - n : sum;
    }
    return (i64)x[0] * n + x[1];
}

static inline value_place place_of(const placing *p, i64 address)
{
    if (address < 0 || address >= p->keys * p->keys) return (value_place){-1, 0};
    i64 v = place_permute(p, address), row = v % p->seen + p->shift;
    return (value_place){row >= p->rows ? row - p->rows : row, v / p->seen};
}

/* infer's part of it. */
static inline status place_need(op_build *b, const tensor *table)
{
    i64 keys = (i64)attr(b->n, "keys"), expansion = (i64)attr(b->n, "expansion");
    TRY(need(b, table->ndim == 2, "the table must be [rows, n]"));
    TRY(need(b, keys * keys % expansion == 0, "%lld addresses do not divide into %lld groups",
             (long long)(keys * keys), (long long)expansion));
    return need(b, keys * keys / expansion <= rows_of(table), "%lld values for a table of %lld rows",
                (long long)(keys * keys / expansion), (long long)rows_of(table));
}
