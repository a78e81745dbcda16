/* ganq/context.h - where work runs: device, threads, messages, progress and cancellation. */
#ifndef GANQ_CONTEXT_H
#define GANQ_CONTEXT_H

#include "ganq/common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A context is used by one thread at a time. It may be freed before what was made from it. */
typedef struct ganq_context ganq_context;

typedef enum ganq_device_kind {
    GANQ_DEVICE_AUTO = 0, /* the best there is; a fall-back to the CPU is logged */
    GANQ_DEVICE_CPU = 1,
    GANQ_DEVICE_CUDA = 2
} ganq_device_kind;

/* How products with quantized layers are computed (ganq_lut_gemm, and with it models); errors are those of a call's
 * result, |Y - Y64| / |Y64|. Sessions keep keys and values in F16 with `fast`, in F32 with `exact`.
 *
 * In a whole model `fast` moves logits by less than 3e-3 of their range and perplexity by less than 0.1%; the same
 * bounds hold between a prefill and single steps. In `exact` both agree to fp32 rounding: compare models in it. */
typedef enum ganq_numerics {
    GANQ_NUMERICS_DEFAULT = 0, /* what the environment variable GANQ_NUMERICS says, "fast" or "exact"; else fast */
    GANQ_NUMERICS_FAST = 1,    /* about 1e-4, at most 3e-4 unless a table entry is many times larger than the rest of its
                                  row: 16-bit fixed-point tables and activations where the
                                  processor has a kernel for them, else exact                      */
    GANQ_NUMERICS_EXACT = 2    /* fp32 arithmetic: at most 1e-6 on a CPU; on a GPU at most 1e-6 of sum |x| |w|. Its tensor
                                  cores cut sums off where a CPU rounds, which for rows of 10,000 may come to 1e-5 */
} ganq_numerics;

typedef enum ganq_log_level {
    GANQ_LOG_ERROR = 1,
    GANQ_LOG_WARNING = 2,
    GANQ_LOG_INFO = 3,
    GANQ_LOG_DEBUG = 4
} ganq_log_level;

/* One line without newline. Called from the thread that made the API call. */
typedef void (*ganq_log_fn)(ganq_log_level level, const char *message, void *user);

typedef enum ganq_stage {
    GANQ_STAGE_LOAD = 1,
    GANQ_STAGE_CALIBRATE = 2, /* running sequences through a block to collect Hessians */
    GANQ_STAGE_QUANTIZE = 3,  /* solving layers                                        */
    GANQ_STAGE_SAVE = 4,
    GANQ_STAGE_EVALUATE = 5 /* perplexity */
} ganq_stage;

/* What is being done. Strings are valid during the callback only. */
typedef struct ganq_progress {
    uint32_t struct_size;
    int32_t stage;       /* ganq_stage                                                       */
    const char *name;    /* the layer, tensor or file at hand, e.g. "model.layers.3.mlp.up_proj" */
    int64_t done;        /* finished layers (QUANTIZE), tokens (EVALUATE), tensors (LOAD, SAVE) */
    int64_t total;       /* the same unit; 0: unknown                                        */
    double fraction;     /* of the whole call, 0..1                                          */
    double seconds;      /* since the call began                                             */
    double seconds_left; /* estimate; negative: unknown                                      */
    double error;        /* QUANTIZE, when a layer has just been finished: its E; else -1     */
} ganq_progress;

/* Called now and then during long calls, from the calling thread. Non-zero cancels: the call returns
 * GANQ_ERR_CANCELED, soon, and leaves no partial output. */
typedef int (*ganq_progress_fn)(const ganq_progress *progress, void *user);

typedef struct ganq_context_options {
    uint32_t struct_size;
    int32_t device;       /* ganq_device_kind; default AUTO                                       */
    int32_t device_index; /* CUDA device number                                                  */
    int32_t threads;      /* CPU threads of the library's pool, caller included; default: the CPUs
                             this process may use. Results do not depend on it.                  */
    int32_t numerics;     /* ganq_numerics                                                       */
    int32_t log_level;    /* least severe ganq_log_level that reaches `log`; default WARNING     */
    int64_t memory_budget_bytes; /* most memory a call may plan to use; default: no limit        */
    ganq_log_fn log;             /* default: none                                                */
    void *log_user;
    ganq_progress_fn progress; /* default: none */
    void *progress_user;
} ganq_context_options;

/* options may be NULL. NO_DEVICE if the device or its driver is missing, or this build has nothing that runs there, with the
 * reason. Environment:
 * GANQ_CPU_ISA = ref | avx2 | avx512 forces the CPU kernels; an unknown or unavailable one is INVALID_ARG.
 * GANQ_NUMERICS = fast | exact is what the default numerics stand for; another word is INVALID_ARG. */
GANQ_NODISCARD GANQ_API ganq_status ganq_context_create(const ganq_context_options *options,
                                                        ganq_context **out);
GANQ_API void ganq_context_free(ganq_context *ctx);

/* "cpu (avx2, 2 threads)"; borrowed from the context. */
GANQ_API const char *ganq_context_device_name(const ganq_context *ctx);
GANQ_API int32_t ganq_context_threads(const ganq_context *ctx);
/* ganq_numerics: FAST or EXACT, as was asked for; 0 for NULL. */
GANQ_API int32_t ganq_context_numerics(const ganq_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
