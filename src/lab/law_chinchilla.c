/* chinchilla: loss from parameters and tokens.
 *
 *   L = E + A N^-alpha + B D^-beta
 *   N = k C^a                            allocation: the best size at each compute
 *
 * chinchilla_tied has alpha = beta, which is the over-training law in other letters (law_overtraining.c).
 *
 * Source:  Hoffmann et al., arXiv:2203.15556, approach 3; constants corrected by Besiroglu et al.,
 *          arXiv:2404.10102 (E 1.8172, A 482.01, alpha 0.3478, B 2085.43, beta 0.3658).
 * Fit:     as there: Huber loss of 1e-3 on ln L, summed, not averaged. At given exponents E, A, B are linear:
 *          the grid is over the exponents alone, not over 4,500 combinations of all five. */
#include "lab/law.h"
#include <math.h>

#define EXPONENTS {0.05, 0.15, 0.3, 0.45, 0.7, 1.1}, .n_grid = 6, .exponent = true
#define SIZE_AND_TOKENS                                                                                      \
    {                                                                                                        \
        {"N", "parameters", "params params_non_embedding parameters non_embedding", 0, 3},                   \
        {                                                                                                    \
            "D", "training tokens", "tokens", 0, 3                                                           \
        }                                                                                                    \
    }

static law_number predict(const law_number *t, const double *x)
{
    return cexp(t[0]) + cexp(t[1] - t[2] * log(x[0])) + cexp(t[3] - t[4] * log(x[1]));
}

static double basis(const double *t, const double *x, double *column)
{
    column[0] = 1, column[1] = pow(x[0], -t[2]), column[2] = pow(x[1], -t[4]);
    return 0;
}

const law law_chinchilla = {.name = "chinchilla",
                            .title = "Loss from parameters and tokens; gives the compute-optimal size",
                            .formula = "L = E + A N^-alpha + B D^-beta",
                            .source = "arXiv:2203.15556, corrected by arXiv:2404.10102",
                            .target = "loss",
                            .target_help = "final loss, nats a token",
                            .target_also = "val_loss L",
                            .input = SIZE_AND_TOKENS,
                            .inputs = 2,
                            .sizes = 1,
                            .param = {{"E", "loss that neither removes", LAW_POSITIVE, .floor = true},
                                      {"A", "scale of what size removes", LAW_POSITIVE},
                                      {"alpha", "how fast size removes it", LAW_ANY, EXPONENTS},
                                      {"B", "scale of what tokens remove", LAW_POSITIVE},
                                      {"beta", "how fast tokens remove it", LAW_ANY, EXPONENTS}},
                            .params = 5,
                            .predict = predict,
                            .basis = basis};

static law_number predict_tied(const law_number *t, const double *x)
{
    return cexp(t[0]) + cexp(t[1] - t[3] * log(x[0])) + cexp(t[2] - t[3] * log(x[1]));
}

static double basis_tied(const double *t, const double *x, double *column)
{
    column[0] = 1, column[1] = pow(x[0], -t[3]), column[2] = pow(x[1], -t[3]);
    return 0;
}

const law law_chinchilla_tied = {
    .name = "chinchilla_tied",
    .title = "The same with one exponent: the tokens that a parameter deserves do not change with compute",
    .formula = "L = E + A N^-alpha + B D^-alpha",
    .source = "arXiv:2403.08540, appendix; the full-precision part of arXiv:2505.14302",
    .target = "loss",
    .target_help = "final loss, nats a token",
    .target_also = "val_loss L",
    .input = SIZE_AND_TOKENS,
    .inputs = 2,
    .sizes = 1,
    .param = {{"E", "loss that neither removes", LAW_POSITIVE, .floor = true},
              {"A", "scale of what size removes", LAW_POSITIVE},
              {"B", "scale of what tokens remove", LAW_POSITIVE},
              {"alpha", "how fast both remove it", LAW_ANY, EXPONENTS}},
    .params = 4,
    .predict = predict_tied,
    .basis = basis_tied};

static law_number allocate(const law_number *t, const double *x) { return cexp(t[0] + t[1] * log(x[0])); }

static double allocate_basis(const double *t, const double *x, double *column)
{
    (void)t;
    column[0] = 1, column[1] = log(x[0]);
    return 0;
}

const law law_allocation = {
    .name = "allocation",
    .title = "The best size from compute",
    .formula = "N = k C^a",
    .source = "arXiv:2203.15556, approaches 1 and 2",
    .note = "A row is the best run at its compute, or the vertex of a parabola through runs of equal "
            "compute; not any "
            "run.",
    .target = "N",
    .target_help = "parameters of the best run at that compute",
    .target_also = "params params_non_embedding parameters non_embedding",
    .input = {{"C", "compute, flops", "flops compute", 0, 2}},
    .inputs = 1,
    .param = {{"k", "scale", LAW_POSITIVE}, {"a", "exponent: 0.5 splits compute evenly", LAW_ANY}},
    .params = 2,
    .predict = allocate,
    .basis = allocate_basis,
    .basis_of_log = true};
