/* orthogonal: matrices with orthonormal rows or columns, as first values.
 *
 * Gram and Schmidt, a block of earlier vectors at a time, twice over (once leaves what rounding makes of
 * nearly dependent vectors). The draw is normal, so the result is uniform over such matrices. It works in
 * place, in f32, in one order: the same bits whatever the threads.
 */
#include "graph/store.h"
#include <math.h>

enum { BLOCK = 64 };

static double dot(const float *a, const float *b, i64 n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}
static void subtract(float *restrict a, const float *restrict b, float by, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) a[j] -= by * b[j];
}

/* Row J without its share along the rows before it. */
static void clear_row(float *w, i64 j, i64 n)
{
    for (i64 k0 = 0; k0 < j; k0 += BLOCK) {
        i64 m = MIN(BLOCK, j - k0);
        float along[BLOCK];
        for (i64 k = 0; k < m; k++) along[k] = (float)dot(w + (k0 + k) * n, w + j * n, n);
        for (i64 k = 0; k < m; k++) subtract(w + j * n, w + (k0 + k) * n, along[k], n);
    }
}
/* Column J likewise: rows are read along, which is how they lie. */
static void clear_column(float *w, i64 j, i64 rows, i64 n)
{
    for (i64 k0 = 0; k0 < j; k0 += BLOCK) {
        i64 m = MIN(BLOCK, j - k0);
        float along[BLOCK] = {0};
        for (i64 i = 0; i < rows; i++) subtract(along, w + i * n + k0, -w[i * n + j], m);
        for (i64 i = 0; i < rows; i++) w[i * n + j] -= (float)dot(along, w + i * n + k0, m);
    }
}

void orthogonalize(float *w, i64 rows, i64 n, double length)
{
    bool by_rows = rows <= n;
    i64 step = by_rows ? 1 : n, of_one = by_rows ? n : rows; // of the values of one vector
    for (i64 j = 0; j < MIN(rows, n); j++) {
        double square = 0;
        float *v = by_rows ? w + j * n : w + j;
        for (int twice = 0; twice < 2; twice++) {
            if (by_rows)
                clear_row(w, j, n);
            else
                clear_column(w, j, rows, n);
        }
        for (i64 i = 0; i < of_one; i++) square += (double)v[i * step] * v[i * step];
        float by = square > 0 ? (float)(1 / sqrt(square)) : 0;
        for (i64 i = 0; i < of_one; i++) v[i * step] *= by;
    }
    for (i64 i = 0; i < rows * n; i++) w[i] *= (float)length;
}
