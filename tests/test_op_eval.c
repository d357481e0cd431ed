/* keel op eval: numbers in, numbers out, through files as a user would; and every refusal, whole. */
#include "check.h"
#include "base/file.h"
#include "format/safetensors.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], in_path[96], out_path[96];

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/keel_op_eval_%d", (int)getpid());
    snprintf(in_path, sizeof in_path, "%s/in", folder);
    snprintf(out_path, sizeof out_path, "%s/out", folder);
    assert_ok(dir_make(folder));
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    assert_ok(tree_remove(folder));
    return 0;
}

/* Writes the inputs, runs `keel op eval ARGUMENTS`, returns its exit code and, in ERR, what it said. */
static int eval(const st_entry *entries, i64 n, const char *arguments, char err[512])
{
    char command[512];
    unlink(out_path);
    assert_ok(st_save(in_path, entries, n, NULL, 0, NULL));
    snprintf(command, sizeof command, "%s op eval %s --in %s --out %s 2>%s/err", KEEL_BINARY, arguments,
             in_path, out_path, folder);
    int code = system(command);
    snprintf(command, sizeof command, "%s/err", folder);
    char *said;
    size_t bytes;
    assert_ok(file_read(command, &said, &bytes));
    snprintf(err, 512, "%.*s", (int)MIN(bytes ? bytes - 1 : 0, 511), said);
    mem_free(said);
    return WEXITSTATUS(code);
}

#define F64(n, r, c, ...)                                                                                    \
    (st_entry)                                                                                               \
    {                                                                                                        \
        .name = n, .dtype = ST_F64, .n_dims = 2, .dims = {r, c}, .data = (const double[]) { __VA_ARGS__ }    \
    }

/* Name, dtype and values of one result. */
static void expect(const char *name, st_dtype t, int n, const double *want, double tolerance)
{
    st_file *f;
    assert_ok(st_open(out_path, &f));
    const st_entry *e = st_find(f, name);
    assert_non_null(e);
    assert_int_equal(e->dtype, t);
    assert_int_equal(e->bytes, n * st_dtype_bytes(t));
    for (int i = 0; i < n; i++) {
        double x = t == ST_F64 ? ((const double *)e->data)[i] : (double)((const float *)e->data)[i];
        if (!(fabs(x - want[i]) <= tolerance)) fail_msg("%s[%d] is %.17g, not %.17g", name, i, x, want[i]);
    }
    st_close(f);
}

/* 1 + 2^-40 does not fit an f32: the reference must keep it. */
static void reference_stays_in_double(void **state)
{
    (void)state;
    char err[512];
    double tiny = ldexp(1, -40);
    st_entry in[] = {F64("a", 1, 2, 1, 2), F64("b", 1, 2, tiny, -tiny), F64("grad.y", 1, 2, 1 + tiny, 3)};
    assert_int_equal(eval(in, 3, "sum --reference", err), 0);
    expect("y", ST_F64, 2, (double[]){1 + tiny, 2 - tiny}, 0);
    expect("grad.a", ST_F64, 2, (double[]){1 + tiny, 3}, 0);
    expect("grad.b", ST_F64, 2, (double[]){1 + tiny, 3}, 0);
    assert_int_equal(eval(in, 3, "sum", err), 0);
    expect("y", ST_F32, 2, (double[]){1, 2}, 0);
    expect("grad.a", ST_F32, 2, (double[]){1, 3}, 0);
}

/* x = (3, 4): rms sqrt(12.5); dx for dy = (1, 0): s (1 - x0^2 s^2 / 2), -s x0 x1 s^2 / 2. */
static void norm_and_gradient(void **state)
{
    (void)state;
    char err[512];
    double s = 1 / sqrt(12.5), y[] = {3 * s, 4 * s};
    double dx[] = {s * (1 - 9 * s * s / 2), -s * 12 * s * s / 2};
    st_entry in[] = {F64("x", 1, 2, 3, 4), F64("grad.y", 1, 2, 1, 0)};
    assert_int_equal(eval(in, 2, "rms_norm eps=0 --reference", err), 0);
    expect("y", ST_F64, 2, y, 1e-15);
    expect("s", ST_F64, 1, &s, 1e-15);
    expect("grad.x", ST_F64, 2, dx, 1e-15);
    assert_int_equal(eval(in, 2, "rms_norm eps=0 --isa plain", err), 0);
    expect("y", ST_F32, 2, y, 1e-6);
    expect("grad.x", ST_F32, 2, dx, 1e-6);
    assert_int_equal(eval(in, 2, "rms_norm eps=0 --precision bf16", err), 0);
    expect("y", ST_F32, 2, y, 4e-3);
    assert_int_equal(eval(in, 1, "rms_norm eps=0", err), 0); // no grad.y, no grad.x
    st_file *f;
    assert_ok(st_open(out_path, &f));
    assert_int_equal(st_count(f), 2);
    st_close(f);
}

/* Every type a number may have gives the same sum. */
static void types_of_numbers(void **state)
{
    (void)state;
    char err[512];
    u16 bf16[2] = {0x3F80, 0xC000}; // 1, -2
    float f32[2] = {0.5f, 0.25f};
    st_entry in[] = {{.name = "a", .dtype = ST_BF16, .n_dims = 1, .dims = {2}, .data = bf16},
                     {.name = "b", .dtype = ST_F32, .n_dims = 1, .dims = {2}, .data = f32}};
    assert_int_equal(eval(in, 2, "sum", err), 0);
    expect("y", ST_F32, 2, (double[]){1.5, -1.75}, 0);
}

static void refuses(const st_entry *in, i64 n, const char *arguments, int code, const char *message)
{
    char err[512], want[520];
    assert_int_equal(eval(in, n, arguments, err), code);
    snprintf(want, sizeof want, "keel: %s", message);
    assert_string_equal(err, want);
    assert_false(path_exists(out_path));
}

static void refusals(void **state)
{
    (void)state;
    char message[512];
    i64 whole[2] = {1, 2};
    st_entry a = F64("a", 1, 2, 1, 2), b = F64("b", 1, 3, 1, 2, 3), z = F64("z", 1, 2, 1, 2);
    st_entry i = {.name = "a", .dtype = ST_I64, .n_dims = 1, .dims = {2}, .data = whole};
    st_entry empty = {.name = "a", .dtype = ST_F64, .n_dims = 1, .dims = {0}, .data = whole};
    st_entry five = {.name = "a", .dtype = ST_F64, .n_dims = 5, .dims = {1, 1, 1, 1, 1}, .data = a.data};
    refuses((st_entry[]){a, b}, 2, "sum", 1, "sum (sum): input 1 has another shape");
    refuses(&b, 1, "sum", 1, "sum (sum): input a is missing");
    snprintf(message, sizeof message, "%s: sum has no input 'z'; it takes a, b, c, d, grad.y", in_path);
    refuses((st_entry[]){a, z}, 2, "sum", 1, message);
    snprintf(message, sizeof message, "%s: a holds I64; it must hold numbers (F64, F32 or BF16)", in_path);
    refuses(&i, 1, "sum", 1, message);
    snprintf(message, sizeof message, "%s: a is empty", in_path);
    refuses(&empty, 1, "sum", 1, message);
    snprintf(message, sizeof message, "%s: a has 5 axes; at most 4", in_path);
    refuses(&five, 1, "sum", 1, message);
    refuses((st_entry[]){a, F64("grad.y", 2, 1, 1, 1)}, 2, "sum", 1,
            "sum: grad.y must have the shape of output y: 1 rows of 2, as many axes (2)");
    refuses(
        (st_entry[]){F64("x", 1, 2, 3, 4), F64("mean", 1, 1, 0), F64("s", 1, 1, 1), F64("dy", 1, 3, 1, 2, 3)},
        4, "layer_norm_grad", 1,
        "layer_norm_grad: input dy must be [rows, n], but n is 3 there and must be 2");
    refuses(&a, 1, "sum n=3", 2, "sum has no attribute 'n'; 'keel op list sum' shows them");
    refuses((st_entry[]){F64("x", 1, 2, 3, 4)}, 1, "rms_norm eps=x", 2,
            "rms_norm: 'eps=x' is not NAME=NUMBER");
    refuses((st_entry[]){F64("x", 1, 2, 3, 4)}, 1, "rms_norm eps=7", 1,
            "rms_norm (rms_norm): eps is 7; it must be between 0 and 1 (added to the mean square)");
    refuses((st_entry[]){F64("x", 1, 2, 3, 4), F64("grad.s", 1, 1, 1)}, 2, "rms_norm", 1,
            (snprintf(message, sizeof message, "%s: rms_norm has no input 'grad.s'; it takes x, gain, grad.y",
                      in_path),
             message));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_stays_in_double),
        cmocka_unit_test(norm_and_gradient),
        cmocka_unit_test(types_of_numbers),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
