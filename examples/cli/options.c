/* options.c - a command's table of options: parsing, and --help with the defaults. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const char exit_codes_help[] =
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a file, tensor or device was not found;\n"
    "4 the output exists already; 130 interrupted.\n";

/* Prints `text` wrapped at 100 columns; the cursor stands at column `indent`, where further lines
 * begin, too. */
static void print_wrapped(const char *text, int indent) {
    int column = indent;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (column > indent && column + 1 + word > 99) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", word, text);
        column += word;
        text += word;
        text += *text == ' ';
    }
    putchar('\n');
}

static void describe_default(const cli_option *o, char *out, size_t size) {
    out[0] = 0;
    if (o->kind == CLI_TEXT) {
        const char *text = *(const char **)o->value;
        if (text && *text)
            snprintf(out, size, " [%s]", text);
    } else if (o->kind == CLI_INT && *(int64_t *)o->value >= 0) {
        snprintf(out, size, " [%lld]", (long long)*(int64_t *)o->value);
    } else if (o->kind == CLI_REAL && *(double *)o->value >= 0) {
        snprintf(out, size, " [%g]", *(double *)o->value);
    } else if (o->kind == CLI_CHOICE) {
        snprintf(out, size, " [%s]", cli_choice(o->argument, *(int64_t *)o->value));
    }
}

static void print_help(const cli_command *command) {
    enum { HELP_COLUMN = 30 };
    printf("usage: ganq %s %s\n\n%s\n", command->name, command->synopsis, command->text);
    printf("\nOptions (defaults in brackets):\n");
    for (const cli_option *o = command->options; o->kind != CLI_END; o++) {
        char left[96], preset[96], help[512];
        if (o->kind == CLI_HEADING) {
            printf("\n%s:\n", o->name);
            continue;
        }
        char letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        if (o->name)
            snprintf(left, sizeof left, "  %s--%s %s", letter, o->name,
                     o->argument ? o->argument : "");
        else
            snprintf(left, sizeof left, "  -%c %s", o->letter, o->argument ? o->argument : "");
        describe_default(o, preset, sizeof preset);
        snprintf(help, sizeof help, "%s%s%s", o->help, o->kind == CLI_LIST ? " (repeatable)" : "",
                 preset);
        int column = printf("%s", left);
        if (column >= HELP_COLUMN) {
            putchar('\n');
            column = 0;
        }
        printf("%*s", HELP_COLUMN - column, "");
        print_wrapped(help, HELP_COLUMN);
    }
    printf("      --help                  this text\n\n%s", exit_codes_help);
}

static int set_choice(const cli_option *o, const char *shown, const char *text) {
    const char *word = o->argument;
    for (int64_t i = 0; word; i++) {
        size_t length = strcspn(word, "|");
        if (strlen(text) == length && !strncmp(text, word, length)) {
            *(int64_t *)o->value = i;
            return CLI_CONTINUE;
        }
        word = word[length] ? word + length + 1 : NULL;
    }
    return cli_usage("%s: expected %s, found \"%s\"", shown, o->argument, text);
}

static int set_number(const cli_option *o, const char *shown, const char *text) {
    char *end = NULL;
    errno = 0;
    if (o->kind == CLI_REAL) {
        double value = strtod(text, &end);
        if (end == text || *end || !isfinite(value) || value < o->low || value > o->high)
            return cli_usage("%s: expected a number from %g to %g, found \"%s\"", shown, o->low,
                             o->high, text);
        *(double *)o->value = value;
        return CLI_CONTINUE;
    }
    long long value = strtoll(text, &end, 10);
    if (o->kind == CLI_BYTES && end != text && value > 0 && !errno) {
        static const char units[] = "KMGT";
        const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
        int shift = unit && *unit ? 10 * (int)(unit - units + 1) : 0;
        if ((!*end || (shift && !end[1])) && value <= INT64_MAX >> shift) {
            *(int64_t *)o->value = (int64_t)value << shift;
            return CLI_CONTINUE;
        }
    }
    if (o->kind == CLI_BYTES)
        return cli_usage("%s: expected bytes such as 800M or 8G, found \"%s\"", shown, text);
    if (end == text || *end || errno || (double)value < o->low || (double)value > o->high)
        return cli_usage("%s: expected a whole number from %.0f to %.0f, found \"%s\"", shown,
                         o->low, o->high, text);
    *(int64_t *)o->value = value;
    return CLI_CONTINUE;
}

static int set_option(const cli_option *o, const char *shown, const char *text) {
    switch (o->kind) {
    case CLI_FLAG:
        *(int *)o->value = 1;
        return CLI_CONTINUE;
    case CLI_TEXT:
        *(const char **)o->value = text;
        return CLI_CONTINUE;
    case CLI_LIST: {
        cli_list *list = o->value;
        const char **items = realloc(list->items, (list->count + 1) * sizeof *items);
        if (!items) {
            cli_message("out of memory");
            return CLI_FAILURE;
        }
        list->items = items;
        list->items[list->count++] = text;
        return CLI_CONTINUE;
    }
    case CLI_CHOICE:
        return set_choice(o, shown, text);
    default:
        return set_number(o, shown, text);
    }
}

static const cli_option *find_option(const cli_command *command, const char *name, size_t length,
                                     int is_long) {
    for (const cli_option *o = command->options; o->kind != CLI_END; o++) {
        if (o->kind == CLI_HEADING)
            continue;
        if (!is_long && o->letter == *name)
            return o;
        if (is_long && o->name && strlen(o->name) == length && !strncmp(o->name, name, length))
            return o;
    }
    return NULL;
}

int cli_parse(const cli_command *command, int argc, char **argv, const char **arguments) {
    int count = 0, options_ended = 0;
    for (int i = 0; i < command->max_arguments; i++)
        arguments[i] = NULL;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        if (options_ended || word[0] != '-' || !word[1]) {
            if (count == command->max_arguments)
                return cli_usage("%s: unexpected argument \"%s\" (ganq %s --help)", command->name,
                                 word, command->name);
            arguments[count++] = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            options_ended = 1;
            continue;
        }
        if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
            print_help(command);
            return CLI_OK;
        }
        int is_long = word[1] == '-';
        const char *name = word + (is_long ? 2 : 1), *value = NULL;
        size_t length = is_long ? strcspn(name, "=") : 1;
        const cli_option *o = find_option(command, name, length, is_long);
        if (!o)
            return cli_usage("%s: unknown option \"%s\" (ganq %s --help)", command->name, word,
                             command->name);
        if (name[length])
            value = name + length + (is_long ? 1 : 0);
        char shown[64];
        snprintf(shown, sizeof shown, "%s%.*s", is_long ? "--" : "-", (int)length, name);
        if (o->kind == CLI_FLAG) {
            if (value)
                return cli_usage("%s takes no value", shown);
        } else if (!value) {
            if (i + 1 == argc)
                return cli_usage("%s needs a value: %s", shown, o->argument);
            value = argv[++i];
        }
        int code = set_option(o, shown, value);
        if (code != CLI_CONTINUE)
            return code;
    }
    const cli_option *progress = find_option(command, "progress", strlen("progress"), 1);
    if (progress)
        cli_progress_mode(*(int64_t *)progress->value);
    if (count < command->min_arguments)
        return cli_usage("%s: expected %s (ganq %s --help)", command->name, command->synopsis,
                         command->name);
    for (int i = 0; i < count; i++)
        if (!*arguments[i]) /* all of them are paths; "" would be the root of the file system */
            return cli_usage("%s: argument %d of %s is empty", command->name, i + 1,
                             command->synopsis);
    return CLI_CONTINUE;
}

void cli_list_free(cli_list *list) {
    free(list->items);
    *list = (cli_list){0};
}

/* Two non-negative numbers around a separator. */
static int parse_pair(const char *text, char separator, int64_t *a, int64_t *b) {
    char *end;
    if (*text < '0' || *text > '9')
        return 0;
    errno = 0;
    long long first = strtoll(text, &end, 10);
    if (*end != separator || end[1] < '0' || end[1] > '9')
        return 0;
    long long second = strtoll(end + 1, &end, 10);
    if (*end || errno)
        return 0;
    *a = first;
    *b = second;
    return 1;
}

int cli_parse_shape(const char *text, int64_t *N, int64_t *K) {
    return parse_pair(text, 'x', N, K) && *N > 0 && *K > 0;
}

int cli_check_damping(double damping, int64_t recipe) {
    if (damping < 0 || (recipe != GANQ_RECIPE_RTN && recipe != GANQ_RECIPE_PAPER))
        return CLI_OK;
    return cli_usage("--damping: the recipe %s does not use it", cli_choice(CLI_RECIPES, recipe));
}

float cli_float(double value) {
    return value > 0 && value < FLT_MIN ? FLT_MIN : (float)value;
}

float cli_fraction(double value) {
    return value < 0 ? 0 : value == 0 ? -1 : cli_float(value);
}

int cli_parse_range(const char *text, int64_t *first, int64_t *end) {
    return parse_pair(text, ':', first, end) && *first < *end;
}

int cli_parse_device(const char *text, int32_t *kind, int32_t *index) {
    *index = 0;
    if (!strcmp(text, "auto")) {
        *kind = GANQ_DEVICE_AUTO;
    } else if (!strcmp(text, "cpu")) {
        *kind = GANQ_DEVICE_CPU;
    } else if (!strcmp(text, "cuda")) {
        *kind = GANQ_DEVICE_CUDA;
    } else if (!strncmp(text, "cuda:", 5) && text[5] >= '0' && text[5] <= '9') {
        char *end;
        long value = strtol(text + 5, &end, 10);
        if (*end || value > 1023)
            return 0;
        *kind = GANQ_DEVICE_CUDA;
        *index = (int32_t)value;
    } else {
        return 0;
    }
    return 1;
}
