/* rtn.c - round to nearest: 2^bits even steps from a row's smallest to its largest value. */
#include <math.h>
#include <string.h>

#include "internal.h"

void ganq__uniform_table(int levels, int64_t count, const float *w, float *lut) {
    float low = w[0], high = w[0];
    for (int64_t k = 1; k < count; k++) {
        low = fminf(low, w[k]);
        high = fmaxf(high, w[k]);
    }
    for (int s = 0; s < levels; s++)
        lut[s] = (float)(low + ((double)high - low) * s / (levels - 1));
}

/* Outliers (GANQ*) are the row's extremes, and do not stretch the grid. */
static void round_rows(void *user, int64_t item, int worker) {
    ganq__result *result = user;
    ganq__problem *problem = result->problem;
    const int64_t K = problem->K, per_tile = ganq__tile_rows(K);
    if (ganq__problem_pause(problem, worker))
        return;
    double *scratch = ganq__malloc((size_t)(3 * K), sizeof *scratch);
    float *values = ganq__malloc((size_t)K, sizeof *values);
    uint8_t *marks = ganq__malloc((size_t)K, 1);
    if (!scratch || !values || !marks)
        ganq__tile_failed(problem);
    for (int64_t n = item * per_tile;
         scratch && values && marks && n < (item + 1) * per_tile && n < problem->N; n++) {
        const float *w = problem->w + n * K;
        uint8_t *codes = result->codes + n * K;
        float *lut = result->lut + n * problem->levels;
        const int64_t outliers = ganq__outlier_count(problem, n, result->plan->outlier_ratio);
        memset(marks, 0, (size_t)K);
        ganq__mark_extremes(K, w, NULL, 0, outliers, GANQ__EXACT, scratch, marks);
        int64_t left = 0;
        for (int64_t k = 0; k < K; k++)
            if (ganq__has_code(marks[k]))
                values[left++] = w[k];
        ganq__uniform_table(problem->levels, left, values, lut);
        ganq__nearest_codes(problem, n, lut, codes);
        for (int64_t k = 0; k < K; k++)
            if (!ganq__has_code(marks[k]))
                codes[k] = GANQ__EXACT;
    }
    ganq__free(scratch);
    ganq__free(values);
    ganq__free(marks);
    atomic_fetch_add(&problem->tiles_done, 1);
}

ganq_status ganq__solve_rtn(ganq__result *result) {
    const int64_t rows = ganq__tile_rows(result->problem->K);
    return ganq__run_host_tiles(result, (result->problem->N + rows - 1) / rows, round_rows, result,
                                0.05, 0.5);
}
