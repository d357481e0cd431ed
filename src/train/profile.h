/* profile: where a program's time goes, as a table of operations.
 *
 *     program_profile(p, true);
 *     ... run ...
 *     profile_tell(p, peak_gflops, talk, context);      // a line an operation, the most expensive first
 */
#pragma once
#include "graph/program.h"

/* PEAK_GFLOPS: of the machine's matrix products, what "of peak" is a share of. */
void profile_tell(const program *p, double peak_gflops, void (*talk)(void *context, const char *line),
                  void *context);
