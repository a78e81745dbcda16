/* main.c - `ganq`: picks the command. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static int cmd_version(int argc, char **argv);
static int cmd_help(int argc, char **argv);

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text;
} commands[] = {
    {"quantize", cmd_quantize, "a model directory to 2, 3 or 4 bits"},
    {"quantize-layer", cmd_quantize_layer,
     "single layers from a safetensors file, with their error"},
    {"perplexity", cmd_perplexity, "how well a model predicts a text"},
    {"generate", cmd_generate, "text from a prompt"},
    {"inspect", cmd_inspect, "what is in a model directory or a safetensors file; checks sums"},
    {"export", cmd_export, "a model as dense f16, bf16 or f32 that other engines read"},
    {"bench", cmd_bench, "time products, decoding and the solver"},
    {"version", cmd_version, "version of the command and of the library"},
    {"help", cmd_help, "this text, or `ganq help COMMAND`"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int cmd_version(int argc, char **argv) {
    static cli_common common = CLI_COMMON_DEFAULTS;
    static const cli_option options[] = {CLI_COMMON_OPTIONS(common)};
    static const cli_command command = {"version", "", "Prints the versions.", options, 0, 0};
    int code = cli_parse(&command, argc, argv, NULL);
    if (code != CLI_CONTINUE)
        return code;
    printf("ganq %d.%d.%d, libganq %s, ABI %d\n", GANQ_VERSION_MAJOR, GANQ_VERSION_MINOR,
           GANQ_VERSION_PATCH, ganq_version(), ganq_abi_version());
    return CLI_OK;
}

static void print_overview(FILE *file) {
    fprintf(file, "usage: ganq COMMAND [arguments]\n\n"
                  "Large language models in 2, 3 and 4 bits with one lookup table per row.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(file, "  %-16s %s\n", commands[i].name, commands[i].text);
    fprintf(
        file,
        "\nEvery command has --help, and takes --device auto|cpu|cuda:I, --threads T and "
        "--numerics.\n"
        "\nExample, with calibration text and evaluation text as .txt, .jsonl or .json, each maybe "
        ".gz:\n"
        "  ganq quantize Llama-3.2-1B Llama-3.2-1B-ganq4 --bits 4 --calib c4.json.gz\n"
        "  ganq perplexity Llama-3.2-1B-ganq4 --text wikitext2.test.raw\n"
        "  ganq generate Llama-3.2-1B-ganq4 --prompt \"Once upon a time\"\n"
        "\nExit codes: 0 done; 1 failed; 2 wrong usage; 3 a file, tensor or device was not found;\n"
        "4 the output exists already; 130 interrupted.\n");
}

static int run_command(int argc, char **argv) {
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[0], commands[i].name))
            return commands[i].run(argc, argv);
    return cli_usage("unknown command \"%s\" (ganq help lists them)", argv[0]);
}

static int cmd_help(int argc, char **argv) {
    if (argc < 2 || argv[1][0] == '-') {
        print_overview(stdout);
        return CLI_OK;
    }
    char *arguments[4] = {argv[1], NULL, NULL, NULL};
    int count = 1;
    if (argc > 2) /* help bench gemm */
        arguments[count++] = argv[2];
    arguments[count++] = "--help";
    return run_command(count, arguments);
}

/* A standard stream that came closed is opened as one that refuses, so that no file of the output
 * gets its number and what is printed with it. */
static void occupy_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(CLI_FAILURE);
}

int main(int argc, char **argv) {
    occupy_standard_streams();
    cli_signals_install();
    int code;
    if (argc < 2) {
        print_overview(stderr);
        code = CLI_USAGE;
    } else if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        code = cmd_help(1, argv);
    } else if (!strcmp(argv[1], "--version")) {
        code = cmd_version(1, argv);
    } else {
        code = run_command(argc - 1, argv + 1);
    }
    cli_progress_clear();
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_message("cannot write to standard output");
        if (code == CLI_OK)
            code = CLI_FAILURE;
    }
    return code;
}
