/* cmd_export.c - `ganq export`: a dense directory for other engines. */
#include "cli.h"

int cmd_export(int argc, char **argv) {
    cli_common common = CLI_COMMON_DEFAULTS;
    const char *paths[2];
    int64_t dtype = 1, shard = -1;
    int force = 0;
    const cli_option options[] = {
        {CLI_CHOICE, 0, "dtype", &dtype, "f32|f16|bf16", 0, 0, "type of the weights"},
        {CLI_FLAG, 'f', "force", &force, NULL, 0, 0,
         "replace OUT, a model's directory, if it is there, in one step at the end"},
        {CLI_BYTES, 0, "shard", &shard, "BYTES", 0, 0, "largest file of OUT; default: 5 GB"},
        CLI_COMMON_OPTIONS(common)};
    const cli_command command = {
        "export",
        "MODEL OUT [options]",
        "Writes a model, quantized or not, as a dense Hugging Face directory.\n\n"
        "  ganq export out4 out4-f16 --dtype f16",
        options,
        2,
        2};
    int code = cli_parse(&command, argc, argv, paths);
    if (code != CLI_CONTINUE)
        return code;
    ganq_context *ctx = NULL;
    code = cli_context_create(&common, &ctx);
    if (code != CLI_OK)
        return code;
    ganq_model *model = NULL;
    ganq_save_options save = {.struct_size = sizeof save,
                              .force = force ? GANQ_SWITCH_ON : GANQ_SWITCH_DEFAULT,
                              .shard_bytes = shard > 0 ? shard : 0};
    static const ganq_dtype dtypes[] = {GANQ_DTYPE_F32, GANQ_DTYPE_F16, GANQ_DTYPE_BF16};
    ganq_status status = ganq_model_load(ctx, paths[0], NULL, &model);
    if (status == GANQ_OK)
        status = ganq_model_export_dense(ctx, model, paths[1], dtypes[dtype], &save);
    code = status == GANQ_OK ? CLI_OK : cli_failed(status);
    ganq_model_free(model);
    ganq_context_free(ctx);
    return code;
}
