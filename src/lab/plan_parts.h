/* plan_parts: what the files of the plan share; nobody else includes it. */
#pragma once
#include "config/config.h"
#include "lab/plan.h"
#include "train/session.h"

/* The shards of one way to say data: prepared once, used by every run that says the same. */
typedef struct lab_shards {
    u64 key; // hash of the data block
    dataset *data;
    const char *folder;
    struct lab_shards *next;
} lab_shards;

/* The configuration of an arm with MORE settings; its words on the command line into the arena. Data are
 * prepared, the vocabulary is known. */
status plan_config(lab_plan *p, i64 arm, const lab_setting *more, i64 n_more, config **out,
                   const char ***words, i64 *n_words, u64 *data) MUST;
/* Steps and flops of the run; a time budget: both 0 and its *seconds. */
status plan_size(lab_plan *p, config *c, i64 *steps, double *flops, double *seconds) MUST;
status plan_figures(lab_plan *p, config *c, model_figures *out) MUST;
/* match.c: fills p->matched and p->match_ratio. */
status plan_match(lab_plan *p) MUST;
void plan_say(const lab_plan *p, const char *format, ...) PRINTF(2, 3);
