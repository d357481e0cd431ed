/* The table of laws: see law.h. */
#include "lab/law.h"
#include <math.h>
#include <string.h>

static const law *const table[] = {
#define LAW(name) &law_##name,
    LAWS(LAW)
#undef LAW
};

const law *law_at(i64 i) { return i >= 0 && i < COUNT(table) ? table[i] : NULL; }

status law_find(const char *name, const law **out)
{
    const char *names[COUNT(table)];
    text all = {0};
    for (i64 i = 0; i < COUNT(table); i++) {
        names[i] = table[i]->name;
        if (!strcmp(name, names[i])) return *out = table[i], text_free(&all), OK;
        text_add(&all, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = nearest_name(name, names, COUNT(table));
    status s = near ? fail(ERR_USAGE, "no law '%s'; did you mean '%s'? There are: %s", name, near, all.data)
                    : fail(ERR_USAGE, "no law '%s'; there are: %s", name, all.data);
    text_free(&all);
    return s;
}

double law_value(const law *l, const double *theta, const double *x)
{
    law_number t[LAW_PARAMS];
    for (int k = 0; k < l->params; k++) t[k] = theta[k];
    return creal(l->predict(t, x));
}

void law_natural(const law *l, const double *theta, double *value)
{
    if (l->natural)
        l->natural(theta, value);
    else
        for (int k = 0; k < l->params; k++)
            value[k] = l->param[k].kind == LAW_POSITIVE ? exp(theta[k]) : theta[k];
}

void law_markdown(text *out)
{
    for (i64 i = 0; i < COUNT(table); i++) {
        const law *l = table[i];
        text_add(out, "### %s\n\n%s.\n\n```\n%s\n```\n\n", l->name, l->title, l->formula);
        text_add(out, "| | name | meaning |\n|---|---|---|\n| predicts | %s | %s |\n", l->target,
                 l->target_help);
        for (int k = 0; k < l->inputs; k++)
            text_add(out, "| from | %s | %s |\n", l->input[k].name, l->input[k].help);
        for (int k = 0; k < l->params; k++)
            text_add(out, "| parameter | %s | %s |\n", l->param[k].name, l->param[k].help);
        text_add(out, "\nSource: %s.\n", l->source);
        if (l->note) text_add(out, "%s\n", l->note);
        if (i + 1 < COUNT(table)) text_add(out, "\n");
    }
}

bool law_solve(const double *a, const double *b, i64 rows, int n, double *c)
{
    double m[LAW_PARAMS][LAW_PARAMS + 1] = {0}, scale[LAW_PARAMS];
    for (int j = 0; j < n; j++) {
        double sum = 0;
        for (i64 r = 0; r < rows; r++) sum += a[r * n + j] * a[r * n + j];
        if (!(sum > 0) || !isfinite(sum)) return false;
        scale[j] = 1 / sqrt(sum);
    }
    for (i64 r = 0; r < rows; r++)
        for (int i = 0; i < n; i++) {
            double left = a[r * n + i] * scale[i];
            for (int j = 0; j < n; j++) m[i][j] += left * a[r * n + j] * scale[j];
            m[i][n] += left * b[r];
        }
    for (int i = 0; i < n; i++) { // elimination; the matrix is positive definite: no pivoting
        if (!(m[i][i] > 1e-13)) return false;
        for (int k = i + 1; k < n; k++) {
            double f = m[k][i] / m[i][i];
            for (int j = i; j <= n; j++) m[k][j] -= f * m[i][j];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int j = i + 1; j < n; j++) m[i][n] -= m[i][j] * m[j][n];
        m[i][n] /= m[i][i];
    }
    for (int i = 0; i < n; i++) c[i] = m[i][n] * scale[i];
    return true;
}
