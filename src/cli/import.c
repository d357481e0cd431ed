/* keel import: a folder of Hugging Face's, or a GGUF file, as a run to generate from and evaluate.
 * keel export: a trained model as such a folder or file.
 *
 *     keel import downloads/smollm --out runs/smollm
 *     keel export runs/a --dtype bf16 --out out/a
 *     keel export runs/a --to gguf --dtype q8_0 --out a.gguf
 */
#include "cli/cli.h"
#include "base/file.h"
#include "base/text.h"
#include "infer/gguf.h"
#include "infer/hugging_face.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>

typedef struct port_args {
    const char *from, *out, *to;
    i64 type; // of types
    double shard;
    bool json;
} port_args;

static const struct {
    const char *name;
    int folder; // an st_dtype; -1: a folder of Hugging Face's has no such
    gguf_type file;
} types[] = {{"f32", ST_F32, GGUF_F32},
             {"f16", ST_F16, GGUF_F16},
             {"bf16", ST_BF16, GGUF_BF16},
             {"q8_0", -1, GGUF_Q8_0},
             {"q4_0", -1, GGUF_Q4_0}};

enum { OPT_JSON = 256 };
static const struct argp_option import_options[] = {{"out", 'o', "FOLDER", 0, "The run folder to make", 0},
                                                    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
                                                    {0}};
static const struct argp_option export_options[] = {
    {"out", 'o', "PATH", 0, "The folder or file to make", 0},
    {"to", 't', "hugging_face|gguf", 0, "The format (default: gguf where PATH ends with .gguf)", 0},
    {"dtype", 'd', "f32|f16|bf16|q8_0|q4_0", 0,
     "Storage of the weights; the last two of gguf only (default: f32, which loses nothing)", 0},
    {"shard", 's', "BYTES", 0,
     "Folders: files of at most so many bytes, as 5G, and an index (default: one file)", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {0}};

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

static void check_port(struct argp_state *state, port_args *a)
{
    if (!a->from) argp_error(state, "which model?");
    if (!a->out) argp_error(state, "where to? --out=PATH");
    if (!a->to) a->to = ends(a->out, ".gguf") ? "gguf" : "hugging_face";
    if (*a->to == 'h' && types[a->type].folder < 0)
        argp_error(state, "--dtype=%s: a folder of Hugging Face's holds f32, f16 or bf16; add --to=gguf",
                   types[a->type].name);
    if (*a->to == 'g' && a->shard > 0) argp_error(state, "--shard: a GGUF file is one file");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    port_args *a = state->input;
    switch (key) {
    case OPT_JSON:
        a->json = true;
        return 0;
    case 'o':
        a->out = arg;
        return 0;
    case 't':
        if (strcmp(arg, "hugging_face") && strcmp(arg, "gguf"))
            argp_error(state, "--to=%s: expected hugging_face or gguf", arg);
        a->to = arg;
        return 0;
    case 's':
        if (!parse_count(arg, &a->shard) || !(a->shard >= 1 && a->shard <= 0x1p62))
            argp_error(state, "--shard=%s: expected a number of bytes, as 5G", arg);
        return 0;
    case 'd':
        for (a->type = 0; a->type < COUNT(types) && strcmp(arg, types[a->type].name);) a->type++;
        if (a->type == COUNT(types))
            argp_error(state, "--dtype=%s: expected f32, f16, bf16, q8_0 or q4_0", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (a->from) argp_error(state, "one at a time: '%s' and '%s'", a->from, arg);
        a->from = arg;
        return 0;
    case ARGP_KEY_END:
        check_port(state, a);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

status verb_import(int argc, char **argv)
{
    static const struct argp argp = {
        import_options,
        parse,
        "MODEL --out=RUN",
        "Makes a run folder with one checkpoint, step_0, of a folder of Hugging Face's (config.json, "
        "model.safetensors or its shards, tokenizer.json) or of a GGUF file (f32, f16, bf16, q8_0, q4_0), of "
        "GPT-2, Llama, Qwen 2, Qwen 3, OLMo 2 and Mistral. "
        "It can be evaluated, generated from and exported; it holds no optimizer's state to resume from.",
        NULL,
        NULL,
        NULL};
    port_args a = {0};
    TRY(cli_parse(&argp, argc, argv, &a));
    if (path_is_dir(a.from) || !path_exists(a.from))
        TRY(hugging_face_import(a.from, a.out));
    else
        TRY(gguf_import(a.from, a.out));
    if (a.json) return cli_print_json(json_pack("{s:s+}", "checkpoint", a.out, "/step_0"));
    printf("%s/step_0\n", a.out);
    return OK;
}

status verb_export(int argc, char **argv)
{
    static const struct argp argp = {
        export_options,
        parse,
        "MODEL --out=PATH",
        "Writes a trained model, a run's folder (its newest checkpoint) or a step_N, as a folder of Hugging "
        "Face's or as a GGUF file, of the first of GPT-2, Llama, Qwen 2, Qwen 3, OLMo 2 and Mistral that "
        "computes the same; where none does, says what would have to change.",
        NULL,
        NULL,
        NULL};
    port_args a = {0};
    model_files f;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(model_files_open(a.from, cli_talk, NULL, &f));
    const gguf_options o = {.type = types[a.type].file, .talk = cli_talk};
    const hugging_face_options h = {.type = (st_dtype)types[a.type].folder, .shard_bytes = (i64)a.shard};
    status s = *a.to == 'g' ? gguf_export(&f, &o, a.out) : hugging_face_export(&f, &h, a.out);
    if (!s && a.json)
        s = cli_print_json(
            json_pack("{s:s, s:s, s:s}", "path", a.out, "format", a.to, "dtype", types[a.type].name));
    else if (!s)
        printf("%s\n", a.out);
    model_files_close(&f);
    return s;
}
