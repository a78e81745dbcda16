// cuda_runtime.h - stands in for the CUDA Toolkit's header: CUDA C++ as far as cuda/ uses it, compiled by
// the host's C++ compiler. A thread of a block is a fiber (emulator.cpp); what waits for other threads goes
// through emulator::block_barrier and emulator::warp_collective. Meaning of the functions: CUDA C++
// Programming Guide.
#ifndef GANQ_EMULATOR_CUDA_RUNTIME_H
#define GANQ_EMULATOR_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static // blocks run one after another
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define EMULATOR_VECTOR2(T, name, bytes)                                                                     \
    struct alignas(bytes) name {                                                                               \
        T x, y;                                                                                                \
    };                                                                                                         \
    static inline name make_##name(T x, T y) { return {x, y}; }
#define EMULATOR_VECTOR4(T, name, bytes)                                                                     \
    struct alignas(bytes) name {                                                                               \
        T x, y, z, w;                                                                                          \
    };                                                                                                         \
    static inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTOR2(unsigned char, uchar2, 2)
EMULATOR_VECTOR4(unsigned char, uchar4, 4)
EMULATOR_VECTOR2(short, short2, 4)
EMULATOR_VECTOR2(unsigned short, ushort2, 4)
EMULATOR_VECTOR4(unsigned short, ushort4, 8)
EMULATOR_VECTOR2(int, int2, 8)
EMULATOR_VECTOR4(int, int4, 16)
EMULATOR_VECTOR2(unsigned, uint2, 8)
EMULATOR_VECTOR4(unsigned, uint4, 16)
EMULATOR_VECTOR2(float, float2, 8)
EMULATOR_VECTOR4(float, float4, 16)
EMULATOR_VECTOR2(double, double2, 16)
EMULATOR_VECTOR2(long long, longlong2, 16)
EMULATOR_VECTOR2(unsigned long long, ulonglong2, 16)
#undef EMULATOR_VECTOR2
#undef EMULATOR_VECTOR4

namespace emulator {

// Waits for all threads of the block that have not ended.
void block_barrier();
// The same, and the number of threads for which value was not zero.
int block_count(int value);
// Waits for the lanes in mask; the last to arrive runs perform(all, mask), where all[lane] is what that lane
// passed as mine. A lane calls it with its own bit in mask, all with the same perform.
typedef void (*warp_function)(void *const all[32], uint32_t mask);
void warp_collective(uint32_t mask, void *mine, warp_function perform);
unsigned lane();
// Of the launch that runs, zeroed to a pattern of NaNs before each block.
void *dynamic_shared();
// What is known of a kernel, and what is set for it on the current device.
cudaError_t get_attributes(cudaFuncAttributes *attributes, const void *kernel);
cudaError_t set_attribute(const void *kernel, cudaFuncAttribute attribute, int value);
// Asynchronous copies to shared memory: they happen when they are waited for, no sooner.
void async_copy(void *to, const void *from, size_t bytes, size_t valid_bytes);
void async_commit();
void async_wait(int groups_left);
// What sm_90 has of its own (cuda/wgmma.cuh). Copies to barriers and products happen at once with order 0, and as late as
// they may with order 1: when nobody else can go on, and when they are waited for.
void barrier_init(uint64_t *barrier, unsigned count);
void barrier_arrive(uint64_t *barrier, unsigned bytes);
void barrier_wait(uint64_t *barrier, unsigned parity);
void bulk_copy(void *to, const void *from, size_t bytes, uint64_t *barrier);
// d + the 16 products of a and b as a tensor core adds them: cut off to 2^-25 of the largest of them, then to 24 bits. Fasi,
// Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor cores (2021), found that they cut off, in steps of 4 or 8
// and with 0 to 2 bits more; newer ones differ in that, too.
float tensor_core_sum(float d, const float *a, const float *b);
// As instructions name it.
uint32_t shared_address(const void *shared);
void wgmma(float *d, const uint32_t *a, uint64_t rows, int columns);
void wgmma_commit();
void wgmma_wait(int groups_left);
// Ends the program with a message that names the kernel, the block and the thread.
[[noreturn]] void stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A pointer handed to a kernel: nothing, device memory, or pinned memory of the host.
void check_pointer(const void *pointer, const char *kernel);
template <typename T> void check_argument(const T &value, const char *kernel) {
    if constexpr (std::is_pointer_v<T>)
        check_pointer((const void *)value, kernel);
    else
        (void)value, (void)kernel;
}

// Puts one run of `body` per thread into the stream.
cudaError_t launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   std::function<void()> body);

template <typename T> struct shuffle {
    T value, result;
    int from; // lane
};
template <typename T> void perform_shuffle(void *const all[32], uint32_t mask) {
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) {
            auto *mine = (shuffle<T> *)all[i];
            if (mine->from < 0)
                continue;
            if (!(mask >> mine->from & 1))
                stop("shuffle of lane %d from lane %d, which is not in mask %08x", i, mine->from, mask);
            mine->result = ((shuffle<T> *)all[mine->from])->value;
        }
}
// from < 0: the lane keeps its own.
template <typename T> T shuffle_from(uint32_t mask, T value, int from) {
    shuffle<T> s = {value, value, from};
    warp_collective(mask, &s, perform_shuffle<T>);
    return s.result;
}

struct vote {
    int value;
    uint32_t ballot;
};
static inline void perform_vote(void *const all[32], uint32_t mask) {
    uint32_t ballot = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1 && ((vote *)all[i])->value)
            ballot |= 1u << i;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            ((vote *)all[i])->ballot = ballot;
}
static inline void perform_nothing(void *const *, uint32_t) {}

} // namespace emulator

// Launching (see cuda/launch.cuh).
template <typename... P>
cudaError_t ganq_launch_named(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                              cudaStream_t stream, std::common_type_t<P>... args) {
    (emulator::check_argument(args, name), ...);
    return emulator::launch(name, (const void *)kernel, grid, block, shared, stream, [=] { kernel(args...); });
}
template <typename F>
static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, F *kernel) {
    return emulator::get_attributes(attributes, (const void *)kernel);
}
template <typename F>
static inline cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute attribute, int value) {
    return emulator::set_attribute((const void *)kernel, attribute, value);
}
template <typename F>
static inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, F *, int threads, size_t) {
    *blocks = 1536 / threads;
    return cudaSuccess;
}

// Barriers, shuffles, votes.
static inline void __syncthreads() { emulator::block_barrier(); }
static inline int __syncthreads_count(int value) { return emulator::block_count(value); }
static inline int __syncthreads_or(int value) { return emulator::block_count(value) > 0; }
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulator::warp_collective(mask, nullptr, emulator::perform_nothing);
}
template <typename T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    const int lane = (int)emulator::lane();
    return emulator::shuffle_from(mask, value, lane / width * width + (from & (width - 1)));
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32) {
    const int lane = (int)emulator::lane(), from = lane ^ flip;
    return emulator::shuffle_from(mask, value, from / width <= lane / width ? from : -1);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = (int)emulator::lane(), from = lane + (int)delta;
    return emulator::shuffle_from(mask, value, from / width == lane / width ? from : -1);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const int lane = (int)emulator::lane(), from = lane - (int)delta;
    return emulator::shuffle_from(mask, value, from >= 0 && from / width == lane / width ? from : -1);
}
static inline unsigned __ballot_sync(unsigned mask, int value) {
    emulator::vote v = {value, 0};
    emulator::warp_collective(mask, &v, emulator::perform_vote);
    return v.ballot;
}
static inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
static inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, value) == mask; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Atomics: one thread runs at a time.
template <typename T> T atomicAdd(T *where, std::common_type_t<T> value) {
    const T old = *where;
    *where = (T)(old + value);
    return old;
}
template <typename T> T atomicSub(T *where, std::common_type_t<T> value) {
    const T old = *where;
    *where = (T)(old - value);
    return old;
}
template <typename T> T atomicMax(T *where, std::common_type_t<T> value) {
    const T old = *where;
    *where = old > value ? old : (T)value;
    return old;
}
template <typename T> T atomicMin(T *where, std::common_type_t<T> value) {
    const T old = *where;
    *where = old < value ? old : (T)value;
    return old;
}
template <typename T> T atomicOr(T *where, std::common_type_t<T> value) {
    const T old = *where;
    *where = (T)(old | value);
    return old;
}
template <typename T> T atomicExch(T *where, std::common_type_t<T> value) {
    const T old = *where;
    *where = value;
    return old;
}
template <typename T> T atomicCAS(T *where, std::common_type_t<T> expected, std::common_type_t<T> value) {
    const T old = *where;
    if (old == expected)
        *where = value;
    return old;
}
static inline unsigned atomicInc(unsigned *where, unsigned limit) {
    const unsigned old = *where;
    *where = old >= limit ? 0 : old + 1;
    return old;
}

// Loads and stores with a cache hint.
template <typename T> T __ldg(const T *from) { return *from; }
template <typename T> T __ldcs(const T *from) { return *from; }
template <typename T> T __ldcg(const T *from) { return *from; }
template <typename T> T __ldca(const T *from) { return *from; }
template <typename T> void __stcs(T *to, T value) { *to = value; }
template <typename T> void __stcg(T *to, T value) { *to = value; }

// Bits.
static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline int __float_as_int(float x) { return (int)__float_as_uint(x); }
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }
static inline long long __double_as_longlong(double x) {
    long long bits;
    memcpy(&bits, &x, 8);
    return bits;
}
static inline double __longlong_as_double(long long bits) {
    double x;
    memcpy(&x, &bits, 8);
    return x;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1) << (31 - i);
    return r;
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned s = selector >> 4 * i, byte = (unsigned)(both >> 8 * (s & 7)) & 0xff;
        r |= (s & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
    }
    return r;
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31));
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) << (shift & 31) >> 32);
}
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++)
        c += (int)(signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
    return c;
}

// Arithmetic. One rounding each, as written: the emulated build has no contraction.
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __fdividef(float a, float b) { return a / b; }
#define __expf expf // the C library has these names, too
#define __logf logf
static inline float rsqrtf(float a) { return 1 / sqrtf(a); }
static inline double rsqrt(double a) { return 1 / sqrt(a); }
static inline int __float2int_rn(float a) { return (int)nearbyintf(a); }
static inline float __int2float_rn(int a) { return (float)a; }
static inline float __double2float_rn(double a) { return (float)a; }
template <typename A, typename B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    return (T)b < (T)a ? (T)b : (T)a;
}
template <typename A, typename B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    return (T)a < (T)b ? (T)b : (T)a;
}

#endif
