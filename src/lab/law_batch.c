/* batch, critical_batch, lr: what to train with.
 *
 *   batch            B   = k D^p                        the best batch, in tokens
 *   critical_batch   D   = D_min (1 + B / B_crit)       tokens to a fixed loss with batches of B
 *   lr               eta = k N^-a D^b                   the best learning rate
 *
 * Sources: batch and lr: Li et al. (Step Law), arXiv:2503.04715: B = 0.58 D^0.571, eta = 1.79 N^-0.713
 *          D^0.307 (N without embeddings, 2.1e8 to 1.1e9; D 4e9 to 1e11). critical_batch: McCandlish et al.,
 *          arXiv:1812.06162: (S/S_min - 1)(D/D_min - 1) = 1 with D = S B, solved for D.
 * All three are linear: batch and lr in logarithms, critical_batch in D_min and D_min / B_crit. */
#include "lab/law.h"
#include <math.h>

static law_number batch(const law_number *t, const double *x) { return cexp(t[0] + t[1] * log(x[0])); }

static double batch_basis(const double *t, const double *x, double *column)
{
    (void)t;
    column[0] = 1, column[1] = log(x[0]);
    return 0;
}

const law law_batch = {.name = "batch",
                       .title = "The best batch from tokens",
                       .formula = "B = k D^p",
                       .source = "arXiv:2503.04715",
                       .note = "A row is the best run of a sweep over batches, not any run.",
                       .target = "B",
                       .target_help = "the best batch, tokens",
                       .target_also = "batch batch_tokens",
                       .input = {{"D", "training tokens", "tokens", 0, 2}},
                       .inputs = 1,
                       .param = {{"k", "scale", LAW_POSITIVE}, {"p", "exponent", LAW_ANY}},
                       .params = 2,
                       .predict = batch,
                       .basis = batch_basis,
                       .basis_of_log = true};

static law_number critical(const law_number *t, const double *x) // theta: ln D_min, ln(D_min / B_crit)
{
    return cexp(t[0]) + cexp(t[1]) * x[0];
}

static double critical_basis(const double *t, const double *x, double *column)
{
    (void)t;
    column[0] = 1, column[1] = x[0];
    return 0;
}

static void critical_natural(const double *t, double *value)
{
    value[0] = exp(t[0]), value[1] = exp(t[0] - t[1]);
}

const law law_critical_batch = {
    .name = "critical_batch",
    .title = "Tokens that a fixed loss takes, from the batch; gives the critical batch",
    .formula = "D = D_min (1 + B / B_crit)",
    .source = "arXiv:1812.06162",
    .note = "A row is a run until it reached one and the same loss, its learning rate tuned for its batch.",
    .target = "D",
    .target_help = "tokens until the loss was reached",
    .target_also = "tokens",
    .input = {{"B", "batch, tokens", "batch batch_tokens", 0, 2}},
    .inputs = 1,
    .param = {{"D_min", "tokens with the smallest batch", LAW_POSITIVE},
              {"B_crit", "the batch that takes twice as many", LAW_POSITIVE}},
    .params = 2,
    .predict = critical,
    .basis = critical_basis,
    .natural = critical_natural};

static law_number lr(const law_number *t, const double *x)
{
    return cexp(t[0] - t[1] * log(x[0]) + t[2] * log(x[1]));
}

static double lr_basis(const double *t, const double *x, double *column)
{
    (void)t;
    column[0] = 1, column[1] = -log(x[0]), column[2] = log(x[1]);
    return 0;
}

const law law_lr = {
    .name = "lr",
    .title = "The best learning rate from parameters and tokens",
    .formula = "lr = k N^-a D^b",
    .source = "arXiv:2503.04715",
    .note = "A row is the best run of a sweep over learning rates, not any run.",
    .target = "lr",
    .target_help = "the best peak learning rate",
    .target_also = "learning_rate eta",
    .input = {{"N", "parameters, embeddings left out", "params params_non_embedding parameters", 0, 2},
              {"D", "training tokens", "tokens", 0, 2}},
    .inputs = 2,
    .param = {{"k", "scale", LAW_POSITIVE},
              {"a", "how fast it falls with size", LAW_ANY},
              {"b", "how fast it rises with tokens", LAW_ANY}},
    .params = 3,
    .predict = lr,
    .basis = lr_basis,
    .basis_of_log = true};
