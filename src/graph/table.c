/* The op table, one for each instruction set compiled: see ops/op.h and ops/list.h. */
#include "ops/op.h"
#include <string.h>

#define OP(name) extern const op_def op_##name##_plain;
OP_LIST(OP)
#undef OP
static const op_def *const plain[] = {
#define OP(name) &op_##name##_plain,
    OP_LIST(OP)
#undef OP
};
#ifdef HAVE_ISA_V3
#define OP(name) extern const op_def op_##name##_v3;
OP_LIST(OP)
#undef OP
static const op_def *const v3[] = {
#define OP(name) &op_##name##_v3,
    OP_LIST(OP)
#undef OP
};
#endif
#ifdef HAVE_ISA_V4
#define OP(name) extern const op_def op_##name##_v4;
OP_LIST(OP)
#undef OP
static const op_def *const v4[] = {
#define OP(name) &op_##name##_v4,
    OP_LIST(OP)
#undef OP
};
#endif
static const op_def *const *const tables[ISA_COUNT] = {
    plain,
#ifdef HAVE_ISA_V3
    v3,
#endif
#ifdef HAVE_ISA_V4
    v4,
#endif
};

const op_def *op_table(isa level, op_id op) { return tables[level] ? tables[level][op] : NULL; }

const op_def *op_find(const char *name, op_id *id)
{
    for (op_id i = 0; i < OP_COUNT; i++)
        if (!strcmp(plain[i]->name, name)) {
            if (id) *id = i;
            return plain[i];
        }
    return NULL;
}
