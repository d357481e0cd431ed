/* run_page: the report page of a run's folder.
 *
 *     TRY(run_page_write("runs/a", "report.html", NULL));
 *
 * Reads metrics.jsonl (must be there); config.yaml, the resolved configuration; summary.json, one object
 * about the run: "name", "status", "code", "host", "isa", "libraries" (strings), "steps", "tokens",
 * "seconds", "parameters", "loss" (of validation), "val_bits_per_byte" (numbers), "baselines" ({"Kneser-Ney
 * bigram": bits per byte}); other strings and numbers are shown as they are. SAMPLES, or samples.jsonl in the
 * folder: a line
 * {"prompt": "...", "completion": "..."} each. */
#pragma once
#include "base/text.h"

/* Writes the page to OUT, whole or not at all. ERR_IO or ERR_FORMAT names the file and what is wrong with it.
 */
status run_page_write(const char *folder, const char *out, const char *samples) MUST;
/* Appends it to OUT. REFRESH: seconds after which a browser loads it again; 0: never. */
status run_page_html(const char *folder, const char *samples, i64 refresh, text *out) MUST;
