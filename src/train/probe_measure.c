/* The measures of train.probes: see probe_measure.h.
 *
 * Effective rank: RankMe, arXiv:2210.02885: exp of the entropy of the singular values' shares. They are the
 * roots of the eigenvalues of X X^T (few rows), which lose what is below 1e-8 of the largest; such values
 * weigh nothing in the entropy. Eigenvalues: Householder's tridiagonal form, then bisection by Sturm's count
 * (Golub and Van Loan, Matrix Computations, 8.3.1 and 8.4.1). */
#include "train/probe_measure.h"
#include "base/random.h"
#include <math.h>
#include <string.h>

static double at(const view *v, i64 row, i64 column)
{
    i64 i = row * v->stride + column;
    return v->dtype == DT_BF16 ? bf16_to_f32(((const bf16 *)v->p)[i]) : ((const float *)v->p)[i];
}

double measure_rms(const view *v)
{
    double sum = 0;
    for (i64 r = 0; r < v->rows; r++)
        for (i64 j = 0; j < v->n; j++) sum += at(v, r, j) * at(v, r, j);
    return sqrt(sum / (double)(v->rows * v->n));
}

double measure_variance(const view *v)
{
    double all = 0, n = (double)v->n;
    for (i64 r = 0; r < v->rows; r++) {
        double mean = 0, sum = 0;
        for (i64 j = 0; j < v->n; j++) mean += at(v, r, j) / n;
        for (i64 j = 0; j < v->n; j++) sum += (at(v, r, j) - mean) * (at(v, r, j) - mean);
        all += sum / n;
    }
    return all / (double)v->rows;
}

/* ---- eigenvalues */

/* A becomes tridiagonal: DIAGONAL [n], BESIDE [n - 1]. P: n doubles. */
static void tridiagonal(double *a, i64 n, double *diagonal, double *beside, double *p)
{
    for (i64 k = 0; k < n; k++) {
        double *v = a + k * n, norm = 0; // row k right of the diagonal, which becomes Householder's vector
        diagonal[k] = v[k];
        if (k + 1 == n) return;
        for (i64 i = k + 1; i < n; i++) norm += v[i] * v[i];
        norm = sqrt(norm);
        beside[k] = v[k + 1] > 0 ? -norm : norm;
        double square = 2 * norm * (norm + fabs(v[k + 1])); // |v|^2 after the next line
        v[k + 1] -= beside[k];
        if (!(square > 0)) continue;
        double half = 0;
        for (i64 i = k + 1; i < n; i++) {
            p[i] = 0;
            for (i64 j = k + 1; j < n; j++) p[i] += 2 / square * a[i * n + j] * v[j];
            half += p[i] * v[i] / square;
        }
        for (i64 i = k + 1; i < n; i++) p[i] -= half * v[i];
        for (i64 i = k + 1; i < n; i++)
            for (i64 j = k + 1; j < n; j++) a[i * n + j] -= v[i] * p[j] + p[i] * v[j];
    }
}

/* How many eigenvalues are below X. */
static i64 count_below(const double *diagonal, const double *beside, i64 n, double x)
{
    i64 count = 0;
    double q = 1;
    for (i64 i = 0; i < n; i++) {
        double b = i ? beside[i - 1] : 0;
        if (q == 0) q = 1e-300;
        q = diagonal[i] - x - (i ? b * b / q : 0);
        count += q < 0;
    }
    return count;
}

void symmetric_eigenvalues(double *a, i64 n, double *out, double *scratch)
{
    enum { HALVINGS = 60 };
    double *diagonal = scratch, *beside = scratch + n, bound = 0;
    tridiagonal(a, n, diagonal, beside, scratch + 2 * n);
    for (i64 i = 0; i < n; i++)
        bound = fmax(bound,
                     fabs(diagonal[i]) + (i ? fabs(beside[i - 1]) : 0) + (i + 1 < n ? fabs(beside[i]) : 0));
    for (i64 k = 0; k < n; k++) {
        double low = -bound, high = bound;
        for (int half = 0; half < HALVINGS; half++) {
            double middle = 0.5 * (low + high);
            if (count_below(diagonal, beside, n, middle) > k)
                high = middle;
            else
                low = middle;
        }
        out[k] = 0.5 * (low + high);
    }
}

/* ---- effective rank */

static double rank_of(const double *eigenvalue, i64 n)
{
    double sum = 0, entropy = 0;
    for (i64 i = 0; i < n; i++) sum += sqrt(fmax(eigenvalue[i], 0));
    for (i64 i = 0; i < n; i++) {
        double p = sqrt(fmax(eigenvalue[i], 0)) / sum;
        if (p > 0) entropy -= p * log(p);
    }
    return sum > 0 && isfinite(sum) ? exp(entropy) : NAN;
}

status measure_effective_rank(const view *v, i64 most, double *out)
{
    i64 rows = MIN(v->rows, most), n = v->n;
    double *x, *gram;
    TRY(mem_alloc(sizeof(double) * (size_t)(rows * (n + rows + 4)), "effective rank", &x));
    gram = x + rows * n;
    for (i64 r = 0; r < rows; r++)
        for (i64 j = 0; j < n; j++) x[r * n + j] = at(v, rows > 1 ? r * (v->rows - 1) / (rows - 1) : 0, j);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++)
        for (i64 c = 0; c < rows; c++) {
            double sum = 0;
            for (i64 j = 0; j < n; j++) sum += x[r * n + j] * x[c * n + j];
            gram[r * rows + c] = sum;
        }
    double trace = 0, *eigenvalue = gram + rows * rows;
    for (i64 r = 0; r < rows; r++) trace += gram[r * rows + r];
    *out = NAN;
    if (isfinite(trace)) {
        symmetric_eigenvalues(gram, rows, eigenvalue, eigenvalue + rows);
        *out = rank_of(eigenvalue, rows);
    }
    mem_free(x);
    return OK;
}

/* ---- the top singular value */

double measure_top_singular(const float *w, i64 rows, i64 n, u64 seed, double *scratch)
{
    enum { MOST_ROUNDS = 100 };
    double *v = scratch, *u = scratch + n, before = 0, top = 0, norm = 0;
    for (i64 j = 0; j < n; j++) v[j] = random_normal(seed, random_stream("train/probe"), 0, (u64)j);
    for (int round = 0; round < MOST_ROUNDS; round++) {
        norm = 0;
        for (i64 j = 0; j < n; j++) norm += v[j] * v[j];
        if (!(norm > 0) || !isfinite(norm)) return round ? top : NAN;
        for (i64 j = 0; j < n; j++) v[j] /= sqrt(norm);
        top = 0;
        for (i64 r = 0; r < rows; r++) {
            double sum = 0;
            for (i64 j = 0; j < n; j++) sum += w[r * n + j] * v[j];
            u[r] = sum, top += sum * sum;
        }
        top = sqrt(top);
        if (!(fabs(top - before) > 1e-7 * top)) break;
        before = top;
        memset(v, 0, sizeof(double) * (size_t)n);
        for (i64 r = 0; r < rows; r++)
            for (i64 j = 0; j < n; j++) v[j] += w[r * n + j] * u[r];
    }
    return top;
}

/* ---- entropy of attention */

/* Of head HEAD at token T. */
static double entropy_at(const attention_view *a, i64 row, i64 head, i64 t, double *score)
{
    i64 width = a->q.n / a->heads, kv = head / (a->heads / a->kv_heads), base = row * a->tokens;
    i64 first = a->start ? a->start[base + t] : 0;
    if (a->window > 0) first = MAX(first, t - a->window + 1);
    double most = -INFINITY, sum = 0, weighted = 0;
    for (i64 s = first; s <= t; s++) {
        score[s] = 0;
        for (i64 j = 0; j < width; j++)
            score[s] += at(&a->q, base + t, head * width + j) * at(&a->k, base + s, kv * width + j);
        score[s] *= a->scale;
        most = fmax(most, score[s]);
    }
    for (i64 s = first; s <= t; s++) {
        double e = exp(score[s] - most);
        sum += e, weighted += e * (score[s] - most);
    }
    return log(sum) - weighted / sum;
}

double measure_entropy(const attention_view *a, i64 row, i64 most, double *scratch)
{
    i64 n = MIN(a->tokens, most);
    double sum = 0;
    for (i64 i = 0; i < n; i++)
        for (i64 h = 0; h < a->heads; h++)
            sum += entropy_at(a, row, h, n > 1 ? i * (a->tokens - 1) / (n - 1) : a->tokens - 1, scratch);
    return sum / (double)(n * a->heads);
}
