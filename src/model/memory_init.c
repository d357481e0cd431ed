/* What the scores of a memory layer are at the start: see memory_init.h. */
#include "model/memory_init.h"
#include "base/random.h"
#include "ops/memory_core.h"
#include "ops/memory_top.h"
#include <math.h>
#include <string.h>

enum { TRIALS = 32, MOST_TOP = 512 };

typedef struct side { // of the grid: the best by the coarse score, with their scores of each rank
    i32 id[MOST_TOP];
    float value[MOST_TOP];
    double score[CORE_MOST][MOST_TOP];
} side;

static double draw(u64 trial, u64 which, i64 rank, i64 i)
{
    return random_normal(1, random_stream("model/memory_init") + which, trial * CORE_MOST + (u64)rank,
                         (u64)i);
}

static void search_side(u64 trial, u64 which, const double *u, i64 keys, i64 rank, i64 top, side *out)
{
    top_list t = {out->value, out->id, top, 0};
    for (i64 i = 0; i < keys; i++) {
        double coarse = 0;
        for (i64 p = 0; p < rank; p++) coarse += u[p] * draw(trial, which, p, i);
        top_offer(&t, (float)coarse, (i32)i);
    }
    for (i64 p = 0; p < rank; p++)
        for (i64 a = 0; a < top; a++) out->score[p][a] = draw(trial, which, p, out->id[a]);
}

static void add_trial(u64 trial, i64 keys, i64 rank, i64 cores, i64 top, double sum[2])
{
    double c[CORE_MOST * CORE_MOST] = {0}, zero[2 * CORE_MOST] = {0}, u[CORE_MOST], t[CORE_MOST];
    float best[MOST_TOP];
    i32 id[MOST_TOP];
    static _Thread_local side rows, columns;
    for (i64 k = 0; k < cores * rank * rank; k++)
        c[k % (rank * rank)] += random_uniform(1, random_stream("model/memory_init core"), trial, (u64)k);
    core_direction(c, rank, zero, u, t);
    search_side(trial, 0, u, keys, rank, top, &rows);
    search_side(trial, 1, t, keys, rank, top, &columns);
    top_list list = {best, id, top, 0};
    for (i64 k = 0; k < top * top; k++) {
        double score = 0;
        for (i64 e = 0; e < rank * rank; e++)
            score += rows.score[e / rank][k / top] * c[e] * columns.score[e % rank][k % top];
        top_offer(&list, (float)score, (i32)k);
    }
    for (i64 a = 0; a < top; a++) sum[0] += (double)best[a], sum[1] += (double)best[a] * (double)best[a];
}

void memory_scores(i64 keys, i64 rank, i64 cores, i64 top, memory_moments *out)
{
    double sum[2] = {0}, n = (double)(TRIALS * top);
    for (u64 trial = 0; trial < TRIALS; trial++) add_trial(trial, keys, rank, cores, top, sum);
    out->mean = sum[0] / n;
    out->deviation = sqrt(fmax(0, sum[1] / n - out->mean * out->mean)) / out->mean;
}

double memory_value_std(i64 expansion, i64 top, i64 heads, i64 layers)
{
    return sqrt((double)expansion / (2.0 * (double)top * (double)heads * (double)layers));
}

double memory_value_std_v2(double inner, i64 width, i64 top, i64 heads, double deviation, i64 pre_width,
                           i64 value_width, i64 layers)
{
    double sum = (double)(top * heads) * (1 + deviation * deviation);
    return pow(0.2 * inner * (double)width / (sum * (double)pre_width * (double)value_width * (double)layers),
               0.25);
}
