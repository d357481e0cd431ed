/* Shards of llm.c (first byte even), or Megatron's index for a .bin of 64 bytes (odd). */
#include "data/token_file.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const i32 ends[] = {0, 256};
    static const uint8_t tokens[64] = {1, 0, 2, 0, 0, 1, 3};
    token_file *f;
    i64 at, count, seen = 0;
    if (!n) return 0;
    if (data[0] % 2)
        fuzz_file("f.idx", data + 1, n - 1);
    else
        unlink(fuzz_file("f.idx", data, 0));
    const char *path =
        data[0] % 2 ? fuzz_file("f.bin", tokens, sizeof tokens) : fuzz_file("f.bin", data + 1, n - 1);
    (void)token_file_kind(path);
    status s = token_file_open(path, &f);
    if (!s) {
        for (i32 ids[256]; token_file_next(f, ends, 2, &at, &count); seen += count) {
            if (at < 0 || count < 1 || at + count > token_file_tokens(f)) abort();
            token_file_read(f, at, MIN(count, (i64)256), ids);
        }
        if (seen > token_file_tokens(f)) abort();
        token_file_close(f);
    }
    status_drop(s);
    return 0;
}
