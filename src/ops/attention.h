/* attention: the flash-style kernels behind the op of that name; forward, backward, and forward over a cache.
 *
 *     attention_args a = {.batch = B, .tokens = T, .heads = H, .kv_heads = H, .width = 64, .type = DT_BF16,
 *                         .q = qkv, .k = qkv + H * 64, .v = qkv + 2 * H * 64, .q_stride = 3 * H * 64, ...,
 *                         .scale = 0.125f, .o = o, .lse = lse, .threads = 2, .scratch = memory};
 *     // scratch: OP_JOIN(attention_, scratch, ISA)(&a, false) bytes, 64-byte aligned
 *     OP_JOIN(attention_, forward, ISA)(&a);
 *
 * Compiled once per instruction set: every name that leaves a file ends in _plain, _v3 or _v4.
 * Nothing here allocates, nothing is tokens x tokens. No result depends on the number of threads. */
#pragma once
#include "ops/op.h"

/* Key s is visible to query t of the same row of the batch when  max(start[t], t - window + 1) <= s <= t,
 * where t counts from the beginning of the cache if there is one.
 *
 * With K = copies > 1 a sequence has K T rows: its T tokens (originals), then K - 1 copies of each, token by
 * token. A copy sees the originals that its token sees, and the copies of earlier tokens s, and the earlier
 * ones of its own token, where besides  s > t - copy_window  and s lies in t's chunk of the document: (s -
 * start) / chunk = (t - start) / chunk. An original sees originals only. */
typedef struct attention_args {
    i64 batch, tokens;     // B, T: new tokens
    i64 heads, kv_heads;   // H a multiple of Hkv: query head h reads key head h / (H / Hkv)
    i64 width;             // of a head
    dtype type;            // storage of everything that is not said to be f32: DT_F32 or DT_BF16
    const void *q, *k, *v; // row (b, t), t < K T, at (b K T + t) * stride elements; head h at column h width
    i64 q_stride, k_stride, v_stride;
    const i32 *start;              // [B, T] first visible position (of the token's document); NULL: 0
    i64 window;                    // 0: none
    float scale;                   // of the scores, > 0
    const void *k_cache, *v_cache; // [B, capacity, Hkv, width] dense, or NULL
    i64 capacity;                  // 0: no cache
    const i32 *past;             // [B] entries of the cache that precede the new tokens, <= capacity; NULL: 0
    i64 copies;                  // K; 0 is 1
    i64 copy_window;             // tokens whose copies a copy sees, its own included; 0 is 1
    i64 chunk;                   // of tokens; 0: none
    const void *k_ring, *v_ring; // [B, ring (K - 1), Hkv, width]: copies of the last `ring` tokens before the
                                 // new ones, those of token s from entry (s mod ring) (K - 1) on; or NULL
    i64 ring;                    // >= copy_window - 1 where there are earlier copies to see
    void *o;                     // out: [B, K T, H, width]; row (b, t) at (b K T + t) * o_stride
    i64 o_stride;
    float *lse;      // out: [B, H, K T] log2 of the sum of exp(scale q.k) over the visible keys (BASE 2)
    const void *d_o; // backward: gradient of o, rows as o's
    void *d_q, *d_k, *d_v; // backward: out, overwritten
    i64 d_o_stride, d_q_stride, d_k_stride, d_v_stride;
    int threads;   // of the parallel region
    char *scratch; // 64-byte aligned
} attention_args;

#ifdef ISA
/* Bytes of scratch a call needs; reads sizes, type, threads, and whether there is a cache. Linear in T. */
i64 OP_JOIN(attention_, scratch, ISA)(const attention_args *a, bool backward);
/* o and lse from q, k, v (and the cache). */
void OP_JOIN(attention_, forward, ISA)(const attention_args *a);
/* d_q, d_k, d_v from d_o, q, k, v, o, lse. No cache. */
void OP_JOIN(attention_, backward, ISA)(const attention_args *a);
#endif
