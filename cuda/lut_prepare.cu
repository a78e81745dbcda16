// lut_prepare.cu - the small kernels around the product: X to columns of f16, the sum over parts of
// K, rows of W~ in f16; and the entry to the tensor-core kernels.
#include "lut_decode.cuh"
#include "lut_launch.cuh"

namespace lut {

enum { PREPARE_THREADS = 256 };

// One block per row of X: its largest magnitude, then its columns. NaN and infinity make the row
// NaN, as they should.
static __global__ void __launch_bounds__(PREPARE_THREADS)
    prepare_kernel(int64_t M, int64_t K, const void *x, int32_t dtype, int64_t ldx, int parts,
                   __half *columns, int64_t ld, float *scales) {
    __shared__ float largest[PREPARE_THREADS / 32];
    const int64_t m = blockIdx.x;
    float factor = 1, inverse = 1;
    allow_next();
    wait_for_previous();
    if (dtype != GANQ_DTYPE_F16) {
        float most = 0;
        for (int64_t k = threadIdx.x; k < K; k += PREPARE_THREADS)
            most = fmaxf(most, fabsf(value_at(x, dtype, m * ldx + k)));
        for (int d = 16; d > 0; d /= 2)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, d));
        if (threadIdx.x % 32 == 0)
            largest[threadIdx.x / 32] = most;
        __syncthreads();
        for (int w = 0; w < PREPARE_THREADS / 32; w++)
            most = fmaxf(most, largest[w]);
        // 2^(14 - e), e the exponent of the largest; both powers of two are normal numbers.
        const int exponent = (int)(__float_as_uint(most) >> 23) - 127;
        if (most > 0 && exponent < 128) {
            const int e = max(exponent, -100);
            factor = __uint_as_float((uint32_t)(127 + 14 - e) << 23);
            inverse = __uint_as_float((uint32_t)(127 - 14 + e) << 23);
        }
    }
    if (threadIdx.x == 0)
        for (int p = 0; p < parts; p++)
            scales[p * M + m] = inverse;
    for (int64_t k = threadIdx.x; k < ld; k += PREPARE_THREADS) {
        const float value = k < K ? value_at(x, dtype, m * ldx + k) * factor : 0.0f;
        const __half upper = __float2half_rn(value);
        columns[m * ld + k] = upper;
        if (parts == 2)
            columns[(M + m) * ld + k] = __float2half_rn(value - __half2float(upper));
    }
}

// One thread per row of W~ of a block, blockIdx.y the row of X.
static __global__ void finish_kernel(const __grid_constant__ ganq__lut_args args) {
    const ganq__lut_part &part = args.part[part_of_block(args)];
    const int r = (int)threadIdx.x, n = ((int)blockIdx.x - part.first_block) * args.block_rows + r;
    allow_next();
    wait_for_previous();
    if (n >= part.N)
        return;
    finish(args, part, n, (int)blockIdx.y, [&](int column) {
        float total = 0;
        for (int s = 0; s < args.splits; s++)
            total +=
                args.partial[((int64_t)s * args.columns + column) * args.blocks * args.block_rows +
                             blockIdx.x * args.block_rows + r];
        return total;
    });
}

// A block has 16 rows; a warp one unit of K at a time. Lookups go to the tables in memory: they are
// in the first-level cache, and writing W~ takes longer than finding it.
template <int BITS>
static __global__ void __launch_bounds__(256)
    dequantize_kernel(const __grid_constant__ ganq__lut_part part, int table_f32, int64_t K,
                      int64_t first, int64_t count, __half *w, int64_t ld) {
    constexpr int L = 1 << BITS,
                  UNIT_TILES = BITS == 4   ? 1
                               : BITS == 3 ? 4
                                           : 2,
                  VECTORS = BITS == 3 ? 3 : 1;
    __shared__ uint16_t tables[16 * L];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32,
              warps = (int)blockDim.x / 32;
    const int64_t group = first / 16 + blockIdx.x,
                  units = (K + 64 * UNIT_TILES - 1) / (64 * UNIT_TILES);
    for (int i = (int)threadIdx.x; i < 16 * L; i += (int)blockDim.x)
        tables[i] = __half_as_ushort(__float2half_rn(value_at(
            part.tables, table_f32 ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16, group * 16 * L + i)));
    allow_next();
    wait_for_previous();
    __syncthreads();
    for (int64_t unit = warp; unit < units; unit += warps) {
        uint4 loaded[VECTORS];
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            loaded[v] = ganq_load16_stream((const uint4 *)part.codes +
                                           ganq__lut_vector(group, unit, units, BITS, v, lane));
#pragma unroll
        for (int q = 0; q < UNIT_TILES; q++) {
            uint32_t words[4];
            tile_words<BITS>(loaded, q, words);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    uint32_t pairs[4];
#pragma unroll
                    for (int c = 0; c < 4; c++) {
                        const uint32_t pair =
                            words[2 * half + c / 2] >> (8 * (c % 2 * 2 + h)) & 0xffu;
                        const uint16_t *const table = tables + (lane / 4 + 8 * h) * L;
                        pairs[c] = table[pair % L] | (uint32_t)table[pair / L] << 16;
                    }
                    const int64_t row = (int64_t)blockIdx.x * 16 + lane / 4 + 8 * h;
                    const int64_t k = (unit * UNIT_TILES + q) * 64 + 32 * half + lane % 4 * 8;
                    if (row < count && k < ld) {
                        const uint32_t left = K - k >= 8 ? 8
                                              : K > k    ? (uint32_t)(K - k)
                                                         : 0; // the rest is padding
#pragma unroll
                        for (int c = 0; c < 4; c++)
                            pairs[c] &= left >= 2u * c + 2   ? 0xffffffffu
                                        : left == 2u * c + 1 ? 0xffffu
                                                             : 0u;
                        *(uint4 *)(w + row * ld + k) =
                            make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
                    }
                }
        }
    }
    if (!part.rowptr)
        return;
    __syncthreads();
    for (int64_t r = warp; r < 16 && blockIdx.x * 16 + r < count && group * 16 + r < part.N;
         r += warps) {
        const int begin = part.rowptr[group * 16 + r], end = part.rowptr[group * 16 + r + 1];
        for (int i = begin + lane; i < end; i += 32) {
            __half *const at = w + (blockIdx.x * 16 + r) * ld + part.columns[i];
            *at = __float2half_rn(__half2float(*at) + part.values[i]);
        }
    }
}

} // namespace lut

cudaError_t ganq__lut_launch_prepare(cudaStream_t stream, int64_t M, int64_t K, const void *x,
                                     int32_t dtype, int64_t ldx, int parts, void *columns,
                                     int64_t ld, float *scales, int dependent) {
    return lut::start(lut::prepare_kernel, dim3((unsigned)M), lut::PREPARE_THREADS, 0, stream,
                      dependent, M, K, x, dtype, ldx, parts, (__half *)columns, ld, scales);
}

cudaError_t ganq__lut_launch_finish(cudaStream_t stream, const ganq__lut_args *args, int block_rows,
                                    int dependent) {
    ganq__lut_args counted = *args;
    lut::count_blocks(counted, block_rows);
    return lut::start(lut::finish_kernel, dim3((unsigned)counted.blocks, (unsigned)args->M),
                      (unsigned)block_rows, 0, stream, dependent, counted);
}

cudaError_t ganq__lut_launch_dequantize(cudaStream_t stream, const ganq__lut_part *part, int bits,
                                        int table_f32, int64_t K, int64_t first, int64_t count,
                                        void *w, int64_t ld, int dependent) {
    const auto kernel = bits == 4   ? lut::dequantize_kernel<4>
                        : bits == 3 ? lut::dequantize_kernel<3>
                                    : lut::dequantize_kernel<2>;
    return lut::start(kernel, dim3((unsigned)((count + 15) / 16)), 256, 0, stream, dependent, *part,
                      table_f32, K, first, count, (__half *)w, ld);
}

cudaError_t ganq__lut_launch_mma(cudaStream_t stream, const ganq__lut_args *args,
                                 const ganq__lut_plan *plan, int dependent) {
    return args->bits == 4   ? ganq__lut_launch_mma4(stream, *args, plan, dependent)
           : args->bits == 3 ? ganq__lut_launch_mma3(stream, *args, plan, dependent)
                             : ganq__lut_launch_mma2(stream, *args, plan, dependent);
}
