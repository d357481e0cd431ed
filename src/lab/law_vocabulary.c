/* vocabulary: loss from parameters outside and inside the vocabulary's tables, and tokens; vocabulary_growth:
 * how the best vocabulary grows with the rest.
 *
 *   L_u = -E + A1 N^-alpha + A2 Nv^-alpha2 + B D^-alpha       N without vocabulary, Nv = V d
 *   Nv  = k N^p                                               the best Nv of models of each size
 *
 * L_u is the unigram-normalised loss, mean(-ln p(w | context) + ln p_unigram(w)): losses of different
 * vocabularies cannot be compared otherwise. It is negative, so residuals are absolute here.
 *
 * Source:  Tao et al., arXiv:2407.13623: E 5.532785, A1 1.831385, A2 0.195842, B 2.124112, alpha 0.446606
 *          (of N and of D), alpha2 0.670737 with N and Nv in millions, D in billions; Nv = 3145728
 *          (N / 33e6)^0.835397. The constants of a fit are in the units of the table. */
#include "lab/law.h"
#include <math.h>

static law_number predict(const law_number *t, const double *x)
{
    double n = log(x[0]), v = log(x[1]), d = log(x[2]);
    return -cexp(t[0]) + cexp(t[1] - t[2] * n) + cexp(t[3] - t[4] * v) + cexp(t[5] - t[2] * d);
}

static double basis(const double *t, const double *x, double *column)
{
    column[0] = -1, column[1] = pow(x[0], -t[2]), column[2] = pow(x[1], -t[4]), column[3] = pow(x[2], -t[2]);
    return 0;
}

#define EXPONENTS {0.1, 0.25, 0.4, 0.55, 0.75, 1.1}, .n_grid = 6, .exponent = true

const law law_vocabulary = {
    .name = "vocabulary",
    .title = "Loss from parameters outside and inside of the vocabulary's tables, and tokens; gives the best "
             "vocabulary",
    .formula = "L_u = -E + A1 N^-alpha + A2 Nv^-alpha2 + B D^-alpha        Nv = V d",
    .source = "arXiv:2407.13623, approach 3",
    .note = "Losses of different vocabularies compare only when each is taken relative to its unigram's.",
    .target = "loss",
    .target_help = "unigram-normalised loss (cross-entropy less that of unigram frequencies), nats a token",
    .target_also = "unigram_loss Lu L_u",
    .absolute = true,
    .input = {{"N", "parameters outside of the vocabulary's tables",
               "Nnv params params_non_embedding non_embedding", 0, 3},
              {"Nv", "parameters of the vocabulary's tables: V d", "params_vocab vocab_params", 0, 3},
              {"D", "training tokens", "tokens", 0, 3}},
    .inputs = 3,
    .sizes = 2,
    .param = {{"E", "gain over the unigram that all of them at most give", LAW_POSITIVE},
              {"A1", "scale of what size removes", LAW_POSITIVE},
              {"alpha", "how fast size and tokens remove", LAW_ANY, EXPONENTS},
              {"A2", "scale of what the vocabulary removes", LAW_POSITIVE},
              {"alpha2", "how fast the vocabulary removes", LAW_ANY, EXPONENTS},
              {"B", "scale of what tokens remove", LAW_POSITIVE}},
    .params = 6,
    .predict = predict,
    .basis = basis};

static law_number growth(const law_number *t, const double *x) { return cexp(t[0] + t[1] * log(x[0])); }

static double growth_basis(const double *t, const double *x, double *column)
{
    (void)t;
    column[0] = 1, column[1] = log(x[0]);
    return 0;
}

const law law_vocabulary_growth = {
    .name = "vocabulary_growth",
    .title = "The best vocabulary from the size of the rest of the model",
    .formula = "Nv = k N^p        Nv = V d",
    .source = "arXiv:2407.13623, approaches 1 and 2",
    .note = "A row is the best run of a sweep over vocabularies, not any run.",
    .target = "Nv",
    .target_help = "parameters of the vocabulary's tables at the best vocabulary",
    .target_also = "params_vocab vocab_params",
    .input = {{"N", "parameters outside of the vocabulary's tables",
               "Nnv params params_non_embedding non_embedding", 0, 2}},
    .inputs = 1,
    .param = {{"k", "scale", LAW_POSITIVE},
              {"p", "exponent: below 1, tables grow slower than the rest", LAW_ANY}},
    .params = 2,
    .predict = growth,
    .basis = growth_basis,
    .basis_of_log = true};
