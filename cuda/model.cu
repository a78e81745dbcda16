// model.cu - embedding, norms, rotary positions, SwiGLU, ReLU: one pass over their data each.
//
// Bound      by memory for many tokens, by the launch for one: what can be one kernel is one (sum and norm; norm, RoPE
//            and the cache). Most norms and SwiGLUs of a step need none: lut_input.cuh.
// Sums       of a row: threads of a block in a fixed order; a row's result does not depend on the other rows.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "activation.cuh"
#include "ganq/common.h"
#include "heads.cuh"
#include "model_kernels.h"
#include "reduce.cuh"

static unsigned blocks_for(int64_t count, int threads) { return (unsigned)((count + threads - 1) / threads); }

// Elements as f32.
static __device__ __forceinline__ float load(const float *x, int64_t i) { return x[i]; }
static __device__ __forceinline__ float load(const __half *x, int64_t i) { return __half2float(x[i]); }
static __device__ __forceinline__ float load(const __nv_bfloat16 *x, int64_t i) { return __bfloat162float(x[i]); }

template <typename T> static __global__ void embed(int64_t D, const int32_t *ids, const T *weight, float *h) {
    ganq_allow_next();
    ganq_wait_for_previous();
    const T *row = weight + (int64_t)ids[blockIdx.x] * D;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        h[(int64_t)blockIdx.x * D + d] = load(row, d);
}

cudaError_t ganq__cuda_embed(ganq__cuda_queue queue, int64_t M, int64_t D, const int32_t *ids, const void *weight,
                             int32_t dtype, float *h) {
    const dim3 grid((unsigned)M), block(256);
    if (dtype == GANQ_DTYPE_F16)
        return ganq_start(embed<__half>, grid, block, 0, queue, D, ids, (const __half *)weight, h);
    if (dtype == GANQ_DTYPE_BF16)
        return ganq_start(embed<__nv_bfloat16>, grid, block, 0, queue, D, ids, (const __nv_bfloat16 *)weight, h);
    return ganq_start(embed<float>, grid, block, 0, queue, D, ids, (const float *)weight, h);
}

// One block per row. The second pass finds its row in L1 or L2. `sum` may be x or added: each element is read before it
// is written, by the same thread.
static __global__ void __launch_bounds__(1024) norm(int64_t D, const float *x, int64_t ldx, const float *added, float *sum,
                                                    const float *weight, float eps, float *y, int64_t ldy) {
    __shared__ float box[32];
    ganq_allow_next();
    ganq_wait_for_previous();
    const int64_t m = blockIdx.x;
    const float *row = x + m * ldx;
    float squares = 0;
    if (added) {
        for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
            const float v = row[d] + added[m * D + d];
            sum[m * D + d] = v;
            squares = fmaf(v, v, squares);
        }
        row = sum + m * D;
    } else {
        for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
            squares = fmaf(row[d], row[d], squares);
    }
    const float scale = 1 / sqrtf(ganq_block_sum(squares, box) / (float)D + eps);
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        y[m * ldy + d] = row[d] * scale * weight[d];
}

// The same for rows that fit into the block's registers, 16 bytes at a time; the weights, which no kernel writes, are
// there before the kernel in front has ended.
enum { NORM_HELD = 4 };
static __global__ void __launch_bounds__(1024) norm_held(int64_t D, const float *x, int64_t ldx, const float *added, float *sum,
                                                         const float *weight, float eps, float *y, int64_t ldy) {
    __shared__ float box[32];
    const int64_t m = blockIdx.x;
    float4 v[NORM_HELD], g[NORM_HELD];
    float squares = 0;
#pragma unroll
    for (int i = 0; i < NORM_HELD; i++) {
        const int64_t d = 4 * ((int64_t)threadIdx.x + i * blockDim.x);
        g[i] = d < D ? *(const float4 *)(weight + d) : make_float4(0, 0, 0, 0);
    }
    ganq_allow_next();
    ganq_wait_for_previous();
#pragma unroll
    for (int i = 0; i < NORM_HELD; i++) {
        const int64_t d = 4 * ((int64_t)threadIdx.x + i * blockDim.x);
        v[i] = d < D ? *(const float4 *)(x + m * ldx + d) : make_float4(0, 0, 0, 0);
        if (added && d < D) {
            const float4 b = *(const float4 *)(added + m * D + d);
            v[i].x += b.x, v[i].y += b.y, v[i].z += b.z, v[i].w += b.w;
            *(float4 *)(sum + m * D + d) = v[i];
        }
        squares = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, fmaf(v[i].z, v[i].z, fmaf(v[i].w, v[i].w, squares))));
    }
    const float scale = 1 / sqrtf(ganq_block_sum(squares, box) / (float)D + eps);
#pragma unroll
    for (int i = 0; i < NORM_HELD; i++) {
        const int64_t d = 4 * ((int64_t)threadIdx.x + i * blockDim.x);
        if (d < D)
            *(float4 *)(y + m * ldy + d) = make_float4(v[i].x * scale * g[i].x, v[i].y * scale * g[i].y,
                                                       v[i].z * scale * g[i].z, v[i].w * scale * g[i].w);
    }
}

static int in_vectors(const void *p, int64_t ld) { return (uintptr_t)p % 16 == 0 && ld % 4 == 0; }

cudaError_t ganq__cuda_norm(ganq__cuda_queue queue, int64_t M, int64_t D, const float *x, int64_t ldx, const float *added,
                            float *sum, const float *weight, float eps, float *y, int64_t ldy) {
    int threads = 32;
    if (D <= 4 * NORM_HELD * 1024 && in_vectors(x, ldx) && in_vectors(y, ldy) && in_vectors(weight, D) &&
        in_vectors(added, D) && in_vectors(sum, D)) {
        threads = (int)((D + 4 * NORM_HELD - 1) / (4 * NORM_HELD) + 31) / 32 * 32;
        return ganq_start(norm_held, dim3((unsigned)M), dim3((unsigned)threads), 0, queue, D, x, ldx, added, sum, weight, eps, y,
                          ldy);
    }
    while (threads < 1024 && threads * 4 < D)
        threads *= 2;
    return ganq_start(norm, dim3((unsigned)M), dim3((unsigned)threads), 0, queue, D, x, ldx, added, sum, weight, eps, y, ldy);
}

// One block per row, which it reads three times, from L1 or L2 but for the first.
static __global__ void __launch_bounds__(1024) layer_norm(int64_t D, const float *x, const float *weight, const float *bias,
                                                          float eps, float *y) {
    __shared__ float box[2][32];
    ganq_allow_next();
    ganq_wait_for_previous();
    const float *row = x + blockIdx.x * D;
    float sum = 0, squares = 0;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        sum += row[d];
    const float mean = ganq_block_sum(sum, box[0]) / (float)D;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        squares = fmaf(row[d] - mean, row[d] - mean, squares);
    const float scale = 1 / sqrtf(ganq_block_sum(squares, box[1]) / (float)D + eps);
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x) // y may be x: each element by the thread that read it
        y[blockIdx.x * D + d] = (row[d] - mean) * scale * weight[d] + bias[d];
}
cudaError_t ganq__cuda_layer_norm(ganq__cuda_queue queue, int64_t M, int64_t D, const float *x, const float *weight,
                                  const float *bias, float eps, float *y) {
    int threads = 32;
    while (threads < 1024 && threads * 4 < D)
        threads *= 2;
    return ganq_start(layer_norm, dim3((unsigned)M), dim3((unsigned)threads), 0, queue, D, x, weight, bias, eps, y);
}

static __global__ void relu(int64_t count, float *x) {
    ganq_allow_next();
    ganq_wait_for_previous();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count && x[i] < 0)
        x[i] = 0;
}
cudaError_t ganq__cuda_relu(ganq__cuda_queue queue, int64_t count, float *x) {
    return ganq_start(relu, dim3(blocks_for(count, 256)), dim3(256), 0, queue, count, x);
}

static __global__ void swiglu(int64_t count, float *gate, const float *up) {
    ganq_allow_next();
    ganq_wait_for_previous();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        gate[i] = ganq_swiglu(gate[i], up[i]);
}
cudaError_t ganq__cuda_swiglu(ganq__cuda_queue queue, int64_t count, float *gate, const float *up) {
    return ganq_start(swiglu, dim3(blocks_for(count, 256)), dim3(256), 0, queue, count, gate, up);
}

static __global__ void add(int64_t count, const float *a, const float *b, float *y) {
    ganq_allow_next();
    ganq_wait_for_previous();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        y[i] = a[i] + b[i];
}
cudaError_t ganq__cuda_add(ganq__cuda_queue queue, int64_t count, const float *a, const float *b, float *y) {
    return ganq_start(add, dim3(blocks_for(count, 256)), dim3(256), 0, queue, count, a, b, y);
}

// One block: the largest element and its index, of equals the lowest; bad: some element is NaN or infinity.
struct candidate {
    float value;
    int index, bad;
};
static __device__ __forceinline__ candidate better(candidate a, candidate b) {
    const bool second = b.value > a.value || (b.value == a.value && b.index < a.index);
    return {second ? b.value : a.value, second ? b.index : a.index, a.bad | b.bad};
}
static __device__ __forceinline__ candidate best_of_warp(candidate c) {
    for (int i = 16; i; i /= 2)
        c = better(c, {__shfl_xor_sync(0xffffffffu, c.value, i), __shfl_xor_sync(0xffffffffu, c.index, i),
                       __shfl_xor_sync(0xffffffffu, c.bad, i)});
    return c;
}
static __global__ void __launch_bounds__(1024) argmax(int count, const float *x, int32_t *best) {
    __shared__ candidate box[32];
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    candidate c = {-INFINITY, count, 0};
    ganq_allow_next();
    ganq_wait_for_previous();
#pragma unroll 8
    for (int i = (int)threadIdx.x; i < count; i += 1024) {
        const float value = x[i];
        c.bad |= !(value < INFINITY);
        if (value > c.value) // a thread's indices ascend: the lowest stays
            c.value = value, c.index = i;
    }
    c = best_of_warp(c);
    if (lane == 0)
        box[warp] = c;
    __syncthreads();
    c = best_of_warp(box[lane]);
    if (threadIdx.x == 0)
        *best = c.bad || c.index == count ? -1 : c.index;
}
cudaError_t ganq__cuda_argmax(ganq__cuda_queue queue, int64_t count, const float *x, int32_t *best) {
    return ganq_start(argmax, dim3(1), dim3(1024), 0, queue, (int)count, x, best);
}

// One warp per head of a token: first the query heads, then the key heads, then the value heads, which are only copied.
// T: of the cache.
template <typename T>
static __global__ void __launch_bounds__(128) heads(const ganq__cuda_heads_args a) {
    const int lane = (int)threadIdx.x & 31;
    const int head = (int)(blockIdx.x * 4 + (threadIdx.x >> 5)), m = (int)blockIdx.y;
    const int dim = a.dim;
    ganq_allow_next();
    ganq_wait_for_previous();
    if (head >= a.heads + 2 * a.kv_heads)
        return;
    const int64_t position = (a.counter ? *a.counter : a.position) + m;
    const int is_query = head < a.heads, is_value = head >= a.heads + a.kv_heads;
    const int kv_head = (head - a.heads) % a.kv_heads;
    T *cached = (T *)(is_value ? a.values : a.keys) + ((int64_t)kv_head * a.capacity + position) * dim;
    if (is_value) {
        ganq_store_head(a.v + ((int64_t)m * a.kv_heads + kv_head) * dim, cached, dim, lane);
    } else if (is_query) {
        float *const q = a.q + ((int64_t)m * a.heads + head) * dim;
        ganq_turn_head(a, q, a.q_norm, position, lane, [&](int d, float x) { q[d] = x; });
    } else {
        ganq_turn_head(a, a.k + ((int64_t)m * a.kv_heads + kv_head) * dim, a.k_norm, position, lane,
                       [&](int d, float x) { ganq_store_cached(cached + d, x); });
    }
}
cudaError_t ganq__cuda_heads(ganq__cuda_queue queue, const ganq__cuda_heads_args *args) {
    const int warps = args->heads + 2 * args->kv_heads;
    return ganq_start(args->cache_dtype == GANQ_DTYPE_F16 ? heads<__half> : heads<float>,
                      dim3((unsigned)(warps + 3) / 4, (unsigned)args->M), dim3(128), 0, queue, *args);
}
