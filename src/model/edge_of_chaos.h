/* edge_of_chaos: the deviations of weights and biases at which a deep plain stack carries signals and
 * gradients on.
 *
 *     double sw, sb;
 *     if (edge_of_chaos(ACTIVATION_gelu, 1, &sw, &sb))     // 1.4811, 0.2592
 *         ... W ~ N(0, sw^2 / inputs), b ~ N(0, sb^2) ...
 */
#pragma once
#include "ops/activations.h"

/* The deviations at which pre-activations of variance Q (positive) stay at Q from layer to layer while
 * gradients keep their size. False where there are none: sb^2 < 0, or Q or the integrals are not finite and
 * positive; *sw and *sb are then untouched. */
bool edge_of_chaos(activation_kind phi, double q, double *sw, double *sb);
