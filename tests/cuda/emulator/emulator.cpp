// emulator.cpp - a CUDA device made of fibers, for tests on machines without one.
//
// Work      A stream is a queue; what is in it runs when somebody waits for it (or copies from the device), in
//           order, on the thread that waits. So a program that reads a result too early, or changes a host
//           buffer before its copy has happened, sees what it would see on a device at worst.
// Threads   The threads of a block are fibers on one thread of the host. A fiber runs until it must wait; then
//           the next one begins or goes on. A block without barriers is a plain loop. Blocks run one by one.
// Memory    Device memory lies in a region of its own that may not be touched but while a kernel or a copy
//           runs; every allocation ends at a page that may never be touched, and its addresses are not given
//           out again. New memory holds NaNs.
// Faults    A bad access names the kernel, the block and the thread on stderr before the program dies.
#include "cuda_runtime.h"
#include "emulator.h"
#include "half.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

// ---------------------------------------------------------------- fibers

constexpr size_t STACK = 128 * 1024, GUARD = 4096, SHARED = 256 * 1024;
constexpr unsigned MAX_THREADS = 1024;

#if defined(__x86_64__)
extern "C" void emulator_switch(void **save, void *load);
// Saves the registers that a call keeps, and the stack pointer; takes up another fiber where it left off.
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

struct fiber {
    char *stack; // lowest usable byte
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    unsigned thread; // that it runs now, linear in the block
    struct copy {
        void *to;
        const void *from;
        size_t bytes, valid;
    };
    std::vector<copy> open_copies;
    std::deque<std::vector<copy>> committed;
    struct product {
        float *d;
        const uint32_t *a;
        uint64_t rows;
        int columns;
    };
    std::vector<product> open_products;
    std::deque<std::vector<product>> committed_products;
};
struct bulk {
    void *to;
    const void *from;
    size_t bytes;
    uint64_t *barrier;
};

struct warp_group {
    uint32_t mask, arrived;
    emulator::warp_function perform;
    void *args[32];
    fiber *waiting[32];
};
struct warp_state {
    warp_group groups[4];
};

struct {
    const char *name = nullptr; // of the kernel; NULL: none runs
    const std::function<void()> *body;
    unsigned threads, started, ended;
    fiber *current = nullptr;
    fiber main; // the caller
    const void *main_stack = nullptr; // and its stack, for sanitizers
    size_t main_stack_size = 0;
    std::deque<fiber> fibers; // kept for the next block; their addresses do not change
    unsigned fibers_used;
    std::deque<fiber *> ready;
    std::vector<fiber *> at_barrier, at_phase; // at_phase: at barriers in shared memory
    std::deque<bulk> bulk_copies;
    int barrier_count, barrier_result;
    warp_state warps[MAX_THREADS / 32];
    char *shared_end = nullptr; // of what blocks may have; behind it lies a page that nobody may touch
    char *shared = nullptr;
    size_t shared_bytes = 0;
    int order = 0;
} run;

uint3 unlinear(unsigned i) {
    return {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
}

void enter(fiber *f) {
    run.current = f;
    if (f != &run.main)
        threadIdx = unlinear(f->thread);
}

void switch_to(fiber *to) {
    fiber *from = run.current;
    if (from == to)
        return;
    enter(to);
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    if (to == &run.main)
        __sanitizer_start_switch_fiber(&fake, run.main_stack, run.main_stack_size);
    else
        __sanitizer_start_switch_fiber(&fake, to->stack, STACK);
#endif
#if defined(__x86_64__)
    emulator_switch(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void fiber_main();

// A fiber that begins at fiber_main when it is switched to.
fiber *fresh_fiber() {
    if (run.fibers_used == run.fibers.size()) {
        char *memory = (char *)mmap(nullptr, STACK + GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory + GUARD, STACK, PROT_READ | PROT_WRITE) != 0) {
            fprintf(stderr, "emulator: no memory for the stack of a thread\n");
            _exit(70);
        }
        run.fibers.emplace_back();
        run.fibers.back().stack = memory + GUARD;
    }
    fiber *f = &run.fibers[run.fibers_used++];
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(f->stack, STACK); // what the scopes of its last use have left
#endif
#if defined(__x86_64__)
    void **top = (void **)(f->stack + STACK - 64);
    *--top = nullptr; // the return address of fiber_main
    *--top = (void *)fiber_main;
    top -= 6; // registers
    memset(top, 0, 6 * sizeof *top);
    f->sp = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    f->context.uc_link = nullptr;
    makecontext(&f->context, fiber_main, 0);
#endif
    return f;
}

unsigned take_thread() {
    const unsigned i = run.started++;
    return run.order ? run.threads - 1 - i : i;
}

void deliver(const bulk &copy);

// The current fiber cannot go on: another takes over.
void yield() {
    fiber *next;
    while (run.ready.empty() && run.started == run.threads && !run.bulk_copies.empty()) {
        const bulk copy = run.bulk_copies.front();
        run.bulk_copies.pop_front();
        deliver(copy);
    }
    if (!run.ready.empty()) {
        next = run.ready.front();
        run.ready.pop_front();
    } else if (run.started < run.threads) {
        next = fresh_fiber();
        next->thread = take_thread();
    } else if (run.ended == run.threads) {
        next = &run.main;
    } else {
        emulator::stop("deadlock: %u of %u threads have ended, the others wait (%zu of them at __syncthreads)", run.ended,
                       run.threads, run.at_barrier.size());
    }
    switch_to(next);
}

void release_barrier() {
    run.barrier_result = run.barrier_count;
    run.barrier_count = 0;
    for (fiber *f : run.at_barrier)
        run.ready.push_back(f);
    run.at_barrier.clear();
}

// Runs threads one after another until one of them has to wait and somebody else takes the rest.
void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    const void *from;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &from, &size);
    if (run.started == 1) { // the block's first thread comes from the caller, whose stack is looked through for leaks
        run.main_stack = from;
        run.main_stack_size = size;
    }
#endif
    for (;;) {
        fiber *self = run.current;
        (*run.body)();
        if (!self->open_copies.empty() || !self->committed.empty())
            emulator::async_wait(0);
        if (!self->open_products.empty() || !self->committed_products.empty())
            emulator::stop("a thread has ended before its products");
        run.ended++;
        // Threads that have ended are not waited for.
        if (!run.at_barrier.empty() && run.at_barrier.size() == run.threads - run.ended)
            release_barrier();
        if (run.started < run.threads && run.ready.empty()) {
            self->thread = take_thread();
            threadIdx = unlinear(self->thread);
            continue;
        }
        yield();
    }
}

void run_block() {
    run.started = run.ended = 0;
    run.fibers_used = 0;
    run.ready.clear();
    run.at_barrier.clear();
    run.at_phase.clear();
    run.bulk_copies.clear();
    run.barrier_count = 0;
    memset(run.warps, 0, sizeof run.warps);
    memset(run.shared, 0xff, (size_t)(run.shared_end - run.shared));
    run.current = &run.main;
    fiber *first = fresh_fiber();
    first->thread = take_thread();
    switch_to(first);
    if (!run.bulk_copies.empty())
        emulator::stop("a block has ended before its copies");
    // between the block's bytes and the page, up to a multiple of 128
    for (const char *p = run.shared + run.shared_bytes; p < run.shared_end; p++)
        if (*p != (char)0xff)
            emulator::stop("a block wrote %d bytes beyond its shared memory",
                           (int)(p - run.shared - (ptrdiff_t)run.shared_bytes) + 1);
}

} // namespace

namespace emulator {

void stop(const char *format, ...) {
    va_list args;
    fprintf(stderr, "emulator: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (run.name)
        fprintf(stderr, "\nemulator: kernel %.80s, block (%u,%u,%u), thread (%u,%u,%u)", run.name, blockIdx.x, blockIdx.y,
                blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    fprintf(stderr, "\n");
    abort();
}

unsigned lane() { return run.current->thread & 31; }
void *dynamic_shared() { return run.shared; }

int block_count(int value) {
    run.barrier_count += value != 0;
    run.at_barrier.push_back(run.current);
    if (run.at_barrier.size() == run.threads - run.ended) {
        run.at_barrier.pop_back();
        release_barrier();
    } else {
        yield();
    }
    return run.barrier_result;
}
void block_barrier() { block_count(0); }

void warp_collective(uint32_t mask, void *mine, warp_function perform) {
    const unsigned thread = run.current->thread, lane = thread & 31;
    warp_state *warp = &run.warps[thread / 32];
    // lanes that the block does not have count as arrived
    const unsigned first = thread & ~31u, live = run.threads - first >= 32 ? 0xffffffffu : (1u << (run.threads - first)) - 1;
    if (!(mask >> lane & 1))
        stop("lane %u is not in its own mask %08x", lane, mask);
    mask &= live;
    warp_group *group = nullptr;
    for (warp_group &g : warp->groups)
        if (g.arrived && g.mask == mask)
            group = &g;
    for (warp_group &g : warp->groups)
        if (!group && !g.arrived)
            group = &g;
    if (!group)
        stop("more than 4 masks at once in one warp");
    if (!group->arrived) {
        group->mask = mask;
        group->perform = perform;
    }
    if (group->perform != perform)
        stop("the lanes of mask %08x are at different operations", mask);
    group->arrived |= 1u << lane;
    group->args[lane] = mine;
    group->waiting[lane] = run.current;
    if (group->arrived != mask) {
        yield();
        return;
    }
    perform(group->args, mask);
    for (unsigned i = 0; i < 32; i++)
        if (mask >> i & 1 && i != lane)
            run.ready.push_back(group->waiting[i]);
    group->arrived = 0;
}

void async_copy(void *to, const void *from, size_t bytes, size_t valid_bytes) {
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes)
        stop("an asynchronous copy of %zu bytes to %p from %p: not aligned", bytes, to, from);
    memset(to, 0xff, bytes); // what is read before the copy was waited for is wrong
    run.current->open_copies.push_back({to, from, bytes, valid_bytes});
}
void async_commit() {
    run.current->committed.push_back(std::move(run.current->open_copies));
    run.current->open_copies.clear();
}
void async_wait(int groups_left) {
    auto &committed = run.current->committed;
    while ((int)committed.size() > groups_left) {
        for (const fiber::copy &c : committed.front()) {
            memcpy(c.to, c.from, c.valid);
            memset((char *)c.to + c.valid, 0, c.bytes - c.valid);
        }
        committed.pop_front();
    }
}

// ---- barriers in shared memory: 8 bytes ----

struct phases {
    uint64_t parity : 1, count : 12, pending : 12;
    int64_t bytes : 39; // expected and not there
};
static_assert(sizeof(phases) == 8, "a barrier has 8 bytes");

static phases *phases_of(uint64_t *barrier) {
    char *at = (char *)barrier;
    if ((uintptr_t)at % 8 || at < run.shared || at + 8 > run.shared + run.shared_bytes)
        stop("a barrier at %p, which is no 8 bytes of shared memory", (void *)barrier);
    return (phases *)barrier;
}
static void end_phase(phases *p) {
    if (p->pending || p->bytes)
        return;
    p->parity = !p->parity;
    p->pending = p->count;
    for (fiber *f : run.at_phase)
        run.ready.push_back(f);
    run.at_phase.clear();
}
void barrier_init(uint64_t *barrier, unsigned count) {
    phases *p = phases_of(barrier);
    p->parity = 0, p->bytes = 0;
    p->count = p->pending = count;
}
void barrier_arrive(uint64_t *barrier, unsigned bytes) {
    phases *p = phases_of(barrier);
    if (!p->pending)
        stop("more arrivals at a barrier than its %u", (unsigned)p->count);
    p->bytes = p->bytes + bytes;
    p->pending = p->pending - 1;
    end_phase(p);
}
void barrier_wait(uint64_t *barrier, unsigned parity) {
    while (phases_of(barrier)->parity == parity) {
        run.at_phase.push_back(run.current);
        yield();
    }
}
void bulk_copy(void *to, const void *from, size_t bytes, uint64_t *barrier) {
    const bulk copy = {to, from, bytes, barrier};
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || bytes % 16)
        stop("a copy of %zu bytes to %p from %p: not multiples of 16", bytes, to, from);
    if ((char *)to < run.shared || (char *)to + bytes > run.shared + run.shared_bytes)
        stop("a copy of %zu bytes to %p, which is not shared memory", bytes, to);
    memset(to, 0xff, bytes);
    if (run.order)
        run.bulk_copies.push_back(copy);
    else
        deliver(copy);
}

// ---- products of a warpgroup, a warp at a time ----

uint32_t shared_address(const void *shared) { return (uint32_t)((const char *)shared - (run.shared_end - SHARED)); }

static float half_at(uint32_t word, int e) { return ganq__f16_to_f32((uint16_t)(word >> 16 * e)); }

float tensor_core_sum(float d, const float *a, const float *b) {
    double products[16], most = fabs((double)d), sum = 0;
    int exponent;
    for (int k = 0; k < 16; k++) {
        products[k] = (double)a[k] * (double)b[k];
        most = fmax(most, fabs(products[k]));
        sum += products[k]; // NaN and infinity are found here
    }
    if (!isfinite(sum + d) || most == 0)
        return (float)(sum + d);
    (void)frexp(most, &exponent);
    const double unit = ldexp(1, exponent - 26), inverse = 1 / unit;
    sum = trunc(d * inverse);
    for (int k = 0; k < 16; k++)
        sum += trunc(products[k] * inverse);
    (void)frexp(sum, &exponent);
    const double last = ldexp(1, exponent > 24 ? exponent - 24 : 0); // of 24 bits, in units
    return (float)(trunc(sum / last) * last * unit);
}

static void perform_wgmma(void *const all[32], uint32_t) {
    const fiber::product *first = (const fiber::product *)all[0];
    const int columns = first->columns;
    const uint64_t rows = first->rows;
    const uint32_t start = (uint32_t)(rows & 0x3fff) << 4, stride = (uint32_t)(rows >> 32 & 0x3fff) << 4;
    if (rows >> 62 != 1 || rows >> 49 & 7)
        stop("a matrix of another layout than swizzled by 128 bytes: %016llx", (unsigned long long)rows);
    float A[16][16];
    for (int l = 0; l < 32; l++) {
        const fiber::product *p = (const fiber::product *)all[l];
        if (p->rows != rows || p->columns != columns)
            stop("lanes 0 and %d have different products", l);
        for (int i = 0; i < 4; i++)
            for (int e = 0; e < 2; e++)
                A[l / 4 + 8 * (i & 1)][2 * (l % 4) + e + 8 * (i >> 1)] = half_at(p->a[i], e);
    }
    const char *memory = run.shared_end - SHARED;
    for (int n = 0; n < columns; n++) {
        float B[16];
        for (uint32_t k = 0; k < 16; k++) {
            uint32_t at = start + (uint32_t)n / 8 * stride + (uint32_t)n % 8 * 128 + 2 * k;
            uint16_t bits;
            at ^= (at >> 7 & 7) << 4;
            if (memory + at < run.shared || memory + at + 2 > run.shared + run.shared_bytes)
                stop("a product reads outside of shared memory");
            memcpy(&bits, memory + at, 2);
            B[k] = ganq__f16_to_f32(bits);
        }
        for (int r = 0; r < 16; r++) {
            const fiber::product *p = (const fiber::product *)all[r % 8 * 4 + n % 8 / 2];
            float *d = p->d + n / 8 * 4 + r / 8 * 2 + n % 2;
            *d = tensor_core_sum(*d, A[r], B);
        }
    }
}
void wgmma(float *d, const uint32_t *a, uint64_t rows, int columns) {
    fiber::product p = {d, a, rows, columns};
    if (run.order)
        run.current->open_products.push_back(p);
    else
        warp_collective(0xffffffffu, &p, perform_wgmma);
}
void wgmma_commit() {
    run.current->committed_products.push_back(std::move(run.current->open_products));
    run.current->open_products.clear();
}
void wgmma_wait(int groups_left) {
    auto &committed = run.current->committed_products;
    while ((int)committed.size() > groups_left) {
        for (fiber::product &p : committed.front())
            warp_collective(0xffffffffu, &p, perform_wgmma);
        committed.pop_front();
    }
}

} // namespace emulator

namespace {
void deliver(const bulk &copy) {
    emulator::phases *p = emulator::phases_of(copy.barrier);
    memcpy(copy.to, copy.from, copy.bytes);
    p->bytes = p->bytes - (int64_t)copy.bytes;
    emulator::end_phase(p);
}
} // namespace

// ---------------------------------------------------------------- the machine

namespace {

const emulator_machine default_machine = {13000, 2, 89, (size_t)8 << 30, 0, 0, 0};
emulator_machine machine = default_machine;
emulator_counts counts;
int64_t allocations_until_failure = 0;
std::recursive_mutex guard; // one API call or running kernel at a time
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t set_error(cudaError_t e) {
    if (e != cudaSuccess && e != cudaErrorNotReady)
        last_error = e;
    return e;
}

} // namespace

struct CUctx_st {
    int device;
};

namespace {

std::map<int, CUctx_st> primaries; // by device
std::vector<std::unique_ptr<CUctx_st>> others;
thread_local std::vector<CUctx_st *> current; // the thread's contexts, the last on top

CUctx_st *primary(int device) { return &primaries.try_emplace(device, CUctx_st{device}).first->second; }
int current_device() { return current.empty() ? 0 : current.back()->device; }
// As most calls of the runtime do: a thread without a context gets the primary one of device 0.
CUctx_st *need_context() {
    if (current.empty())
        current.push_back(primary(0));
    return current.back();
}

// What tests have planned for the next call of a name.
struct plan {
    std::string call;
    cudaError_t error;
    void (*f)(void *);
    void *user;
} planned_failure, planned_interruption;

cudaError_t take_failure(const char *call) {
    if (planned_failure.call != call)
        return cudaSuccess;
    planned_failure.call.clear();
    return planned_failure.error;
}
struct interruption {
    const char *call;
    ~interruption() {
        if (planned_interruption.call != call)
            return;
        planned_interruption.call.clear();
        planned_interruption.f(planned_interruption.user);
    }
};

struct block_of_memory {
    size_t bytes, mapped;
    int device;
};
constexpr size_t REGION = (size_t)1 << 42; // addresses, not memory
constexpr size_t PAGE = 4096;
char *region = nullptr;
size_t region_used = 1 << 20; // what lies before the first allocation is not to be touched, either
std::map<char *, block_of_memory> blocks; // by mapped address; data ends at the mapping's end
std::map<void *, char *> block_by_pointer;
std::map<char *, size_t> pinned;
size_t held[8];
int pools = 0;
int region_open = 0;
struct sigaction old_actions[2];

void on_fault(int signal, siginfo_t *info, void *) {
    char *address = (char *)info->si_addr;
    const int inside = region && address >= region && address < region + REGION;
    fprintf(stderr, "emulator: %s touches %s at %p", run.name ? "a kernel" : "the host",
            inside ? "device memory that is not its to touch" : "an address that is not mapped", (void *)address);
    if (run.name)
        fprintf(stderr, ": kernel %.80s, block (%u,%u,%u), thread (%u,%u,%u)", run.name, blockIdx.x, blockIdx.y, blockIdx.z,
                threadIdx.x, threadIdx.y, threadIdx.z);
    fprintf(stderr, "\n");
    sigaction(signal, &old_actions[signal == SIGBUS], nullptr);
}

void start() {
    static bool started = false;
    counts.api_calls = 1;
    if (started)
        return;
    started = true;
    const char *text;
    if ((text = getenv("GANQ_EMULATOR_DRIVER")))
        machine.driver = atoi(text);
    if ((text = getenv("GANQ_EMULATOR_DEVICES")))
        machine.devices = atoi(text);
    if ((text = getenv("GANQ_EMULATOR_SM")))
        machine.sm = atoi(text);
    if ((text = getenv("GANQ_EMULATOR_MEMORY")))
        machine.memory = (size_t)atoll(text);
    if ((text = getenv("GANQ_EMULATOR_ORDER")))
        run.order = atoi(text);
    char *shared = (char *)mmap(nullptr, SHARED + GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED || mprotect(shared, SHARED, PROT_READ | PROT_WRITE) != 0) {
        fprintf(stderr, "emulator: no memory for a block\n");
        _exit(70);
    }
    run.shared_end = shared + SHARED;
    region = (char *)mmap(nullptr, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) {
        fprintf(stderr, "emulator: no addresses for device memory\n");
        _exit(70);
    }
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old_actions[0]);
    sigaction(SIGBUS, &action, &old_actions[1]);
    // a fault on a fiber's guard page needs a stack of its own
    static char alternate[64 * 1024];
    stack_t stack = {};
    stack.ss_sp = alternate;
    stack.ss_size = sizeof alternate;
    sigaltstack(&stack, nullptr);
}

// While one of these lives, device memory may be touched.
struct opened {
    opened() {
        if (region_open++ == 0)
            for (auto &b : blocks)
                mprotect(b.first, b.second.mapped, PROT_READ | PROT_WRITE);
    }
    ~opened() {
        if (--region_open == 0)
            for (auto &b : blocks)
                mprotect(b.first, b.second.mapped, PROT_NONE);
    }
};

cudaError_t allocate(void **out, size_t bytes) {
    counts.allocations++;
    if (bytes == 0) {
        *out = nullptr;
        return cudaSuccess;
    }
    if (allocations_until_failure > 0 && --allocations_until_failure == 0) {
        allocations_until_failure = -1; // the next one
        return cudaErrorMemoryAllocation;
    }
    if (allocations_until_failure < 0) {
        allocations_until_failure = 0;
        return cudaErrorMemoryAllocation;
    }
    if (held[current_device()] + bytes > machine.memory || bytes > machine.memory)
        return cudaErrorMemoryAllocation;
    const size_t mapped = (bytes + 255 + PAGE - 1) / PAGE * PAGE;
    if (region_used + mapped + PAGE > REGION)
        return cudaErrorMemoryAllocation;
    char *base = region + region_used;
    if (mprotect(base, mapped, PROT_READ | PROT_WRITE) != 0)
        return cudaErrorMemoryAllocation;
    memset(base, 0xff, mapped);
    if (!region_open)
        mprotect(base, mapped, PROT_NONE);
    region_used += mapped + PAGE;
    // as near to the guard page as alignment to 256 bytes allows
    char *data = base + (mapped - bytes) / 256 * 256;
    blocks[base] = {bytes, mapped, current_device()};
    block_by_pointer[data] = base;
    held[current_device()] += bytes;
    counts.bytes_held += bytes;
    *out = data;
    return cudaSuccess;
}

cudaError_t release(void *memory) {
    if (!memory)
        return cudaSuccess;
    auto found = block_by_pointer.find(memory);
    if (found == block_by_pointer.end())
        emulator::stop("%p is freed, which was not allocated or is free already", memory);
    char *base = found->second;
    const block_of_memory b = blocks[base];
    // the bytes behind the allocation, up to the guard page, must be as they were
    char *data = (char *)memory;
    {
        opened o;
        for (char *p = data + b.bytes; p < base + b.mapped; p++)
            if (*p != (char)0xff)
                emulator::stop("something wrote %td bytes behind an allocation of %zu", p - (data + b.bytes), b.bytes);
        for (char *p = base; p < data; p++)
            if (*p != (char)0xff)
                emulator::stop("something wrote %td bytes before an allocation of %zu", data - p, b.bytes);
    }
    held[b.device] -= b.bytes;
    counts.bytes_held -= b.bytes;
    madvise(base, b.mapped, MADV_DONTNEED);
    mprotect(base, b.mapped, PROT_NONE);
    blocks.erase(base);
    block_by_pointer.erase(found);
    return cudaSuccess;
}

bool on_device(const void *p) { return region && (char *)p >= region && (char *)p < region + REGION; }
bool is_pinned(const void *p) {
    auto after = pinned.upper_bound((char *)p);
    if (after == pinned.begin())
        return false;
    --after;
    return (char *)p < after->first + after->second;
}

// ---------------------------------------------------------------- streams, events, graphs

typedef std::function<void()> operation;

} // namespace

struct CUgraph_st {
    std::vector<operation> operations;
};
struct CUgraphExec_st {
    std::vector<operation> operations;
};
struct CUstream_st {
    std::deque<operation> queue;
    CUctx_st *context = nullptr; // NULL: any, of the default stream
    int draining = 0;
    CUgraph_st *capture = nullptr;
    bool invalidated = false;
    CUstream_st *origin = nullptr; // of the capture that this stream joined
};
struct CUevent_st {
    CUstream_st *stream = nullptr; // where it was recorded
    int64_t recorded = 0, done = 0;
    double time = 0;
    CUgraph_st *capture = nullptr;
};

namespace {

std::set<CUstream_st *> streams;
CUstream_st *default_stream() {
    static CUstream_st *stream = [] {
        auto *s = new CUstream_st;
        streams.insert(s);
        return s;
    }();
    return stream;
}
CUstream_st *real(cudaStream_t s) { return s ? s : default_stream(); }

void drain(CUstream_st *s) {
    if (s->draining)
        return;
    s->draining = 1;
    if (!s->queue.empty()) {
        opened o;
        while (!s->queue.empty()) {
            operation op = std::move(s->queue.front());
            s->queue.pop_front();
            op();
        }
    }
    s->draining = 0;
}
void drain_all() {
    for (CUstream_st *s : streams)
        drain(s);
}

bool capturing() {
    for (CUstream_st *s : streams)
        if (s->capture)
            return true;
    return false;
}

// What waits for the device is not allowed while a stream is captured, and spoils the capture.
cudaError_t wait_allowed() {
    if (!capturing())
        return cudaSuccess;
    for (CUstream_st *s : streams)
        if (s->capture)
            s->invalidated = true;
    return set_error(cudaErrorStreamCaptureUnsupported);
}

void put(cudaStream_t stream, operation op) {
    CUstream_st *s = real(stream);
    if (!stream)
        drain_all();
    if (s->capture)
        s->capture->operations.push_back(std::move(op));
    else
        s->queue.push_back(std::move(op));
}

double now() {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool ready_device() { return machine.driver >= CUDART_VERSION / 1000 * 1000 && machine.devices > 0; }

#define ENTER_AS(name)                                                                                             \
    const interruption at_end = {name};                                                                            \
    std::lock_guard<std::recursive_mutex> lock(guard);                                                             \
    start()
#define ENTER ENTER_AS(__func__)
#define ENTER_DEVICE_AS(name)                                                                                      \
    ENTER_AS(name);                                                                                                \
    if (!ready_device())                                                                                           \
        return set_error(machine.devices > 0 || machine.driver < 13000 ? cudaErrorInsufficientDriver               \
                                                                       : cudaErrorNoDevice);                       \
    if (const cudaError_t planned = take_failure(name))                                                            \
    return set_error(planned)
#define ENTER_DEVICE ENTER_DEVICE_AS(__func__)
// The same, in a context.
#define ENTER_CONTEXT                                                                                              \
    ENTER_DEVICE;                                                                                                  \
    need_context()

size_t most_shared() {
    return (machine.sm == 80 ? 163 : machine.sm / 10 == 9 || machine.sm / 10 == 10 ? 227 : 99) * 1024;
}

// By kernel and device.
std::map<std::pair<const void *, int>, int> shared_limits;
int shared_limit(const void *kernel) {
    return shared_limits.try_emplace({kernel, current_device()}, 48 * 1024).first->second;
}

} // namespace

namespace emulator {

void check_pointer(const void *pointer, const char *kernel) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (pointer && !on_device(pointer) && !is_pinned(pointer))
        stop("%p is handed to a kernel, but is an address of the host: %.80s", pointer, kernel);
}

cudaError_t get_attributes(cudaFuncAttributes *attributes, const void *kernel) {
    ENTER_DEVICE_AS("cudaFuncGetAttributes");
    need_context();
    if (machine.code < 0)
        return set_error(cudaErrorNoKernelImageForDevice);
    *attributes = {};
    attributes->ptxVersion = machine.code ? machine.code : machine.sm;
    attributes->binaryVersion = machine.sm;
    attributes->maxDynamicSharedSizeBytes = shared_limit(kernel);
    return cudaSuccess;
}
cudaError_t set_attribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    ENTER_DEVICE_AS("cudaFuncSetAttribute");
    need_context();
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || (size_t)value > most_shared())
        return set_error(cudaErrorInvalidValue);
    shared_limits[{kernel, current_device()}] = value;
    return cudaSuccess;
}

cudaError_t launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   std::function<void()> body) {
    ENTER_CONTEXT;
    const unsigned threads = block.x * block.y * block.z;
    if (!threads || threads > MAX_THREADS || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu ||
        grid.y > 65535 || grid.z > 65535)
        return set_error(cudaErrorInvalidConfiguration);
    if (machine.code < 0)
        return set_error(cudaErrorNoKernelImageForDevice);
    if (shared > (size_t)shared_limit(kernel))
        return set_error(cudaErrorInvalidValue);
    if (stream && stream->context != current.back())
        return set_error(cudaErrorInvalidResourceHandle);
    if (stream && stream->capture && stream->invalidated)
        return set_error(cudaErrorStreamCaptureInvalidated);
    counts.launches++;
    const std::string text = name;
    put(stream, [=] {
        run.name = text.c_str();
        run.body = &body;
        run.threads = threads;
        run.shared_bytes = shared;
        run.shared = run.shared_end - (shared + 127) / 128 * 128;
        gridDim = grid;
        blockDim = block;
        const uint64_t count = (uint64_t)grid.x * grid.y * grid.z;
        for (uint64_t i = 0; i < count; i++) {
            const uint64_t b = run.order ? count - 1 - i : i;
            blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
            run_block();
        }
        run.name = nullptr;
    });
    return cudaSuccess;
}

} // namespace emulator

extern "C" {

int emulator_present(void) { return 1; }
void emulator_set_machine(const emulator_machine *wanted) {
    ENTER;
    machine = wanted ? *wanted : default_machine;
}
void emulator_set_order(int order) {
    ENTER;
    run.order = order;
}
void emulator_fail_allocation(int64_t n) {
    ENTER;
    allocations_until_failure = n;
}
void emulator_fail_call(const char *name, int error) {
    ENTER;
    planned_failure = {name, (cudaError_t)error, nullptr, nullptr};
}
void emulator_interrupt(const char *name, void (*f)(void *user), void *user) {
    ENTER;
    planned_interruption = {name, cudaSuccess, f, user};
}
int emulator_contexts(int device) {
    ENTER;
    int count = (int)primaries.count(device);
    for (auto &c : others)
        count += c->device == device;
    return count;
}
void *emulator_make_context(int device) {
    ENTER;
    others.emplace_back(new CUctx_st{device});
    current.push_back(others.back().get());
    return current.back();
}
void *emulator_current_context(void) { return current.empty() ? nullptr : current.back(); }
void emulator_read_counts(emulator_counts *out) { *out = counts; }

static cudaError_t cuDevicePrimaryCtxRetain(CUctx_st **out, int device) {
    ENTER_DEVICE;
    if (device < 0 || device >= machine.devices)
        return cudaErrorInvalidDevice;
    *out = primary(device);
    return cudaSuccess;
}
static cudaError_t cuCtxGetCurrent(CUctx_st **out) {
    ENTER_DEVICE;
    *out = current.empty() ? nullptr : current.back();
    return cudaSuccess;
}
static cudaError_t cuCtxPushCurrent(CUctx_st *context) {
    ENTER_DEVICE;
    current.push_back(context);
    return cudaSuccess;
}
static cudaError_t cuCtxPopCurrent(CUctx_st **out) {
    ENTER_DEVICE;
    if (current.empty())
        return cudaErrorDeviceUninitialized;
    *out = current.back();
    current.pop_back();
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned, unsigned long long,
                                             enum cudaDriverEntryPointQueryResult *found) {
    static const std::map<std::string, void *> functions = {
        {"cuDevicePrimaryCtxRetain", (void *)cuDevicePrimaryCtxRetain},
        {"cuCtxGetCurrent", (void *)cuCtxGetCurrent},
        {"cuCtxPushCurrent", (void *)cuCtxPushCurrent},
        {"cuCtxPopCurrent", (void *)cuCtxPopCurrent},
    };
    ENTER_DEVICE;
    const auto at = functions.find(symbol);
    *function = at == functions.end() ? nullptr : at->second;
    *found = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    ENTER;
    *version = machine.driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    ENTER;
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    ENTER_DEVICE;
    *count = machine.devices;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    ENTER_DEVICE;
    *device = current_device();
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    ENTER_DEVICE;
    if (device < 0 || device >= machine.devices)
        return set_error(cudaErrorInvalidDevice);
    if (current.empty())
        current.push_back(nullptr);
    current.back() = primary(device);
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device) {
    ENTER_DEVICE;
    if (device < 0 || device >= machine.devices)
        return set_error(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "emulated device %d", device);
    prop->totalGlobalMem = machine.memory;
    prop->sharedMemPerBlock = 48 * 1024;
    prop->sharedMemPerBlockOptin = most_shared();
    prop->sharedMemPerMultiprocessor = most_shared() + 1024;
    prop->major = machine.sm / 10;
    prop->minor = machine.sm % 10;
    prop->multiProcessorCount = 46;
    prop->l2CacheSize = 16 << 10; // measuring plans takes copies of a layer that exceed it
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp p;
    const cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess)
        return error;
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 1536; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)p.sharedMemPerMultiprocessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    case cudaDevAttrPageableMemoryAccessUsesHostPageTables: *value = machine.host_page_tables; break;
    case cudaDevAttrMemoryPoolsSupported: *value = !machine.no_pools; break;
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    ENTER_CONTEXT;
    if (wait_allowed() != cudaSuccess)
        return last_error;
    counts.synchronizations++;
    drain_all();
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    ENTER_CONTEXT;
    *free_bytes = machine.memory - held[current_device()];
    *total_bytes = machine.memory;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
    const cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }

#define NAMES(X)                                                                                                   \
    X(cudaSuccess, "no error")                                                                                     \
    X(cudaErrorInvalidValue, "invalid argument")                                                                   \
    X(cudaErrorMemoryAllocation, "out of memory")                                                                  \
    X(cudaErrorInitializationError, "initialization error")                                                        \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                             \
    X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")                 \
    X(cudaErrorInvalidDeviceFunction, "invalid device function")                                                   \
    X(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable")                            \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                                     \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                                            \
    X(cudaErrorInvalidKernelImage, "device kernel image is invalid")                                               \
    X(cudaErrorDeviceUninitialized, "invalid device context")                                                      \
    X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device")                 \
    X(cudaErrorInvalidPtx, "a PTX JIT compilation failed")                                                         \
    X(cudaErrorJitCompilerNotFound, "PTX JIT compiler library not found")                                          \
    X(cudaErrorUnsupportedPtxVersion, "the provided PTX was compiled with an unsupported toolchain.")              \
    X(cudaErrorJitCompilationDisabled, "PTX JIT compilation was disabled")                                         \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                   \
    X(cudaErrorSymbolNotFound, "named symbol not found")                                                           \
    X(cudaErrorNotReady, "device not ready")                                                                       \
    X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                                         \
    X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                                    \
    X(cudaErrorNotSupported, "operation not supported")                                                            \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                       \
    X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")                \
    X(cudaErrorUnknown, "unknown error")
const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define X(name, text)                                                                                              \
    case name: return #name;
        NAMES(X)
#undef X
    }
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
#define X(name, text)                                                                                              \
    case name: return text;
        NAMES(X)
#undef X
    }
    return "unrecognized error code";
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
    ENTER_CONTEXT;
    if (wait_allowed() != cudaSuccess)
        return last_error;
    return set_error(allocate(out, bytes));
}
cudaError_t cudaFree(void *memory) {
    ENTER_CONTEXT;
    if (wait_allowed() != cudaSuccess)
        return last_error;
    drain_all();
    return set_error(release(memory));
}
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream) {
    ENTER_CONTEXT;
    if (real(stream)->capture)
        return set_error(cudaErrorNotSupported);
    return set_error(allocate(out, bytes));
}
cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream) {
    ENTER_CONTEXT;
    if (real(stream)->capture)
        return set_error(cudaErrorNotSupported);
    put(stream, [=] { release(memory); });
    return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device) {
    ENTER_DEVICE;
    *pool = (cudaMemPool_t)(uintptr_t)(device + 1);
    return cudaSuccess;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *props) {
    ENTER_DEVICE;
    if (machine.no_pools)
        return set_error(cudaErrorNotSupported);
    pools++;
    *pool = (cudaMemPool_t)(uintptr_t)(props->location.id + 1);
    return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t) {
    ENTER_DEVICE;
    if (--pools < 0)
        emulator::stop("a pool is destroyed twice");
    return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void **out, size_t bytes, cudaMemPool_t, cudaStream_t stream) {
    return cudaMallocAsync(out, bytes, stream);
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *value) {
    memset(value, 0, 8);
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaHostAlloc(out, bytes, 0); }
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    ENTER_CONTEXT;
    void *memory = nullptr;
    if (posix_memalign(&memory, 4096, bytes ? bytes : 1) != 0)
        return set_error(cudaErrorMemoryAllocation);
    memset(memory, 0xff, bytes);
    pinned[(char *)memory] = bytes;
    *out = memory;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *memory) {
    ENTER_CONTEXT;
    drain_all();
    pinned.erase((char *)memory);
    free(memory);
    return cudaSuccess;
}

static cudaError_t copy_rows(char *to, size_t to_pitch, const char *from, size_t from_pitch, size_t width, size_t height,
                             cudaMemcpyKind kind, cudaStream_t stream) {
    const bool to_device = on_device(to), from_device = on_device(from);
    if ((kind == cudaMemcpyHostToDevice && (!to_device || from_device)) ||
        (kind == cudaMemcpyDeviceToHost && (to_device || !from_device)) ||
        (kind == cudaMemcpyDeviceToDevice && (!to_device || !from_device)) || width > to_pitch || width > from_pitch)
        return set_error(cudaErrorInvalidValue);
    counts.copies_to_host += from_device && !to_device;
    const auto rows = [=](const char *source, size_t pitch) {
        for (size_t i = 0; i < height; i++)
            memmove(to + i * to_pitch, source + i * pitch, width);
    };
    if (!from_device && !is_pinned(from) && !machine.host_page_tables) {
        // pageable: the runtime takes the bytes before it returns
        auto bytes = std::make_shared<std::vector<char>>(width * height);
        for (size_t i = 0; i < height; i++)
            memcpy(bytes->data() + i * width, from + i * from_pitch, width);
        put(stream, [=] { rows(bytes->data(), width); });
        return cudaSuccess;
    }
    put(stream, [=] { rows(from, from_pitch); });
    if (!to_device && !is_pinned(to)) {
        if (wait_allowed() != cudaSuccess)
            return last_error;
        drain(real(stream));
    }
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                              enum cudaMemcpyKind kind, cudaStream_t stream) {
    ENTER_CONTEXT;
    return copy_rows((char *)to, to_pitch, (const char *)from, from_pitch, width, height, kind, stream);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    ENTER_CONTEXT;
    if (wait_allowed() != cudaSuccess)
        return last_error;
    const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    drain_all();
    return error;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    ENTER_CONTEXT;
    if (!on_device(to))
        return set_error(cudaErrorInvalidValue);
    put(stream, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
    ENTER_CONTEXT;
    auto *s = new CUstream_st;
    s->context = current.back();
    streams.insert(s);
    *out = s;
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *out) { return cudaStreamCreateWithFlags(out, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    ENTER_DEVICE;
    drain(stream);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    ENTER_CONTEXT;
    if (wait_allowed() != cudaSuccess)
        return last_error;
    counts.synchronizations++;
    if (!stream)
        drain_all();
    drain(real(stream));
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    ENTER_CONTEXT;
    drain(real(stream));
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode) {
    ENTER_CONTEXT;
    if (!stream || stream->capture)
        return set_error(cudaErrorStreamCaptureUnsupported);
    stream->capture = new CUgraph_st;
    stream->invalidated = false;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    ENTER_CONTEXT;
    *out = nullptr;
    if (!stream || !stream->capture || stream->origin)
        return set_error(cudaErrorInvalidValue);
    CUgraph_st *graph = stream->capture;
    const bool bad = stream->invalidated;
    for (CUstream_st *s : streams)
        if (s->origin == stream) {
            s->capture = nullptr;
            s->origin = nullptr;
        }
    stream->capture = nullptr;
    if (bad) {
        delete graph;
        return set_error(cudaErrorStreamCaptureInvalidated);
    }
    *out = graph;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    ENTER_DEVICE;
    CUstream_st *s = real(stream);
    *status = !s->capture        ? cudaStreamCaptureStatusNone
              : s->invalidated ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    ENTER_CONTEXT;
    *out = new CUgraphExec_st{graph->operations};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    ENTER_CONTEXT;
    counts.graph_launches++;
    for (const operation &op : graph->operations)
        put(stream, op);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    ENTER_DEVICE;
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    ENTER_DEVICE;
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
    ENTER_CONTEXT;
    *out = new CUevent_st;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    ENTER_DEVICE;
    if (event->stream && event->done < event->recorded)
        drain(event->stream);
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    ENTER_CONTEXT;
    CUstream_st *s = real(stream);
    event->capture = s->capture;
    event->stream = s;
    if (s->capture)
        return cudaSuccess; // operations of a graph run in the order in which they were captured
    const int64_t n = ++event->recorded;
    put(stream, [=] {
        event->done = n;
        event->time = now();
    });
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    ENTER_CONTEXT;
    CUstream_st *s = real(stream);
    if (event->capture) {
        if (!s->capture) {
            s->capture = event->capture;
            s->origin = event->stream->origin ? event->stream->origin : event->stream;
        }
        return cudaSuccess;
    }
    const int64_t n = event->recorded;
    put(stream, [=] {
        if (event->done < n)
            drain(event->stream);
    });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER_CONTEXT;
    if (wait_allowed() != cudaSuccess)
        return last_error;
    counts.synchronizations++;
    if (event->stream && event->done < event->recorded)
        drain(event->stream);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    ENTER_DEVICE;
    return event->done < event->recorded ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start_event, cudaEvent_t end) {
    ENTER_DEVICE;
    if (start_event->done < start_event->recorded || end->done < end->recorded)
        return cudaErrorNotReady;
    *milliseconds = (float)(1e3 * (end->time - start_event->time));
    return cudaSuccess;
}

} // extern "C"
