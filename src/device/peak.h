/* peak: what this machine gives, measured: the yardstick of every speed Keel states.
 *
 *     peak_probe *probe;
 *     TRY(peak_probe_open(device, GEMM_BF16, &probe));
 *     double before = peak_probe_time(probe);            // GFLOP/s now, 10-20 ms; again after the step
 *     peak_probe_close(probe);
 *
 *     peak_figures f;
 *     TRY(peak_measure(device, NULL, 0, &f));            // all four figures, some seconds
 *
 * Processors change their clock and neighbours take memory bandwidth, so a share of peak is only honest
 * against a probe taken beside the work. GFLOP/s count 2 m n k; GB/s (1e9) count bytes read plus bytes
 * written. */
#pragma once
#include "base/base.h"
#include "device/device.h"
#include "device/gemm.h"

typedef struct peak_shape {
    i64 m, n, k;
} peak_shape;

typedef struct peak_probe peak_probe;
/* A GEMM [2048 x 3072 x 768], f32 or bf16 factors (result of the same type), on random values. */
status peak_probe_open(device *d, gemm_type type, peak_probe **out) MUST;
/* The same on the fastest of square 2048, square 4096, the shape above and the caller's SHAPES (N of them),
 * chosen once; *gflops is what it reached. */
status peak_probe_best(device *d, gemm_type type, const peak_shape *shapes, i64 n, peak_probe **out,
                       double *gflops) MUST;
double peak_probe_time(peak_probe *p); // GFLOP/s over at least one product and 8 ms
void peak_probe_close(peak_probe *p);  // NULL allowed

typedef struct peak_figures {
    double gemm_f32_gflops, gemm_bf16_gflops; // best over the shapes
    double copy_gbs, read_gbs;                // best of several passes, buffers far beyond any cache
} peak_figures;
/* Best over square 2048, square 4096, the probe's shape and the caller's SHAPES (N of them; may be NULL, 0).
 * Needs about 700 MiB for a while. ERR_MEMORY, or a shape's error. */
status peak_measure(device *d, const peak_shape *shapes, i64 n, peak_figures *out) MUST;
