/* probe_measure: what train.probes measures, as functions of arrays, in double.
 *
 *     double rank;
 *     view v = program_view(p, stream);                     // [tokens, width], f32 or bf16
 *     TRY(measure_effective_rank(&v, 128, &rank));
 *     double top = measure_top_singular(w, rows, n, seed, scratch);
 */
#pragma once
#include "ops/op.h"

double measure_rms(const view *v);      // sqrt(mean x^2)
double measure_variance(const view *v); // mean over rows of the variance over a row
/* exp(-sum p ln p), p = s_i / sum s the shares of the singular values s of V (not centred), of at most MOST
 * of its rows, evenly spaced. 1 for rows all alike, at most min(rows, n). NaN where V is zero or not finite.
 */
status measure_effective_rank(const view *v, i64 most, double *out) MUST;
/* Largest singular value of W [rows, n] by power iteration from a start that SEED draws; relative error about
 * 1e-6 where the second is 1 % smaller, from below. SCRATCH: rows + n doubles. */
double measure_top_singular(const float *w, i64 rows, i64 n, u64 seed, double *scratch);

/* What one attention op of row ROW sees. */
typedef struct attention_view {
    view q, k;        // [B T, heads w], [B T, kv_heads w]
    const i32 *start; // [B, T]: first token of each token's document
    i64 tokens, heads, kv_heads;
    i64 window; // 0: none
    double scale;
} attention_view;
/* Mean over heads and at most MOST tokens of row ROW, evenly spaced, of the entropy of softmax(scale q.k)
 * over what the token sees, in nats. SCRATCH: `tokens` doubles. */
double measure_entropy(const attention_view *a, i64 row, i64 most, double *scratch);

/* Eigenvalues of the symmetric A [n, n], which is destroyed, ascending, into OUT [n]; absolute error about
 * 1e-14 times the largest. SCRATCH: 3 n doubles. */
void symmetric_eigenvalues(double *a, i64 n, double *out, double *scratch);
