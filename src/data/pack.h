/* pack: documents fitted into rows whole, instead of being cut wherever a row ends.
 *
 *     row_table t;
 *     TRY(rows_open(d, source, context, &t));  // read from the folder of D, or made and kept there
 *     for (i64 p = t.first[row]; p < t.first[row + 1]; p++) use(t.at[p], t.tokens[p]);
 *     rows_close(&t);
 *
 * Best-fit decreasing: pieces from the longest to the shortest, each into the row with the least room that is
 * enough, the oldest of these. At most 11/9 of the best possible number of rows, and 1 more; in practice rows
 * are full but for a fraction of a per cent. A document of more than a row is cut into rows; its rest is
 * fitted like others.
 *
 * Source: Johnson et al., "Worst-case performance bounds for simple one-dimensional packing algorithms", SIAM
 * J. Comput. 3 (1974); for training, Ding et al., arXiv:2404.10830. */
#pragma once
#include "data/dataset.h"

/* BIN[i]: the bin of the item of LENGTH[i] (1 ... room), numbered in order of opening; *bins of them. O(n log
 * n) at worst, exact, and the same on every machine. ERR_MEMORY. */
status best_fit(const i32 *length, i64 n, i64 room, i64 *bin, i64 *bins) MUST;

typedef struct row_table {
    i64 rows, pieces;
    i64 *first;  // [rows + 1] pieces before a row
    i64 *at;     // [pieces] token of the train split where it starts
    i32 *tokens; // [pieces] with the end of text; at most the context in a row
} row_table;

/* Part SOURCE of the train split; -1: all of it. Kept in the folder of D as rows-CONTEXT[-SOURCE].bin where
 * that can be written; one that is damaged, or of other shards, is made again. ERR_MEMORY. */
status rows_open(const dataset *d, i64 source, i64 context, row_table *out) MUST;
void rows_close(row_table *t);
