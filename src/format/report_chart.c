/* A chart as SVG: see report.h.
 *
 * The frame spans "nice" ticks (1, 2 or 5 times a power of ten: Heckbert, "Nice numbers for graph labels",
 * Graphics Gems, 1990). A long series is thinned to the lowest and highest value of each of some hundred
 * columns, so that spikes stay visible and the page small. */
#include "format/report.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    WIDTH = 640,
    HEIGHT = 300,
    LEFT = 72,
    RIGHT = 22,
    TOP = 12,
    BOTTOM = 44,
    COLUMNS = 400,
    TICKS_X = 7,
    TICKS_Y = 6
};

typedef struct axis {
    double low, high, step; // low < high; ticks at multiples of step
    double from, to;        // pixels of low and high
} axis;

static double place(const axis *a, double v)
{
    return a->from + (v - a->low) / (a->high - a->low) * (a->to - a->from);
}

static double nice_step(double span, int ticks)
{
    double raw = span / ticks, base = pow(10, floor(log10(raw))), part = raw / base;
    return base * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

/* Ticks for [low, high]; SNAP moves the ends out to ticks. A span of nothing gets some room. */
static axis make_axis(double low, double high, int ticks, bool snap)
{
    if (!(low <= high) || !isfinite(low) || !isfinite(high)) low = 0, high = 1;
    if (high - low <= fabs(high) * 1e-9) {
        double room = high ? fabs(high) * 0.1 : 1;
        low -= room, high += room;
    }
    axis a = {.low = low, .high = high, .step = nice_step(high - low, ticks)};
    if (snap) {
        a.low = floor(low / a.step + 1e-9) * a.step;
        a.high = ceil(high / a.step - 1e-9) * a.step;
    }
    return a;
}

/* A tick's label: 0.25, 12, 1.5k, 20M; the decimals follow the step. */
static const char *tick_label(double v, double step, char out[32])
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}};
    double largest = fabs(v), unit = 1;
    const char *name = "";
    for (int i = 0; i < 4; i++)
        if (largest >= units[i].unit * (units[i].unit == 1e3 ? 10 : 1)) {
            unit = units[i].unit, name = units[i].name;
            break;
        }
    double scaled = step / unit;
    int decimals = 0;
    while (decimals < 9 && fabs(scaled * pow(10, decimals) - round(scaled * pow(10, decimals))) > 1e-6)
        decimals++;
    if (fabs(v) < step * 1e-6)
        snprintf(out, 32, "0");
    else if (decimals > 5 && unit == 1)
        snprintf(out, 32, "%.3g", v);
    else
        snprintf(out, 32, "%.*f%s", decimals, v / unit, name);
    return out;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void stretch(double v, double *low, double *high)
{
    if (!(fabs(v) <= 1e300)) return; // spans must not overflow
    if (!(v >= *low)) *low = v;
    if (!(v <= *high)) *high = v;
}

/* The values to frame: all, or from the 0.5th to the 95th percentile of each series (a loss falls from its
 * first value in the first percents of a run; showing that would flatten the rest). */
static void stretch_line(const report_line *l, bool robust, double *low, double *high)
{
    double *sorted = robust && l->n > 50 ? malloc((size_t)l->n * sizeof(double)) : NULL;
    if (!sorted) {
        for (i64 i = 0; i < l->n; i++) stretch(l->y[i], low, high);
        return;
    }
    i64 n = 0;
    for (i64 i = 0; i < l->n; i++)
        if (isfinite(l->y[i])) sorted[n++] = l->y[i];
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    if (n) stretch(sorted[n / 200], low, high), stretch(sorted[n * 95 / 100], low, high);
    free(sorted);
}

static void find_axes(const report_chart *c, axis *x, axis *y)
{
    double x0 = c->x_free ? NAN : 0, x1 = NAN, y0 = NAN, y1 = NAN; // all charts of a run begin at step 0
    for (i64 i = 0; i < c->n_lines; i++) {
        for (i64 k = 0; k < c->lines[i].n; k++) stretch(c->lines[i].x[k], &x0, &x1);
        stretch_line(&c->lines[i], c->robust, &y0, &y1);
    }
    for (i64 i = 0; i < c->n_levels; i++) stretch(c->levels[i].y, &y0, &y1);
    if (c->from_zero) stretch(0, &y0, &y1);
    *x = make_axis(x0, x1, TICKS_X, false);
    *y = make_axis(y0, y1, TICKS_Y, true);
    x->from = LEFT, x->to = WIDTH - RIGHT;
    y->from = HEIGHT - BOTTOM, y->to = TOP;
}

static void draw_axes(text *t, const report_chart *c, const axis *x, const axis *y)
{
    char label[32];
    text_add(t, "<g class=\"grid\">");
    for (double k = ceil(y->low / y->step - 1e-9); k * y->step <= y->high + y->step * 1e-6; k++)
        text_add(t, "<path d=\"M%d %.1fH%d\"/>", LEFT, place(y, k * y->step), WIDTH - RIGHT);
    text_add(t, "</g><g class=\"tick\" text-anchor=\"end\">");
    for (double k = ceil(y->low / y->step - 1e-9); k * y->step <= y->high + y->step * 1e-6; k++)
        text_add(t, "<text x=\"%d\" y=\"%.1f\">%s</text>", LEFT - 8, place(y, k * y->step) + 4,
                 tick_label(k * y->step, y->step, label));
    text_add(t, "</g><g class=\"tick\" text-anchor=\"middle\">");
    for (double k = ceil(x->low / x->step - 1e-9); k * x->step <= x->high + x->step * 1e-6; k++)
        text_add(t, "<path d=\"M%.1f %dv4\"/><text x=\"%.1f\" y=\"%d\">%s</text>", place(x, k * x->step),
                 HEIGHT - BOTTOM, place(x, k * x->step), HEIGHT - BOTTOM + 17,
                 tick_label(k * x->step, x->step, label));
    text_add(t,
             "<path d=\"M%d %dH%d\"/></g><g class=\"axis\"><text x=\"%d\" y=\"%d\" text-anchor=\"middle\">",
             LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
    report_escape(t, c->x_label ? c->x_label : "");
    text_add(t, "</text><text transform=\"translate(13 %d) rotate(-90)\" text-anchor=\"middle\">",
             (TOP + HEIGHT - BOTTOM) / 2);
    report_escape(t, c->y_label ? c->y_label : "");
    text_add(t, "</text></g>");
}

/* One vertex; PEN says whether the line is down. Far outside values are held near the frame, which clips
 * them. */
static void vertex(text *t, const axis *x, const axis *y, double px, double py, bool *pen)
{
    double sy = fmax(-HEIGHT, fmin(2 * HEIGHT, place(y, py)));
    text_add(t, "%s%.1f %.1f", *pen ? "L" : "M", place(x, px), sy);
    *pen = true;
}

static void draw_path(text *t, const report_line *l, const axis *x, const axis *y)
{
    bool pen = false;
    i64 width = l->n > 2 * COLUMNS ? (l->n + COLUMNS - 1) / COLUMNS : 1;
    for (i64 i = 0; i < l->n; i += width) {
        i64 low = -1, high = -1, end = MIN(i + width, l->n);
        for (i64 k = i; k < end; k++) {
            if (!isfinite(l->y[k])) continue;
            if (low < 0 || l->y[k] < l->y[low]) low = k;
            if (high < 0 || l->y[k] > l->y[high]) high = k;
        }
        if (low < 0) {
            pen = false;
            continue;
        }
        vertex(t, x, y, l->x[MIN(low, high)], l->y[MIN(low, high)], &pen);
        if (low != high) vertex(t, x, y, l->x[MAX(low, high)], l->y[MAX(low, high)], &pen);
    }
}

/* The band as one closed shape, along the highs and back along the lows; points without both are left out. */
static void draw_band(text *t, const report_line *l, const axis *x, const axis *y)
{
    bool pen = false;
    if (!l->low || !l->high) return;
    text_add(t, "<path class=\"band\" d=\"");
    for (i64 i = 0; i < l->n; i++)
        if (isfinite(l->low[i]) && isfinite(l->high[i])) vertex(t, x, y, l->x[i], l->high[i], &pen);
    for (i64 i = l->n - 1; i >= 0; i--)
        if (isfinite(l->low[i]) && isfinite(l->high[i])) vertex(t, x, y, l->x[i], l->low[i], &pen);
    text_add(t, pen ? "Z\"/>" : "\"/>");
}

static void draw_points(text *t, const report_line *l, const axis *x, const axis *y)
{
    for (i64 i = 0; i < l->n; i++) {
        if (!isfinite(l->y[i]) || place(y, l->y[i]) < TOP || place(y, l->y[i]) > HEIGHT - BOTTOM) continue;
        text_add(t, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", place(x, l->x[i]), place(y, l->y[i]));
        text_add(t, "%.6g: %.6g</title></circle>", l->x[i], l->y[i]);
    }
}

/* How many values the frame leaves out; a smoothed line's are not counted again. */
static i64 outside(const report_chart *c, const axis *y)
{
    i64 n = 0;
    for (i64 i = 0; i < c->n_lines; i++) {
        const report_line *l = &c->lines[i];
        if (i && l[-1].style == REPORT_FAINT) continue;
        for (i64 k = 0; k < l->n; k++) n += isfinite(l->y[k]) && (l->y[k] > y->high || l->y[k] < y->low);
    }
    return n;
}

static void draw_legend(text *t, const report_chart *c)
{
    i64 colour = 0;
    text_add(t, "<figcaption class=\"legend\">");
    for (i64 i = 0; i < c->n_lines; i++) {
        if (c->lines[i].label) {
            text_add(t, "<span class=\"c%lld%s\"><i></i>", (long long)colour % 8,
                     c->lines[i].style == REPORT_FAINT ? " faint" : "");
            report_escape(t, c->lines[i].label);
            text_add(t, "</span>");
        }
        colour += c->lines[i].style != REPORT_FAINT;
    }
    for (i64 i = 0; i < c->n_levels; i++) {
        text_add(t, "<span class=\"level\"><i></i>");
        report_escape(t, c->levels[i].label);
        text_add(t, "</span>");
    }
    text_add(t, "</figcaption>");
}

void report_svg(text *t, const report_chart *c, i64 id)
{
    axis x, y;
    i64 colour = 0, missing;
    find_axes(c, &x, &y);
    text_add(t, "<figure><h3>");
    report_escape(t, c->title);
    text_add(t, "</h3>");
    draw_legend(t, c);
    text_add(t, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    report_escape(t, c->title);
    text_add(t,
             "\"><clipPath id=\"frame%lld\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>",
             (long long)id, LEFT, TOP - 4, WIDTH - LEFT - RIGHT + 4, HEIGHT - TOP - BOTTOM + 8);
    draw_axes(t, c, &x, &y);
    text_add(t, "<g clip-path=\"url(#frame%lld)\">", (long long)id);
    for (i64 i = 0; i < c->n_levels; i++)
        text_add(t, "<path class=\"level\" d=\"M%d %.1fH%d\"/>", LEFT, place(&y, c->levels[i].y),
                 WIDTH - RIGHT);
    for (i64 i = 0; i < c->n_lines; i++) {
        const report_line *l = &c->lines[i];
        text_add(t, "<g class=\"c%lld%s\">", (long long)colour % 8,
                 l->style == REPORT_FAINT    ? " faint"
                 : l->style == REPORT_POINTS ? " thin"
                                             : "");
        draw_band(t, l, &x, &y);
        text_add(t, "<path d=\"");
        if (l->style != REPORT_DOTS) draw_path(t, l, &x, &y);
        text_add(t, "\"/>");
        if (l->style == REPORT_POINTS || l->style == REPORT_DOTS) draw_points(t, l, &x, &y);
        text_add(t, "</g>");
        colour += l->style != REPORT_FAINT;
    }
    text_add(t, "</g></svg>");
    if ((missing = outside(c, &y)))
        text_add(t, "<p class=\"note\">%lld value%s outside the frame.</p>", (long long)missing,
                 missing == 1 ? " lies" : "s lie");
    text_add(t, "</figure>\n");
}
