/* Applying merges: see bpe.h.
 *
 * Words are short, so up to 100 bytes a plain scan for the lowest rank wins; longer pieces (base64, runs of
 * one character) take a linked list and a heap of (rank, position) whose stale entries are dropped when they
 * come up: O(n log n). Source: Sennrich, Haddow and Birch, arXiv:1508.07909, algorithm 1; the choice of two
 * ways is tiktoken's. A heap entry is stale when its node was merged away or pairs with something else by
 * now; ranks are unique to a pair, so comparing the rank suffices. */
#include "text/bpe.h"
#include "text/grow.h"
#include <string.h>

enum { SCAN_LIMIT = 100, SCAN_ROOM = 128 };

typedef struct node {
    i32 id;          // -1: merged into its left neighbour
    u32 left, right; // neighbours' positions; NOBODY at the ends
    u32 rank;        // of the pair (this, right)
} node;
#define NOBODY UINT32_MAX

u64 bpe_slots_for(i64 merges)
{
    u64 slots = 16;
    while (slots < (u64)merges * 2) slots *= 2;
    return slots;
}

void bpe_clear(bpe *b)
{
    for (u64 i = 0; i <= b->mask; i++) b->slots[i].rank = BPE_NO_RANK;
}

static inline u64 place(const bpe *b, u32 left, u32 right)
{
    u64 h =
        ((u64)left << 32 | right) * 0x9E3779B97F4A7C15u; // Fibonacci hashing; the high bits are the good ones
    return (h >> 29 ^ h >> 50) & b->mask;
}

const bpe_merge *bpe_find(const bpe *b, u32 left, u32 right)
{
    for (u64 i = place(b, left, right);; i = (i + 1) & b->mask) {
        const bpe_merge *m = &b->slots[i];
        if (m->rank == BPE_NO_RANK) return NULL;
        if (m->left == left && m->right == right) return m;
    }
}

bool bpe_add(bpe *b, bpe_merge merge)
{
    u64 i = place(b, merge.left, merge.right);
    for (; b->slots[i].rank != BPE_NO_RANK; i = (i + 1) & b->mask)
        if (b->slots[i].left == merge.left && b->slots[i].right == merge.right) return false;
    b->slots[i] = merge;
    return true;
}

static status no_byte(u8 byte)
{
    return fail(ERR_INPUT,
                "the vocabulary has no token for the byte 0x%02X: use a tokenizer with all 256 bytes", byte);
}

status bpe_encode_scan(const bpe *b, const u8 *piece, size_t n, i32 *ids, i64 *count)
{
    const bpe_merge *merge[SCAN_ROOM]; // of (i, i + 1)
    for (size_t i = 0; i < n; i++)
        if ((ids[i] = b->byte_id[piece[i]]) < 0) return no_byte(piece[i]);
    for (size_t i = 0; i + 1 < n; i++) merge[i] = bpe_find(b, (u32)ids[i], (u32)ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        u32 rank = BPE_NO_RANK;
        for (size_t i = 0; i + 1 < n; i++)
            if (merge[i] && merge[i]->rank < rank) rank = merge[i]->rank, best = i;
        if (rank == BPE_NO_RANK) break;
        ids[best] = merge[best]->id;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) { // merge[] has n - 1 entries now
            memmove(merge + best + 1, merge + best + 2, (n - best - 2) * sizeof *merge);
            merge[best] = bpe_find(b, (u32)ids[best], (u32)ids[best + 1]);
        }
        if (best) merge[best - 1] = bpe_find(b, (u32)ids[best - 1], (u32)ids[best]);
    }
    *count = (i64)n;
    return OK;
}

static void sift_down(u64 *heap, size_t n, size_t i)
{
    u64 x = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= x) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static void push(u64 *heap, size_t *n, u64 x)
{
    size_t i = (*n)++;
    for (; i && heap[(i - 1) / 2] > x; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = x;
}

static u64 pop(u64 *heap, size_t *n)
{
    u64 top = heap[0];
    heap[0] = heap[--*n];
    if (*n) sift_down(heap, *n, 0);
    return top;
}

/* Ranks the pair that starts at I and puts it into the heap. */
static void rank_pair(const bpe *b, node *nodes, u32 i, u64 *heap, size_t *heaped)
{
    const bpe_merge *m = NULL;
    if (nodes[i].right != NOBODY) m = bpe_find(b, (u32)nodes[i].id, (u32)nodes[nodes[i].right].id);
    nodes[i].rank = m ? m->rank : BPE_NO_RANK;
    if (m) push(heap, heaped, (u64)m->rank << 32 | i);
}

status bpe_encode_heap(const bpe *b, bpe_scratch *scratch, const u8 *piece, size_t n, i32 *ids, i64 *count)
{
    if (n >= INT32_MAX) return fail(ERR_INPUT, "a piece of %zu bytes without a cut; at most 2 GiB", n);
    TRY(grow(&scratch->nodes, &scratch->nodes_capacity, n, sizeof(node), "long piece"));
    // Every node enters once, and each of at most n merges ranks two pairs anew.
    TRY(grow(&scratch->heap, &scratch->heap_capacity, 3 * n, sizeof(u64), "long piece"));
    node *nodes = scratch->nodes;
    u64 *heap = scratch->heap;
    size_t heaped = 0;
    for (size_t i = 0; i < n; i++) {
        if (b->byte_id[piece[i]] < 0) return no_byte(piece[i]);
        nodes[i] = (node){b->byte_id[piece[i]], i ? (u32)i - 1 : NOBODY, i + 1 < n ? (u32)i + 1 : NOBODY, 0};
    }
    for (size_t i = 0; i < n; i++) rank_pair(b, nodes, (u32)i, heap, &heaped);
    while (heaped) {
        u64 top = pop(heap, &heaped);
        u32 i = (u32)top, rank = (u32)(top >> 32);
        if (nodes[i].id < 0 || nodes[i].rank != rank) continue;
        u32 gone = nodes[i].right, right = nodes[gone].right, left = nodes[i].left;
        nodes[i].id = bpe_find(b, (u32)nodes[i].id, (u32)nodes[gone].id)->id;
        nodes[i].right = right;
        nodes[gone].id = -1;
        if (right != NOBODY) nodes[right].left = i;
        rank_pair(b, nodes, i, heap, &heaped);
        if (left != NOBODY) rank_pair(b, nodes, left, heap, &heaped);
    }
    i64 found = 0;
    for (u32 i = 0; n && i != NOBODY; i = nodes[i].right) ids[found++] = nodes[i].id;
    *count = found;
    return OK;
}

status bpe_encode(const bpe *b, bpe_scratch *scratch, const u8 *piece, size_t n, i32 *ids, i64 *count)
{
    if (n < SCAN_LIMIT) return bpe_encode_scan(b, piece, n, ids, count);
    return bpe_encode_heap(b, scratch, piece, n, ids, count);
}

void bpe_scratch_free(bpe_scratch *scratch)
{
    mem_free(scratch->nodes);
    mem_free(scratch->heap);
    *scratch = (bpe_scratch){0};
}
