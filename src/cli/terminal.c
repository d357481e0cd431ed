/* terminal: see terminal.h. The choice of colour is kept where a user's is: in the environment. */
#include "cli/terminal.h"
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool dumb(void)
{
    const char *term = getenv("TERM");
    return term && !strcmp(term, "dumb");
}

int terminal_width(void)
{
    struct winsize size;
    if (!isatty(2) || dumb()) return 0;
    return !ioctl(2, TIOCGWINSZ, &size) && size.ws_col > 20 ? size.ws_col : 80;
}

static bool colorful(FILE *to)
{
    const char *when = getenv("KEEL_COLOR"), *no = getenv("NO_COLOR");
    if (when && !strcmp(when, "always")) return true;
    if (when && !strcmp(when, "never")) return false;
    return isatty(fileno(to)) && !dumb() && !(no && *no);
}

const char *paint(FILE *to, paint_color color)
{
    static const char *const codes[] = {"\033[0m", "\033[1;31m", "\033[32m", "\033[33m", "\033[36m"};
    return colorful(to) ? codes[color] : "";
}

status paint_when(const char *when)
{
    if (strcmp(when, "auto") && strcmp(when, "always") && strcmp(when, "never"))
        return fail(ERR_USAGE, "--color=%s: expected auto, always or never", when);
    if (!setenv("KEEL_COLOR", when, 1)) return OK;
    return fail(ERR_MEMORY, "--color: out of memory");
}
