/* PAPER against algorithm 1 of the paper (arXiv 2501.12956), written out in float64 with one-hot
 * codes. */
#include "solver_util.h"

enum { N = 12, K = 48 };

/* a = L L^T, lower; non-zero when it is not positive definite. Sums in float when `single`. */
static int cholesky(double *l, const double *a, int single) {
    memset(l, 0, K * K * sizeof *l);
    for (int i = 0; i < K; i++)
        for (int j = 0; j <= i; j++) {
            double sum = a[i * K + j];
            for (int u = 0; u < j; u++) {
                sum -= l[i * K + u] * l[j * K + u];
                if (single)
                    sum = (float)sum;
            }
            if (i == j && !(sum > 0))
                return 1;
            l[i * K + j] = i == j ? sqrt(sum) : sum / l[j * K + j];
            if (single)
                l[i * K + j] = (float)l[i * K + j];
        }
    return 0;
}

/* x = a^{-1} b by Gauss-Jordan with pivoting; n <= 16. */
static void solve_dense(int n, double a[16][17]) {
    for (int c = 0; c < n; c++) {
        int pivot = c;
        for (int i = c; i < n; i++)
            if (fabs(a[i][c]) > fabs(a[pivot][c]))
                pivot = i;
        for (int j = 0; j <= n; j++) {
            const double t = a[c][j];
            a[c][j] = a[pivot][j];
            a[pivot][j] = t;
        }
        for (int i = 0; i < n; i++) {
            if (i == c)
                continue;
            const double f = a[i][c] / a[c][c];
            for (int j = c; j <= n; j++)
                a[i][j] -= f * a[c][j];
        }
    }
    for (int i = 0; i < n; i++)
        a[i][n] /= a[i][i];
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double quantile(const double *sorted, double q) {
    const double at = q * (K - 1);
    const int i = (int)at;
    return i + 1 < K ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[K - 1];
}
static void line(double *t, int count, double from, double to) {
    for (int i = 0; i < count; i++)
        t[i] = i + 1 < count ? from + (to - from) * i / (count - 1) : to;
}

/* The layer's error in the least of 10 iterations. */
static double paper_error(const layer *l, int bits, int *offset) {
    static double h[K * K], hp[K * K], factor[K * K], w[N][K], t[N][16], scale[N];
    const int levels = 1 << bits;
    for (int i = 0; i < K * K; i++)
        h[i] = hp[i] = l->h[i];
    *offset = cholesky(factor, h, 1);
    for (int i = 0; i < K && *offset; i++) {
        double sum = 0;
        for (int j = 0; j < K; j++)
            sum += fabs(h[i * K + j]);
        hp[i * K + i] += fmax(sum - 2 * h[i * K + i], 1e-8);
    }
    ck_assert_int_eq(cholesky(factor, hp, 0), 0);
    for (int n = 0; n < N; n++) {
        double sorted[K];
        for (int k = 0; k < K; k++)
            sorted[k] = l->w[n * K + k];
        qsort(sorted, K, sizeof *sorted, compare_doubles);
        const double median = quantile(sorted, .5);
        scale[n] = quantile(sorted, .75) - quantile(sorted, .25) + 1e-8;
        for (int k = 0; k < K; k++) {
            w[n][k] = (l->w[n * K + k] - median) / scale[n];
            sorted[k] = (sorted[k] - median) / scale[n];
        }
        const double low = sorted[0], range = sorted[K - 1] - low;
        if (bits == 4) {
            line(t[n], 3, low, low + .25 * range);
            line(t[n] + 3, 5, low + .25 * range, low + .5 * range);
            line(t[n] + 8, 5, low + .5 * range, low + .75 * range);
            line(t[n] + 13, 3, low + .75 * range, sorted[K - 1]);
        } else if (bits == 3) {
            line(t[n], 2, low, quantile(sorted, .2));
            line(t[n] + 2, 4, quantile(sorted, .2), quantile(sorted, .8));
            line(t[n] + 6, 2, quantile(sorted, .8), sorted[K - 1]);
        } else {
            for (int s = 0; s < 4; s++)
                t[n][s] = quantile(sorted, s / 3.0);
        }
    }
    double least = INFINITY;
    for (int iteration = 0; iteration < 10; iteration++) {
        double total = 0;
        for (int n = 0; n < N; n++) {
            int q[K];
            double e[K];
            for (int k = K - 1; k >= 0; k--) { /* eq. 7-9 */
                double r = 0;
                for (int u = k + 1; u < K; u++)
                    r += e[u] * factor[u * K + k];
                const double target = w[n][k] + r / factor[k * K + k];
                q[k] = 0;
                for (int s = 1; s < levels; s++)
                    if (fabs(target - t[n][s]) < fabs(target - t[n][q[k]]))
                        q[k] = s;
                e[k] = w[n][k] - t[n][q[k]];
            }
            double a[16][17] = {{0}}; /* eq. 6; what no code uses becomes 0 */
            int place[16], used = 0;
            for (int s = 0; s < levels; s++) {
                place[s] = -1;
                for (int k = 0; k < K; k++)
                    if (q[k] == s)
                        place[s] = used;
                used += place[s] >= 0;
            }
            for (int i = 0; i < K; i++)
                for (int j = 0; j < K; j++)
                    a[place[q[i]]][place[q[j]]] += hp[i * K + j];
            for (int i = 0; i < K; i++)
                for (int j = 0; j < K; j++)
                    a[place[q[i]]][used] += hp[i * K + j] * w[n][j];
            solve_dense(used, a);
            for (int s = 0; s < levels; s++)
                t[n][s] = place[s] >= 0 ? a[place[s]][used] : 0;
            for (int k = 0; k < K; k++)
                e[k] = (w[n][k] - t[n][q[k]]) * scale[n];
            for (int i = 0; i < K; i++)
                for (int j = 0; j < K; j++)
                    total += e[i] * e[j] * h[i * K + j];
        }
        least = fmin(least, total);
    }
    return least;
}

static void check_paper(int tokens, int expect_offset) {
    ganq_context *ctx = open_context(2);
    for (int bits = 2; bits <= 4; bits++) {
        double mine = 0, theirs = 0;
        for (uint32_t seed = 1; seed <= 4; seed++) {
            layer l = make_layer(N, K, tokens, seed);
            int offset;
            theirs += paper_error(&l, bits, &offset);
            ganq__solution s = solve(ctx, &l, l.h, bits, GANQ_RECIPE_PAPER);
            mine += s.error;
            ck_assert_int_eq(offset, expect_offset);
            ck_assert((strstr(s.note, "offset") != NULL) == expect_offset);
            ck_assert((strstr(s.note, "start table for 2 bits is ours") != NULL) == (bits == 2));
            ganq__solution_free(&s);
            free_layer(&l);
        }
        /* float32 sums may turn a code here and there, and tables are stored in F16 */
        ck_assert_msg(fabs(mine - theirs) <= 0.02 * theirs, "%d bits: %g, algorithm 1 has %g", bits,
                      mine, theirs);
    }
    close_context(ctx);
}

START_TEST(test_plain) {
    check_paper(400, 0);
}
END_TEST
START_TEST(test_offset) {
    check_paper(20, 1);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("solver paper");
    TCase *tests = tcase_create("paper");
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, test_plain);
    tcase_add_test(tests, test_offset);
    suite_add_tcase(suite, tests);
    return test_run(suite, 0);
}
