/* A GGUF file: the container, then what its keys say of a model and a tokenizer. */
#include "fuzz.h"
#include "infer/gguf_parts.h"
#include "infer/values.h"

/* Reads every value and the first and last number of every tensor. */
static void walk(const gguf_file *f)
{
    volatile double sum = 0;
    for (i64 i = 0; i < gguf_key_count(f); i++) {
        const gguf_value *v = &gguf_key_at(f, i)->value;
        const u8 *cursor = NULL;
        if (v->kind != KIND_ARRAY || v->element != KIND_STRING) continue;
        for (i64 k = 0; k < v->count; k++) {
            gguf_string s = gguf_next(v, &cursor);
            if (s.bytes) sum += s.data[0] + s.data[s.bytes - 1];
        }
    }
    for (i64 i = 0; i < gguf_count(f); i++) {
        const gguf_tensor *t = gguf_at(f, i);
        const i64 block = gguf_block_elements(t->type), bytes = gguf_block_bytes(t->type);
        float x[256];
        if (t->bytes < bytes || !values_known(t->type)) continue;
        values_decode(t->type, t->data, block, x);
        values_decode(t->type, (const u8 *)t->data + t->bytes - bytes, block, x);
        sum += x[block - 1];
    }
}

static void import(const gguf_file *f)
{
    const hf_architecture *a;
    json_t *j;
    config *c = NULL;
    char *tokens;
    status s = gguf_describe(f, "x.gguf", &a, &j);
    if (!s) {
        s = hf_config(a, "x.gguf", j, &c);
        config_close(c);
        json_decref(j);
    }
    status_drop(s);
    s = gguf_read_tokens(f, "x.gguf", 1000, &tokens);
    if (!s) free(tokens);
    status_drop(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    gguf_file *f;
    status s = gguf_open_memory("x.gguf", data, n, &f);
    if (!s) {
        walk(f);
        import(f);
        gguf_close(f);
    }
    status_drop(s);
    return 0;
}
