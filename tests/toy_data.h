/* toy_data: a folder to write in, files in it, and a toy tokenizer: an id a byte, 256 = end of text, and one
 * longer token: "the" = 257. Vocabulary 258.
 *
 *     toy_open();                                            // makes the folder
 *     toy_file("a.txt", "hello", 5);
 *     toy_source s = toy_tokens();
 *     assert_ok(dataset_build(&(build_options){...}, &s, NULL));
 *     toy_close();
 */
#pragma once
#include "base/file.h"
#include "check.h"
#include "data/dataset.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOY_EOS = 256, TOY_THE = 257, TOY_VOCAB = 258 };
static char toy_folder[64];

static inline void toy_open(void)
{
    strcpy(toy_folder, "/tmp/keel-data-XXXXXX");
    assert_non_null(mkdtemp(toy_folder));
}
static inline void toy_close(void) { assert_ok(tree_remove(toy_folder)); }

/* The path of NAME in the folder; the last eight stay valid. */
static inline const char *toy_path(const char *name)
{
    static char path[8][512];
    static int i;
    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "%s/%s", toy_folder, name);
    return path[i];
}
static inline const char *toy_file(const char *name, const void *data, size_t bytes)
{
    const char *path = toy_path(name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
    return path;
}
static inline const char *toy_text(const char *name, const char *s) { return toy_file(name, s, strlen(s)); }

typedef struct toy_encoder {
    i32 *ids;
} toy_encoder;
static inline status toy_save(void *p, const char *path)
{
    (void)p;
    file_writer *w;
    TRY(file_create(path, &w));
    TRY(file_printf(w, "{\"toy\": 1}\n"));
    return file_commit(w);
}
static inline status toy_open_encoder(void *p, void **out)
{
    (void)p;
    return mem_alloc(sizeof(toy_encoder), "toy", out);
}
static inline status toy_encode(void *p, const u8 *text, i64 bytes, const i32 **ids, i64 *count)
{
    toy_encoder *e = p;
    free(e->ids);
    e->ids = malloc((size_t)bytes * 4 + 4);
    *count = 0;
    for (i64 i = 0; i < bytes; i++)
        if (i + 3 <= bytes && !memcmp(text + i, "the", 3))
            e->ids[(*count)++] = TOY_THE, i += 2;
        else
            e->ids[(*count)++] = text[i];
    *ids = e->ids;
    return OK;
}
static inline void toy_close_encoder(void *p)
{
    if (p) free(((toy_encoder *)p)->ids);
    mem_free(p);
}

static inline token_source toy_tokens(void)
{
    static i32 bytes[TOY_VOCAB];
    for (int i = 0; i < 256; i++) bytes[i] = 1;
    bytes[TOY_THE] = 3;
    return (token_source){.vocab = TOY_VOCAB,
                          .eos = TOY_EOS,
                          .hash = 0x1234abcd5678ef00,
                          .token_bytes = bytes,
                          .save = toy_save,
                          .open = toy_open_encoder,
                          .encode = toy_encode,
                          .close = toy_close_encoder};
}

/* Builds NAME from one path and opens it. */
static inline dataset *toy_dataset(const char *name, const char *path, const char *document,
                                   const char *validation, i64 shard_tokens)
{
    token_source t = toy_tokens();
    char out[512];
    snprintf(out, sizeof out, "%s", toy_path(name));
    assert_ok(dataset_build(&(build_options){.train = &path,
                                             .train_count = 1,
                                             .document = document,
                                             .validation = validation,
                                             .out = out,
                                             .threads = 1,
                                             .shard_tokens = shard_tokens},
                            &t, NULL));
    dataset *d;
    assert_ok(dataset_open(out, &d));
    return d;
}
