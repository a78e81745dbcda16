// lut_tables.cuh - tables of 16 rows where a warp can look codes up in them, and the lookup: from a word of pairs (lut_layout.h)
// to the A operand of a product, whose registers are two neighbouring columns of a row each.
//
// Pairs in shared memory: [t[lo], t[hi]] for all L x L pairs, so that one lookup gives a register.
//          COPIES 4: the lane's own column of shared memory, lane = 4 (row % 8) + (0..3),
//              address = pair * 256 + (row / 8) * 128 + lane * 4:
//          no bank conflict whatever the codes, and one PRMT makes the address from the byte of codes and 4 * lane.
//          COPIES 1 (4 bits only): address = row * 1024 + pair * 4, a quarter of the memory and of the time to fill it; 32
//          random words fall 3.3-fold on the worst bank.
//
// Planes in registers: the lower and the upper bytes of the entries of a lane's two rows, 4 bytes to a register; PRMT picks 4
//          of 8 bytes by 4 codes. No memory, nothing to fill: 4 L / 4 registers, for a word of 8 weights
//              4 bits   4 for the selectors, per row 4 lookups, 2 to choose between entries 0..7 and 8..15, 2 to bring lower
//                       and upper bytes together: 21
//              3, 2     4, per row 2 and 2: 12, and what it takes to unpack the words
//          at 16 lanes per cycle and scheduler. In shared memory it takes a cycle of the multiprocessor per register: 4.
//
// COPIES 2: both, pairs in four copies and planes. Of four words one is looked up in registers, so that neither the shared memory
//          nor the schedulers' ALUs alone are what limits (H200: docs/kernels.md).
#ifndef GANQ_CUDA_LUT_TABLES_CUH
#define GANQ_CUDA_LUT_TABLES_CUH

#include <stdint.h>

#include "lut_kernels.h"
#include "ptx.cuh"

namespace lut {

template <typename T, int COUNT> struct alignas(sizeof(T) * COUNT) chunk { T v[COUNT]; };

// The pair tables of 16 rows, `tables` [16, L], by all threads of the block.
template <int BITS, int COPIES>
static __device__ __forceinline__ void make_pairs(const uint16_t *tables, unsigned char *shared) {
    constexpr int L = 1 << BITS;
    if (COPIES == 4) {
        // One task: one row, one lower entry, a quarter of the upper ones. 16 neighbouring threads
        // fill an entry's 256 bytes.
        constexpr int QUARTER = L / 4;
        for (int i = (int)threadIdx.x; i < 16 * L * 4; i += (int)blockDim.x) {
            const int row = i % 16, low = i / 16 % L, first = i / (16 * L) * QUARTER;
            const uint32_t t_low = tables[row * L + low];
            const auto t_high = *(const chunk<uint16_t, QUARTER> *)(tables + row * L + first);
#pragma unroll
            for (int q = 0; q < QUARTER; q++) {
                const uint32_t pair = t_low | (uint32_t)t_high.v[q] << 16;
                *(uint4 *)(shared + (low + (first + q) * L) * 256 + row / 8 * 128 + row % 8 * 16) =
                    make_uint4(pair, pair, pair, pair);
            }
        }
    } else {
        for (int i = (int)threadIdx.x; i < 16 * L * L; i += (int)blockDim.x) {
            const int row = i / (L * L), low = i % L, high = i / L % L;
            *(uint32_t *)(shared + i * 4) = tables[row * L + low] | (uint32_t)tables[row * L + high]
                                                                        << 16;
        }
    }
}

// The A operand of a word. `place`: the lane's part of an address.
template <int COPIES>
static __device__ __forceinline__ void lookup(const unsigned char *shared, uint32_t word,
                                              uint32_t place, uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int h = i & 1, b = 2 * h + (i >> 1);
        if (COPIES == 4) {
            const uint32_t at = __byte_perm(word, place, 0x5504u | (uint32_t)b << 4);
            a[i] = *(const uint32_t *)(shared + h * 128 + at);
        } else {
            const uint32_t at = ((b == 0 ? word << 2 : word >> (8 * b - 2)) & 0x3fcu) | place;
            a[i] = *(const uint32_t *)(shared + h * 8192 + at);
        }
    }
}

// Tables in registers, f16.
template <int BITS> struct planes {
    static constexpr int WORDS = (1 << BITS) / 4;
    uint32_t lower[2][WORDS], upper[2][WORDS]; // [row g or g + 8]

    // Of the lane's two of 16 rows, `tables` [16, L]; in memory of any kind, 8-byte aligned.
    __device__ __forceinline__ void load(const uint16_t *tables, int lane) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint2 *row = (const uint2 *)(tables + ((lane / 4 + 8 * h) << BITS));
#pragma unroll
            for (int i = 0; i < WORDS; i++) {
                const uint2 four = row[i];
                lower[h][i] = __byte_perm(four.x, four.y, 0x6420);
                upper[h][i] = __byte_perm(four.x, four.y, 0x7531);
            }
        }
    }
    // The A operand of a word.
    __device__ __forceinline__ void lookup(uint32_t word, uint32_t (&a)[4]) const {
        // Codes to selectors, four bits each; of 4 bits the upper one chooses afterwards.
        const uint32_t selectors = BITS == 4   ? word & 0x77777777u
                                   : BITS == 3 ? (word & 0x07070707u) | (word << 1 & 0x70707070u)
                                               : (word & 0x03030303u) | (word << 2 & 0x30303030u);
        const uint32_t choices = (word >> 1 & 0x44444444u) | 0x32103210u;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const uint32_t four = selectors >> 16 * h, choice = choices >> 16 * h;
            const uint32_t low = pick(lower[h], four, choice), high = pick(upper[h], four, choice);
            a[h] = __byte_perm(low, high, 0x5140);
            a[2 + h] = __byte_perm(low, high, 0x7362);
        }
    }

  private:
    static __device__ __forceinline__ uint32_t pick(const uint32_t (&bytes)[WORDS], uint32_t four, uint32_t choice) {
        if (BITS == 2)
            return ganq_pick_bytes(bytes[0], bytes[0], four);
        const uint32_t first = ganq_pick_bytes(bytes[0], bytes[1 % WORDS], four);
        return BITS == 3 ? first : ganq_pick_bytes(first, ganq_pick_bytes(bytes[2 % WORDS], bytes[3 % WORDS], four), choice);
    }
};

// With COPIES 2: whether word j of a tile is looked up in registers.
static __device__ __forceinline__ constexpr bool by_planes(int j) {
    return j == 0;
}

} // namespace lut

#endif
