/* grid: do methods compose? Builds a small model with one or two methods, and puts it through what a run goes
 * through: the gradient of the whole model, training, saving and resuming, decoding.
 *
 *     grid_cell cell;
 *     TRY(grid_try(method_find("frac"), method_find("moe"), &(grid_options){.device = d}, &cell));
 *     ... cell.outcome == GRID_OK, or cell.reason says why not ...
 */
#pragma once
#include "device/device.h"
#include "model/methods.h"

typedef enum grid_outcome {
    GRID_OK,
    GRID_REFUSED, // the configuration was refused: an equation has no meaning
    GRID_FAILED,  // it was accepted and something below did not hold
} grid_outcome;

typedef struct grid_cell {
    const method_row *a, *b; // b NULL: a method by itself
    grid_outcome outcome;
    char reason[512];     // of a refusal or failure
    double slope;         // worst error of the gradient's slopes, in double, relative
    double before, after; // nats a token before and after training
    double decode;        // worst difference of a decoded logit, relative to the largest
    double seconds;
} grid_cell;

typedef struct grid_options {
    device *device;
    isa isa;
    const char *folder; // for checkpoints; made and emptied
} grid_options;

/* What is asked of an accepted pair:
 *   slopes    autodiff's gradient along two random directions and some coordinates of every parameter equals
 *             central differences of the objective, both in double, selections held: 1e-5 relative
 *   training  30 steps on eight rows lower the loss
 *   resuming  saved after 20 steps and loaded into a new session, the other 10 give the same bits
 *   decoding  a prompt in pieces, then token by token, gives the logits of the whole sequence: 1e-4
 * The status only tells of what keeps the grid itself from going on (memory, files). */
status grid_try(const method_row *a, const method_row *b, const grid_options *o, grid_cell *out) MUST;
/* Should A and B be tried together? Methods of one slot replace each other. */
bool grid_pair(const method_row *a, const method_row *b);
