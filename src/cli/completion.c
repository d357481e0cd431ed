/* keel completion: what a shell sources to complete keel's command lines.
 *
 *     keel completion bash > ~/.local/share/bash-completion/completions/keel
 *     keel completion candidates -- train --is        # what the scripts ask at every press of the key
 *
 * The scripts know nothing of verbs or options: they ask the program that is being typed, which answers from
 * its own tables (in 10 ms), so that they can never be out of date. */
#include "cli/cli.h"
#include "cli/complete.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>

/* bash cuts words at '=' too, and replaces only what stands behind it. */
static const char bash[] =
    "# bash completion of keel, written by 'keel completion bash'\n"
    "_keel() {\n"
    "    local IFS=$' \\t\\n' line=${COMP_LINE:0:COMP_POINT} word answer value words\n"
    "    read -ra words <<<\"$line\"\n"
    "    case $line in *[[:space:]]) words+=('') ;; esac\n"
    "    word=${words[-1]}\n"
    "    COMPREPLY=()\n"
    "    [ ${#words[@]} -ge 2 ] || return 0\n"
    "    local head= program=${words[0]/#\\~\\//$HOME/}\n"
    "    case $COMP_WORDBREAKS in *=*) case $word in *=*) head=${word%=*}= ;; esac ;; esac\n"
    "    answer=$(\"$program\" completion candidates -- \"${words[@]:1}\" 2>/dev/null) || return 0\n"
    "    while IFS=$'\\t' read -r value _; do\n"
    "        case $value in\n"
    "        '') ;;\n"
    "        :file | :folder)\n"
    "            local kind=-f path\n"
    "            [ \"$value\" = :file ] || kind=-d\n"
    "            compopt -o filenames 2>/dev/null\n"
    "            while IFS= read -r path; do\n"
    "                [ -z \"$path\" ] || COMPREPLY+=(\"${path#\"$head\"}\")\n"
    "            done < <(compgen $kind -- \"${word#*=}\") ;;\n"
    "        *)\n"
    "            case $value in *[=.]) compopt -o nospace 2>/dev/null ;; esac\n"
    "            COMPREPLY+=(\"${value#\"$head\"}\") ;;\n"
    "        esac\n"
    "    done <<<\"$answer\"\n"
    "}\n"
    "complete -F _keel keel\n";

static const char zsh[] =
    "#compdef keel\n"
    "# zsh completion of keel, written by 'keel completion zsh'\n"
    "_keel() {\n"
    "    local line value help program=${~words[1]}\n"
    "    local -a whole open shown_whole shown_open\n"
    "    for line in \"${(@f)$($program completion candidates -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\"; "
    "do\n"
    "        value=${line%%$'\\t'*}\n"
    "        help=${line#*$'\\t'}\n"
    "        [[ $line == *$'\\t'* ]] && help=\"$value -- $help\" || help=$value\n"
    "        case $value in\n"
    "        '') ;;\n"
    "        :file) [[ -prefix *= ]] && compset -P '*='; _files ;;\n"
    "        :folder) [[ -prefix *= ]] && compset -P '*='; _files -/ ;;\n"
    "        *[=.]) open+=(\"$value\"); shown_open+=(\"$help\") ;;\n"
    "        *) whole+=(\"$value\"); shown_whole+=(\"$help\") ;;\n"
    "        esac\n"
    "    done\n"
    "    (( $#whole )) && compadd -l -d shown_whole -a whole\n"
    "    (( $#open )) && compadd -l -S '' -d shown_open -a open\n"
    "    return 0\n"
    "}\n"
    "if [ \"$funcstack[1]\" = _keel ]; then _keel \"$@\"; else compdef _keel keel; fi\n";

static const char fish[] =
    "# fish completion of keel, written by 'keel completion fish'\n"
    "function __keel_candidates\n"
    "    set -l words (commandline -opc)\n"
    "    set -l word (commandline -ct)\n"
    "    set -l head (string match -r '^[^=]*=' -- $word)\n"
    "    for line in ($words[1] completion candidates -- $words[2..-1] $word 2>/dev/null)\n"
    "        switch $line\n"
    "            case :file\n"
    "                for path in (__fish_complete_path (string replace -r '^[^=]*=' '' -- $word))\n"
    "                    echo \"$head$path\"\n"
    "                end\n"
    "            case :folder\n"
    "                for path in (__fish_complete_directories (string replace -r '^[^=]*=' '' -- $word))\n"
    "                    echo \"$head$path\"\n"
    "                end\n"
    "            case '*'\n"
    "                echo $line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c keel -f -a '(__keel_candidates)'\n";

static const struct shell {
    const char *name, *script;
} shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};

typedef struct completion_args {
    const char *what;
    char **words;
    int n;
} completion_args;

static error_t parse(int key, char *arg, struct argp_state *state)
{
    completion_args *a = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (a->what) argp_error(state, "one argument too many: '%s'", arg);
        a->what = arg;
        if (strcmp(arg, "candidates")) return 0;
        a->words = state->argv + state->next;
        a->n = state->argc - state->next;
        if (a->n && !strcmp(a->words[0], "--")) a->words++, a->n--;
        state->next = state->argc; // the rest is another command line
        return 0;
    case ARGP_KEY_END:
        if (!a->what) argp_error(state, "of which shell? bash, zsh or fish");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status candidates(const completion_args *a)
{
    arena *memory;
    command *all;
    i64 n;
    text out = {0};
    TRY(arena_open(&memory));
    status s = describe(memory, &all, &n);
    if (!s) complete(all, n, (const char *const *)a->words, a->n, &out);
    fwrite(out.data ? out.data : "", 1, out.bytes, stdout);
    text_free(&out);
    arena_close(memory);
    return s;
}

status verb_completion(int argc, char **argv)
{
    static const struct argp_option options[] = {{0}};
    static const struct argp argp = {
        options,
        parse,
        "bash|zsh|fish\ncandidates -- WORD...",
        "Prints a script for bash, zsh or fish that completes verbs, options, files, and configuration keys "
        "with their values."
        "\vbash: source <(keel completion bash), or as a file named keel in "
        "~/.local/share/bash-completion/completions. zsh: as _keel in a folder of $fpath. fish: as "
        "~/.config/fish/completions/keel.fish. candidates is what the scripts call.",
        NULL,
        NULL,
        NULL};
    completion_args a = {0};
    TRY(cli_parse(&argp, argc, argv, &a));
    if (!strcmp(a.what, "candidates")) return candidates(&a);
    for (i64 i = 0; i < COUNT(shells); i++)
        if (!strcmp(a.what, shells[i].name)) return fputs(shells[i].script, stdout), OK;
    return fail(ERR_USAGE, "completion: no shell '%s'; it is bash, zsh or fish", a.what);
}
