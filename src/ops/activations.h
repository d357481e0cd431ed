/* activations: the one list of scalar activations. Ops, cases, laws and configuration names come from it.
 *
 *     int kind = activation_find("silu");               // the attribute `kind` of activation and gated; -1:
 * unknown double y = activation64(kind, 0.5);               // the definition #pragma omp simd for (i64 j =
 * 0; j < n; j++) y[j] = act_silu(x[j]); // the kernel; slope_silu is its derivative
 *
 * ACT(index, name, value in double, slope in double, value in f32, slope in f32), all in x. A new one is one
 * line (its slope at a kink is the left one) and a line of worked values in activation.c. The f32 forms are
 * in vec.h's terms; value and slope share their exponential when inlined into one loop. NaN passes through.
 *
 * Sources: silu, gelu (exact: x P(N < x)) and gelu_tanh: Hendrycks and Gimpel, arXiv:1606.08415; relu2: So et
 * al., arXiv:2109.08668; elu (alpha 1): Clevert et al., arXiv:1511.07289; selu: Klambauer et al.,
 * arXiv:1706.02515.
 */
#pragma once
#include "ops/vec.h"
#include <math.h>
#include <string.h>

#define SELU_SCALE 1.0507009873554805
#define SELU_ALPHA 1.6732632423543772
#define GELU_ROOT 0.7978845608028654 // sqrt(2 / pi)

static inline double sigmoid64(double x) { return 1 / (1 + exp(-x)); }
static inline double normal64(double x) { return erfc(-x * M_SQRT1_2) / 2; }
static inline double gelu_tanh64(double x) { return tanh(GELU_ROOT * (x + 0.044715 * x * x * x)); }

static inline float gelu32(float x)
{
    float cdf, pdf;
    vec_normal(x, &cdf, &pdf);
    return x * cdf;
}
static inline float gelu_slope32(float x)
{
    float cdf, pdf;
    vec_normal(x, &cdf, &pdf);
    return cdf + x * pdf;
}
/* (1 + tanh u) / 2 = sigmoid(2 u) */
static inline float gelu_tanh32(float x)
{
    return vec_sigmoid(2 * (float)GELU_ROOT * (x + 0.044715f * x * x * x));
}
static inline float gelu_tanh_slope32(float x)
{
    float s = gelu_tanh32(x),
          z = x * x < 128 ? x * x : 128; // beyond, s (1 - s) is 0: keep it from meeting infinity
    return s + x * s * (1 - s) * 2 * (float)GELU_ROOT * (1 + 3 * 0.044715f * z);
}
static inline float silu_slope32(float x)
{
    float s = vec_sigmoid(x);
    return s * (1 + x * (1 - s));
}
static inline float sigmoid_slope32(float x)
{
    float s = vec_sigmoid(x);
    return s * (1 - s);
}
static inline float relu32(float x) { return x < 0 ? 0 : x; }

/* clang-format off */
#define ACTIVATION_LIST(ACT)                                                                             \
    ACT(0, silu, x * sigmoid64(x), sigmoid64(x) * (1 + x * (1 - sigmoid64(x))),                          \
        x * vec_sigmoid(x), silu_slope32(x))                                                             \
    ACT(1, gelu, x * normal64(x), normal64(x) + x * exp(-x * x / 2) / sqrt(2 * M_PI),                    \
        gelu32(x), gelu_slope32(x))                                                                      \
    ACT(2, gelu_tanh, 0.5 * x * (1 + gelu_tanh64(x)),                                                    \
        0.5 * (1 + gelu_tanh64(x)) +                                                                     \
            0.5 * x * (1 - gelu_tanh64(x) * gelu_tanh64(x)) * GELU_ROOT * (1 + 0.134145 * x * x),        \
        x * gelu_tanh32(x), gelu_tanh_slope32(x))                                                        \
    ACT(3, relu, x < 0 ? 0 : x, x > 0 ? 1 : 0, relu32(x), x > 0 ? 1.0f : 0.0f)                           \
    ACT(4, relu2, x < 0 ? 0 : x * x, x < 0 ? 0 : 2 * x, relu32(x) * relu32(x), 2 * relu32(x))            \
    ACT(5, identity, x, 1, x, 1.0f)                                                                      \
    ACT(6, sigmoid, sigmoid64(x), sigmoid64(x) * (1 - sigmoid64(x)), vec_sigmoid(x), sigmoid_slope32(x)) \
    ACT(7, tanh, tanh(x), 1 - tanh(x) * tanh(x), vec_tanh(x), 1 - vec_tanh(x) * vec_tanh(x))             \
    ACT(8, elu, x > 0 ? x : expm1(x), x > 0 ? 1 : exp(x),                                                \
        x > 0 ? x : vec_expm1(x), x > 0 ? 1.0f : vec_exp(x))                                             \
    ACT(9, selu, SELU_SCALE * (x > 0 ? x : SELU_ALPHA * expm1(x)),                                       \
        SELU_SCALE * (x > 0 ? 1 : SELU_ALPHA * exp(x)),                                                  \
        (float)SELU_SCALE * (x > 0 ? x : (float)SELU_ALPHA * vec_expm1(x)),                              \
        (float)SELU_SCALE * (x > 0 ? 1 : (float)SELU_ALPHA * vec_exp(x)))
/* clang-format on */

typedef enum activation_kind {
#define ACT(index, name, ...) ACTIVATION_##name = index,
    ACTIVATION_LIST(ACT)
#undef ACT
        ACTIVATION_COUNT
} activation_kind;

#define ACT(index, name, value64, slope64, value32, slope32)                                                 \
    static inline float act_##name(float x) { return value32; }                                              \
    static inline float slope_##name(float x)                                                                \
    {                                                                                                        \
        (void)x;                                                                                             \
        return slope32;                                                                                      \
    }
ACTIVATION_LIST(ACT)
#undef ACT

static inline const char *activation_name(int kind) // NULL beyond the list
{
    switch (kind) {
#define ACT(index, name, ...)                                                                                \
    case index:                                                                                              \
        return #name;
        ACTIVATION_LIST(ACT)
#undef ACT
    }
    return NULL;
}
static inline int activation_find(const char *name) // -1: no such activation
{
    for (int kind = 0; kind < ACTIVATION_COUNT; kind++)
        if (!strcmp(name, activation_name(kind))) return kind;
    return -1;
}
static inline double activation64(int kind, double x)
{
    switch (kind) {
#define ACT(index, name, value64, slope64, value32, slope32)                                                 \
    case index:                                                                                              \
        return value64;
        ACTIVATION_LIST(ACT)
#undef ACT
    }
    return NAN;
}
static inline double activation_slope64(int kind, double x)
{
    switch (kind) {
#define ACT(index, name, value64, slope64, value32, slope32)                                                 \
    case index:                                                                                              \
        return slope64;
        ACTIVATION_LIST(ACT)
#undef ACT
    }
    return NAN;
}

#define ACTIVATION_HELP(index, name, ...) #index " " #name "  "
#define ACTIVATION_ATTR                                                                                      \
    {                                                                                                        \
        "kind", 0, 0, ACTIVATION_COUNT - 1, ACTIVATION_LIST(ACTIVATION_HELP)                                 \
    }
