/* coord: the coordinate check of muP: does what a few steps change in the activations grow with the width?
 *
 *     coord_arm arm[COORD_ARMS];
 *     coord_options o = {.config = "mup.yaml", .widths = (i64[]){32, 64, 128}, .n_widths = 3, .steps = 10};
 *     o.device = d, o.isa = level;
 *     TRY(coord_check(&o, arena, arm));
 *     ... arm[1].flat: no kind of activation has a slope beyond COORD_FLAT ...
 *
 * The same configuration is trained at each width, once as train.transfer.kind none has it and once as mup.
 * Inner sizes go with the width: model.ffn.width in proportion, and the number of
 * heads where model.attention.head_width is given. Tokens are drawn (a walk through the vocabulary with
 * jumps): four sequences of at most COORD_CONTEXT, on which all steps train; all is f32. */
#pragma once
#include "config/config.h"
#include "device/device.h"

enum { COORD_ARMS = 2, COORD_CONTEXT = 16, COORD_WIDTHS = 16, COORD_VOCAB = 64 };
#define COORD_FLAT 0.15 // of d log(change) / d log(width): the bound of the check

typedef struct coord_options {
    const char *config; // NULL: built-in values
    const char *const *overrides;
    i64 n_overrides;
    const i64 *widths; // ascending
    i64 n_widths, steps, seeds;
    device *device;
    isa isa;
    void (*progress)(void *context, i64 done, i64 of); // trainings; NULL: nobody asks
    void *context;
} coord_options;

/* Activations of one kind: all outputs of one op at one place of the block, over layers, seeds, tokens. */
typedef struct coord_kind {
    const char *name;         // "attention/linear"
    double *size;             // [n_widths] mean |x| after the steps
    double *change;           // [n_widths] root mean square of what the steps changed
    double size_slope, slope; // of log(size), log(change) over log(width), least squares
} coord_kind;

typedef struct coord_arm {
    const char *transfer; // "none", "mup"
    coord_kind *kind;
    i64 n_kinds, steepest; // the kind of largest |slope|; one that is not finite is steeper than any
    bool flat;
} coord_arm;

/* Fills ARM[0] (none) and ARM[1] (mup: base width as the configuration says, else the first width); memory
 * from A. ERR_USAGE: fewer than two widths, not ascending; ERR_CONFIG: one that the configuration refuses. */
status coord_check(const coord_options *o, arena *a, coord_arm arm[COORD_ARMS]) MUST;
/* Slope of the least-squares line through (log x, log y); NaN unless all are above 0 and finite. */
double coord_slope(const i64 *x, const double *y, i64 n);
