/* document: from paths to files, from files to documents.
 *
 *     sources list = {0};
 *     TRY(sources_find(&list, "corpus", false));                 // a file, a folder and what is below it,
 * "a/?.gz" i64 at = 0, start, end; while (document_next(rule, data, bytes, &at, &start, &end)) use(data +
 * start, end - start); sources_free(&list);
 *
 * Folders are walked in the byte order of names, depth first. Taken from a folder: every regular file (a link
 * to one too) that is not hidden (name starts with '.'), not empty and not clearly binary; links to folders
 * are not followed. What is passed over is counted. A file that is named itself is always taken, or refused
 * aloud.
 *
 * Clearly binary: among its first 64 KiB there is a NUL byte, and more than 5 % of those bytes are control
 * characters (other than \b \t \n \v \f \r \e) or not valid UTF-8. So a text with some stray NUL bytes or
 * with Latin-1 letters is text, and its bytes are data like others; programs, archives, images and UTF-16 are
 * not. Of a packed file (.gz, .zst) the text in it is looked at. Tokens (data/token_file.h) are no text, and
 * taken too. A path with * ? or [ that is no file stands for all it matches, in the byte order of names. */
#pragma once
#include "base/base.h"

/* By name: .jsonl and .ndjson, packed or not; by its first bytes: tokens. */
typedef enum source_kind { SOURCE_TEXT, SOURCE_JSONL, SOURCE_TOKENS } source_kind;

typedef struct source_file {
    char *path; // as named by the user, folders joined with '/'
    i64 bytes, modified_ns;
    bool validation; // from data.validation's path
    source_kind kind;
    i64 source; // of a mixture: which part it belongs to
} source_file;

typedef struct sources {
    source_file *file;
    i64 count, capacity, bytes;
    i64 empty, binary, hidden; // passed over in folders
    i64 source;                // what the next files found belong to; set by the caller
} sources;

/* Adds the files that PATH stands for. ERR_INPUT: no such file, nothing in it, binary; ERR_IO: not readable.
 */
status sources_find(sources *list, const char *path, bool validation) MUST;
void sources_free(sources *list);

bool looks_binary(const u8 *data, i64 bytes); // the rule above, on the first 64 KiB

/* How a file is cut into documents (data.document):
 *   auto        a file of up to 1 MiB is one document; a bigger one is cut before every unindented line that
 *               follows a blank line
 *   file        a file is a document
 *   blank_line  cut at every blank line
 *   STRING      cut at every STRING (which is left out)
 * Blank: only spaces, tabs, carriage returns. The blank lines at a cut belong to no document; the newline of
 * a document's last line does. A document has at least one byte. */
typedef enum cut_kind {
    CUT_AUTO,
    CUT_FILE,
    CUT_BLANK_LINE,
    CUT_STRING,
    CUT_UNINDENTED
} cut_kind; // the last: auto, big
typedef struct cut_rule {
    cut_kind kind;
    const char *string; // CUT_STRING: borrowed, not empty
} cut_rule;
enum { CUT_AUTO_BYTES = 1 << 20 };

status cut_rule_parse(const char *value, cut_rule *out) MUST; // ERR_CONFIG: empty
/* The next document at or behind *at (start with 0); false when there is none. [*start, *end) lies in DATA.
 */
bool document_next(cut_rule rule, const u8 *data, i64 bytes, i64 *at, i64 *start, i64 *end);
