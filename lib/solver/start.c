/* start.c - start tables: where the alternation begins decides where it ends, so a row is tried
 * from several. */
#include <math.h>
#include <string.h>

#include "internal.h"

/* Above this many values, k-means works on as many weighted means of neighbors: the dynamic program
 * below takes levels * n * log n steps, and more points are worth less than 1% of E. */
enum { POINTS_MAX = 512 };

enum { RADIX_BITS = 8, BUCKETS = 1 << RADIX_BITS, RADIX_PASSES = 4 };

/* A float's bits, all of them turned over if it is negative and the sign alone if not, sort as the
 * float. */
static uint32_t sort_key(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits >> 31 ? UINT32_MAX : 1u << 31);
}
static float key_value(uint32_t key) {
    const uint32_t bits = key ^ (key >> 31 ? 1u << 31 : UINT32_MAX);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Where each bucket begins, from how many keys fall into it. */
static void bucket_places(const int32_t *size, int32_t *place) {
    for (int32_t b = 0, at = 0; b < BUCKETS; at += size[b++])
        place[b] = at;
}

void ganq__sort(int64_t count, const float *values, double *scratch, double *sorted) {
    uint32_t *from = (uint32_t *)scratch, *to = from + count;
    int32_t size[RADIX_PASSES][BUCKETS] = {{0}};
    for (int64_t i = 0; i < count; i++) {
        from[i] = sort_key(values[i]);
        for (int pass = 0; pass < RADIX_PASSES; pass++)
            size[pass][from[i] >> (RADIX_BITS * pass) & (BUCKETS - 1)]++;
    }
    for (int pass = 0; pass < RADIX_PASSES; pass++) {
        int32_t place[BUCKETS];
        bucket_places(size[pass], place);
        for (int64_t i = 0; i < count; i++)
            to[place[from[i] >> (RADIX_BITS * pass) & (BUCKETS - 1)]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    for (int64_t i = 0; i < count; i++)
        sorted[i] = key_value(from[i]);
}

double ganq__quantile(const double *sorted, int64_t count, double q) {
    const double at = q * (double)(count - 1);
    const int64_t i = (int64_t)at;
    if (i + 1 >= count)
        return sorted[count - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

/* count values from `from` to `to`, both included. */
static void spread(double *table, int count, double from, double to) {
    for (int s = 0; s < count; s++)
        table[s] = s + 1 < count ? from + (to - from) * s / (count - 1) : to;
}

/* The released start tables: 4 bits, [3,5,5,3] levels over quarters of [min,max]; 3 bits, [2,4,2]
 * over the row quantiles 0, .2, .8, 1. There is none for 2 bits; ours are the quantiles 0, 1/3,
 * 2/3, 1. */
static void piecewise(int levels, int64_t count, const double *sorted, double *table) {
    const double low = sorted[0], range = sorted[count - 1] - low;
    if (levels == 16) {
        static const int counts[4] = {3, 5, 5, 3};
        for (int i = 0, s = 0; i < 4; s += counts[i++])
            spread(table + s, counts[i], low + 0.25 * i * range, low + 0.25 * (i + 1) * range);
    } else if (levels == 8) {
        static const int counts[3] = {2, 4, 2};
        static const double cuts[4] = {0, .2, .8, 1};
        for (int i = 0, s = 0; i < 3; s += counts[i++])
            spread(table + s, counts[i], ganq__quantile(sorted, count, cuts[i]),
                   ganq__quantile(sorted, count, cuts[i + 1]));
    } else {
        for (int s = 0; s < levels; s++)
            table[s] = ganq__quantile(sorted, count, (double)s / (levels - 1));
    }
}

/* Sums over the first i points, for the cost of a cluster in O(1). */
typedef struct prefix_sum {
    double weight, first, second;
} prefix_sum;

/* Weighted squared distance of points [i, j) to their mean. */
static double cluster_cost(const prefix_sum *sums, int i, int j) {
    const double weight = sums[j].weight - sums[i].weight, first = sums[j].first - sums[i].first;
    const double cost = sums[j].second - sums[i].second - (weight > 0 ? first * first / weight : 0);
    return cost > 0 ? cost : 0;
}

typedef struct kmeans_layer {
    const prefix_sum *sums;
    const double *previous; /* best cost of the first i points in one cluster fewer */
    double *cost;
    int16_t *split; /* where the last cluster begins */
} kmeans_layer;

/* Best split of [0, j) for j in [low, high], known to lie in [from, to]: splits grow with j, so
 * each half of the range searches only on its side of the middle's split. */
static void kmeans_fill(const kmeans_layer *layer, int low, int high, int from, int to) {
    if (low > high)
        return;
    const int j = (low + high) / 2, last = to < j ? to : j;
    double best = INFINITY;
    int best_i = from;
    for (int i = from; i <= last; i++) {
        const double cost = layer->previous[i] + cluster_cost(layer->sums, i, j);
        if (cost < best) {
            best = cost;
            best_i = i;
        }
    }
    layer->cost[j] = best;
    layer->split[j] = (int16_t)best_i;
    kmeans_fill(layer, low, j - 1, from, best_i);
    kmeans_fill(layer, j + 1, high, best_i, to);
}

/* Sorted points [n] with positive weights; n <= POINTS_MAX. Table ascending; entries beyond the
 * number of points repeat the last. */
static void kmeans(int levels, int n, const double *points, const double *weights, double *table) {
    prefix_sum sums[POINTS_MAX + 1];
    double costs[2][POINTS_MAX + 1];
    int16_t splits[GANQ__LEVELS][POINTS_MAX + 1];
    double center = 0, total = 0; /* sums are about the mean: they would cancel otherwise */
    for (int i = 0; i < n; i++) {
        center += weights[i] * points[i];
        total += weights[i];
    }
    center /= total;
    sums[0] = (prefix_sum){0, 0, 0};
    for (int i = 0; i < n; i++) {
        const double x = points[i] - center;
        sums[i + 1] = (prefix_sum){sums[i].weight + weights[i], sums[i].first + weights[i] * x,
                                   sums[i].second + weights[i] * x * x};
    }
    const int clusters = n < levels ? n : levels;
    for (int j = 0; j <= n; j++) {
        costs[0][j] = cluster_cost(sums, 0, j);
        splits[0][j] = 0;
    }
    for (int c = 1; c < clusters; c++) {
        const kmeans_layer layer = {sums, costs[(c - 1) % 2], costs[c % 2], splits[c]};
        kmeans_fill(&layer, 0, n, 0, n);
    }
    int end = n;
    for (int c = clusters - 1; c >= 0; c--) {
        const int begin = splits[c][end];
        const double weight = sums[end].weight - sums[begin].weight;
        const double first = sums[end].first - sums[begin].first;
        table[c] = weight > 0 ? center + first / weight : points[end > 0 ? end - 1 : 0];
        end = begin;
    }
    for (int s = clusters; s < levels; s++)
        table[s] = table[clusters - 1];
}

typedef struct weighted_value {
    float value;
    double weight;
} weighted_value;

/* Ascending by value; equal values keep their order. */
static void sort_pairs(int64_t count, weighted_value *pairs, weighted_value *other) {
    weighted_value *from = pairs, *to = other;
    int32_t size[RADIX_PASSES][BUCKETS] = {{0}};
    for (int64_t i = 0; i < count; i++)
        for (int pass = 0; pass < RADIX_PASSES; pass++)
            size[pass][sort_key(pairs[i].value) >> (RADIX_BITS * pass) & (BUCKETS - 1)]++;
    for (int pass = 0; pass < RADIX_PASSES; pass++) {
        int32_t place[BUCKETS];
        bucket_places(size[pass], place);
        for (int64_t i = 0; i < count; i++)
            to[place[sort_key(from[i].value) >> (RADIX_BITS * pass) & (BUCKETS - 1)]++] = from[i];
        weighted_value *swap = from;
        from = to;
        to = swap;
    }
}

/* How far apart two neighbors should be among the points: where points lie this densely, every
 * stretch of the row loses about as much by them. With as many values in every point, the few at a
 * row's ends would share one, and a table's last entries could not tell them apart: 5% of E for
 * weights like Student's t of 5 at K = 4096. */
static double distance(const weighted_value *pair) {
    return sqrt(pair->weight * ((double)pair[1].value - (double)pair->value));
}

/* Sorts (value, weight) pairs by value and merges neighbors to at most POINTS_MAX points; equal
 * values always share a point. Returns the number of points. pairs [2 count]. */
static int merge_points(weighted_value *pairs, int64_t count, double *points, double *weights) {
    sort_pairs(count, pairs, pairs + count);
    int64_t distinct = 0;
    for (int64_t i = 0; i < count; i++) {
        if (distinct > 0 && pairs[distinct - 1].value == pairs[i].value)
            pairs[distinct - 1].weight += pairs[i].weight;
        else
            pairs[distinct++] = pairs[i];
    }
    const int all = distinct <= POINTS_MAX;
    double length = 0, seen = 0, first = 0;
    int n = 0;
    for (int64_t i = 0; i + 1 < distinct && !all; i++)
        length += distance(&pairs[i]);
    for (int64_t i = 0, begin = 0; i < distinct; i++) {
        weights[n] = (i > begin ? weights[n] : 0) + pairs[i].weight;
        first = (i > begin ? first : 0) + pairs[i].weight * (double)pairs[i].value;
        if (i + 1 < distinct && !all) {
            seen += distance(&pairs[i]);
            if (n + 1 == POINTS_MAX || seen * (POINTS_MAX - 1) < (n + 1) * length)
                continue; /* the next one joins */
        }
        points[n] = i > begin ? first / weights[n] : (double)pairs[i].value;
        begin = i + 1;
        n++;
    }
    return n;
}

void ganq__start_table(const ganq__start *start, int levels, int64_t count, const float *values,
                       const double *weights, double *scratch, double *table) {
    if (start->kind == GANQ__START_PIECEWISE) {
        ganq__sort(count, values, scratch + count, scratch);
        piecewise(levels, count, scratch, table);
    } else {
        weighted_value *pairs = (weighted_value *)scratch;
        double points[POINTS_MAX], merged[POINTS_MAX];
        for (int64_t i = 0; i < count; i++)
            pairs[i] =
                (weighted_value){values[i], fmax(pow(weights[i], start->power), 1e-60)};
        const int n = merge_points(pairs, count, points, merged);
        kmeans(levels, n, points, merged, table);
    }
}
