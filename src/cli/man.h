/* man: manual pages in roff, of the tables that print --help. A page a verb, its parts as sections.
 *
 *     man_page(all, n, 0, &page);       // keel-train(1)
 *     man_overview(all, n, &page);      // keel(1)
 */
#pragma once
#include "base/text.h"
#include "cli/describe.h"

void man_page(const command *all, i64 n, i64 verb, text *out); // VERB: the verb's index in ALL
void man_overview(const command *all, i64 n, text *out);
