/* terminal: what the terminal behind stdout or stderr can show, and what its user wants to see.
 *
 *     if (terminal_width()) show_progress(...);                  // 0: no line that is rewritten in place
 *     printf("%sslow%s\n", paint(stdout, YELLOW), paint(stdout, PLAIN));
 *
 * Colour: --color=always or never (KEEL_COLOR) decides; otherwise only a terminal gets it, and only where
 * neither NO_COLOR (no-color.org) is set nor TERM is dumb. */
#pragma once
#include "base/base.h"
#include <stdio.h>

/* Columns of the terminal behind standard error; 0: none there, or one that cannot rewrite a line
 * (TERM=dumb). */
int terminal_width(void);

typedef enum paint_color { PLAIN, RED, GREEN, YELLOW, CYAN } paint_color;
const char *paint(FILE *to, paint_color color); // "" where TO gets no colour
/* "auto", "always" or "never" for this process, whatever the environment said. ERR_USAGE otherwise. */
status paint_when(const char *when) MUST;
