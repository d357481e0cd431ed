/* gemm_widen: bfloat16 matrices carried to f32 and back, for a GEMM on a processor without bfloat16.
 *
 *     gemm_widen_layout(&spec, &layout);                             // set-up: layout.bytes of scratch
 *     gemm_widened w = gemm_widen_in(&layout, &spec, rows, a, b, c, bias, scratch);
 *     ... f32 GEMM on w.a, w.b, w.c, w.bias ...
 *     gemm_widen_out(&spec, rows, &w, c);                            // rounds when C is bfloat16
 *
 * Internal to src/device. */
#pragma once
#include "device/gemm.h"

typedef struct gemm_block { // a dense f32 copy in scratch
    i64 rows, cols, at;     // at: bytes from the start of scratch
} gemm_block;

typedef struct gemm_widen {
    gemm_block a, b, c, bias;
    i64 bytes;
} gemm_widen;

typedef struct gemm_widened {
    const float *a, *b;
    void *c; // the caller's own C when that is f32
    const float *bias;
} gemm_widened;

void gemm_widen_layout(const gemm_spec *spec, gemm_widen *out);
gemm_widened gemm_widen_in(const gemm_widen *w, const gemm_spec *spec, i64 rows, const void *a, const void *b,
                           const void *c, const void *bias, void *scratch);
void gemm_widen_out(const gemm_spec *spec, i64 rows, const gemm_widened *w, void *c);
