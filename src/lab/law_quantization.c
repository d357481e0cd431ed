/* quantization: loss of quantization-aware training; quantization_error: what quantizing adds to it.
 *
 *   delta = k D^gD (log2 G)^gG N^-gN
 *   L     = E + A N^-alpha + B D^-alpha + delta
 *
 * G is the number of values that share a scale; with G = 1 quantizing costs nothing.
 *
 * Source:  Chen et al., arXiv:2505.14302: E 1.9279, A 237.7042, B 596.2490, alpha 0.3022; of 4-bit weights
 * and activations k 0.1582, gN 0.2186, gD 0.0745, gG 0.7779. Fit:     delta alone is linear in logarithms. It
 * is a small difference of two losses: rows of which it is not above twice the noise between seeds should not
 * be in the table. */
#include "lab/law.h"
#include <math.h>

static law_number error_of(const law_number *t, const double *x)
{
    return cexp(t[0] - t[1] * log(x[0]) + t[2] * log(x[1]) + t[3] * log(log2(x[2])));
}

static double error_basis(const double *t, const double *x, double *column)
{
    (void)t;
    column[0] = 1, column[1] = -log(x[0]), column[2] = log(x[1]), column[3] = log(log2(x[2]));
    return 0;
}

#define INPUTS(sizes)                                                                                        \
    {                                                                                                        \
        {"N", "parameters, embeddings left out", "params params_non_embedding parameters", 0, sizes},        \
            {"D", "training tokens", "tokens", 0, sizes},                                                    \
        {                                                                                                    \
            "G", "values that share a scale", "group_size", 1, 2                                             \
        }                                                                                                    \
    }

const law law_quantization_error = {
    .name = "quantization_error",
    .title = "What quantization-aware training adds to the loss",
    .formula = "delta = k N^-gN D^gD (log2 G)^gG",
    .source = "arXiv:2505.14302",
    .note = "delta is the loss of the quantized run less that of the same run in full precision: a column "
            "`delta`, or\n`loss` and `base`.",
    .target = "delta",
    .target_help = "loss added, nats a token",
    .target_also = "",
    .minus = "base",
    .input = INPUTS(2),
    .inputs = 3,
    .param = {{"k", "scale", LAW_POSITIVE},
              {"gN", "how fast it falls with size", LAW_ANY},
              {"gD", "how fast it rises with tokens", LAW_ANY},
              {"gG", "how fast it rises with the logarithm of G", LAW_ANY}},
    .params = 4,
    .predict = error_of,
    .basis = error_basis,
    .basis_of_log = true};

static law_number predict(const law_number *t, const double *x)
{
    double n = log(x[0]), d = log(x[1]);
    return cexp(t[0]) + cexp(t[1] - t[3] * n) + cexp(t[2] - t[3] * d) + error_of(t + 4, x);
}

static double basis(const double *t, const double *x, double *column)
{
    column[0] = 1, column[1] = pow(x[0], -t[3]), column[2] = pow(x[1], -t[3]);
    column[3] = exp(-t[5] * log(x[0]) + t[6] * log(x[1]) + t[7] * log(log2(x[2])));
    return 0;
}

const law law_quantization = {
    .name = "quantization",
    .title = "Loss of quantization-aware training",
    .formula = "L = E + A N^-alpha + B D^-alpha + k N^-gN D^gD (log2 G)^gG",
    .source = "arXiv:2505.14302",
    .note =
        "All eight parameters at once from quantized runs alone. With paired runs in full precision, fit\n"
        "chinchilla_tied to those and quantization_error to the differences: it is far better determined.",
    .target = "loss",
    .target_help = "final loss, nats a token",
    .target_also = "val_loss L",
    .input = INPUTS(3),
    .inputs = 3,
    .sizes = 1,
    .param = {{"E", "loss that neither removes", LAW_POSITIVE, .floor = true},
              {"A", "scale of what size removes", LAW_POSITIVE},
              {"B", "scale of what tokens remove", LAW_POSITIVE},
              {"alpha",
               "how fast both remove it",
               LAW_ANY,
               {0.1, 0.2, 0.3, 0.45, 0.7},
               .n_grid = 5,
               .exponent = true},
              {"k", "scale of what quantizing adds", LAW_POSITIVE},
              {"gN", "how fast that falls with size", LAW_ANY, {0.1, 0.3, 0.5}, .n_grid = 3},
              {"gD", "how fast it rises with tokens", LAW_ANY, {0.03, 0.15}, .n_grid = 2},
              {"gG", "how fast it rises with the logarithm of G", LAW_ANY, {0.4, 0.9}, .n_grid = 2}},
    .params = 8,
    .predict = predict,
    .basis = basis};
