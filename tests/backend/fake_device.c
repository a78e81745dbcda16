/* fake_device.c - the CPU's operations behind a wall: the memory is mapped without any rights while
 * none of them runs. */
#include "fake_device.h"

#include <sys/mman.h>

#include "check_util.h"
#include "cpu.h"
#include "dense_ops.h"
#include "dtype.h"
#include "layer.h"
#include "lut_ops.h"
#include "memory_ops.h"
#include "model_ops.h"
#include "model/tiny.h"

/* One call of an operation, as it was made. */
typedef struct call {
    enum { EMBED, RMS_NORM, ADD_NORM, LAYER_NORM, RELU, HEADS, ATTENTION, SWIGLU, ADD, GEMM, GEMM_MANY, LINEAR } op;
    union {
        struct {
            int64_t M, D;
            const int32_t *ids;
            const void *weight;
            int32_t dtype;
            float *h;
        } embed;
        struct {
            int64_t M, D, ldx, ldy;
            const float *x, *b, *weight;
            float eps, *sum, *y;
        } norm;
        ganq__heads heads;
        ganq__attention attention;
        struct {
            int64_t count;
            const float *a, *b;
            float *y;
        } run;
        struct {
            int count;
            const ganq_layer *layers[GANQ__LUT_MANY];
            int64_t M, ldx, ldys[GANQ__LUT_MANY];
            const float *x;
            float *ys[GANQ__LUT_MANY];
        } product;
        struct {
            int64_t M, N, K, ldx, ldy;
            const float *x, *bias;
            const void *w;
            int32_t dtype;
            float *y;
        } linear;
    } as;
} call;

enum { MAX_CALLS = 256, MAX_ARRAYS = 512, PAGE = 4096 };

/* A decode step: what the session's `recording` points to. */
typedef struct recording {
    int count;
    call calls[MAX_CALLS];
} recording;

typedef struct fake {
    const ganq__dense_ops *dense;
    const ganq__lut_ops *lut;
    const ganq__model_ops *model;
    char *base;
    size_t size, used;
    struct {
        char *at;
        size_t bytes;
    } arrays[MAX_ARRAYS];
    int array_count;
    recording *open; /* between step_begin and step_end */
    fake_device_state state;
} fake;

static fake *fake_of(const ganq_context *ctx) {
    return ctx->device_state;
}

static void unlock_memory(const fake *f) {
    ck_assert_int_eq(mprotect(f->base, f->size, PROT_READ | PROT_WRITE), 0);
}
static void lock_memory(const fake *f) {
    ck_assert_int_eq(mprotect(f->base, f->size, PROT_NONE), 0);
}

/* Fails unless the bytes lie inside one array of the device. */
static void check_array(const fake *f, const void *at, int64_t bytes) {
    const char *p = at;
    for (int i = 0; i < f->array_count; i++)
        if (p >= f->arrays[i].at && p + bytes <= f->arrays[i].at + f->arrays[i].bytes)
            return;
    ck_abort_msg("an operation of the device got memory of the process");
}
static void check_floats(const fake *f, const float *at, int64_t count) {
    check_array(f, at, count * (int64_t)sizeof(float));
}

/* ---- memory ---- */

static ganq_status allocate(ganq_context *ctx, size_t bytes, void **out) {
    fake *f = fake_of(ctx);
    const size_t rounded = (bytes + PAGE - 1) / PAGE * PAGE;
    ck_assert_ptr_null(f->open);
    if (rounded > f->size - f->used)
        GANQ_FAIL(GANQ_ERR_NO_MEMORY, "out of memory: %zu bytes of the device, %zu are left", bytes,
                  f->size - f->used);
    ck_assert_int_lt(f->array_count, MAX_ARRAYS);
    f->arrays[f->array_count].at = f->base + f->used;
    f->arrays[f->array_count++].bytes = bytes;
    *out = f->base + f->used;
    f->used += rounded;
    f->state.arrays++;
    unlock_memory(f);
    memset(*out, 0xff, bytes); /* NaN */
    lock_memory(f);
    return GANQ_OK;
}

static void release(ganq_context *ctx, void *memory) {
    fake *f = fake_of(ctx);
    if (!memory)
        return;
    ck_assert_ptr_null(f->open);
    for (int i = 0; i < f->array_count; i++)
        if (f->arrays[i].at == memory) {
            f->arrays[i] = f->arrays[--f->array_count];
            f->state.arrays--;
            if (!f->array_count)
                f->used = 0;
            return;
        }
    ck_abort_msg("memory was released that the device never gave out");
}

static ganq_status carry(ganq_context *ctx, void *to, const void *from, size_t bytes,
                         const void *on_device) {
    fake *f = fake_of(ctx);
    ck_assert_ptr_null(f->open);
    check_array(f, on_device, (int64_t)bytes);
    unlock_memory(f);
    memcpy(to, from, bytes);
    lock_memory(f);
    return GANQ_OK;
}
static ganq_status upload(ganq_context *ctx, void *to, const void *from, size_t bytes) {
    return carry(ctx, to, from, bytes, to);
}
static ganq_status download(ganq_context *ctx, void *to, const void *from, size_t bytes) {
    return carry(ctx, to, from, bytes, from);
}
static ganq_status copy(ganq_context *ctx, void *to, const void *from, size_t bytes) {
    check_array(fake_of(ctx), to, (int64_t)bytes);
    return carry(ctx, to, from, bytes, from);
}
static int64_t available(ganq_context *ctx) {
    return (int64_t)(fake_of(ctx)->size - fake_of(ctx)->used);
}

static const ganq__memory_ops memory_ops = {.allocate = allocate,
                                            .release = release,
                                            .upload = upload,
                                            .download = download,
                                            .copy = copy,
                                            .available = available};

/* ---- operations ---- */

static void check_call(const fake *f, const ganq_context *ctx, const call *c) {
    switch (c->op) {
    case EMBED:
        check_array(f, c->as.embed.ids, 4 * c->as.embed.M);
        check_array(f, c->as.embed.weight, (int64_t)ganq__dtype_size(c->as.embed.dtype));
        check_floats(f, c->as.embed.h, c->as.embed.M * c->as.embed.D);
        break;
    case RMS_NORM:
        check_floats(f, c->as.norm.x, (c->as.norm.M - 1) * c->as.norm.ldx + c->as.norm.D);
        check_floats(f, c->as.norm.weight, c->as.norm.D);
        check_floats(f, c->as.norm.y, (c->as.norm.M - 1) * c->as.norm.ldy + c->as.norm.D);
        break;
    case ADD_NORM: {
        const int64_t count = c->as.norm.M * c->as.norm.D;
        check_floats(f, c->as.norm.x, count);
        check_floats(f, c->as.norm.b, count);
        check_floats(f, c->as.norm.sum, count);
        check_floats(f, c->as.norm.weight, c->as.norm.D);
        check_floats(f, c->as.norm.y, count);
        break;
    }
    case LAYER_NORM:
        check_floats(f, c->as.norm.x, c->as.norm.M * c->as.norm.D);
        check_floats(f, c->as.norm.b, c->as.norm.D);
        check_floats(f, c->as.norm.weight, c->as.norm.D);
        check_floats(f, c->as.norm.y, c->as.norm.M * c->as.norm.D);
        break;
    case RELU:
        check_floats(f, c->as.run.y, c->as.run.count);
        break;
    case HEADS: {
        const ganq__heads *a = &c->as.heads;
        const int64_t cache =
            a->kv_heads * a->capacity * a->head_dim * (int64_t)ganq__dtype_size(a->cache_dtype);
        if (a->q_norm)
            check_floats(f, a->q_norm, a->head_dim);
        if (a->k_norm)
            check_floats(f, a->k_norm, a->head_dim);
        if (a->counter)
            check_array(f, a->counter, 4);
        check_floats(f, a->cosines, (a->position + a->M) * a->head_dim / 2);
        check_floats(f, a->sines, (a->position + a->M) * a->head_dim / 2);
        check_floats(f, a->q, a->M * a->heads * a->head_dim);
        check_floats(f, a->k, a->M * a->kv_heads * a->head_dim);
        check_floats(f, a->v, a->M * a->kv_heads * a->head_dim);
        check_array(f, a->keys, cache);
        check_array(f, a->values, cache);
        break;
    }
    case ATTENTION: {
        const ganq__attention *a = &c->as.attention;
        const int64_t cache =
            a->kv_heads * a->capacity * a->head_dim * (int64_t)ganq__dtype_size(a->cache_dtype);
        if (a->counter)
            check_array(f, a->counter, 4);
        check_floats(f, a->q, a->M * a->heads * a->head_dim);
        check_array(f, a->keys, cache);
        check_array(f, a->values, cache);
        check_floats(f, a->out, a->M * a->heads * a->head_dim);
        break;
    }
    case SWIGLU:
    case ADD:
        check_floats(f, c->as.run.a, c->as.run.count);
        check_floats(f, c->as.run.b, c->as.run.count);
        check_floats(f, c->as.run.y, c->as.run.count);
        break;
    case GEMM:
    case GEMM_MANY:
        for (int i = 0; i < c->as.product.count; i++) {
            const ganq_layer *layer = c->as.product.layers[i];
            const int64_t M = c->as.product.M;
            ck_assert_int_eq(layer->K, c->as.product.layers[0]->K);
            ck_assert_ptr_eq(ganq__attachment_find(&layer->attachments, ctx), layer);
            check_floats(f, c->as.product.x, (M - 1) * c->as.product.ldx + layer->K);
            check_floats(f, c->as.product.ys[i], (M - 1) * c->as.product.ldys[i] + layer->N);
        }
        break;
    case LINEAR:
        check_floats(f, c->as.linear.x, (c->as.linear.M - 1) * c->as.linear.ldx + c->as.linear.K);
        check_array(f, c->as.linear.w,
                    c->as.linear.N * c->as.linear.K *
                        (int64_t)ganq__dtype_size(c->as.linear.dtype));
        if (c->as.linear.bias)
            check_floats(f, c->as.linear.bias, c->as.linear.N);
        check_floats(f, c->as.linear.y, (c->as.linear.M - 1) * c->as.linear.ldy + c->as.linear.N);
        break;
    }
}

/* The CPU's operation; the memory is unlocked. */
static ganq_status forward(const fake *f, ganq_context *ctx, const call *c) {
    switch (c->op) {
    case EMBED:
        return f->model->embed(ctx, c->as.embed.M, c->as.embed.D, c->as.embed.ids,
                               c->as.embed.weight, c->as.embed.dtype, c->as.embed.h);
    case RMS_NORM:
        return f->model->rms_norm(ctx, c->as.norm.M, c->as.norm.D, c->as.norm.x, c->as.norm.ldx,
                                  c->as.norm.weight, c->as.norm.eps, c->as.norm.y, c->as.norm.ldy);
    case ADD_NORM:
        return f->model->add_norm(ctx, c->as.norm.M, c->as.norm.D, c->as.norm.x, c->as.norm.b,
                                  c->as.norm.sum, c->as.norm.weight, c->as.norm.eps, c->as.norm.y);
    case LAYER_NORM:
        return f->model->layer_norm(ctx, c->as.norm.M, c->as.norm.D, c->as.norm.x,
                                    c->as.norm.weight, c->as.norm.b, c->as.norm.eps, c->as.norm.y);
    case RELU:
        return f->model->relu(ctx, c->as.run.count, c->as.run.y);
    case HEADS:
        return f->model->heads(ctx, &c->as.heads);
    case ATTENTION:
        return f->model->attention(ctx, &c->as.attention);
    case SWIGLU:
        return f->model->swiglu(ctx, c->as.run.count, c->as.run.y, c->as.run.b);
    case ADD:
        return f->model->add(ctx, c->as.run.count, c->as.run.a, c->as.run.b, c->as.run.y);
    case GEMM:
        return f->lut->gemm(ctx, c->as.product.layers[0], c->as.product.M, c->as.product.x,
                            c->as.product.ldx, c->as.product.ys[0], c->as.product.ldys[0]);
    case GEMM_MANY:
        for (int i = 0; i < c->as.product.count; i++)
            GANQ_TRY(f->lut->gemm(ctx, c->as.product.layers[i], c->as.product.M, c->as.product.x,
                                  c->as.product.ldx, c->as.product.ys[i], c->as.product.ldys[i]));
        return GANQ_OK;
    case LINEAR:
        return f->dense->linear(ctx, c->as.linear.M, c->as.linear.N, c->as.linear.K, c->as.linear.x,
                                c->as.linear.ldx, c->as.linear.w, c->as.linear.dtype,
                                c->as.linear.bias, c->as.linear.y, c->as.linear.ldy);
    }
    return GANQ_ERR_INTERNAL;
}

static ganq_status perform(ganq_context *ctx, const call *c) {
    fake *f = fake_of(ctx);
    check_call(f, ctx, c);
    if (f->open) {
        ck_assert_int_lt(f->open->count, MAX_CALLS);
        f->open->calls[f->open->count++] = *c;
    }
    unlock_memory(f);
    const ganq_status status = forward(f, ctx, c);
    lock_memory(f);
    return status;
}

static ganq_status embed(ganq_context *ctx, int64_t M, int64_t D, const int32_t *ids,
                         const void *weight, int32_t dtype, float *h) {
    const call c = {.op = EMBED, .as.embed = {M, D, ids, weight, dtype, h}};
    return perform(ctx, &c);
}
static ganq_status rms_norm(ganq_context *ctx, int64_t M, int64_t D, const float *x, int64_t ldx,
                            const float *weight, float eps, float *y, int64_t ldy) {
    const call c = {.op = RMS_NORM, .as.norm = {M, D, ldx, ldy, x, NULL, weight, eps, NULL, y}};
    return perform(ctx, &c);
}
static ganq_status add_norm(ganq_context *ctx, int64_t M, int64_t D, const float *a, const float *b,
                            float *sum, const float *weight, float eps, float *y) {
    const call c = {.op = ADD_NORM, .as.norm = {M, D, D, D, a, b, weight, eps, sum, y}};
    return perform(ctx, &c);
}
static ganq_status layer_norm(ganq_context *ctx, int64_t M, int64_t D, const float *x,
                              const float *weight, const float *bias, float eps, float *y) {
    const call c = {.op = LAYER_NORM, .as.norm = {M, D, D, D, x, bias, weight, eps, NULL, y}};
    return perform(ctx, &c);
}
static ganq_status relu(ganq_context *ctx, int64_t count, float *x) {
    const call c = {.op = RELU, .as.run = {count, NULL, NULL, x}};
    return perform(ctx, &c);
}
static ganq_status heads(ganq_context *ctx, const ganq__heads *a) {
    const call c = {.op = HEADS, .as.heads = *a};
    return perform(ctx, &c);
}
static ganq_status attention(ganq_context *ctx, const ganq__attention *a) {
    const call c = {.op = ATTENTION, .as.attention = *a};
    return perform(ctx, &c);
}
static ganq_status swiglu(ganq_context *ctx, int64_t count, float *gate, const float *up) {
    const call c = {.op = SWIGLU, .as.run = {count, gate, up, gate}};
    return perform(ctx, &c);
}
static ganq_status add(ganq_context *ctx, int64_t count, const float *a, const float *b, float *y) {
    const call c = {.op = ADD, .as.run = {count, a, b, y}};
    return perform(ctx, &c);
}
static ganq_status gemm(ganq_context *ctx, const ganq_layer *layer, int64_t M, const float *x,
                        int64_t ldx, float *y, int64_t ldy) {
    const call c = {.op = GEMM, .as.product = {1, {layer}, M, ldx, {ldy}, x, {y}}};
    return perform(ctx, &c);
}
static ganq_status gemm_many(ganq_context *ctx, int count, const ganq_layer *const *layers,
                             int64_t M, const float *x, int64_t ldx, float *const *ys,
                             const int64_t *ldys) {
    call c = {.op = GEMM_MANY, .as.product = {count, {NULL}, M, ldx, {0}, x, {NULL}}};
    ck_assert(count >= 1 && count <= GANQ__LUT_MANY);
    for (int i = 0; i < count; i++) {
        c.as.product.layers[i] = layers[i];
        c.as.product.ys[i] = ys[i];
        c.as.product.ldys[i] = ldys[i];
    }
    fake_of(ctx)->state.products++;
    return perform(ctx, &c);
}
static ganq_status linear(ganq_context *ctx, int64_t M, int64_t N, int64_t K, const float *x,
                          int64_t ldx, const void *w, int32_t wdtype, const float *bias, float *y,
                          int64_t ldy) {
    const call c = {.op = LINEAR, .as.linear = {M, N, K, ldx, ldy, x, bias, w, wdtype, y}};
    return perform(ctx, &c);
}

/* The CPU's product reads the layer itself; what is placed is the layer. */
static ganq_status place(ganq_context *ctx, const ganq_layer *layer, void **out) {
    fake *f = fake_of(ctx);
    ck_assert_ptr_null(f->open);
    GANQ_TRY(ganq__layer_prepare(layer));
    f->state.layers++;
    *out = (ganq_layer *)layer;
    return GANQ_OK;
}
static void unplace(ganq_context *ctx, void *placed) {
    (void)placed;
    fake_of(ctx)->state.layers--;
}
static int64_t placed_bytes(const ganq_layer *layer) {
    return layer->N * layer->row_bytes;
}

/* ---- decode steps ---- */

/* The first step records, every second one after it is a replay; the others must be the recording
 * again but for the position. */
static ganq_status step_begin(ganq_context *ctx, void **slot, int64_t position, int *replayed) {
    fake *f = fake_of(ctx);
    recording *r = *slot;
    ck_assert_ptr_null(f->open);
    *replayed = 0;
    if (!r || position % 2) {
        f->open = calloc(1, sizeof *f->open);
        return GANQ_OK;
    }
    for (int i = 0; i < r->count; i++) {
        call c = r->calls[i];
        unlock_memory(f);
        if (c.op == HEADS)
            c.as.heads.position = *c.as.heads.counter;
        if (c.op == ATTENTION)
            c.as.attention.position = *c.as.attention.counter;
        lock_memory(f);
        GANQ_TRY(perform(ctx, &c));
    }
    f->state.replays++;
    *replayed = 1;
    return GANQ_OK;
}

static ganq_status step_end(ganq_context *ctx, void **slot, ganq_status status, int *again) {
    fake *f = fake_of(ctx);
    recording *made = f->open, *before = *slot;
    *again = 0;
    ck_assert_ptr_nonnull(made);
    f->open = NULL;
    if (status != GANQ_OK) {
        free(made);
        return status;
    }
    for (int i = 0; i < made->count; i++) {
        ck_assert(made->calls[i].op != HEADS || made->calls[i].as.heads.counter);
        ck_assert(made->calls[i].op != ATTENTION || made->calls[i].as.attention.counter);
        if (made->calls[i].op == HEADS)
            made->calls[i].as.heads.position = 0;
        if (made->calls[i].op == ATTENTION)
            made->calls[i].as.attention.position = 0;
    }
    if (before) {
        ck_assert_int_eq(made->count, before->count);
        ck_assert_mem_eq(made->calls, before->calls, (size_t)made->count * sizeof *made->calls);
        free(before);
    }
    *slot = made;
    f->state.steps++;
    return GANQ_OK;
}

static void step_forget(ganq_context *ctx, void *slot) {
    (void)ctx;
    free(slot);
}

/* ---- the device ---- */

static const ganq__dense_ops dense_ops = {.linear = linear};
static const ganq__lut_ops lut_ops = {.gemm = gemm,
                                      .gemm_many = gemm_many,
                                      .place = place,
                                      .unplace = unplace,
                                      .placed_bytes = placed_bytes};
static const ganq__model_ops model_ops = {.embed = embed,
                                          .rms_norm = rms_norm,
                                          .add_norm = add_norm,
                                          .layer_norm = layer_norm,
                                          .relu = relu,
                                          .heads = heads,
                                          .attention = attention,
                                          .swiglu = swiglu,
                                          .add = add,
                                          .step_begin = step_begin,
                                          .step_end = step_end,
                                          .step_forget = step_forget};

static void close_device(ganq_context *ctx) {
    fake *f = fake_of(ctx);
    ck_assert_int_eq(f->state.arrays, 0);
    ck_assert_int_eq(f->state.layers, 0);
    munmap(f->base, f->size);
    free(f);
}

static const ganq__backend backend = {
    .name = "fake", .kind = GANQ_DEVICE_CUDA, .close = close_device};

ganq_context *fake_device_context(int threads, size_t bytes) {
    ganq_context *ctx = test_context(threads, NULL);
    fake *f = calloc(1, sizeof *f);
    f->dense = ctx->dense;
    f->lut = ctx->lut;
    f->model = ctx->model;
    f->size = (bytes + PAGE - 1) / PAGE * PAGE;
    f->base = mmap(NULL, f->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(f->base, MAP_FAILED);
    ctx->backend = &backend;
    ctx->memory = &memory_ops;
    ctx->dense = &dense_ops;
    ctx->lut = &lut_ops;
    ctx->model = &model_ops;
    ctx->device_state = f;
    snprintf(ctx->device_name, sizeof ctx->device_name, "fake device");
    return ctx;
}

fake_device_state fake_device_look(const ganq_context *ctx) {
    return fake_of(ctx)->state;
}
