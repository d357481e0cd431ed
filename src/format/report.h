/* report: a run on one self-contained HTML page: curves as inline SVG, figures, tables, samples. No script,
 * nothing loaded from elsewhere, light and dark by the reader's preference; everything given is escaped.
 *
 *     report_line line = {.label = "training", .x = steps, .y = losses, .n = n};
 *     report_chart chart = {.title = "Loss", .x_label = "step", .y_label = "nats a token", .lines = &line,
 * .n_lines = 1}; report_page page = {.title = "runs/a", .charts = &chart, .n_charts = 1};
 *     TRY(report_write(&page, "report.html"));
 *
 * All pointers are borrowed for the call. Equal pages give equal bytes. */
#pragma once
#include "base/text.h"

typedef enum report_style {
    REPORT_LINE,
    REPORT_FAINT,  // raw values behind a smoothed line of the same colour (the line that follows)
    REPORT_POINTS, // few values: points on a thin line
    REPORT_DOTS    // points alone, in any order
} report_style;

typedef struct report_line {
    const char *label; // for the legend; NULL: not in it
    report_style style;
    const double *x, *y;      // x not falling; a y that is not finite breaks the line
    const double *low, *high; // [n] a band around it; NULL: none
    i64 n;
} report_line;

typedef struct report_level { // a horizontal line to compare with
    const char *label;
    double y;
} report_level;

typedef struct report_chart {
    const char *title, *x_label, *y_label; // the y label names the unit
    bool robust; // the frame follows the bulk of the values; how many lie outside is written below
    bool from_zero;
    bool x_free; // the x axis begins at the first value, not at 0
    const report_line *lines;
    i64 n_lines;
    const report_level *levels;
    i64 n_levels;
} report_chart;

typedef struct report_figure { // one number to see first
    const char *label, *value, *note;
} report_figure;

typedef struct report_row {
    const char *key, *value;
} report_row;

typedef struct report_sample {
    const char *prompt, *completion;
} report_sample;

typedef struct report_grid { // a table of several columns, the first of which names the row
    const char *title;
    const char *const *cells; // [rows, columns]; row 0 is the head
    i64 rows, columns;
} report_grid;

typedef struct report_page {
    const char *title, *subtitle;
    i64 refresh; // seconds after which a browser loads the page again; 0: never
    const report_figure *figures;
    i64 n_figures;
    const report_chart *charts;
    i64 n_charts;
    const report_sample *samples;
    i64 n_samples;
    const report_row *facts; // about the run: program, machine, times
    i64 n_facts;
    const report_row *config;
    i64 n_config;
    const report_grid *grids; // across the page
    i64 n_grids;
} report_page;

/* Appends the page to OUT. */
void report_html(text *out, const report_page *page);
/* Writes it to PATH, replacing what stands there in one step. */
status report_write(const report_page *page, const char *path) MUST;
/* Appends S with the characters that mean something to HTML escaped; bytes that are no UTF-8 and control
 * characters (but tab and newline) become U+FFFD. */
void report_escape(text *out, const char *s);
/* Appends one chart as an <svg> element; colours come from the page's style sheet. ID is unique on the page.
 */
void report_svg(text *out, const report_chart *chart, i64 id);
