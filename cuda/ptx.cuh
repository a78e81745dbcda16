// ptx.cuh - the instructions that CUDA C++ has no name for, one small function each, with the same meaning on the
// host for the emulator of the tests. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16".
#ifndef GANQ_CUDA_PTX_CUH
#define GANQ_CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "launch.cuh"

// Copies of 16 bytes to shared memory that do not go through registers; `valid` bytes are read, the rest is zero.
// L2 only (.cg): weights and activations of a tile are read once per block.
static __device__ __forceinline__ void ganq_copy16_async(void *shared, const void *global, int valid = 16) {
#if defined(__CUDA_ARCH__)
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::async_copy(shared, global, 16, (size_t)valid);
#endif
}
// The same for 4 bytes (through L1: .cg exists for 16 only).
static __device__ __forceinline__ void ganq_copy4_async(void *shared, const void *global, int valid = 4) {
#if defined(__CUDA_ARCH__)
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::async_copy(shared, global, 4, (size_t)valid);
#endif
}
// Closes the group of the copies begun since the last one.
static __device__ __forceinline__ void ganq_copy_commit() {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#elif defined(GANQ_EMULATOR)
    emulator::async_commit();
#endif
}
// Waits until at most `left` of this thread's groups are under way; other threads need a barrier after it.
template <int left> static __device__ __forceinline__ void ganq_copy_wait() {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::async_wait(left);
#endif
}

// 16 bytes of weights, read once: not kept in L1.
static __device__ __forceinline__ uint4 ganq_load16_stream(const void *global) {
#if defined(__CUDA_ARCH__)
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
#else
    return *(const uint4 *)global;
#endif
}

// A copy of x of which the compiler does not know that it is one: what is computed from it is computed anew, and not kept
// in registers across a loop.
static __device__ __forceinline__ int ganq_anew(int x) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+r"(x));
#endif
    return x;
}

// Bytes of (y, x) by the four lowest digits of selector, base 16, each 0..7: __byte_perm, for which the compiler would first
// clear the digits' highest bits.
static __device__ __forceinline__ uint32_t ganq_pick_bytes(uint32_t x, uint32_t y, uint32_t selector) {
#if defined(__CUDA_ARCH__)
    uint32_t bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(x), "r"(y), "r"(selector));
    return bytes;
#else
    return __byte_perm(x, y, selector);
#endif
}

// 1 / x within 1 unit in the last place, for x from 1 on (above 2^126: 0). A division takes ten instructions.
static __device__ __forceinline__ float ganq_reciprocal(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1 / x;
#endif
}

// The 128 bytes around an address on their way to L2.
static __device__ __forceinline__ void ganq_prefetch(const void *global) {
#if defined(__CUDA_ARCH__)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
#else
    (void)*(const volatile char *)global; // must be there
#endif
}

#if defined(GANQ_EMULATOR)
namespace emulator {
struct ldmatrix_lane {
    const void *row;
    uint32_t r[4];
};
// Matrix j (8x8 of 16 bits): row i starts at the address of lane 8j + i; lane l gets elements 2(l%4), 2(l%4)+1 of row l/4.
template <int count, bool transposed> void perform_ldmatrix(void *const all[32], uint32_t) {
    for (int j = 0; j < count; j++)
        for (int l = 0; l < 32; l++) {
            uint16_t pair[2];
            for (int e = 0; e < 2; e++) {
                const int row = transposed ? 2 * (l % 4) + e : l / 4, column = transposed ? l / 4 : 2 * (l % 4) + e;
                pair[e] = ((const uint16_t *)((ldmatrix_lane *)all[8 * j + row])->row)[column];
            }
            ((ldmatrix_lane *)all[l])->r[j] = pair[0] | (uint32_t)pair[1] << 16;
        }
}
struct mma_lane {
    float *d;
    const uint32_t *a, *b;
};
template <typename T> float mma_element(uint32_t word, int e) {
    const uint16_t bits = (uint16_t)(word >> 16 * e);
    T value;
    memcpy(&value, &bits, 2);
    return (float)value;
}
template <typename T> void perform_mma(void *const all[32], uint32_t) {
    float A[16][16], B[8][16];
    for (int l = 0; l < 32; l++) {
        const mma_lane *m = (const mma_lane *)all[l];
        for (int e = 0; e < 2; e++) {
            const int k = 2 * (l % 4) + e;
            for (int i = 0; i < 4; i++)
                A[l / 4 + 8 * (i & 1)][k + 8 * (i >> 1)] = mma_element<T>(m->a[i], e);
            B[l / 4][k] = mma_element<T>(m->b[0], e);
            B[l / 4][k + 8] = mma_element<T>(m->b[1], e);
        }
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            const int row = l / 4 + 8 * (i >> 1), column = 2 * (l % 4) + (i & 1);
            float *d = ((const mma_lane *)all[l])->d;
            d[i] = tensor_core_sum(d[i], A[row], B[column]);
        }
}
} // namespace emulator
#endif

// Four 8x8 matrices of 16-bit elements from shared memory; lane 8j + i gives the address of row i of matrix j.
static __device__ __forceinline__ void ganq_ldmatrix4(uint32_t (&r)[4], const void *shared) {
#if defined(__CUDA_ARCH__)
    const uint32_t from = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::ldmatrix_lane m = {shared, {}};
    emulator::warp_collective(0xffffffffu, &m, emulator::perform_ldmatrix<4, false>);
    memcpy(r, m.r, sizeof m.r);
#endif
}
// The same, each matrix transposed on the way.
static __device__ __forceinline__ void ganq_ldmatrix4_transposed(uint32_t (&r)[4], const void *shared) {
#if defined(__CUDA_ARCH__)
    const uint32_t from = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::ldmatrix_lane m = {shared, {}};
    emulator::warp_collective(0xffffffffu, &m, emulator::perform_ldmatrix<4, true>);
    memcpy(r, m.r, sizeof m.r);
#endif
}

// D[16,8] += A[16,16] B[16,8], fp32 sums. Lane l: a[i] holds row l/4 + 8(i&1), columns 2(l%4) + 8(i>>1) and the next;
// b[i] rows 2(l%4) + 8i and the next, column l/4; d[i] row l/4 + 8(i>>1), column 2(l%4) + (i&1).
static __device__ __forceinline__ void ganq_mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__)
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(GANQ_EMULATOR)
    emulator::mma_lane m = {d, a, b};
    emulator::warp_collective(0xffffffffu, &m, emulator::perform_mma<__half>);
#endif
}
static __device__ __forceinline__ void ganq_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__)
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(GANQ_EMULATOR)
    emulator::mma_lane m = {d, a, b};
    emulator::warp_collective(0xffffffffu, &m, emulator::perform_mma<__nv_bfloat16>);
#endif
}

#endif
