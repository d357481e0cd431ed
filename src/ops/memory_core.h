/* memory_core: singular vectors of the small matrices (rank at most 8) that score a grid of product keys.
 *
 *     double u[CORE_MOST], t[CORE_MOST];
 *     core_direction(c, r, previous, u, t);        // C ~ sigma u t^T
 */
#pragma once
#include "base/base.h"
#include <math.h>
#include <string.h>

enum { CORE_MOST = 8 };

/* C [r, r] = U diag(sigma) V^T by one-sided Jacobi: columns of A = C V are turned until they are orthogonal.
 * A: the columns U sigma; V: the right singular vectors, as columns; not sorted. */
static inline void core_svd(const double *c, i64 r, double *a, double *v)
{
    memcpy(a, c, sizeof *a * (size_t)(r * r));
    for (i64 i = 0; i < r * r; i++) v[i] = i / r == i % r;
    for (int sweep = 0; sweep < 60; sweep++) {
        bool turned = false;
        for (i64 p = 0; p < r; p++)
            for (i64 q = p + 1; q < r; q++) {
                double pp = 0, qq = 0, pq = 0;
                for (i64 i = 0; i < r; i++) {
                    double x = a[i * r + p], y = a[i * r + q];
                    pp += x * x, qq += y * y, pq += x * y;
                }
                if (!(fabs(pq) > 1e-16 * sqrt(pp * qq))) continue;
                double zeta = (qq - pp) / (2 * pq), cosine, sine;
                double tangent = (zeta < 0 ? -1 : 1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
                cosine = 1 / sqrt(1 + tangent * tangent), sine = cosine * tangent;
                for (i64 i = 0; i < r; i++) {
                    double x = a[i * r + p], y = a[i * r + q], z = v[i * r + p], w = v[i * r + q];
                    a[i * r + p] = cosine * x - sine * y, a[i * r + q] = sine * x + cosine * y;
                    v[i * r + p] = cosine * z - sine * w, v[i * r + q] = sine * z + cosine * w;
                }
                turned = true;
            }
        if (!turned) return;
    }
}

static inline double core_sigma(const double *a, i64 r, i64 column)
{
    double sum = 0;
    for (i64 i = 0; i < r; i++) sum += a[i * r + column] * a[i * r + column];
    return sqrt(sum);
}

/* The leading pair (u, t), with the sign nearer (in L1) to PREVIOUS = (u, t) of the step before; where both
 * are as near (at first PREVIOUS is 0), with sum u >= 0. C = 0 gives u = t = e_0. */
static inline void core_direction(const double *c, i64 r, const double *previous, double *u, double *t)
{
    double a[CORE_MOST * CORE_MOST], v[CORE_MOST * CORE_MOST], near = 0, sum = 0;
    i64 best = 0;
    core_svd(c, r, a, v);
    for (i64 k = 1; k < r; k++)
        if (core_sigma(a, r, k) > core_sigma(a, r, best)) best = k;
    double sigma = core_sigma(a, r, best);
    for (i64 i = 0; i < r; i++) {
        u[i] = sigma > 0 ? a[i * r + best] / sigma : i == 0;
        t[i] = v[i * r + best];
        sum += u[i];
        near += fabs(u[i] + previous[i]) - fabs(u[i] - previous[i]);
        near += fabs(t[i] + previous[r + i]) - fabs(t[i] - previous[r + i]);
    }
    if (near > 0 || (near == 0 && sum >= 0)) return;
    for (i64 i = 0; i < r; i++) u[i] = -u[i], t[i] = -t[i];
}
