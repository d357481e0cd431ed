/* plan: which documents a build will make, before anything is encoded.
 *
 *     build_plan p = {0};
 *     TRY(plan_find(options, &p));            // the files
 *     TRY(plan_cut(options, ends, 1, &p));    // reads them once: documents, validation, duplicates
 *     use(p.document[d.number]);              // d: what a pipe over p.files and p.rules gives, in the same
 * order plan_free(&p);
 */
#pragma once
#include "data/dataset.h"
#include "data/pipe.h"

enum { PLAN_DUPLICATE = DATA_SPLITS }; // a document that is dropped

typedef struct plan_document {
    i64 bytes;
    u64 hash; // XXH3-64 of its bytes
    u32 file;
    i32 split; // a data_split or PLAN_DUPLICATE
} plan_document;

typedef struct build_plan {
    sources files;
    read_rules rules;
    plan_document *document; // in the order of files and of text
    i64 count, capacity, bytes;
    i64 blank, duplicates;
    bool validation_is_tail; // document TAIL is cut at byte TAIL_CUT: what follows is validation
    i64 tail, tail_cut;
} build_plan;

/* "1%" -> 0.01 and *is_path false; "0" -> 0; else *is_path. ERR_CONFIG: over 50 %. */
status validation_parse(const char *value, double *share, bool *is_path) MUST;
status plan_find(const build_options *o, build_plan *p) MUST;
/* ENDS: ids between the documents of foreign shards; borrowed until plan_free. N = 0: ERR_INPUT if there are
 * such. */
status plan_cut(const build_options *o, const i32 *ends, i64 n, build_plan *p) MUST;
void plan_free(build_plan *p);
