/* edge_of_chaos: of the stack y_l = W_l phi(y_{l-1}) + b_l, W ~ N(0, sw^2 / inputs), b ~ N(0, sb^2), in the
 * limit of wide layers, with Z ~ N(0, 1):
 *
 *   q     = sb^2 + sw^2 E[phi(sqrt(q) Z)^2]       the variance of y stays
 *   chi_1 = sw^2 E[phi'(sqrt(q) Z)^2] = 1         gradients neither grow nor vanish with depth
 *
 * For a given q the second gives sw, the first then sb. Smooth functions have a curve of solutions, one for
 * each q; ReLU's is the point sw = sqrt 2, sb = 0 at every q. As q -> 0, sw -> 1 / |phi'(0)| and sb -> 0.
 *
 * Source:   Hayou, Doucet and Rousseau, arXiv:1902.06853.
 * Note:     a fixed point need not attract: with v(q) the right side of the first line, v'(1) is 0.73 of
 * selu, 0.86 of elu, 1 of relu, 1.07 of gelu, 1.10 of silu, 1.5 of relu2. Above 1 a layer's chance deviation,
 * of about 1/sqrt(width), grows by that factor in each further layer. Numerics: Gauss' rule of 8 points on
 * panels of 1/2 to 10 deviations on either side of 0, where these functions may have a kink: 1e-13 at q about
 * 1 (the tails beyond weigh 1e-23).
 */
#include "model/edge_of_chaos.h"

enum { POINTS = 4, PANELS = 20 };
static const double node[POINTS] = {0.1834346424956498, 0.5255324099163290, 0.7966664774136267,
                                    0.9602898564975363};
static const double weight[POINTS] = {0.3626837833783620, 0.3137066458778873, 0.2223810344533745,
                                      0.1012285362903763};

typedef struct moments {
    double value, slope; // E[phi^2], E[phi'^2]
} moments;

static void add(moments *m, activation_kind phi, double root, double z, double w)
{
    w *= exp(-z * z / 2) / sqrt(2 * M_PI);
    m->value += w * pow(activation64(phi, root * z), 2);
    m->slope += w * pow(activation_slope64(phi, root * z), 2);
}

static moments measure(activation_kind phi, double q)
{
    moments m = {0};
    const double half = 0.25, root = sqrt(q);
    for (int panel = -PANELS; panel < PANELS; panel++)
        for (int k = 0; k < POINTS; k++)
            for (int side = -1; side <= 1; side += 2)
                add(&m, phi, root, (2 * panel + 1 + side * node[k]) * half, weight[k] * half);
    return m;
}

bool edge_of_chaos(activation_kind phi, double q, double *sw, double *sb)
{
    if (!(q > 0) || !isfinite(q)) return false;
    moments m = measure(phi, q);
    double bias = q - m.value / m.slope; // sb^2
    if (!(m.slope > 0) || !isfinite(m.slope) || !(bias >= -1e-12 * q)) return false;
    *sw = 1 / sqrt(m.slope);
    *sb = bias > 1e-12 * q ? sqrt(bias) : 0; // less is rounding
    return true;
}
