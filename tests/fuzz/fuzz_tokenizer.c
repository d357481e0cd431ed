/* tokenizer.json: what is accepted encodes, decodes and is written without a crash. */
#include "fuzz.h"
#include "text/tokenizer.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    tokenizer *t;
    status s = tokenizer_parse((const char *)data, n, "fuzz", &t);
    if (!s) {
        static const char text[] = "The cat's 123 \xC3\xA9 e\xCC\x81 <s>  </s>\n\n\xFF x";
        token_list ids = {0};
        for (special_mode mode = SPECIAL_PLAIN; mode <= SPECIAL_FORBID; mode++)
            status_drop(tokenizer_encode(t, text, sizeof text - 1, mode, &ids));
        status_drop(tokenizer_encode(t, (const char *)data, MIN(n, (size_t)4096), SPECIAL_ALLOWED, &ids));
        for (i64 i = 0; i < ids.count; i++)
            if (!tokenizer_decode(t, ids.id[i]).data) abort(); // an id that stands for nothing
        token_list_free(&ids);
        status_drop(tokenizer_save(t, fuzz_file("saved.json", data, 0)));
        tokenizer_close(t);
    }
    status_drop(s);
    return 0;
}
