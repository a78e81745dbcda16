/* progress.c - progress on standard error: one redrawn line, a line per finished step, or JSON
 * lines. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli.h"

static struct {
    int64_t mode;
    int redraw; /* standard error is a terminal  */
    int line_is_drawn;
    int32_t last_stage; /* JSON, PLAIN: of the last line */
    int last_percent;
} state;

static const char *stage_name(int32_t stage) {
    static const char *const names[] = {"", "load", "calibrate", "quantize", "save", "evaluate"};
    return stage >= GANQ_STAGE_LOAD && stage <= GANQ_STAGE_EVALUATE ? names[stage] : "work";
}

void cli_progress_clear(void) {
    if (state.line_is_drawn) {
        fputs("\r\033[K", stderr);
        state.line_is_drawn = 0;
    }
}

static void draw_line(const ganq_progress *p) {
    char line[512], left[32] = "";
    struct winsize window;
    int columns = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 20)
        columns = window.ws_col;
    if (p->seconds_left >= 0)
        snprintf(left, sizeof left, "%s left", cli_duration(p->seconds_left));
    snprintf(line, sizeof line, "%3.0f%%  %-9s %lld/%lld  %s  %s", 100 * p->fraction,
             stage_name(p->stage), (long long)p->done, (long long)p->total, left,
             p->name ? p->name : "");
    fprintf(stderr, "\r\033[K%.*s", columns - 1, line);
    fflush(stderr);
    state.line_is_drawn = 1;
}

static void print_line(const ganq_progress *p) {
    int percent = (int)(100 * p->fraction);
    if (p->error >= 0) {
        fprintf(stderr, "[%4lld/%lld] %-48s E %.3e  %s\n", (long long)p->done, (long long)p->total,
                p->name ? p->name : "", p->error, cli_duration(p->seconds));
    } else if (p->stage == GANQ_STAGE_EVALUATE &&
               (p->stage != state.last_stage || percent / 10 != state.last_percent / 10)) {
        fprintf(stderr, "%3d%% of the text, %s\n", percent, cli_duration(p->seconds));
        state.last_percent = percent;
    }
    state.last_stage = p->stage;
}

static void print_json(const ganq_progress *p) {
    json_t *line = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f}", "stage", stage_name(p->stage),
                             "name", p->name ? p->name : "", "done", (json_int_t)p->done, "total",
                             (json_int_t)p->total, "fraction", p->fraction, "seconds", p->seconds);
    if (!line) /* a name that is not UTF-8 */
        return;
    if (p->seconds_left >= 0)
        json_object_set_new(line, "seconds_left", json_real(p->seconds_left));
    if (p->error >= 0)
        json_object_set_new(line, "E", json_real(p->error));
    json_dumpf(line, stderr, JSON_COMPACT | JSON_REAL_PRECISION(6));
    fputc('\n', stderr);
    json_decref(line);
}

static int on_progress(const ganq_progress *progress, void *user) {
    (void)user;
    if (state.mode == CLI_PROGRESS_JSON)
        print_json(progress);
    else if (state.mode != CLI_PROGRESS_NONE && state.redraw)
        draw_line(progress);
    else if (state.mode != CLI_PROGRESS_NONE)
        print_line(progress);
    return cli_interrupted();
}

void cli_progress_mode(int64_t mode) {
    memset(&state, 0, sizeof state);
    state.mode = mode;
    state.redraw = mode == CLI_PROGRESS_AUTO && isatty(STDERR_FILENO);
}

int cli_progress_is_json(void) {
    return state.mode == CLI_PROGRESS_JSON;
}

void cli_progress_install(ganq_context_options *options) {
    options->progress = on_progress;
}
