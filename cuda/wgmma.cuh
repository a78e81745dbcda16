// wgmma.cuh - what sm_90 has of its own (compiled for sm_90a), with the same meaning on the host for the emulator of the tests:
// barriers in shared memory that count bytes, copies that arrive at them, products of four warps with B in shared memory.
// PTX ISA, "mbarrier", "cp.async.bulk", "wgmma".
#ifndef GANQ_CUDA_WGMMA_CUH
#define GANQ_CUDA_WGMMA_CUH

#include "ptx.cuh"

// Where in the block's shared memory, as instructions name it.
static __device__ __forceinline__ uint32_t ganq_shared_address(const void *shared) {
#if defined(GANQ_EMULATOR)
    return emulator::shared_address(shared);
#else
    return (uint32_t)__cvta_generic_to_shared(shared);
#endif
}

// ---- barriers ----
// One goes through phases 0, 1, 2, ...; a phase ends when `count` arrivals and all bytes that were expected are there.

static __device__ __forceinline__ void ganq_barrier_init(uint64_t *barrier, uint32_t count) {
#if defined(__CUDA_ARCH__)
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"((uint32_t)__cvta_generic_to_shared(barrier)), "r"(count)
                 : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::barrier_init(barrier, count);
#endif
}
// What this thread has written to shared memory, barriers too, is seen by copies and products from here on.
static __device__ __forceinline__ void ganq_async_fence() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
static __device__ __forceinline__ void ganq_barrier_arrive(uint64_t *barrier) {
#if defined(__CUDA_ARCH__)
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"((uint32_t)__cvta_generic_to_shared(barrier)) : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::barrier_arrive(barrier, 0);
#endif
}
// Arrives, and makes the phase wait for so many bytes.
static __device__ __forceinline__ void ganq_barrier_expect(uint64_t *barrier, uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"((uint32_t)__cvta_generic_to_shared(barrier)),
                 "r"(bytes)
                 : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::barrier_arrive(barrier, bytes);
#endif
}
// Until the phase of this parity has ended; that before the first counts as one of parity 1.
static __device__ __forceinline__ void ganq_barrier_wait(uint64_t *barrier, uint32_t parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
    uint32_t done;
    do
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
    while (!done);
#elif defined(GANQ_EMULATOR)
    emulator::barrier_wait(barrier, parity);
#endif
}

// `bytes`, a multiple of 16 as both addresses are, to shared memory; they arrive at the barrier.
static __device__ __forceinline__ void ganq_copy_bulk(void *shared, const void *global, uint32_t bytes, uint64_t *barrier) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(bytes), "r"((uint32_t)__cvta_generic_to_shared(barrier))
                 : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::bulk_copy(shared, global, bytes, barrier);
#endif
}

// ---- products of a warpgroup ----
// D[64,N] += A[64,16] B[16,N]: warp w of the four has rows 16w .. 16w + 15 of A and D in registers, laid out as
// mma.m16n8k16 has them, with one set of four registers of D after the other for each 8 columns.

// B from 1024-byte aligned rows of shared memory: column n of B is 128 bytes, 64 values along k, of which a product takes 16
// from byte 32j on; 16-byte pieces are exchanged: piece c of column n lies at c ^ n % 8 (swizzling of 128 bytes).
static __device__ __forceinline__ uint64_t ganq_wgmma_rows(const void *shared) {
    const uint32_t address = ganq_shared_address(shared);
    // address; distance along k (not used with swizzling); 8 columns of B further: 1024 bytes; swizzling of 128 bytes
    return (uint64_t)((address & 0x3ffffu) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
// Before the first product, and where registers of A or D have been written since.
static __device__ __forceinline__ void ganq_wgmma_fence() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
// Closes the group of the products begun since the last one.
static __device__ __forceinline__ void ganq_wgmma_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#elif defined(GANQ_EMULATOR)
    emulator::wgmma_commit();
#endif
}
// Until at most `left` groups are under way.
template <int left> static __device__ __forceinline__ void ganq_wgmma_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
#elif defined(GANQ_EMULATOR)
    emulator::wgmma_wait(left);
#endif
}
// Registers that products under way had: they are in use until here. After a wait.
static __device__ __forceinline__ void ganq_wgmma_release(uint32_t (&a)[4]) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3])::"memory");
#else
    (void)a;
#endif
}
static __device__ __forceinline__ void ganq_wgmma_release(float &d) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+f"(d)::"memory");
#else
    (void)d;
#endif
}

// The names of registers in the instruction, and the registers, by eights.
#define GANQ_D(i)                                                                                                      \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define GANQ_D32(i) GANQ_D(i), GANQ_D(i + 8), GANQ_D(i + 16), GANQ_D(i + 24)
#define GANQ_NAMES_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define GANQ_NAMES_16 GANQ_NAMES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define GANQ_NAMES_32 GANQ_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define GANQ_NAMES_64                                                                                                  \
    GANQ_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"                                   \
                  ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define GANQ_NAMES_96                                                                                                  \
    GANQ_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"                                   \
                  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define GANQ_NAMES_128                                                                                                 \
    GANQ_NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"                       \
                  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define GANQ_WGMMA(n, names, a0, a1, a2, a3, b, ...)                                                                   \
    asm volatile("{\n"                                                                                                 \
                 ".reg .pred accumulate;\n"                                                                            \
                 "setp.eq.u32 accumulate, 0, 0;\n"                                                                     \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.f16.f16 {" names "}, {" a0 "," a1 "," a2 "," a3 "}, " b        \
                 ", accumulate, 1, 1, 0;\n"                                                                            \
                 "}"                                                                                                   \
                 : __VA_ARGS__                                                                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(rows))

// N: 16, 32, 64, 128, 192 or 256 columns.
template <int N> static __device__ __forceinline__ void ganq_wgmma_f16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t rows) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (N == 16)
        GANQ_WGMMA(16, GANQ_NAMES_8, "%8", "%9", "%10", "%11", "%12", GANQ_D(0));
    else if constexpr (N == 32)
        GANQ_WGMMA(32, GANQ_NAMES_16, "%16", "%17", "%18", "%19", "%20", GANQ_D(0), GANQ_D(8));
    else if constexpr (N == 64)
        GANQ_WGMMA(64, GANQ_NAMES_32, "%32", "%33", "%34", "%35", "%36", GANQ_D32(0));
    else if constexpr (N == 128)
        GANQ_WGMMA(128, GANQ_NAMES_64, "%64", "%65", "%66", "%67", "%68", GANQ_D32(0), GANQ_D32(32));
    else if constexpr (N == 192)
        GANQ_WGMMA(192, GANQ_NAMES_96, "%96", "%97", "%98", "%99", "%100", GANQ_D32(0), GANQ_D32(32), GANQ_D32(64));
    else
        GANQ_WGMMA(256, GANQ_NAMES_128, "%128", "%129", "%130", "%131", "%132", GANQ_D32(0), GANQ_D32(32), GANQ_D32(64),
                   GANQ_D32(96));
#elif defined(GANQ_EMULATOR)
    emulator::wgmma(d, a, rows, N);
#endif
}
#undef GANQ_D
#undef GANQ_D32
#undef GANQ_NAMES_8
#undef GANQ_NAMES_16
#undef GANQ_NAMES_32
#undef GANQ_NAMES_64
#undef GANQ_NAMES_96
#undef GANQ_NAMES_128
#undef GANQ_WGMMA

#endif
