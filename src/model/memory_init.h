/* memory_init: what the scores of a memory layer are at the start, found by drawing them.
 *
 *     memory_moments y;
 *     memory_scores(256, 2, 2, 8, &y);             // keys a side, rank, cores, selected
 *     double gain = 1 / sqrt(y.mean);              // of the queries: the mean selected score becomes 1
 */
#pragma once
#include "base/base.h"

typedef struct memory_moments {
    double mean, deviation; // of the selected scores; the deviation as a share of the mean
} memory_moments;
/* Scores of rows and columns N(0, 1), cores U(0, 1), searched as ops/memory_search.c does. Deterministic. */
void memory_scores(i64 keys, i64 rank, i64 cores, i64 top, memory_moments *out);
/* UltraMem: the deviation of values that makes the layer's output vary by 1/(2 layers):
 * sqrt(expansion / (2 top heads layers)). */
double memory_value_std(i64 expansion, i64 top, i64 heads, i64 layers);
/* UltraMemV2: (0.2 inner width / (top heads (1 + deviation^2) pre_width value_width layers))^(1/4); inner:
 * width of the feed-forward / width. */
double memory_value_std_v2(double inner, i64 width, i64 top, i64 heads, double deviation, i64 pre_width,
                           i64 value_width, i64 layers);
