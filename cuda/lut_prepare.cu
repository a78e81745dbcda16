// lut_prepare.cu - the small kernels around the product: X, or what it is made from, to columns of f16; the sum over parts of
// K; rows of W~ in f16; and the entry to the tensor-core kernels.
#include "lut_input.cuh"
#include "lut_launch.cuh"

namespace lut {

// One block per row of X. NaN and infinity make the row NaN, as they should.
enum { PREPARE_HELD = 4, PREPARE_THREADS = 1024 };
template <bool IMAGE>
static __global__ void __launch_bounds__(PREPARE_THREADS)
    prepare_kernel(const __grid_constant__ ganq__lut_args args, void *columns, int64_t ld, int wide, float *scales) {
    __shared__ float box[PREPARE_THREADS / 32 * 2];
    const int m = (int)blockIdx.x;
    ask_for_weight(args);
    ganq_allow_next();
    ganq_wait_for_previous();
    if constexpr (IMAGE)
        convert_row<PREPARE_HELD>(args, m, (int)ld, true, box, scales + m, column_image{(char *)columns, ld, wide});
    else
        convert_row<PREPARE_HELD>(args, m, (int)ld, true, box, scales + m, column_rows{(__half *)columns, ld});
}

// One thread per row of W~ of a block, blockIdx.y the row of X.
static __global__ void finish_kernel(const __grid_constant__ ganq__lut_args args) {
    const ganq__lut_part &part = args.part[part_of_block(args, (int)blockIdx.x)];
    const int r = (int)threadIdx.x, n = ((int)blockIdx.x - part.first_block) * args.block_rows + r;
    ganq_allow_next();
    ganq_wait_for_previous();
    if (n >= part.N)
        return;
    finish(args, part, n, (int)blockIdx.y, args.scales, [&](int column) {
        float total = 0;
        for (int s = 0; s < args.splits; s++)
            total +=
                args.partial[((int64_t)s * args.columns + column) * args.blocks * args.block_rows +
                             blockIdx.x * args.block_rows + r];
        return total;
    });
}

// A block has 16 rows and a part of K; a warp one unit at a time, the next one on its way. Tables: the lane's own column
// of shared memory, as in lut_simt.cu.
enum { DEQUANTIZE_WARPS = 8, DEQUANTIZE_BLOCKS = 2048 /* parts of K are as many as make about so many blocks */ };
template <int BITS>
static __global__ void __launch_bounds__(32 * DEQUANTIZE_WARPS)
    dequantize_kernel(const __grid_constant__ ganq__lut_part part, int table_f32, int64_t K,
                      int64_t first, int64_t count, __half *w, int64_t ld) {
    constexpr int L = 1 << BITS,
                  UNIT_TILES = BITS == 4   ? 1
                               : BITS == 3 ? 4
                                           : 2,
                  VECTORS = BITS == 3 ? 3 : 1;
    __shared__ __align__(16) unsigned char tables[L * 256];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int64_t group = first / 16 + blockIdx.x,
                  units = (K + 64 * UNIT_TILES - 1) / (64 * UNIT_TILES);
    const int64_t begin = units * blockIdx.y / gridDim.y, end = units * (blockIdx.y + 1) / gridDim.y;
    uint4 loaded[VECTORS], next[VECTORS];
    const auto load = [&](int64_t unit, uint4(&to)[VECTORS]) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            to[v] = ganq_load16_stream((const uint4 *)part.codes +
                                       ganq__lut_vector(group, unit, units, BITS, v, lane));
    };
    if (begin + warp < end)
        load(begin + warp, loaded);
    for (int i = (int)threadIdx.x; i < 16 * L; i += (int)blockDim.x) {
        const int row = i % 16, entry = i / 16;
        const uint32_t t = __half_as_ushort(__float2half_rn(
            value_at(part.tables, table_f32 ? GANQ_DTYPE_F32 : GANQ_DTYPE_F16, (group * 16 + row) * L + entry)));
        const uint32_t both = t | t << 16;
        *(uint4 *)(tables + entry * 256 + row / 8 * 128 + row % 8 * 16) = make_uint4(both, both, both, both);
    }
    ganq_allow_next();
    ganq_wait_for_previous();
    __syncthreads();
    for (int64_t unit = begin + warp; unit < end; unit += DEQUANTIZE_WARPS) {
        if (unit + DEQUANTIZE_WARPS < end)
            load(unit + DEQUANTIZE_WARPS, next);
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
                        uint32_t entry[2];
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const int shift = 8 * (2 * h + c % 2) + BITS * e - 8;
                            const uint32_t word = words[2 * half + c / 2];
                            const uint32_t at =
                                ((shift < 0 ? word << -shift : word >> shift) & ((L - 1u) << 8)) | lane * 4u;
                            entry[e] = *(const uint32_t *)(tables + h * 128 + at);
                        }
                        pairs[c] = __byte_perm(entry[0], entry[1], 0x5410);
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
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            loaded[v] = next[v];
    }
    if (!part.rowptr)
        return;
    __syncthreads();
    const int64_t from = begin * 64 * UNIT_TILES, to = end * 64 * UNIT_TILES; // the block's columns
    for (int64_t r = warp; r < 16 && blockIdx.x * 16 + r < count && group * 16 + r < part.N;
         r += DEQUANTIZE_WARPS)
        for (int i = part.rowptr[group * 16 + r] + lane; i < part.rowptr[group * 16 + r + 1]; i += 32)
            if (part.columns[i] >= from && part.columns[i] < to) {
                __half *const at = w + (blockIdx.x * 16 + r) * ld + part.columns[i];
                *at = __float2half_rn(__half2float(*at) + part.values[i]);
            }
}

} // namespace lut

// As many threads as keep a row, at least 64.
cudaError_t ganq__lut_launch_prepare(ganq__cuda_queue queue, const ganq__lut_args *args, void *columns,
                                     int64_t ld, int wide, float *scales) {
    int threads = 64;
    while (threads < lut::PREPARE_THREADS && 4 * lut::PREPARE_HELD * (int64_t)threads < ld)
        threads *= 2;
    return ganq_start(wide ? lut::prepare_kernel<true> : lut::prepare_kernel<false>, dim3((unsigned)args->M),
                      dim3((unsigned)threads), 0, queue, *args, columns, ld, wide, scales);
}

cudaError_t ganq__lut_launch_finish(ganq__cuda_queue queue, const ganq__lut_args *args, int block_rows) {
    ganq__lut_args counted = *args;
    lut::count_blocks(counted, block_rows);
    return ganq_start(lut::finish_kernel, dim3((unsigned)counted.blocks, (unsigned)args->M),
                      dim3((unsigned)block_rows), 0, queue, counted);
}

cudaError_t ganq__lut_launch_dequantize(ganq__cuda_queue queue, const ganq__lut_part *part, int bits,
                                        int table_f32, int64_t K, int64_t first, int64_t count,
                                        void *w, int64_t ld) {
    const auto kernel = bits == 4   ? lut::dequantize_kernel<4>
                        : bits == 3 ? lut::dequantize_kernel<3>
                                    : lut::dequantize_kernel<2>;
    const int64_t groups = (count + 15) / 16, units = ganq__lut_units(K, bits);
    int64_t parts = (lut::DEQUANTIZE_BLOCKS + groups - 1) / groups;
    const int64_t most = (units + 2 * lut::DEQUANTIZE_WARPS - 1) / (2 * lut::DEQUANTIZE_WARPS);
    parts = parts < most ? parts : most;
    return ganq_start(kernel, dim3((unsigned)groups, (unsigned)parts), dim3(32 * lut::DEQUANTIZE_WARPS), 0, queue,
                      *part, table_f32, K, first, count, (__half *)w, ld);
}

cudaError_t ganq__lut_launch_mma(ganq__cuda_queue queue, const ganq__lut_args *args,
                                 const ganq__lut_plan *plan, int64_t slots) {
    return args->bits == 4   ? ganq__lut_launch_mma4(queue, *args, plan, slots)
           : args->bits == 3 ? ganq__lut_launch_mma3(queue, *args, plan, slots)
                             : ganq__lut_launch_mma2(queue, *args, plan, slots);
}

#if defined(GANQ_HAS_WGMMA)
cudaError_t ganq__lut_launch_wgmma(ganq__cuda_queue queue, const ganq__lut_args *args, const ganq__lut_plan *plan) {
    return args->bits == 4   ? ganq__lut_launch_wgmma4(queue, *args, plan)
           : args->bits == 3 ? ganq__lut_launch_wgmma3(queue, *args, plan)
                             : ganq__lut_launch_wgmma2(queue, *args, plan);
}
#endif
