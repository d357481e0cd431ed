/* farseer: loss from parameters and tokens, where what tokens remove depends on size.
 *
 *   L = exp(u(N)) + exp(v(N)) D^-exp(w(N))      u = s N^q + S,  v = B N^b + Q,  w = A N^a + E
 *
 * Source:  Predictable Scale, part II (Farseer), arXiv:2506.10972; nine parameters. Constants as recalled
 *          (not verified): s -0.021, q 0.169, S -0.091, B 88.01, b -0.1, Q -5.287, A -0.124, a 0.123,
 *          E 0.424: L(1e9, 2e10) = 0.6517. They put the optimum of 1e21 flops at 580 tokens a parameter,
 *          where the paper has about 20: good for tests of the form, not for advice.
 * Fit:     the three stretched powers are fitted as k + c (n^q - 1)/q, n = N/1e9 (Box and Cox, 1964): value,
 *          slope and bend at N = 1e9, which stay apart when q goes to 0, where s and S grow without bound.
 * Starts:  at each size, exp(u) + exp(v) D^-exp(w) by itself (a grid over the exponent; the rest is linear),
 *          then each of u, v, w against N, for a grid of bends. */
#include "lab/law.h"
#include <math.h>
#include <string.h>

static const double LOG_UNIT = 20.72326583694641; // ln 1e9

/* (exp(z l) - 1) / z */
static law_number bend(law_number z, double l)
{
    law_number y = z * l;
    if (cabs(y) < 1e-3) return l * (1 + y / 2 * (1 + y / 3 * (1 + y / 4 * (1 + y / 5))));
    return (cexp(y) - 1) / z;
}

static law_number predict(const law_number *t, const double *x)
{
    double n = log(x[0]) - LOG_UNIT, d = log(x[1]);
    law_number u = t[0] + t[1] * bend(t[2], n), v = t[3] + t[4] * bend(t[5], n),
               w = t[6] + t[7] * bend(t[8], n);
    return cexp(u) + cexp(v - cexp(w) * d);
}

static void natural(const double *t, double *value)
{
    for (int k = 0; k < 3; k++) { // k + c (n^q - 1)/q = (c / (q unit^q)) N^q + k - c/q
        double q = t[3 * k + 2], s = t[3 * k + 1] / q;
        value[3 * k] = s * exp(-q * LOG_UNIT), value[3 * k + 1] = q, value[3 * k + 2] = t[3 * k] - s;
    }
}

typedef struct at_size {
    double n, value[3]; // ln(N/1e9); u, v, w there
} at_size;

/* u + v D^-w of the points of one size; the exponent that leaves the least squares. */
static bool fit_size(const law_points *p, double size, at_size *out)
{
    enum { MOST = 200 };
    double a[MOST][2], b[MOST], best = INFINITY, c[2];
    out->n = log(size) - LOG_UNIT;
    for (int k = 0; k < 80; k++) {
        double w = exp(-3.5 + 0.05 * k), sum = 0;
        i64 m = 0;
        for (i64 i = 0; i < p->n && m < MOST; i++) {
            if (p->x[i][0] != size) continue;
            a[m][0] = 1, a[m][1] = pow(p->x[i][1], -w), b[m++] = p->y[i];
        }
        if (!law_solve(&a[0][0], b, m, 2, c) || !(c[0] > 0) || !(c[1] > 0)) continue;
        for (i64 i = 0; i < m; i++) sum += pow(c[0] + c[1] * a[i][1] - b[i], 2);
        if (!(sum < best)) continue;
        best = sum;
        out->value[0] = log(c[0]), out->value[1] = log(c[1]), out->value[2] = log(w);
    }
    return isfinite(best);
}

/* k and c of value[WHICH] = k + c bend(q, n), by least squares. */
static bool line_through(const at_size *s, i64 n, int which, double q, double *theta)
{
    double a[64][2], b[64];
    for (i64 i = 0; i < n; i++) a[i][0] = 1, a[i][1] = creal(bend(q, s[i].n)), b[i] = s[i].value[which];
    theta[2] = q;
    return law_solve(&a[0][0], b, n, 2, theta);
}

static i64 starts(const law_points *p, double (*theta)[LAW_PARAMS], i64 most)
{
    static const double bends[] = {-0.3, -0.1, 0.01, 0.15, 0.35};
    at_size s[64];
    i64 n = 0, found = 0;
    for (i64 i = 0; i < p->n && n < COUNT(s); i++) {
        bool seen = false;
        for (i64 k = 0; k < i && !seen; k++) seen = p->x[k][0] == p->x[i][0];
        if (!seen && fit_size(p, p->x[i][0], &s[n])) n++;
    }
    if (n < 2) { // one place for all sizes: a law with no dependence of the exponent on size
        static const double plain[LAW_PARAMS] = {0.5, -0.1, 0.01, 6, 0.01, 0.01, -1.1, 0.01, 0.01};
        memcpy(theta[0], plain, sizeof plain);
        return 1;
    }
    for (int i = 0; i < COUNT(bends); i++)
        for (int j = 0; j < COUNT(bends); j++)
            for (int k = 0; k < COUNT(bends); k++) {
                if (found == most) return found;
                double *t = theta[found];
                found += line_through(s, n, 0, bends[i], t) && line_through(s, n, 1, bends[j], t + 3) &&
                         line_through(s, n, 2, bends[k], t + 6);
            }
    return found;
}

const law law_farseer = {
    .name = "farseer",
    .title = "Loss from parameters and tokens, where what tokens remove depends on size",
    .formula = "L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E)",
    .source = "arXiv:2506.10972",
    .note = "Nine parameters: at least 4 sizes with at least 4 numbers of tokens each.",
    .target = "loss",
    .target_help = "final loss (the paper: bits a character)",
    .target_also = "val_loss L",
    .input = {{"N", "parameters", "params params_non_embedding parameters non_embedding", 0, 4},
              {"D", "training tokens", "tokens", 0, 4}},
    .inputs = 2,
    .sizes = 1,
    .per_value = 4,
    .param = {{"s", "what only size removes: slope", LAW_ANY},
              {"q", "its bend", LAW_ANY},
              {"S", "its level", LAW_ANY},
              {"B", "scale of what tokens remove: slope", LAW_ANY},
              {"b", "its bend", LAW_ANY},
              {"Q", "its level", LAW_ANY},
              {"A", "exponent of tokens: slope", LAW_ANY},
              {"a", "its bend", LAW_ANY},
              {"E", "its level", LAW_ANY}},
    .params = 9,
    .predict = predict,
    .starts = starts,
    .natural = natural};
