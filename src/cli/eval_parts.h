/* eval_parts: the parts of `keel eval` that have a file of their own. Only src/cli/eval*.c include this. */
#pragma once
#include "eval/drop_layers.h"
#include "infer/model_files.h"

/* keel eval layers: a table, or one JSON object. */
status eval_layers(session *s, const dataset *d, const drop_options *o, const model_files *f, bool json) MUST;
