/* op: what the subcommands of `keel op` share: op.c dispatches, op_NAME.c holds one subcommand each.
 *
 *     OP_COMMANDS(COMMAND) is the one list; a row NAME is `status op_NAME_verb(int argc, char **argv)`,
 *     argv[0] being "keel op NAME".
 */
#pragma once
#include "base/base.h"
#include "ops/op.h"

#define OP_COMMANDS(COMMAND)                                                                                 \
    COMMAND(list, "list the operations: inputs, outputs, attributes")                                        \
    COMMAND(check, "prove kernels and gradients against the definitions")                                    \
    COMMAND(bench, "time operations, as shares of the machine's peaks")                                      \
    COMMAND(eval, "run one operation on the tensors of a file")
#define COMMAND(name, help) status op_##name##_verb(int argc, char **argv);
OP_COMMANDS(COMMAND)
#undef COMMAND

/* The op called NAME. ERR_USAGE with the nearest name otherwise. */
status op_named(const char *name, op_id *out) MUST;
