/* keel eval layers: the loss of a model without each of its blocks, as a table or JSON. */
#include "cli/cli.h"
#include "cli/eval_parts.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>

static json_t *real_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static status put_json(const drop_result *r, const model_files *f, bool branches)
{
    json_t *rows = json_array();
    for (i64 l = 0; l < r->layers; l++) {
        const layer_drop *x = &r->layer[l];
        json_t *row = json_pack("{s:I, s:o, s:o}", "layer", (json_int_t)l, "loss", real_or_null(x->block),
                                "increase", real_or_null(x->block - r->loss));
        if (branches) {
            json_object_set_new(row, "loss_without_attention", real_or_null(x->attention));
            json_object_set_new(row, "loss_without_ffn", real_or_null(x->ffn));
        }
        json_array_append_new(rows, row);
    }
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "model", f->folder, "step", (json_int_t)f->step,
                          "tokens", (json_int_t)r->whole.tokens, "bytes", (json_int_t)r->whole.bytes, "loss",
                          real_or_null(r->loss), "layers", rows);
    return cli_print_json(o);
}

static void put_table(const drop_result *r, const model_files *f, const drop_options *o)
{
    printf("without    loss  increase%s\n", o->branches ? "  attention only   ffn only" : "");
    printf("nothing %7.4f\n", r->loss);
    for (i64 l = 0; l < r->layers; l++) {
        const layer_drop *x = &r->layer[l];
        printf("%7lld %7.4f  %+8.4f", (long long)l, x->block, x->block - r->loss);
        if (o->branches) printf("  %+14.4f %+10.4f", x->attention - r->loss, x->ffn - r->loss);
        puts("");
    }
    printf("(nats a token; %lld %s tokens; %s)\n", (long long)r->whole.tokens, data_split_name[o->split],
           f->folder);
}

status eval_layers(session *s, const dataset *d, const drop_options *o, const model_files *f, bool json)
{
    arena *a;
    drop_result r;
    TRY(arena_open(&a));
    status failed = eval_drop_layers(s, d, o, a, &r);
    if (!failed && !r.whole.tokens)
        failed = fail(ERR_INPUT, "there is no %s data to evaluate on", data_split_name[o->split]);
    if (!failed && json)
        failed = put_json(&r, f, o->branches);
    else if (!failed)
        put_table(&r, f, o);
    arena_close(a);
    return failed;
}
