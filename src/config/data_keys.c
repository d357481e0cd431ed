/* The keys of the data block. */
#include "config/config.h"

const config_key data_keys[] = {
    {"data.train", KEY_LIST, "[]",
     .help = "the training data: a path (a file, folder or pattern of text, JSONL or tokens, or shards), or "
             "a list of {path, weight}"},
    {"data.train[].path", KEY_STRING, "",
     .help = "a file, or a folder whose files are read in order of name"},
    {"data.train[].weight", KEY_NUMBER, "auto", "auto", .min = 1e-9, .max = 1e9,
     .help = "share of the sequences, relative to the other items; auto, for all or none: no mixture, the "
             "items are one "
             "text"},
    {"data.validation", KEY_SHARE, "1%", .max = 50, .unit = "% of the documents",
     .help = "documents held out by a hash of their text, or the path of validation data"},
    {"data.tokenizer", KEY_STRING, "auto", "auto",
     .help = "path of a tokenizer; auto: one is trained on data.train"},
    {"data.vocab", KEY_COUNT, "16384", .min = 257, .max = 1 << 24, .unit = "tokens",
     .help = "size of a tokenizer to be trained"},
    {"data.pattern", KEY_CHOICE, "gpt2", "gpt2 cl100k llama3 qwen2",
     .help = "how text is cut into pieces before byte pairs are merged"},
    {"data.tokenizer_memory", KEY_COUNT, "2147483648", .min = 1 << 20, .max = 1e15, .unit = "bytes",
     .help = "memory that training a tokenizer may use"},
    {"data.document", KEY_STRING, "auto", "auto file blank_line",
     .help = "where plain text is cut into documents: a file each, at blank lines, or at a line that is this "
             "text; "
             "auto: by the kind of file"},
    {"data.field", KEY_STRING, "text",
     .help = "the field of JSONL records that holds the text; dots lead into objects"},
    {"data.special", KEY_CHOICE, "plain", "plain allowed forbid",
     .help =
         "what the text of a special token in the data is: ordinary text, the special token, or an error"},
    {"data.pack", KEY_CHOICE, "concat", "concat best_fit",
     .help = "how documents fill sequences of training: cut wherever one ends, or as many whole ones as fit"},
    {"data.order", KEY_CHOICE, "shuffle", "shuffle sequential", .help = "the order of sequences in an epoch"},
    {"data.document_mask", KEY_BOOL, "true",
     .help = "tokens do not attend to other documents of their sequence"},
    {"data.mask_boundary_loss", KEY_BOOL, "true",
     .help = "the first token of a document is not a target of the token before it"},
    {0},
};
