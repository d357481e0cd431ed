/* quota: whose turn it is, so that every source of a mixture has its share of every beginning of a run.
 *
 *     quota q;
 *     TRY(quota_open((double[]){0.7, 0.3}, 2, &q));
 *     i64 source, nth;
 *     quota_at(&q, index, &source, &nth);      // sample INDEX is the NTH (from 0) of SOURCE
 *
 * Nothing is drawn: after any n samples source j was used w_j n times, give or take less than one. Weights
 * are taken in millionths, so the turns repeat after a million samples, and a position far away costs no more
 * than that.
 *
 * Source: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): with k sources, and
 * d_j = w_j (n + 1) - used_j, of those with d_j >= 1 / (2k - 2) take the one with the smallest
 * (1 - 1 / (2k - 2) - d_j) / w_j; then |used_j - w_j n| <= 1 - 1 / (2k - 2) for every n. */
#pragma once
#include "base/base.h"

enum { QUOTA_SOURCES = 64, QUOTA_UNITS = 1000000 };

typedef struct quota {
    i64 n;                   // sources
    i64 unit[QUOTA_SOURCES]; // weights; their sum is QUOTA_UNITS
    i64 used[QUOTA_SOURCES]; // before index
    i64 index;
} quota;

/* WEIGHT[N], any positive scale. ERR_CONFIG: N not 1 to 64, a weight not positive or below a millionth of
 * all. */
status quota_open(const double *weight, i64 n, quota *out) MUST;
/* Going on from where it was asked last is quick. */
void quota_at(quota *q, i64 index, i64 *source, i64 *nth);
