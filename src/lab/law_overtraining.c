/* overtraining: loss from compute C = 6 N D and the ratio M = D / N, for models trained far beyond the
 * compute-optimal point; downstream: the mean error of tasks from that loss.
 *
 *   L   = E + (a M^eta + b M^-eta) C^-eta
 *   Err = epsilon - k exp(-gamma L)
 *
 * The first is chinchilla_tied with alpha = 2 eta, A = a 6^-eta, B = b 6^-eta: C^-eta M^eta = 6^-eta N^-2eta
 * and C^-eta M^-eta = 6^-eta D^-2eta; the optimum is at M = (b/a)^(1 / 2 eta), whatever the compute.
 *
 * Source:  Gadre et al., arXiv:2403.08540 (eta is the exponent of C; released fits: RedPajama E 1.838,
 *          eta 0.1365, a 212.7, b 367.7). */
#include "lab/law.h"
#include <math.h>

static law_number predict(const law_number *t, const double *x)
{
    double m = log(x[1]) - log(x[0]), c = log(6) + log(x[0]) + log(x[1]);
    return cexp(t[0]) + cexp(t[1] + t[3] * (m - c)) + cexp(t[2] - t[3] * (m + c));
}

static double basis(const double *t, const double *x, double *column)
{
    double m = log(x[1]) - log(x[0]), c = log(6) + log(x[0]) + log(x[1]);
    column[0] = 1, column[1] = exp(t[3] * (m - c)), column[2] = exp(-t[3] * (m + c));
    return 0;
}

const law law_overtraining = {
    .name = "overtraining",
    .title = "Loss from compute and tokens a parameter, for models trained longer than is compute-optimal",
    .formula = "L = E + (a M^eta + b M^-eta) C^-eta        C = 6 N D, M = D / N",
    .source = "arXiv:2403.08540",
    .target = "loss",
    .target_help = "final loss, nats a token",
    .target_also = "val_loss L",
    .input = {{"N", "parameters", "params params_non_embedding parameters non_embedding", 0, 3},
              {"D", "training tokens", "tokens", 0, 2}},
    .inputs = 2,
    .sizes = 1,
    .param = {{"E", "loss that compute does not remove", LAW_POSITIVE, .floor = true},
              {"a", "cost of too few parameters", LAW_POSITIVE},
              {"b", "cost of too few tokens", LAW_POSITIVE},
              {"eta",
               "how fast compute removes both",
               LAW_ANY,
               {0.03, 0.08, 0.14, 0.22, 0.35, 0.55},
               .n_grid = 6,
               .exponent = true}},
    .params = 4,
    .predict = predict,
    .basis = basis};

static law_number downstream(const law_number *t, const double *x)
{
    return cexp(t[0]) - cexp(t[1] - cexp(t[2]) * x[0]);
}

static double downstream_basis(const double *t, const double *x, double *column)
{
    column[0] = 1, column[1] = -exp(-exp(t[2]) * x[0]);
    return 0;
}

const law law_downstream = {
    .name = "downstream",
    .title = "Mean error of downstream tasks from the loss",
    .formula = "Err = epsilon - k exp(-gamma L)",
    .source = "arXiv:2403.08540",
    .target = "error",
    .target_help = "mean error of the tasks, from 0 to 1",
    .target_also = "err top1_error",
    .input = {{"L", "loss, nats a token", "loss val_loss", 0, 3}},
    .inputs = 1,
    .param = {{"epsilon", "error of a model that knows nothing", LAW_POSITIVE},
              {"k", "how much a small loss takes off", LAW_POSITIVE},
              {"gamma", "how fast", LAW_POSITIVE, {-2.3, -0.7, 0, 0.7, 1.4, 2.3}, .n_grid = 6}},
    .params = 3,
    .predict = downstream,
    .basis = downstream_basis};
