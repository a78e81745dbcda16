/* ganq/layer.h - one quantized linear layer: make it, look into it, keep it, multiply with it. */
#ifndef GANQ_LAYER_H
#define GANQ_LAYER_H

#include "ganq/hessian.h"

#ifdef __cplusplus
extern "C" {
#endif

/* W~[n,k] = lut[n, code[n,k]] (+ outlier[n,k]).  Immutable; may be read from many threads, each with a
 * context of its own. */
typedef struct ganq_layer ganq_layer;

/* How codes and tables are found; docs/solver.md has the steps, the cost and the measured errors. */
typedef enum ganq_recipe {
    GANQ_RECIPE_DEFAULT = 0, /* several starts per row, ordered, coordinate descent, best kept        */
    GANQ_RECIPE_RTN = 1,     /* round to nearest on a uniform grid per row; needs no Hessian           */
    GANQ_RECIPE_PAPER = 2,   /* GANQ as released with the paper (arXiv 2501.12956, algorithm 1)        */
    GANQ_RECIPE_FAST = 3,    /* fewer starts and sweeps than DEFAULT                                   */
    GANQ_RECIPE_BEST = 4     /* more starts and sweeps than DEFAULT                                    */
} ganq_recipe;

typedef struct ganq_quantize_options {
    uint32_t struct_size;
    int32_t bits;          /* 2, 3 or 4; default 4                                                     */
    int32_t recipe;        /* ganq_recipe                                                              */
    int32_t iterations;    /* code/table alternations K; default: the recipe's (PAPER: 10)             */
    float damping;         /* added to diag(H) as a fraction of its mean; default: the recipe's, and where
                              H is of T tokens min(1, K/T) of each H_kk on top, in what is minimized;
                              negative: none. Nothing to RTN, which factors no H, nor to PAPER, which has
                              its own diagonal offset                                                  */
    float outlier_ratio;   /* part of the weights kept beside the codes (GANQ*), 0..0.1; default 0. PAPER
                              and RTN keep them as they are; the others give them the values that serve the
                              layer's error best. What is added to the table's value is F16, or F32 where
                              F16 would lose 2^-7 of the row's largest entry                             */
    int32_t lut_dtype;     /* GANQ_DTYPE_F16 (default; a layer whose tables F16 cannot hold to 2^-10 gets
                              F32 all the same) or GANQ_DTYPE_F32                                       */
    int32_t reserved;      /* 0 */
    const ganq_matrix *row_weights; /* [1,N] f32/f16/bf16, finite, not negative: how much each row's error
                              counts in the layer's error and norm (reports, E, PAPER's best iterate); rows
                              are independent given H, so codes and tables of the other recipes are the
                              same with any; NULL (default): 1. For single layers only                  */
} ganq_quantize_options;
/* Zeroes *options and sets struct_size; size = sizeof(ganq_quantize_options) of the caller. */
GANQ_API void ganq_quantize_options_init(ganq_quantize_options *options, size_t size);

/* Find codes and tables for W [N,K] that keep the layer's output: minimize, per row,
 * (w - w~) H (w - w~)^T  (paper, eq. 3-4).
 *   weight   [N,K] f32/f16/bf16, not modified
 *   hessian  NULL: H = I, which is nearest-value quantization of the weights alone
 *   bias     [1,N] f32/f16/bf16 or NULL; kept with the layer
 *   options  NULL: all defaults
 *   out      set only on GANQ_OK
 * The same bits for any number of threads. INVALID_ARG if K differs from the Hessian's, NUMERIC if W has
 * a NaN or infinity (row and column are named), UNSUPPORTED for other bit widths, CANCELED. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_quantize(ganq_context *ctx, const ganq_matrix *weight,
                                                        const ganq_hessian *hessian,
                                                        const ganq_matrix *bias,
                                                        const ganq_quantize_options *options,
                                                        ganq_layer **out);

/* One step of the solver: the error summed over rows, each row followed along the start that won it. */
typedef enum ganq_step_kind {
    GANQ_STEP_START = 1,   /* start table, nearest codes                                        */
    GANQ_STEP_ASSIGN = 2,  /* new codes by back-substitution (paper, eq. 7-9)                    */
    GANQ_STEP_TABLES = 3,  /* new tables in closed form (paper, eq. 6)                           */
    GANQ_STEP_DESCENT = 4, /* coordinate descent sweeps; from here on the error never rises      */
    GANQ_STEP_ROUND = 5,   /* tables rounded to their stored type                                */
    GANQ_STEP_OUTLIERS = 6 /* outliers chosen and fitted                                         */
} ganq_step_kind;
typedef struct ganq_step {
    int32_t kind;      /* ganq_step_kind                    */
    int32_t iteration; /* 0, 1, ... within the recipe       */
    double error;      /* sum over rows of (w-w~) H (w-w~)^T, float64; but for ROUND, of the H that is
                          minimized (ganq_quantize_options.damping) */
} ganq_step;

/* Where the solver's time went: `ganq bench quantize` sets it against what the machine can do. */
typedef enum ganq_cost_stage {
    GANQ_COST_PREPARE = 1, /* H checked, laid out and factored                                    */
    GANQ_COST_STARTS = 2,  /* start tables                                                        */
    GANQ_COST_ASSIGN = 3,  /* codes by back-substitution; on a GPU together with their tables     */
    GANQ_COST_TABLES = 4,  /* tables in closed form                                               */
    GANQ_COST_DESCENT = 5, /* coordinate descent; on a GPU together with its tables               */
    GANQ_COST_FINISH = 6   /* tables rounded, rows measured and compared with round-to-nearest    */
} ganq_cost_stage;
typedef struct ganq_cost {
    int32_t stage;  /* ganq_cost_stage */
    int32_t reserved;
    double seconds; /* of all threads together; what runs alone counts for all of them          */
    double work;    /* ASSIGN: multiply-adds, K^2/2 a row; DESCENT: K^2 a row for its gradient and
                       for each sweep, as if every code had changed; TABLES: bytes of H's factor,
                       2 K^2 a row; 0: not counted                                              */
} ganq_cost;

/* How a layer was made. Zero steps for layers that were loaded or imported. */
typedef struct ganq_layer_report {
    uint32_t struct_size;
    int32_t recipe;         /* ganq_recipe                                                          */
    double error;           /* sum (w-w~) H (w-w~)^T, for the layer as stored, float64              */
    double norm;            /* sum w H w^T; E = error / norm                                        */
    double seconds;         /* wall time of the solver                                              */
    double damping;         /* fraction of the mean diagonal that was used (may have escalated)     */
    int64_t tokens;         /* of the Hessian; 0 without one                                        */
    int64_t step_count;
    const ganq_step *steps; /* borrowed from the layer                                              */
    const char *note;       /* what the caller should know ("diagonal offset added"), or ""; borrowed */
    int64_t cost_count;     /* 0 for layers that were loaded or imported                            */
    const ganq_cost *costs; /* borrowed from the layer                                              */
} ganq_layer_report;

/* Rows are solved independently of each other: a layer cut into shards of rows at multiples of this gives
 * the rows, bit for bit, that it gives as a whole, in any order and for any number of threads. Two things
 * are decided for a layer as a whole: PAPER's best iterate, and whether its tables need F32. */
#define GANQ_ROW_TILE 16
/* report->struct_size must be set by the caller. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_get_report(const ganq_layer *layer,
                                                          ganq_layer_report *report);

typedef struct ganq_layer_info {
    uint32_t struct_size;
    int32_t bits;            /* 2, 3, 4                                                     */
    int64_t rows;            /* N */
    int64_t cols;            /* K */
    int64_t outliers;        /* weights kept beside the codes                              */
    int32_t lut_dtype;       /* F16 or F32                                                 */
    int32_t has_bias;        /* 0 or 1                                                     */
    int64_t stored_bytes;    /* codes + tables + outliers + bias on disk                   */
    int64_t resident_bytes;  /* memory held by this handle                                 */
    double bits_per_weight;  /* (codes + tables + outliers) * 8 / (N*K)                    */
} ganq_layer_info;
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_get_info(const ganq_layer *layer,
                                                        ganq_layer_info *info);

/* out [N,K] f32/f16/bf16 <- W~. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_dequantize(ganq_context *ctx, const ganq_layer *layer,
                                                          ganq_matrix *out);
/* codes [N,K] u8 and lut [N,L] f32 of the layer; either may be NULL. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_export(const ganq_layer *layer, ganq_matrix *codes,
                                                      ganq_matrix *lut);
/* error = sum (w-w~) H (w-w~)^T and norm = sum w H w^T in float64, for the layer as stored; hessian NULL:
 * H = I. Either output may be NULL. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_objective(ganq_context *ctx, const ganq_layer *layer,
                                                         const ganq_matrix *weight,
                                                         const ganq_hessian *hessian, double *error,
                                                         double *norm);

/* A layer from codes and tables made elsewhere.
 *   bits   2, 3 or 4
 *   codes  [N,K] u8, each < 2^bits (else INVALID_ARG naming row and column)
 *   lut    [N,2^bits] f32/f16/bf16, finite; sorted here, codes renumbered to match
 *   bias   [1,N] or NULL
 *   outlier_rowptr [N+1], outlier_cols, outlier_vals: CSR, columns ascending in each row; all NULL: none */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_import(ganq_context *ctx, int32_t bits,
                                                      const ganq_matrix *codes, const ganq_matrix *lut,
                                                      const ganq_matrix *bias,
                                                      const int32_t *outlier_rowptr,
                                                      const int32_t *outlier_cols,
                                                      const float *outlier_vals, ganq_layer **out);

/* A safetensors file with <name>.qweight, .lut, ... (docs/format.md). Written atomically. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_save(const ganq_layer *layer, const char *path,
                                                    const char *name);
/* name NULL: the only layer in the file. Checks CRC-32 where the file has it. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_load(ganq_context *ctx, const char *path,
                                                    const char *name, ganq_layer **out);
GANQ_API void ganq_layer_free(ganq_layer *layer);

/* Y[M,N] = X[M,K] * W~[N,K]^T (+ bias).  x, y: f32/f16/bf16 each, any M >= 1; x and y do not overlap.
 * The same bits for any number of threads. */
GANQ_NODISCARD GANQ_API ganq_status ganq_lut_gemm(ganq_context *ctx, const ganq_layer *layer,
                                                  const ganq_matrix *x, ganq_matrix *y);
/* Puts the layer into the memory of the context's device, where it stays until layer or context is freed. The first
 * product does it too; after this call products allocate nothing for the layer. On the CPU: the layout it computes with. */
GANQ_NODISCARD GANQ_API ganq_status ganq_layer_place(ganq_context *ctx, const ganq_layer *layer);

/* A product with everything in the memory of a GPU, for engines that own their memory and streams: up to three layers
 * of equal K with the same X (q k v, or gate and up) in one call. Addresses are the device's. */
typedef struct ganq_device_product {
    uint32_t struct_size;
    int32_t count;              /* of layers, 1 to 3                                                     */
    const ganq_layer *layers[3]; /* ganq_layer_place was called for them                                 */
    int64_t rows;               /* M >= 1                                                                */
    const void *x;              /* [M,K]; fastest: f16, 16-byte aligned, x_stride and K multiples of 8   */
    int64_t x_stride;           /* elements; 0 = K                                                       */
    int32_t x_dtype;            /* F32, F16 or BF16                                                      */
    int32_t y_dtype;            /* the same                                                              */
    void *y[3];                 /* [M, N of the layer]; overlap neither x nor each other                 */
    int64_t y_strides[3];       /* elements; 0 = N                                                       */
    void *workspace;            /* 256-byte aligned; contents do not matter and are undefined afterwards */
    int64_t workspace_bytes;
    void *stream;               /* cudaStream_t of the context's device; NULL: the default stream        */
} ganq_device_product;
/* Bytes of workspace that the product takes; workspace, y and stream of it are not looked at. It may be 0. Call it with
 * x as it will be: it also prepares what the product needs on the host, so that the product itself only launches. */
GANQ_NODISCARD GANQ_API ganq_status ganq_lut_gemm_device_workspace(ganq_context *ctx, const ganq_device_product *product,
                                                                   int64_t *bytes);
/* Puts the product into the stream and returns: no allocation, no synchronization; may be captured into a CUDA graph.
 * Layers and context must outlive the work, and the graphs that captured it: what they hold is given back in the order of
 * the context's own stream, which does not wait for this one. The same bits at every call. UNSUPPORTED where the context's
 * device is no GPU; INVALID_ARG for a layer that was not placed or a workspace that is too small. */
GANQ_NODISCARD GANQ_API ganq_status ganq_lut_gemm_device(ganq_context *ctx, const ganq_device_product *product);

/* Measures the ways in which the context's GPU can multiply `rows` rows of x of the type with the layer, from memory that
 * no cache holds, and keeps the fastest for layers of this shape: in the context from now on, and for other processes in
 * $GANQ_CACHE_DIR, $XDG_CACHE_HOME/ganq or $HOME/.cache/ganq (lut-tuning.txt), which contexts read at their first product.
 * Sums may then be added in another order. microseconds: of a product with it; untuned: with what would have been chosen
 * without measuring. Takes about a second and several times the layer's memory. UNSUPPORTED where the device is no GPU;
 * IO, NOT_FOUND when the file cannot be written. A damaged file is written anew, with a warning in the log. */
GANQ_NODISCARD GANQ_API ganq_status ganq_lut_gemm_tune(ganq_context *ctx, const ganq_layer *layer, int64_t rows,
                                                       int32_t x_dtype, double *microseconds, double *untuned);

/* Y[M,N] = X[M,K] * W[N,K]^T with a dense W, f32, f16 or bf16, in its own rounding; x, y f32; y overlaps neither. On
 * the CPU, whatever the context's device: what quantized layers are compared with. The same bits for any number of
 * threads. */
GANQ_NODISCARD GANQ_API ganq_status ganq_dense_gemm(ganq_context *ctx, const ganq_matrix *weight,
                                                    const ganq_matrix *x, ganq_matrix *y);

#ifdef __cplusplus
}
#endif
#endif
