/* plan: which documents a build will make, before anything is encoded.
 *
 *     build_plan p;
 *     TRY(plan_make(options, &p));            // finds files, cuts documents, chooses validation
 *     for (i64 i = 0; i < p.count; i++) encode(p.files.file[p.document[i].file], p.document[i]);
 *     plan_free(&p);
 */
#pragma once
#include "data/dataset.h"
#include "data/document.h"

typedef struct plan_document {
    i64 start, bytes; // in its file
    u64 hash;         // XXH3-64 of its bytes
    u32 file;
    data_split split;
} plan_document;

typedef struct build_plan {
    sources files;
    plan_document *document; // in the order of files and of text
    i64 count, capacity, bytes;
    bool validation_is_tail;
} build_plan;

/* "1%" -> 0.01 and *is_path false; "0" -> 0; else *is_path. ERR_CONFIG: over 50 %. */
status validation_parse(const char *value, double *share, bool *is_path) MUST;
/* The files only: plan_find; then the documents: plan_cut. */
status plan_find(const build_options *o, build_plan *p) MUST;
status plan_cut(const build_options *o, build_plan *p) MUST;
void plan_free(build_plan *p);
