/* jsonl: the text of one line of a JSONL file.
 *
 *     i64 bytes;
 *     TRY(jsonl_text(line, n, "meta.text", line, &bytes));     // in place: text is never longer than its
 * JSON
 */
#pragma once
#include "base/base.h"

/* The string FIELD of the JSON object in the N bytes at LINE, into OUT (room for N; may be LINE). FIELD is a
 * key of the object; if there is none, its dots lead into objects. Zero bytes are allowed (\u0000).
 * ERR_INPUT: invalid UTF-8 (the byte), no JSON, no object, a key twice, no such field (the fields there are),
 * or no string. */
status jsonl_text(const u8 *line, i64 n, const char *field, u8 *out, i64 *bytes) MUST;
bool jsonl_is_blank(const u8 *line, i64 n); // blanks alone: no record
