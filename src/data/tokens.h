/* tokens: makes the builder's token_source of a tokenizer.
 *
 *     token_source s;
 *     TRY(token_source_open(t, "tokenizer.json", SPECIAL_PLAIN, &s));
 *     TRY(dataset_build(&options, &s, NULL));
 *     token_source_close(&s);
 */
#pragma once
#include "data/dataset.h"
#include "text/tokenizer.h"

/* T must outlive *out. End of text is <|endoftext|>, or the first of <|end_of_text|>, </s>, <eos> there is;
 * ERR_INPUT, naming NAME, if none. */
status token_source_open(const tokenizer *t, const char *name, special_mode mode, token_source *out) MUST;
void token_source_close(token_source *s);
