// lut_wgmma.cuh - Y = X W~^T for many columns of X with products of warpgroups (sm_90a), codes 2/3/4 bit, f16 in, fp32 sums.
//
// Layout   codes: tile16; X: an image in f16, one column per row, made by lut_prepare.cu (lut_layout.h)
//
// Work     a block has 128 rows of W~, NT columns of X, and one of `splits` parts of K: two warpgroups, 16 rows of W~ to a
//          warp. Blocks of the same rows are neighbours: their codes come from memory once.
//
//              each warp      | codes of 64 columns -> A | products, under way while the next codes are looked up | ..
//              one thread     | X of a stage, a bulk copy, when all warps are done with what was there two stages ago | ..
//
// W~       is the A operand, in registers, from tables in registers (lut_tables.cuh): it is never in memory. Two sets of
//          registers take turns: products read one while the other is filled.
// Codes    a lane copies its own, DEPTH units ahead, to its own place in shared memory: no barrier
// End      sums go through shared memory, 64 columns at a time, so that rows of Y are written in one piece
//
// Bound    per 64 columns of K, 128 rows and NT columns: products 4 NT cycles of the tensor cores, lookups 4 x 22 instructions
//          of 2 cycles of each of 8 warps on 4 schedulers: 352 (4 bits), shared memory 3 NT + 64 of which X is read 2 NT. So
//          lookups bound up to NT = 64, products from 128 on.
#ifndef GANQ_CUDA_LUT_WGMMA_CUH
#define GANQ_CUDA_LUT_WGMMA_CUH

#include "lut_decode.cuh"
#include "lut_tables.cuh"
#include "wgmma.cuh"

namespace lut {

enum { WGMMA_WARPS = 8, WGMMA_THREADS = 32 * WGMMA_WARPS, WGMMA_ROWS = 16 * WGMMA_WARPS };

// How a block's shared memory is shared out; bytes.
template <int BITS, int NT> struct wgmma_sizes {
    // Of 64 columns of K to a stage. With 3 bits not all four of a unit: ptxas 13.0 finds no pipeline in products of four
    // chunks without a branch between them, and lets each wait for the one before (C7513).
    static constexpr int CHUNKS = NT >= 128 ? 1 : BITS == 3 ? 2 : 128 / NT;
    static constexpr int STAGE = CHUNKS * NT * 128;
    static constexpr int STAGES = NT < 64 && BITS == 3 ? 6 : NT <= 64 ? 3 : NT == 256 ? 5 : 6;
    static constexpr int VECTORS = BITS == 3 ? 3 : 1;
    static constexpr int DEPTH = NT <= 64 ? (BITS == 3 ? 4 : 8) : BITS == 3 ? 3 : 4;
    static constexpr int RING = WGMMA_WARPS * DEPTH * VECTORS * 512;
    // In place of stages and ring, at the end: PASS columns of sums, and of outliers.
    static constexpr int PASS = NT < 64 ? NT : 64, LD = WGMMA_ROWS + 4;
    static constexpr int END = PASS * LD * 4 + WGMMA_ROWS * PASS * 4;
    static constexpr int BARRIERS = STAGES * STAGE + RING > END ? STAGES * STAGE + RING : END;
    static constexpr int TOTAL = 1024 + BARRIERS + 2 * STAGES * 8; // 1024: to begin at a multiple
};

template <int BITS, int NT>
static __global__ void __launch_bounds__(WGMMA_THREADS, NT <= 64 ? 2 : 1) wgmma_kernel(const __grid_constant__ ganq__lut_args args) {
    using sizes = wgmma_sizes<BITS, NT>;
    constexpr int UNIT_TILES = BITS == 4 ? 1 : BITS == 3 ? 4 : 2, VECTORS = sizes::VECTORS, DEPTH = sizes::DEPTH;
    constexpr int STEP = ganq__image_step(BITS), UNITS = STEP / (64 * UNIT_TILES); // of a turn of the loop
    constexpr int CHUNKS = sizes::CHUNKS, STAGES = sizes::STAGES, PASS = sizes::PASS, LD = sizes::LD;
    GANQ_DYNAMIC_SHARED(unsigned char, unaligned);
    unsigned char *const shared = unaligned + (1024 - ganq_shared_address(unaligned) % 1024) % 1024;
    uint64_t *const full = (uint64_t *)(shared + sizes::BARRIERS), *const empty = full + STAGES;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int tiles = (args.columns + NT - 1) / NT, tile = (int)blockIdx.x % tiles, block = (int)blockIdx.x / tiles;
    const ganq__lut_part &part = args.part[part_of_block(args, block)];
    const int first_row = (block - part.first_block) * WGMMA_ROWS;
    const int K = (int)ganq__image_columns(args.K, BITS), turns_of_all = K / STEP;
    const int first_turn = (int)((int64_t)turns_of_all * blockIdx.y / args.splits);
    const int turns = (int)((int64_t)turns_of_all * (blockIdx.y + 1) / args.splits) - first_turn;

    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            ganq_barrier_init(full + s, 1);
            ganq_barrier_init(empty + s, WGMMA_WARPS);
        }
        ganq_async_fence();
    }
    ganq_allow_next();
    __syncthreads();

    // Rows beyond the last group repeat it; they are not stored.
    const int group = min(first_row / 16 + warp, (part.N + 15) / 16 - 1);
    const int units_of_all = (args.K + 64 * UNIT_TILES - 1) / (64 * UNIT_TILES);
    const int first_unit = first_turn * UNITS, units = turns * UNITS;
    const int there = min(units, units_of_all - first_unit); // beyond: code 0, X is zero
    const uint4 *const codes = (const uint4 *)part.codes + ((int64_t)group * units_of_all + first_unit) * (VECTORS * 32) + lane;
    uint4 *const ring = (uint4 *)(shared + STAGES * sizes::STAGE) + warp * (DEPTH * VECTORS * 32) + lane;
    const auto fetch = [&](int unit, int slot) { // an empty group where there is none
        if (unit < units)
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
                ganq_copy16_async(ring + (slot * VECTORS + v) * 32, codes + (unit < there ? unit * VECTORS + v : 0) * 32,
                                  unit < there ? 16 : 0);
        ganq_copy_commit();
    };
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
        fetch(d, d);
    planes<BITS> tables;
    tables.load((const uint16_t *)part.tables + (int64_t)group * (16 << BITS), lane);

    // X of stage `index` of the block's part of K, by one thread.
    const int chunks = turns * (STEP / 64);
    const char *const x = (const char *)args.x + ((int64_t)tile * (K / 64) + first_turn * (STEP / 64)) * (NT * 128);
    const auto fetch_x = [&](int index, int stage) {
        const int left = chunks - index * CHUNKS;
        if (left > 0) {
            const uint32_t bytes = (uint32_t)min(CHUNKS, left) * (NT * 128);
            ganq_barrier_expect(full + stage, bytes);
            ganq_copy_bulk(shared + stage * sizes::STAGE, x + (int64_t)index * sizes::STAGE, bytes, full + stage);
        }
    };
    ganq_wait_for_previous();
    if (threadIdx.x == 0)
        for (int s = 0; s < STAGES; s++)
            fetch_x(s, s);
    __syncwarp();

    float sums[NT / 2] = {};
    uint32_t a[2][4][4];
    int slot = 0, last_slot = 0, chunk = 0;
    int stage = 0, index = 0;       // of X: place, number
    uint32_t parity = 0;            // of the phase of full[stage] that brings it
    int stage_1 = 0, stage_2 = 0;   // the places of the one and the two stages before
    uint32_t parity_2 = 0;          // of the phase of empty[stage_2] in which warps are done with it
    for (int turn = 0; turn < turns; turn++) {
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            const int unit = turn * UNITS + u;
            uint4 loaded[VECTORS];
            // A group for each of the first DEPTH units, then one per unit, of which the first is empty: this unit's is there.
            ganq_copy_wait<DEPTH - 2>();
#pragma unroll
            for (int v = 0; v < VECTORS; v++)
                loaded[v] = ring[(slot * VECTORS + v) * 32];
#pragma unroll
            for (int q = 0; q < UNIT_TILES; q++) {
                constexpr int TURN = UNITS * UNIT_TILES; // chunks
                const int in_turn = u * UNIT_TILES + q, set = in_turn % 2;
                // whether the chunk is the first of a stage, or the last
                const bool opens = in_turn % (CHUNKS < TURN ? CHUNKS : TURN) == 0 && chunk % CHUNKS == 0;
                const bool closes = (in_turn + 1) % (CHUNKS < TURN ? CHUNKS : TURN) == 0 && (chunk + 1) % CHUNKS == 0;
                uint32_t words[4];
                tile_words<BITS>(loaded, q, words);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    tables.lookup(words[j], a[set][j]);
                if (opens)
                    ganq_barrier_wait(full + stage, parity);
                const uint64_t rows = ganq_wgmma_rows(shared + stage * sizes::STAGE + chunk % CHUNKS * (NT * 128));
#pragma unroll
                for (int j = 0; j < 4; j++)
                    ganq_wgmma_release(a[set][j]);
                ganq_wgmma_fence();
#pragma unroll
                for (int j = 0; j < 4; j++)
                    ganq_wgmma_f16<NT>(sums, a[set][j], rows + 2 * j);
                ganq_wgmma_commit();
                ganq_wgmma_wait<1>(); // the products before these have ended
                if (opens) { // so the stage before is done with, too
                    if (index > 0 && lane == 0)
                        ganq_barrier_arrive(empty + stage_1);
                    if (index > 1 && threadIdx.x == 0 && index - 2 + STAGES < (chunks + CHUNKS - 1) / CHUNKS) {
                        ganq_barrier_wait(empty + stage_2, parity_2);
                        fetch_x(index - 2 + STAGES, stage_2);
                    }
                    __syncwarp();
                }
                chunk++;
                if (closes) {
                    if (index > 1 && stage_2 == STAGES - 1)
                        parity_2 ^= 1;
                    stage_2 = stage_1, stage_1 = stage;
                    index++;
                    if (++stage == STAGES)
                        stage = 0, parity ^= 1;
                }
            }
            // The place of the unit before this one, whose codes are in use no more.
            if (unit > 0)
                fetch(unit - 1 + DEPTH, last_slot);
            else
                ganq_copy_commit();
            last_slot = slot;
            slot = slot + 1 == DEPTH ? 0 : slot + 1;
        }
    }
    ganq_wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < NT / 2; i++)
        ganq_wgmma_release(sums[i]);
    ganq_copy_wait<0>();

    // Sums through shared memory: [column][row].
    float *const box = (float *)shared, *const outliers = box + PASS * LD;
    const bool has_outliers = part.rowptr != nullptr && blockIdx.y == 0;
#pragma unroll
    for (int pass = 0; pass < NT / PASS; pass++) {
        const int first = tile * NT + pass * PASS, count = min(PASS, args.columns - first); // columns
        __syncthreads(); // what was there has been read
#pragma unroll
        for (int i = 0; i < PASS / 2; i++)
            box[(i / 4 * 8 + 2 * (lane % 4) + i % 2) * LD + 16 * warp + lane / 4 + 8 * (i / 2 % 2)] = sums[pass * (PASS / 2) + i];
        if (has_outliers)
            outlier_sums(
                part, first_row, WGMMA_ROWS, max(count, 0), PASS,
                [&](int column, int k) {
                    return __half2float(*(const __half *)((const char *)args.x + ganq__image_offset(first + column, k, K, NT)));
                },
                outliers);
        __syncthreads();
        const auto sum_of = [&](int column, int r) {
            return box[column * LD + r] + (has_outliers ? outliers[r * PASS + column] : 0.0f);
        };
        for (int i = (int)threadIdx.x; i < count * WGMMA_ROWS; i += WGMMA_THREADS) {
            const int r = i % WGMMA_ROWS, at = i / WGMMA_ROWS, column = first + at;
            if (args.splits > 1)
                args.partial[((int64_t)blockIdx.y * args.columns + column) * args.blocks * WGMMA_ROWS + block * WGMMA_ROWS + r] =
                    sum_of(at, r);
            else if (first_row + r < part.N)
                finish(args, part, first_row + r, column, args.scales, [&](int) { return sum_of(at, r); });
        }
    }
}

} // namespace lut

#endif
