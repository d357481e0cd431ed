/* pipe: all documents of a list of files, in batches: what can be done to each alone in parallel, the rest in
 * order.
 *
 *     TRY(pipe_run(&(pipe_options){.files = &files, .rules = &rules, .context = me, .work = hash, .take =
 * add}));
 *
 * A batch is a few MiB of documents in one piece of memory. WORK sees each on some thread, TAKE then each in
 * the order of the files and of the text; so what TAKE makes cannot depend on the number of threads. */
#pragma once
#include "data/reader.h"

enum { PIPE_DOCUMENTS = 1 << 16 }; // at most, in a batch

typedef struct pipe_document {
    const source_file *f;
    i64 file;        // F's place in the list
    i64 number;      // of all documents of the pipe, from 0
    const u8 *text;  // while WORK and TAKE run
    i64 bytes;       // at least 1; tokens are i32, 4 bytes each
    i64 start, line; // as in raw_document
} pipe_document;

typedef struct pipe_options {
    const sources *files;
    const read_rules *rules;
    int threads; // 0: OpenMP's default
    i64 only;    // with one_file: this file alone
    bool one_file;
    void *context;
    /* SLOT is the document's place in its batch (below PIPE_DOCUMENTS), for results that TAKE will use. */
    status (*work)(void *context, int thread, i64 slot, const pipe_document *d); // NULL: nothing
    status (*take)(void *context, i64 slot, const pipe_document *d);
    bool (*tell)(void *context, i64 bytes_done); // of files, behind each batch; false: stop. NULL: nobody
} pipe_options;

/* *blank: records of JSONL whose text is empty, which are passed over; may be NULL. Errors begin with the
 * file and the line or place. ERR_STOPPED: TELL said so (the message is for the caller to make). Main thread
 * only. */
status pipe_run(const pipe_options *o, i64 *blank) MUST;
/* "FILE:LINE", "FILE: document at byte N" or "... token N" before the message of S. */
status pipe_where(status s, const pipe_document *d) MUST;
