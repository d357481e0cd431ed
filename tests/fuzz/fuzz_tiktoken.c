/* .tiktoken: ranks of any kind, with a pattern given. */
#include "fuzz.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const special[] = {"<s>"};
    const tiktoken_options o = {"cl100k", special, 1};
    tokenizer *t;
    (void)tokenizer_is_tiktoken((const char *)data, n);
    status s = tokenizer_parse_tiktoken((const char *)data, n, "fuzz", &o, &t);
    if (!s) {
        token_list ids = {0};
        status_drop(tokenizer_encode(t, "abcabc <s> abab", 15, SPECIAL_ALLOWED, &ids));
        token_list_free(&ids);
        tokenizer_close(t);
    }
    status_drop(s);
    return 0;
}
