/* reader: the documents of one file, whatever it holds, one behind the other.
 *
 *     document_reader *r;
 *     TRY(reader_open(&file, &rules, &r));
 *     for (raw_document d; !(s = reader_next(r, &d)) && d.data;) use(d.data, d.bytes);
 *     reader_close(r);
 *
 * A file is read from beginning to end through a window that holds the document at hand: packed files need no
 * second copy on the disk, and a pipe's worth of memory. */
#pragma once
#include "data/document.h"

typedef struct read_rules {
    cut_rule cut;
    const char *field; // of JSONL; NULL: text
    const i32 *ends;   // of tokens: ids that stand between documents
    i64 end_count;
} read_rules;

/* Text; of JSONL the whole line (data/jsonl.h finds the text in it); of tokens i32 ids, 4 bytes each. */
typedef struct raw_document {
    const u8 *data; // NULL: there is no more; until the next call
    i64 bytes;
    i64 start; // byte of the (unpacked) text, or token, where it starts
    i64 line;  // of JSONL, from 1
} raw_document;

typedef struct document_reader document_reader;
/* F and RULES must outlive it. ERR_IO, ERR_FORMAT, ERR_MEMORY. */
status reader_open(const source_file *f, const read_rules *rules, document_reader **out) MUST;
void reader_close(document_reader *r); // NULL allowed
/* ERR_INPUT: a file of another size than F says, a line of JSONL over 1 GiB; as stream_read. */
status reader_next(document_reader *r, raw_document *out) MUST;
i64 reader_position(const document_reader *r); // bytes of the file that are used up
