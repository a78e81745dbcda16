// lut_input.cuh - rows of X as the tensor-core kernels read them: made from what there is, scaled, in f16. For lut_mma.cuh,
// whose blocks do it for themselves, and for lut_prepare.cu, which does it once.
//
// Input    f32, f16, bf16 rows; or f32 rows that x is made from: rms_norm(a + b) * weight, silu(a) * b (lut_ops.h)
// Norm     x is linear in 1 / sqrt(mean square): what is stored is (a + b) * weight, the rest is part of the row's scale. So
//          the squares are summed with the same barrier as the largest magnitude is found
// Scale    a power of two that brings the row's largest magnitude to 2^14..2^15
// Reads    a thread keeps 4 HELD elements; what is longer is read, and made, twice. Rows at odd addresses, or of odd
//          length: element by element
#ifndef GANQ_CUDA_LUT_INPUT_CUH
#define GANQ_CUDA_LUT_INPUT_CUH

#include "activation.cuh"
#include "lut_decode.cuh"

namespace lut {

static __device__ __forceinline__ float largest_of(float most, float4 v) {
    return fmaxf(fmaxf(fmaxf(most, fabsf(v.x)), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// The largest and the sum over the block's threads, the same in all of them; in a fixed order. box: two floats per warp.
static __device__ __forceinline__ void reduce_row(float *most, float *squares, float *box) {
    for (int d = 16; d > 0; d /= 2) {
        *most = fmaxf(*most, __shfl_xor_sync(0xffffffffu, *most, d));
        *squares += __shfl_xor_sync(0xffffffffu, *squares, d);
    }
    __syncthreads(); // the row before has been read
    if (threadIdx.x % 32 == 0) {
        box[threadIdx.x / 32 * 2] = *most;
        box[threadIdx.x / 32 * 2 + 1] = *squares;
    }
    __syncthreads();
    *squares = 0;
    for (int w = 0; w < (int)blockDim.x / 32; w++) {
        *most = fmaxf(*most, box[2 * w]);
        *squares += box[2 * w + 1];
    }
}

// Where columns go: one after the other, element by element, for lut_mma.cuh; or an image (lut_layout.h), for lut_wgmma.cuh.
// store: four neighbouring elements of a column from k on, k % 4 == 0.
struct column_rows {
    __half *base;
    int64_t ld;
    __device__ __forceinline__ void store(int column, int k, uint2 four) const {
        *(uint2 *)(base + column * ld + k) = four;
    }
};
struct column_image {
    char *base;
    int64_t K; // of the image
    int wide;
    __device__ __forceinline__ void store(int column, int k, uint2 four) const {
        *(uint32_t *)(base + ganq__image_offset(column, k, K, wide)) = four.x;
        *(uint32_t *)(base + ganq__image_offset(column, k + 2, K, wide)) = four.y;
    }
};

// Four neighbouring elements of row m, times factor, as f16 and, with two columns per row, what that lacks.
template <typename To>
static __device__ __forceinline__ void store_parts(const ganq__lut_args &args, int m, int k, float4 v, float factor, const To &to) {
    const float values[4] = {v.x * factor, v.y * factor, v.z * factor, v.w * factor};
    uint32_t high[2], low[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const __half a = __float2half_rn(values[2 * i]), b = __float2half_rn(values[2 * i + 1]);
        high[i] = __half_as_ushort(a) | (uint32_t)__half_as_ushort(b) << 16;
        low[i] = __half_as_ushort(__float2half_rn(values[2 * i] - __half2float(a))) |
                 (uint32_t)__half_as_ushort(__float2half_rn(values[2 * i + 1] - __half2float(b))) << 16;
    }
    to.store(m, k, make_uint2(high[0], high[1]));
    if (args.columns > args.M)
        to.store(args.M + m, k, make_uint2(low[0], low[1]));
}

// Elements at .. at + 3 of an array; left are there, the rest is zero. VECTORS: all four or none are, at 16 bytes.
template <bool VECTORS> static __device__ __forceinline__ float4 load_4(const float *from, int at, int left) {
    if (VECTORS)
        return left > 0 ? *(const float4 *)(from + at) : make_float4(0, 0, 0, 0);
    return make_float4(left > 0 ? from[at] : 0, left > 1 ? from[at + 1] : 0, left > 2 ? from[at + 2] : 0,
                       left > 3 ? from[at + 3] : 0);
}
static __device__ __forceinline__ void store_4(float4 v, float *to, int left, bool vectors) {
    if (vectors && left > 0)
        *(float4 *)to = v;
    if (vectors)
        return;
    const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < left)
            to[i] = values[i];
}
// The same of elements of 2 bytes.
template <bool VECTORS>
static __device__ __forceinline__ float4 load_4_halves(const uint16_t *x, int32_t dtype, int at, int left) {
    uint32_t bits[4] = {};
    float v[4];
    if (VECTORS && left > 0) {
        const uint2 pairs = *(const uint2 *)(x + at);
        bits[0] = pairs.x & 0xffffu, bits[1] = pairs.x >> 16;
        bits[2] = pairs.y & 0xffffu, bits[3] = pairs.y >> 16;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (!VECTORS && i < left)
            bits[i] = x[at + i];
        v[i] = dtype == GANQ_DTYPE_BF16 ? __uint_as_float(bits[i] << 16) : __half2float(__ushort_as_half((uint16_t)bits[i]));
    }
    return make_float4(v[0], v[1], v[2], v[3]);
}

// The rest of making elements of x from a's: k .. k + 3, k + step .. k + step + 3, ... of the row whose arrays begin at
// element `row`. keeps_sum: a + b goes to where it belongs.
template <int COUNT, bool VECTORS>
static __device__ __forceinline__ void finish_elements(const ganq__lut_args &args, int64_t row, int k, int step, bool keeps_sum,
                                                       float *squares, float4 *v) {
    const ganq__lut_input &in = args.input;
    if (in.kind == GANQ__LUT_SWIGLU) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float4 up = load_4<VECTORS>(in.b + row, k + i * step, args.K - k - i * step);
            v[i].x = ganq_swiglu(v[i].x, up.x), v[i].y = ganq_swiglu(v[i].y, up.y);
            v[i].z = ganq_swiglu(v[i].z, up.z), v[i].w = ganq_swiglu(v[i].w, up.w);
        }
        return;
    }
    if (in.b) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float4 b = load_4<VECTORS>(in.b + row, k + i * step, args.K - k - i * step);
            v[i].x += b.x, v[i].y += b.y, v[i].z += b.z, v[i].w += b.w;
        }
    }
    if (keeps_sum && in.sum) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            store_4(v[i], in.sum + row + k + i * step, args.K - k - i * step, VECTORS);
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const float4 g = load_4<VECTORS>(in.weight, k + i * step, args.K - k - i * step);
        *squares = fmaf(v[i].x, v[i].x, fmaf(v[i].y, v[i].y, fmaf(v[i].z, v[i].z, fmaf(v[i].w, v[i].w, *squares))));
        v[i].x *= g.x, v[i].y *= g.y, v[i].z *= g.z, v[i].w *= g.w;
    }
}

// COUNT times four elements of x, as above; zero from K on. Loads are under way together: all of a, of b and weight as many
// as registers allow.
template <int COUNT, bool VECTORS>
static __device__ __forceinline__ void make_elements(const ganq__lut_args &args, int64_t row, int k, int step, bool keeps_sum,
                                                     float *squares, float4 (&v)[COUNT]) {
    if (args.x_dtype == GANQ_DTYPE_F32) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            v[i] = load_4<VECTORS>((const float *)args.x + row, k + i * step, args.K - k - i * step);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            v[i] = load_4_halves<VECTORS>((const uint16_t *)args.x + row, args.x_dtype, k + i * step, args.K - k - i * step);
    }
    if (args.input.kind == GANQ__LUT_PLAIN)
        return;
    constexpr int PIECE = COUNT < 2 ? COUNT : 2;
#pragma unroll
    for (int i = 0; i < COUNT; i += PIECE)
        if (k + i * step < args.K)
            finish_elements<PIECE, VECTORS>(args, row, k + i * step, step, keeps_sum, squares, v + i);
}

// The norm's weight on its way to L2: no kernel writes it, so that this need not wait for the one before.
static __device__ __forceinline__ void ask_for_weight(const ganq__lut_args &args) {
    const int thread = (int)(blockIdx.x * blockDim.x + threadIdx.x), threads = (int)(gridDim.x * blockDim.x);
    if (args.input.kind == GANQ__LUT_NORMED)
        for (int k = 32 * thread; k < args.K; k += 32 * threads)
            ganq_prefetch(args.input.weight + k);
}

// Row m of X to its columns, `count` elements, zero from K on; count is a multiple of 4. scale gets what sums with
// them are to be multiplied with. A thread has 4 HELD elements at a time, of which it keeps the first: those are made once.
template <int HELD, bool VECTORS, typename To>
static __device__ __forceinline__ void convert_row_as(const ganq__lut_args &args, int m, int count, bool keeps_sum, float *box,
                                                      float *scale, const To &to) {
    const int64_t row = m * args.ldx;
    const int step = 4 * (int)blockDim.x, mine = 4 * (int)threadIdx.x;
    float4 v[HELD];
    float factor = 1, inverse = 1, most = 0, squares = 0;
#pragma unroll 1
    for (int at = (count - 1) / (HELD * step) * HELD * step; at >= 0; at -= HELD * step) {
        make_elements<HELD, VECTORS>(args, row, at + mine, step, keeps_sum, &squares, v);
#pragma unroll
        for (int i = 0; i < HELD; i++)
            most = largest_of(most, v[i]);
    }
    if (args.x_dtype != GANQ_DTYPE_F16) {
        reduce_row(&most, &squares, box);
        scale_of(most, &factor, &inverse);
    }
    if (args.input.kind == GANQ__LUT_NORMED)
        inverse *= rsqrtf(__fdividef(squares, (float)args.K) + args.input.eps);
    if (threadIdx.x == 0)
        *scale = inverse;
#pragma unroll 1
    for (int at = 0;;) {
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int k = at + mine + i * step;
            if (k < count)
                store_parts(args, m, k, v[i], factor, to);
        }
        at += HELD * step;
        if (at >= count)
            return;
        make_elements<HELD, VECTORS>(args, row, at + mine, step, false, &squares, v);
    }
}

template <int HELD, typename To>
static __device__ __forceinline__ void convert_row(const ganq__lut_args &args, int m, int count, bool keeps_sum, float *box,
                                                   float *scale, const To &to) {
    if (args.x_vectors)
        convert_row_as<HELD, true>(args, m, count, keeps_sum, box, scale, to);
    else
        convert_row_as<1, false>(args, m, count, keeps_sum, box, scale, to);
}

} // namespace lut

#endif
