/* over_encoding: loss from the rows of the n-gram tables of over-encoding.
 *
 *   L = L1 - s log10(m)
 *
 * Source:  Huang et al. (Over-Tokenized Transformer), arXiv:2501.16975: OLMoE-1.3B, 500 G tokens, m from 20 K
 *          to 12.8 M: L = 2.6754 - 0.0256 log10 m.
 * It is linear, and has no floor: it cannot hold far outside of the rows seen. */
#include "lab/law.h"
#include <math.h>

static law_number predict(const law_number *t, const double *x) { return t[0] - t[1] * log10(x[0]); }

static double basis(const double *t, const double *x, double *column)
{
    (void)t;
    column[0] = 1, column[1] = -log10(x[0]);
    return 0;
}

const law law_over_encoding = {.name = "over_encoding",
                               .title = "Loss from the rows of over-encoding's n-gram tables",
                               .formula = "L = L1 - s log10(m)",
                               .source = "arXiv:2501.16975",
                               .target = "loss",
                               .target_help = "final loss, nats a token",
                               .target_also = "val_loss L",
                               .input = {{"m", "rows of each table of n-grams", "rows oe_rows", 0, 2}},
                               .inputs = 1,
                               .param = {{"L1", "loss with a table of one row", LAW_ANY},
                                         {"s", "what ten times the rows take off, nats a token", LAW_ANY}},
                               .params = 2,
                               .predict = predict,
                               .basis = basis};
