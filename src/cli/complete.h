/* complete: what may stand at the end of a command line, from the tables that parse it.
 *
 *     const char *words[] = {"train", "--is"};               // behind `keel`, the last one is being typed
 *     text out = {0};
 *     complete(all, n, words, 2, &out);                      // "--isa=\tKernels for ...\n"
 *
 * A line is a candidate for the whole last word, and, behind a tabulator, what it means. A candidate that
 * ends in '=' or '.' goes on. The lines ":file" and ":folder" ask for paths, behind the '=' of the word if it
 * has one. */
#pragma once
#include "base/text.h"
#include "cli/describe.h"

void complete(const command *all, i64 n, const char *const *words, i64 count, text *out);
