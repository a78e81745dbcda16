// test_emulator.cu - the emulated device itself: barriers, warps, tensor cores, copies, streams, graphs, and that it
// finds the faults it is there to find.
#include <check.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "emulator.h"
#include "launch.cuh"
#include "wgmma.cuh"

static void *device(size_t bytes) {
    void *p = nullptr;
    ck_assert_int_eq(cudaMalloc(&p, bytes), cudaSuccess);
    return p;
}

static __global__ void index_kernel(int *out) {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += (int)(block * 1000 + thread + 1);
}

START_TEST(test_every_thread_once) {
    const int total = 2 * 3 * 2 * 5 * 4 * 2;
    int *d = (int *)device(total * sizeof(int));
    std::vector<int> h(total);
    cudaMemset(d, 0, total * sizeof(int));
    ck_assert_int_eq(ganq_launch(index_kernel, dim3(2, 3, 2), dim3(5, 4, 2), 0, nullptr, d), cudaSuccess);
    ck_assert_int_eq(cudaMemcpy(h.data(), d, total * sizeof(int), cudaMemcpyDeviceToHost), cudaSuccess);
    for (int i = 0; i < total; i++)
        ck_assert_int_eq(h[i], i / 40 * 1000 + i % 40 + 1);
    cudaFree(d);
}
END_TEST

// Sum of a block by shuffles, shared memory and a barrier; the last block to finish adds up all.
static __global__ void sum_kernel(const float *x, float *partial, unsigned *ticket, float *out) {
    GANQ_DYNAMIC_SHARED(float, warps);
    __shared__ bool last;
    float v = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int i = 16; i; i >>= 1)
        v += __shfl_down_sync(0xffffffffu, v, (unsigned)i);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0;
        for (unsigned i = 0; i < blockDim.x / 32; i++)
            sum += warps[i];
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(ticket, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float sum = 0;
        for (unsigned i = 0; i < gridDim.x; i++)
            sum += partial[i];
        *out = sum;
    }
}

START_TEST(test_block_sum) {
    const int blocks = 7, threads = 256;
    std::vector<float> h(blocks * threads);
    float expected = 0, got;
    for (size_t i = 0; i < h.size(); i++)
        expected += h[i] = (float)(i % 13);
    float *x = (float *)device(h.size() * 4), *partial = (float *)device(blocks * 4), *out = (float *)device(4);
    unsigned *ticket = (unsigned *)device(4);
    cudaMemcpy(x, h.data(), h.size() * 4, cudaMemcpyHostToDevice);
    for (int order = 0; order < 2; order++) {
        emulator_set_order(order);
        cudaMemset(ticket, 0, 4);
        ck_assert_int_eq(ganq_launch(sum_kernel, dim3(blocks), dim3(threads), threads / 32 * 4, nullptr, x, partial, ticket, out),
                         cudaSuccess);
        cudaMemcpy(&got, out, 4, cudaMemcpyDeviceToHost);
        ck_assert_float_eq(got, expected);
    }
    emulator_set_order(0);
    cudaFree(x), cudaFree(partial), cudaFree(out), cudaFree(ticket);
}
END_TEST

static __global__ void warp_kernel(int *out) {
    const int lane = (int)threadIdx.x;
    out[lane] = __shfl_sync(0xffffffffu, lane * 10, 5);
    out[32 + lane] = __shfl_xor_sync(0xffffffffu, lane, 3);
    out[64 + lane] = __shfl_up_sync(0xffffffffu, lane, 2);
    out[96 + lane] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
    out[128 + lane] = __any_sync(0xffffffffu, lane == 7) + 2 * __all_sync(0xffffffffu, lane < 31);
    if (lane < 16) // half a warp
        out[160 + lane] = __shfl_sync(0xffffu, lane, 15 - lane);
    else
        out[160 + lane] = __shfl_down_sync(0xffff0000u, lane, 4, 16);
    out[192 + lane] = __syncthreads_count(lane < 9);
}

START_TEST(test_warp) {
    int *d = (int *)device(224 * 4), h[224];
    ck_assert_int_eq(ganq_launch(warp_kernel, dim3(1), dim3(32), 0, nullptr, d), cudaSuccess);
    cudaMemcpy(h, d, sizeof h, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 32; i++) {
        ck_assert_int_eq(h[i], 50);
        ck_assert_int_eq(h[32 + i], i ^ 3);
        ck_assert_int_eq(h[64 + i], i < 2 ? i : i - 2);
        ck_assert_int_eq(h[96 + i], (int)0x49249249);
        ck_assert_int_eq(h[128 + i], 1);
        ck_assert_int_eq(h[160 + i], i < 16 ? 15 - i : i < 28 ? i + 4 : i);
        ck_assert_int_eq(h[192 + i], 9);
    }
    cudaFree(d);
}
END_TEST

// C[16,8] = A[16,16] B[16,8] by one warp: A through ldmatrix, B through cp.async.
static __global__ void mma_kernel(const __half *a, const __half *b, float *c) {
    __shared__ __align__(16) __half A[16][24], B[16][8];
    const int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32)
        A[i / 16][i % 16] = a[i];
    if (lane < 16)
        ganq_copy16_async(&B[lane][0], b + 8 * lane);
    ganq_copy_commit();
    ganq_copy_wait<0>();
    __syncwarp();
    uint32_t fa[4], fb[2];
    float d[4] = {0, 0, 0, 0};
    ganq_ldmatrix4(fa, &A[lane % 16][lane / 16 * 8]);
    for (int i = 0; i < 2; i++) {
        const int k = 2 * (lane % 4) + 8 * i, n = lane / 4;
        fb[i] = __half_as_ushort(B[k][n]) | (uint32_t)__half_as_ushort(B[k + 1][n]) << 16;
    }
    ganq_mma_f16(d, fa, fb);
    for (int i = 0; i < 4; i++)
        c[(lane / 4 + 8 * (i >> 1)) * 8 + 2 * (lane % 4) + (i & 1)] = d[i];
}

START_TEST(test_mma) {
    std::vector<__half> a(256), b(128);
    float c[128];
    for (int i = 0; i < 256; i++)
        a[i] = __half((float)(i * 7 % 31 - 15));
    for (int i = 0; i < 128; i++)
        b[i] = __half((float)(i * 5 % 17 - 8));
    __half *da = (__half *)device(512), *db = (__half *)device(256);
    float *dc = (float *)device(512);
    cudaMemcpy(da, a.data(), 512, cudaMemcpyHostToDevice);
    cudaMemcpy(db, b.data(), 256, cudaMemcpyHostToDevice);
    ck_assert_int_eq(ganq_launch(mma_kernel, dim3(1), dim3(32), 0, nullptr, da, db, dc), cudaSuccess);
    cudaMemcpy(c, dc, 512, cudaMemcpyDeviceToHost);
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 8; n++) {
            float sum = 0;
            for (int k = 0; k < 16; k++)
                sum += (float)a[m * 16 + k] * (float)b[k * 8 + n];
            ck_assert_float_eq(c[m * 8 + n], sum);
        }
    cudaFree(da), cudaFree(db), cudaFree(dc);
}
END_TEST

// D[64,16] = A[64,128] B[128,16] by a warpgroup: two copies of 64 values of each column of B, one after the other to the same
// place. mistake: 1, the second copy does not wait for the products with the first; 2, products are not waited for; 3, a copy
// beyond shared memory; 4, bytes are expected that do not come.
static __global__ void wgmma_kernel(const __half *a, const __half *b, float *d, int mistake) {
    GANQ_DYNAMIC_SHARED(unsigned char, unaligned);
    unsigned char *const B = unaligned + (1024 - emulator::shared_address(unaligned) % 1024) % 1024;
    uint64_t *const barrier = (uint64_t *)(B + 2048);
    const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + lane / 4;
    float sums[8] = {};
    uint32_t fa[4][4];
    if (threadIdx.x == 0) {
        ganq_barrier_init(barrier, 1);
        ganq_async_fence();
    }
    __syncthreads();
    for (int half = 0; half < 2; half++) {
        if (threadIdx.x == 0) {
            ganq_barrier_expect(barrier, mistake == 4 ? 4096 : 2048);
            ganq_copy_bulk(mistake == 3 ? B + 2048 : B, b + half * 1024, 2048, barrier);
        }
        ganq_barrier_wait(barrier, (uint32_t)half);
        for (int j = 0; j < 4; j++) {
            for (int i = 0; i < 4; i++)
                fa[j][i] = *(const uint32_t *)(a + (row + 8 * (i & 1)) * 128 + half * 64 + 16 * j + 2 * (lane % 4) + 8 * (i >> 1));
            ganq_wgmma_fence();
            ganq_wgmma_f16<16>(sums, fa[j], ganq_wgmma_rows(B) + (uint64_t)(2 * j));
        }
        ganq_wgmma_commit();
        if (mistake != 2 && (mistake != 1 || half == 1))
            ganq_wgmma_wait<0>();
        __syncthreads();
    }
    for (int i = 0; i < 8; i++)
        d[(row + 8 * (i / 2 % 2)) * 16 + i / 4 * 8 + 2 * (lane % 4) + i % 2] = sums[i];
}
static void run_wgmma(int order, int mistake, float *d) {
    std::vector<__half> a(64 * 128), b(16 * 128);
    for (int i = 0; i < 64 * 128; i++)
        a[i] = __half((float)(i * 7 % 31 - 15));
    for (int k = 0; k < 128; k++) // column n is 128 bytes; its pieces of 16 bytes change places
        for (int n = 0; n < 16; n++)
            b[k / 64 * 1024 + n * 64 + ((k % 64 / 8) ^ (n % 8)) * 8 + k % 8] = __half((float)((k * 5 + n * 3) % 17 - 8));
    __half *da = (__half *)device(a.size() * 2), *db = (__half *)device(b.size() * 2);
    float *dd = (float *)device(1024 * 4);
    cudaMemcpy(da, a.data(), a.size() * 2, cudaMemcpyHostToDevice);
    cudaMemcpy(db, b.data(), b.size() * 2, cudaMemcpyHostToDevice);
    emulator_set_order(order);
    ganq_launch(wgmma_kernel, dim3(1), dim3(128), 1024 + 2048 + 8, nullptr, da, db, dd, mistake);
    cudaMemcpy(d, dd, 1024 * 4, cudaMemcpyDeviceToHost);
    emulator_set_order(0);
    cudaFree(da), cudaFree(db), cudaFree(dd);
}

START_TEST(test_wgmma) {
    float d[1024], other[1024];
    for (int order = 0; order < 2; order++) {
        run_wgmma(order, 0, d);
        for (int m = 0; m < 64; m++)
            for (int n = 0; n < 16; n++) {
                float sum = 0;
                for (int k = 0; k < 128; k++)
                    sum += (float)((m * 128 + k) * 7 % 31 - 15) * (float)((k * 5 + n * 3) % 17 - 8);
                ck_assert_float_eq(d[m * 16 + n], sum);
            }
    }
    run_wgmma(1, 1, other);
    ck_assert_int_ne(memcmp(d, other, sizeof d), 0);
}
END_TEST

static __global__ void add_one(int *x) { x[threadIdx.x] += 1; }

START_TEST(test_streams_and_graphs) {
    cudaStream_t s, t;
    cudaEvent_t e;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    int *d = (int *)device(32 * 4), *pinned;
    ck_assert_int_eq(cudaMallocHost((void **)&pinned, 32 * 4), cudaSuccess);
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&t, cudaStreamNonBlocking);
    cudaEventCreate(&e);
    cudaMemsetAsync(d, 0, 32 * 4, s);
    // nothing has run yet: the copy happens when it is waited for
    pinned[3] = -1;
    cudaMemcpyAsync(pinned, d, 32 * 4, cudaMemcpyDeviceToHost, s);
    ck_assert_int_eq(pinned[3], -1);
    cudaStreamSynchronize(s);
    ck_assert_int_eq(pinned[3], 0);

    // t waits for s
    ganq_launch(add_one, dim3(1), dim3(32), 0, s, d);
    cudaEventRecord(e, s);
    cudaStreamWaitEvent(t, e, 0);
    cudaMemcpyAsync(pinned, d, 32 * 4, cudaMemcpyDeviceToHost, t);
    cudaStreamSynchronize(t);
    ck_assert_int_eq(pinned[3], 1);

    ck_assert_int_eq(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    ganq_launch(add_one, dim3(1), dim3(32), 0, s, d);
    ganq_launch(add_one, dim3(1), dim3(32), 0, s, d);
    ck_assert_int_eq(cudaStreamEndCapture(s, &graph), cudaSuccess);
    ck_assert_int_eq(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    cudaGraphDestroy(graph);
    for (int i = 0; i < 3; i++)
        cudaGraphLaunch(exec, s);
    cudaMemcpyAsync(pinned, d, 32 * 4, cudaMemcpyDeviceToHost, s);
    cudaStreamSynchronize(s);
    ck_assert_int_eq(pinned[3], 7);

    // waiting spoils a capture
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    ck_assert_int_eq(cudaStreamSynchronize(s), cudaErrorStreamCaptureUnsupported);
    ck_assert_int_eq(cudaStreamEndCapture(s, &graph), cudaErrorStreamCaptureInvalidated);
    cudaGraphExecDestroy(exec);
    cudaEventDestroy(e);
    cudaStreamDestroy(s), cudaStreamDestroy(t);
    cudaFreeHost(pinned), cudaFree(d);
}
END_TEST

static __global__ void shared_race(int *out) {
    __shared__ int box[64];
    box[threadIdx.x] = (int)threadIdx.x;
    out[threadIdx.x] = box[63 - threadIdx.x]; // a barrier is missing
}
START_TEST(test_order_shows_races) {
    int *d = (int *)device(64 * 4), h[2][64];
    for (int order = 0; order < 2; order++) {
        emulator_set_order(order);
        ganq_launch(shared_race, dim3(1), dim3(64), 0, nullptr, d);
        cudaMemcpy(h[order], d, sizeof h[0], cudaMemcpyDeviceToHost);
    }
    emulator_set_order(0);
    ck_assert_int_ne(memcmp(h[0], h[1], sizeof h[0]), 0);
    cudaFree(d);
}
END_TEST

static __global__ void write_at(int *out, long i) { out[i] = 1; }
static __global__ void write_shared(int *out, long i) {
    GANQ_DYNAMIC_SHARED(int, shared);
    shared[i] = 1;
    out[0] = shared[0];
}
static __global__ void lane_missing(int *out) {
    if (threadIdx.x != 31)
        out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

// What must end the program.
static int dies(int fault) {
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(0);
        int *d = (int *)device(64 * 4);
        switch (fault) {
        case 0: d[0] = 1; break; // host touches device memory
        case 1: ganq_launch(write_at, dim3(1), dim3(1), 0, nullptr, d, 64L + 1024); break;
        case 2: ganq_launch(write_at, dim3(1), dim3(1), 0, nullptr, d, -5000L); break;
        case 3: ganq_launch(write_at, dim3(1), dim3(1), 0, nullptr, d, 64L); break; // into the slack: found when freed
        case 4: ganq_launch(write_at, dim3(1), dim3(1), 0, nullptr, (int *)((char *)d + 2), 1L); break; // not aligned
        case 5: ganq_launch(lane_missing, dim3(1), dim3(64), 0, nullptr, d); break;
        case 6: cudaFree(d), ganq_launch(write_at, dim3(1), dim3(1), 0, nullptr, d, 0L), d = nullptr; break;
        case 7: cudaFree(d + 1); break;
        case 8: {
            static int host[64];
            ganq_launch(write_at, dim3(1), dim3(1), 0, nullptr, host, 1L);
            break;
        }
        case 9: ganq_launch(write_shared, dim3(1), dim3(1), 400, nullptr, d, 100L); break; // into the slack
        case 10: ganq_launch(write_shared, dim3(1), dim3(1), 400, nullptr, d, 128L); break;
        case 11:
        case 12:
        case 13: {
            static float results[1024];
            run_wgmma(1, fault - 9, results);
        }
        }
        cudaDeviceSynchronize();
        cudaFree(d);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
START_TEST(test_faults) { ck_assert_msg(dies(_i), "fault %d was not found", _i); }
END_TEST

START_TEST(test_limits) {
    const emulator_machine small = {13000, 1, 80, 1 << 20, 0, 0, 0};
    void *p;
    int count;
    emulator_set_machine(&small);
    ck_assert_int_eq(cudaMalloc(&p, 2 << 20), cudaErrorMemoryAllocation);
    ck_assert_int_eq(cudaSetDevice(1), cudaErrorInvalidDevice);
    ck_assert_int_eq(ganq_launch(add_one, dim3(1), dim3(2000), 0, nullptr, (int *)nullptr), cudaErrorInvalidConfiguration);
    const emulator_machine none = {0, 0, 80, 1 << 20, 0, 0, 0};
    emulator_set_machine(&none);
    ck_assert_int_eq(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    emulator_set_machine(nullptr);
    emulator_fail_allocation(2);
    ck_assert_int_eq(cudaMalloc(&p, 100), cudaSuccess);
    void *q;
    ck_assert_int_eq(cudaMalloc(&q, 100), cudaErrorMemoryAllocation);
    ck_assert_int_eq(cudaMalloc(&q, 100), cudaErrorMemoryAllocation);
    ck_assert_int_eq(cudaMalloc(&q, 100), cudaSuccess);
    cudaFree(p), cudaFree(q);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_emulator");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, test_every_thread_once);
    tcase_add_test(tc, test_block_sum);
    tcase_add_test(tc, test_warp);
    tcase_add_test(tc, test_mma);
    tcase_add_test(tc, test_streams_and_graphs);
    tcase_add_test(tc, test_order_shows_races);
    tcase_add_loop_test(tc, test_faults, 0, 14);
    tcase_add_test(tc, test_wgmma);
    tcase_add_test(tc, test_limits);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
