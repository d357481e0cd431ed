/* gemm: C = op(A) op(B) (+ bias) (+ C), row-major with leading dimensions, by oneDNN.
 *
 *     // y [rows, out] = x [rows, in] W^T + b,  W [out, in]
 *     gemm_spec s = {.m = rows, .n = out, .k = in, .ab = GEMM_BF16, .c = GEMM_BF16, .b_trans = true,
 *                    .bias = GEMM_BIAS_F32};
 *     const gemm_plan *p;
 *     TRY(gemm_plan_get(device, &s, &p));                       // set-up: may allocate, may fail
 *     gemm_run(p, x, w, y, b, scratch);                         // scratch: gemm_scratch_bytes(p), or NULL if
 * 0
 *
 * op(A) is [m, k], op(B) is [k, n], C is [m, n]. Products and sums are f32; C is rounded once. The same plan
 * on the same values gives the same bits. Where oneDNN has no bfloat16 (a processor without AVX-512) a plan
 * widens to f32 in scratch, multiplies there and rounds: right everywhere, slower. */
#pragma once
#include "base/base.h"
#include "device/device.h"

typedef enum gemm_type { GEMM_F32, GEMM_BF16 } gemm_type;
typedef enum gemm_bias { GEMM_NO_BIAS, GEMM_BIAS_F32, GEMM_BIAS_BF16 } gemm_bias;

typedef struct gemm_spec {
    i64 m, n, k;       // >= 1
    gemm_type ab, c;   // c = GEMM_BF16 only with ab = GEMM_BF16
    bool a_trans;      // A is stored [k, m] instead of [m, k]
    bool b_trans;      // B is stored [n, k] instead of [k, n] (a weight [out, in])
    i64 lda, ldb, ldc; // elements from one stored row to the next; 0: dense
    bool accumulate;   // C += instead of C =
    gemm_bias bias;    // [n], added to every row
    bool ragged;       // the number of rows comes with each call (gemm_run_rows), m is its bound
    bool ragged_depth; // the length of the sums comes with each call (gemm_run_depth), k is its bound
    bool serial;       // for use inside a parallel region: one thread a call, any number of callers at once
    i64 split;         // rows of C in one call of oneDNN; 0: chosen by measurement (gemm.c), m: whole
} gemm_spec;

typedef struct gemm_plan gemm_plan;
/* The plan for SPEC, made on first demand and kept by D (equal specs share one). Set-up only: one thread,
 * outside any parallel region. ERR_CONFIG names the shape and what is wrong with it, or oneDNN's reason. */
status gemm_plan_get(device *d, const gemm_spec *spec, const gemm_plan **out) MUST;
/* Bytes of scratch a call needs (64-byte aligned; each concurrent caller its own). May be 0. */
i64 gemm_scratch_bytes(const gemm_plan *p);

/* Runs P: outside any parallel region with all threads; a `serial` plan on the calling thread, inside a
 * region too. A, B, C need only their type's alignment; C overlaps neither; bias is NULL exactly when P has
 * none. Nothing is allocated here (oneDNN itself mallocs some hundred bytes a call). */
void gemm_run(const gemm_plan *p, const void *a, const void *b, void *c, const void *bias, void *scratch);
/* Runs a `ragged` plan on the first ROWS rows, 0 <= rows <= m. (oneDNN may malloc some MB inside.) */
void gemm_run_rows(const gemm_plan *p, i64 rows, const void *a, const void *b, void *c, const void *bias,
                   void *scratch);
/* Runs a `ragged_depth` plan on sums of DEPTH terms, 0 <= depth <= k: the gradient of one expert's weight
 * over the tokens it was given. Of no term the sum is 0. */
void gemm_run_depth(const gemm_plan *p, i64 depth, const void *a, const void *b, void *c, void *scratch);

/* "gemm 2048x3072x768 bf16 bf16 -> f32, A^T, accumulated": for messages and listings. */
const char *gemm_describe(const gemm_spec *spec, char out[160]);
double gemm_flops(const gemm_spec *spec); // 2 m n k
