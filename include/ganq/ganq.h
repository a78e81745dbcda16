/* ganq.h - large language models in 2, 3 or 4 bits with one lookup table per row.
 *
 * Symbols used in every comment of these headers:
 *   N  output features (rows of W)      M  tokens (rows of X)
 *   K  input features  (columns of W)   L  table entries per row, L = 2^bits
 * A quantized layer stands for   W~[n,k] = lut[n, code[n,k]]  (+ a sparse outlier), and the library computes
 *   Y[M,N] = X[M,K] * W~[N,K]^T  (+ bias).
 * Row-major; sizes and strides are in elements unless a name ends in _bytes.
 *
 * The ladder, each rung usable alone:
 *   common.h     status, error text, matrices
 *   context.h    device, threads, log, progress, cancel
 *   hessian.h    H = X^T X from calibration activations
 *   layer.h      W and H -> codes and tables; save, load; ganq_lut_gemm
 *   tokenizer.h  text <-> token ids; token sequences for calibration and evaluation
 *   model.h      Hugging Face checkpoints in, quantized checkpoints out
 *   session.h    logits, sampling, generation, perplexity
 *   tensors.h    beside the ladder: what is in a safetensors file
 *
 * Calls return ganq_status; the words are in ganq_last_error(), per thread. Outputs come last and are written only
 * on GANQ_OK.
 * Ownership: what is written through `T **out` belongs to the caller (ganq_<type>_free; NULL allowed); what is
 * returned by value or const pointer is borrowed from its parent. A parent may be freed first: handles keep alive
 * what they need.
 * Structs begin with struct_size = sizeof the struct the caller was compiled with. Fields left 0 take their default;
 * a library older than its caller answers UNSUPPORTED if a field it does not know is not 0.
 * Threads: a context and what is made with it serve one thread at a time; ganq_layer, ganq_model, ganq_tokenizer are
 * immutable and may be read from many threads, each with its own context. Nothing runs before the first call, and a
 * process may fork: the pool is rebuilt in the child.
 * The library never prints, exits or aborts.
 * Stability: functions and fields are only appended once 1.0.0 is released; until then see CHANGELOG.md.
 *
 * The method: Zhao and Yuan, "GANQ: GPU-Adaptive Non-Uniform Quantization for Large Language Models", ICML 2025,
 * arXiv 2501.12956. Comments cite it as "paper". */
#ifndef GANQ_GANQ_H
#define GANQ_GANQ_H

#include "ganq/common.h"
#include "ganq/context.h"
#include "ganq/hessian.h"
#include "ganq/layer.h"
#include "ganq/model.h"
#include "ganq/session.h"
#include "ganq/tensors.h"
#include "ganq/tokenizer.h"

#endif
