/* test_lut_layout.c - tile16, the layout of codes on a GPU: every code comes back from where the
 * index maps say it lies, for odd numbers of rows and columns; and the plans: what fits, what is
 * chosen, the file of measured ones. */
#include <sys/wait.h>
#include <unistd.h>

#include "check_util.h"
#include "alloc.h"
#include "file.h"
#include "ganq/ganq.h"
#include "layer.h"
#include "lut_gemm.h"
#include "lut_layout.h"
#include "memory_ops.h"

/* The code of row n, column k, found by walking the layout as a kernel does: unit, vector, lane,
 * word, byte. */
static int code_at(const uint32_t *codes, int bits, int64_t K, int64_t n, int64_t k) {
    const int64_t units = ganq__lut_units(K, bits), unit = k / ganq__unit_columns(bits);
    const int q = (int)(k % ganq__unit_columns(bits) / GANQ__TILE_COLUMNS),
              c = (int)(k % GANQ__TILE_COLUMNS);
    for (int lane = 0; lane < 32; lane++)
        for (int j = 0; j < GANQ__TILE_WORDS; j++)
            for (int b = 0; b < 4; b++) {
                const int first = ganq__pair_column(lane, j, b);
                if (ganq__pair_row(lane, b) != n % 16 || (first != c && first + 1 != c))
                    continue;
                uint32_t stored[12], words[4];
                for (int v = 0; v < ganq__unit_vectors(bits); v++)
                    memcpy(stored + 4 * v,
                           codes + 4 * ganq__lut_vector(n / 16, unit, units, bits, v, lane), 16);
                ganq__pair_words(bits, stored + bits * q, words);
                const int pair = (int)(words[j] >> 8 * b & 0xff);
                return first == c ? pair & ((1 << bits) - 1) : pair >> bits;
            }
    return -1;
}

/* Every pair of a tile belongs to exactly one lane, word and byte. */
START_TEST(test_maps) {
    int seen[16][64] = {{0}};
    for (int lane = 0; lane < 32; lane++)
        for (int j = 0; j < 4; j++)
            for (int b = 0; b < 4; b++)
                for (int i = 0; i < 2; i++)
                    seen[ganq__pair_row(lane, b)][ganq__pair_column(lane, j, b) + i]++;
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 64; c++)
            ck_assert_int_eq(seen[r][c], 1);
    for (int bits = 2; bits <= 4; bits++)
        for (uint32_t i = 0; i < 1000; i++) {
            uint32_t words[4], stored[4], back[4];
            const uint32_t mask = 0x01010101u * ((1u << 2 * bits) - 1);
            for (uint32_t j = 0; j < 4; j++)
                words[j] = (i * 2654435761u + j * 40503u * (i + 1)) & mask;
            ganq__stored_words(bits, words, stored);
            ganq__pair_words(bits, stored, back);
            ck_assert_mem_eq(words, back, sizeof words);
        }
}
END_TEST

/* An image of X: every element has a place of its own in its 64 columns' piece, and the products of warpgroups find there, at
 * place p of the 16 of word j, the element whose code the A operand has at that place. */
START_TEST(test_image) {
    static const int wides[] = {16, 64, 192};
    for (int w = 0; w < 3; w++) {
        enum { K = 256, COLUMNS = 200 };
        const int wide = wides[w], tiles = (COLUMNS + wide - 1) / wide;
        uint8_t *seen = calloc((size_t)(tiles * wide * K), 1);
        for (int64_t column = 0; column < COLUMNS; column++)
            for (int64_t k = 0; k < K; k++) {
                const int64_t at = ganq__image_offset(column, k, K, wide),
                              row = (column / wide * (K / 64) + k / 64) * wide + column % wide;
                ck_assert_int_eq(at / 128, row);
                ck_assert_int_eq(at % 2, 0);
                ck_assert_int_eq(seen[at / 2]++, 0);
                if (k % 2)
                    ck_assert_int_eq(at, ganq__image_offset(column, k - 1, K, wide) + 2);
                const int piece = (int)(at % 128 / 16) ^ (int)(row % 8), p = piece % 2 * 8 + (int)(at % 16) / 2, j = piece / 2;
                /* register i of A in lane t: places 2t + 8 (i / 2) and the next; its byte of word j: see lookup */
                const int t = p % 8 / 2, b = p / 8;
                ck_assert_int_eq(ganq__pair_column(t, j, b) + p % 2, k % 64);
                ck_assert_int_eq(ganq__pair_column(t, j, 2 + b) + p % 2, k % 64);
            }
        free(seen);
    }
    for (int bits = 2; bits <= 4; bits++) {
        ck_assert_int_eq(ganq__image_step(bits) % ganq__unit_columns(bits), 0);
        ck_assert_int_eq(ganq__image_columns(257, bits), bits == 3 ? 512 : 384);
    }
}
END_TEST

START_TEST(test_round_trip) {
    static const int64_t shapes[][2] = {{1, 1},    {16, 64},   {17, 65},
                                        {31, 255}, {1100, 33}, {5, 515}};
    const ganq_context_options options = {.struct_size = sizeof options,
                                          .device = GANQ_DEVICE_CUDA};
    const int bits = _i;
    ganq_context *ctx;
    ck_ganq_ok(ganq_context_create(&options, &ctx));
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int64_t N = shapes[s][0], K = shapes[s][1], bytes = ganq__lut_code_bytes(N, K, bits);
        uint8_t *codes = malloc((size_t)(N * K));
        float *lut = calloc((size_t)(N << bits), 4);
        uint32_t *image = malloc((size_t)bytes);
        ganq_layer *layer;
        void *placed;
        for (int64_t n = 0; n < N; n++)
            for (int e = 0; e < 1 << bits; e++)
                lut[(n << bits) + e] = (float)e; /* ascending: codes are not renumbered */
        for (int64_t i = 0; i < N * K; i++)
            codes[i] = (uint8_t)((i * 2654435761u >> 13) & ((1u << bits) - 1));
        ck_ganq_ok(ganq__layer_create(bits, N, K, codes, lut, GANQ_DTYPE_F16, NULL, NULL, NULL,
                                      NULL, GANQ_DTYPE_F32, &layer));
        ck_ganq_ok(ganq__lut_ops_cuda.place(ctx, layer, &placed));
        ck_ganq_ok(ctx->memory->download(ctx, image, ((ganq__lut_placed *)placed)->part.codes,
                                         (size_t)bytes));
        for (int64_t n = 0; n<N; n += N> 100 ? 97 : 1)
            for (int64_t k = 0; k < K; k++)
                ck_assert_int_eq(code_at(image, bits, K, n, k), codes[n * K + k]);
        if (N % 16)
            ck_assert_int_eq(code_at(image, bits, K, N, 0), 0);
        ganq__lut_ops_cuda.unplace(ctx, placed);
        ganq_layer_free(layer);
        free(codes), free(lut), free(image);
    }
    ganq_context_free(ctx);
}
END_TEST

static const ganq__lut_shape decode_4090 = {
    .sm = 89, .multiprocessors = 128, .bits = 4, .N = 4096, .K = 4096, .M = 1, .columns = 1};

/* Whatever is chosen can run, on every architecture. */
START_TEST(test_choice) {
    static const int sms[] = {80, 86, 87, 89, 90, 100, 120, 130};
    for (size_t i = 0; i < sizeof sms / sizeof *sms; i++)
        for (int bits = 2; bits <= 4; bits++)
            for (int64_t columns = 1; columns <= 4096; columns = columns * 3 / 2 + 1)
                for (int64_t N = 1; N < 100000; N *= 7)
                    for (int flags = 0; flags < 4; flags++) {
                        ganq__lut_shape shape = decode_4090;
                        ganq__lut_plan plans[GANQ__LUT_CANDIDATES];
                        shape.sm = sms[i], shape.bits = bits, shape.N = N,
                        shape.M = shape.columns = columns;
                        shape.K = 64 * N, shape.simt_only = flags & 1,
                        shape.needs_columns = flags >> 1;
                        const ganq__lut_plan plan = ganq__lut_choose(NULL, &shape);
                        ck_assert_msg(ganq__lut_plan_fits(&plan, &shape),
                                      "sm %d, %d bits, %d columns, N %d: variant %d", sms[i], bits,
                                      (int)columns, (int)N, plan.variant);
                        const int count = ganq__lut_candidates(&shape, plans, GANQ__LUT_CANDIDATES);
                        ck_assert(count >= 1 && count < GANQ__LUT_CANDIDATES);
                        ck_assert_mem_eq(&plans[0], &plan, sizeof plan);
                    }
    /* Warpgroups are sm_90's alone. */
    const ganq__lut_plan wgmma = {GANQ__LUT_WGMMA, 8, 32, 0, 1};
    ganq__lut_shape prefill = decode_4090;
    prefill.M = prefill.columns = 512;
    ck_assert(!ganq__lut_plan_fits(&wgmma, &prefill));
    prefill.sm = 90;
    ck_assert(ganq__lut_plan_fits(&wgmma, &prefill));
    prefill.exact = 1;
    ck_assert(!ganq__lut_plan_fits(&wgmma, &prefill));
    prefill.exact = 0;
    prefill.sm = 100;
    ck_assert(!ganq__lut_plan_fits(&wgmma, &prefill));
    const ganq__lut_plan plan = ganq__lut_choose(NULL, &decode_4090);
    ck_assert_int_eq(plan.variant, GANQ__LUT_MMA);
    ck_assert_int_eq(plan.copies, 1);
    ck_assert_int_eq(plan.splits, 1);
    ck_assert_int_eq(ganq__lut_class(1), 1);
    ck_assert_int_eq(ganq__lut_class(9), 16);
}
END_TEST

START_TEST(test_file) {
    const char *dir = test_dir();
    char path[600], *text;
    size_t size;
    ganq__lut_tuning tuning, back;
    ganq__lut_tuned row = {.sm = 89,
                           .multiprocessors = 128,
                           .bits = 4,
                           .columns = 1,
                           .N = 4096,
                           .K = 4096,
                           .plan = {GANQ__LUT_SIMT, 4, 1, 4, 2},
                           .microseconds = 12.5};
    setenv("XDG_CACHE_HOME", dir, 1);
    unsetenv("GANQ_CACHE_DIR");
    ck_ganq_ok(ganq__lut_tuning_path(path, sizeof path));
    ck_assert_ptr_nonnull(strstr(path, "/ganq/lut-tuning.txt"));
    ck_ganq_ok(ganq__lut_tuning_read(path, &tuning)); /* not there: no rows */
    ck_assert_int_eq(tuning.count, 0);
    ck_ganq_ok(ganq__lut_tuning_set(&tuning, &row));
    row.columns = 8;
    ck_ganq_ok(ganq__lut_tuning_set(&tuning, &row));
    row.plan = (ganq__lut_plan){GANQ__LUT_MMA, 8, 1, 2, 1, 1};
    ck_ganq_ok(ganq__lut_tuning_set(&tuning, &row));
    ck_assert_int_eq(tuning.count, 2);
    ck_ganq_ok(ganq__lut_tuning_write(path, &tuning));
    ck_ganq_ok(ganq__lut_tuning_read(path, &back));
    ck_assert_int_eq(back.count, 2);
    ck_assert_mem_eq(&back.rows[0].plan, &tuning.rows[0].plan, sizeof row.plan);
    ck_assert_mem_eq(&back.rows[1].plan, &row.plan, sizeof row.plan);
    /* A measured row comes first; for another shape, or where it cannot run, the built-in ones. */
    ck_assert_int_eq(ganq__lut_choose(&back, &decode_4090).variant, GANQ__LUT_SIMT);
    ganq__lut_shape other = decode_4090;
    other.K = 4160;
    ck_assert_int_eq(ganq__lut_choose(&back, &other).variant, GANQ__LUT_MMA);
    back.rows[0].plan.splits = 99;
    ck_assert_int_eq(ganq__lut_choose(&back, &decode_4090).variant, GANQ__LUT_MMA);
    ganq__lut_tuning_free(&back);
    ganq__lut_tuning_free(&tuning);
    ck_ganq_ok(ganq__file_read(path, 10000, &text, &size));
    ck_ganq_ok(ganq__file_write(path, text, size - 4));
    ck_ganq_ok(ganq__file_write(path, "ganq lut-tuning 1\n89 128 4\n", 27));
    ck_ganq_ok(ganq__lut_tuning_read(path, &back)); /* of an older version: measured anew */
    ck_assert_int_eq(back.count, 0);
    ck_ganq_ok(ganq__file_write(path, "ganq lut-tuning 2\n89 128 4\n", 27));
    ck_ganq_fails(ganq__lut_tuning_read(path, &back), GANQ_ERR_FORMAT, "line 2");
    ck_ganq_ok(ganq__file_write(path, "something\n", 10));
    ck_ganq_fails(ganq__lut_tuning_read(path, &back), GANQ_ERR_FORMAT, "line 1");
    ganq__free(text);
    ck_ganq_ok(ganq__remove_tree(dir));
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    ck_ganq_fails(ganq__lut_tuning_path(path, sizeof path), GANQ_ERR_NOT_FOUND, "HOME");
}
END_TEST

/* Processes that measure side by side, in a folder that is not there yet, lose nothing of each other's. */
START_TEST(test_side_by_side) {
    enum { PROCESSES = 4, ROWS = 8 };
    char dir[300], path[600];
    ganq__lut_tuning tuning;
    int status, anew;
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/a/b/lut-tuning.txt", dir);
    for (int p = 0; p < PROCESSES; p++) {
        if (fork() > 0)
            continue;
        for (int i = 0; i < ROWS; i++) {
            const ganq__lut_tuned row = {89, 128, 4, p + 1, 1 + i, 64, {GANQ__LUT_SIMT, 4, 1, 4, 2, 0}, 1};
            if (ganq__lut_tuning_keep(path, &row, &anew) != GANQ_OK || anew)
                _exit(1);
        }
        _exit(0);
    }
    for (int p = 0; p < PROCESSES; p++) {
        ck_assert_int_gt(wait(&status), 0);
        ck_assert_int_eq(status, 0);
    }
    ck_ganq_ok(ganq__lut_tuning_read(path, &tuning));
    ck_assert_int_eq(tuning.count, PROCESSES * ROWS);
    ck_ganq_ok(ganq__file_write(path, "damaged\n", 8));
    ck_ganq_ok(ganq__lut_tuning_keep(path, &tuning.rows[0], &anew));
    ck_assert_int_eq(anew, 1);
    ck_assert_ptr_nonnull(strstr(ganq_last_error(), "line 1"));
    ganq__lut_tuning_free(&tuning);
    ck_ganq_ok(ganq__lut_tuning_read(path, &tuning));
    ck_assert_int_eq(tuning.count, 1);
    ganq__lut_tuning_free(&tuning);
    ck_ganq_ok(ganq__remove_tree(dir));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lut_layout");
    TCase *tests = tcase_create("layout and plans");
    suite_add_tcase(suite, tests);
    tcase_add_test(tests, test_maps);
    tcase_add_test(tests, test_image);
    tcase_add_loop_test(tests, test_round_trip, 2, 5);
    tcase_add_test(tests, test_choice);
    tcase_add_test(tests, test_file);
    tcase_add_test(tests, test_side_by_side);
    return test_run(suite, 0);
}
