/* keel import: a folder of Hugging Face's as a run to generate from and evaluate.
 * keel export: a trained model as such a folder.
 *
 *     keel import downloads/smollm --out runs/smollm
 *     keel export runs/a --dtype bf16 --out out/a
 */
#include "cli/cli.h"
#include "infer/hugging_face.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>

typedef struct port_args {
    const char *from, *out;
    st_dtype type;
} port_args;

static const struct argp_option import_options[] = {{"out", 'o', "FOLDER", 0, "The run folder to make", 0},
                                                    {0}};
static const struct argp_option export_options[] = {
    {"out", 'o', "FOLDER", 0, "The folder to make", 0},
    {"dtype", 'd', "TYPE", 0, "f32 or bf16 (default: f32, which loses nothing)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    port_args *a = state->input;
    switch (key) {
    case 'o':
        a->out = arg;
        return 0;
    case 'd':
        if (strcmp(arg, "f32") && strcmp(arg, "bf16"))
            argp_error(state, "--dtype=%s: expected f32 or bf16", arg);
        a->type = *arg == 'f' ? ST_F32 : ST_BF16;
        return 0;
    case ARGP_KEY_ARG:
        if (a->from) argp_error(state, "one at a time: '%s' and '%s'", a->from, arg);
        a->from = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->from) argp_error(state, "which folder?");
        if (!a->out) argp_error(state, "where to? --out=FOLDER");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void talk(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

status verb_import(int argc, char **argv)
{
    static const struct argp argp = {
        import_options,
        parse,
        "FOLDER --out=RUN",
        "Makes a run folder with one checkpoint, step_0, of a folder of Hugging Face's: config.json, "
        "model.safetensors or its shards, tokenizer.json, of GPT-2, Llama, Qwen 2, Qwen 3, OLMo 2 and "
        "Mistral. "
        "It can be evaluated, generated from and exported; it holds no optimizer's state to resume from.",
        NULL,
        NULL,
        NULL};
    port_args a = {0};
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(hugging_face_import(a.from, a.out));
    printf("%s/step_0\n", a.out);
    return OK;
}

status verb_export(int argc, char **argv)
{
    static const struct argp argp = {
        export_options,
        parse,
        "MODEL --out=FOLDER",
        "Writes a trained model, a run's folder (its newest checkpoint) or a step_N, as a folder of Hugging "
        "Face's, of the first of GPT-2, Llama, Qwen 2, Qwen 3, OLMo 2 and Mistral that computes the same; "
        "where none does, says what would have to change.",
        NULL,
        NULL,
        NULL};
    port_args a = {.type = ST_F32};
    model_files f;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(model_files_open(a.from, talk, NULL, &f));
    status s = hugging_face_export(&f, a.type, a.out);
    if (!s) printf("%s\n", a.out);
    model_files_close(&f);
    return s;
}
