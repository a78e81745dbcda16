/* search.c - changed copies of a solution, to be settled again: the search of the recipe BEST. */
#include <string.h>

#include "internal.h"

/* splitmix64 */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static double next_uniform(uint64_t *state) {
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

/* Every entry moves by up to `part` of the distance to its neighbors. */
static void shake_table(ganq__trial_table *table, int levels, double part, uint64_t *random) {
    double values[GANQ__LEVELS];
    for (int s = 0; s < levels; s++) {
        const double below = s > 0 ? table->value[s] - table->value[s - 1] : 0;
        const double above = s + 1 < levels ? table->value[s + 1] - table->value[s] : 0;
        const double x = 2 * next_uniform(random) - 1;
        const double gap = x < 0 ? (s > 0 ? below : above) : (s + 1 < levels ? above : below);
        values[s] = table->value[s] + part * x * gap;
    }
    ganq__table_set(table, levels, values, NULL);
}

/* One entry is given up, and another one is split in two. */
static void move_entry(ganq__trial_table *table, int levels, uint64_t *random) {
    double values[GANQ__LEVELS] = {0};
    const int from = (int)(next_random(random) % (uint64_t)levels);
    const int to = (int)(next_random(random) % (uint64_t)levels);
    for (int s = 0; s < levels; s++)
        values[s] = table->value[s];
    const double next = to + 1 < levels ? values[to + 1] : values[to];
    const double before = to > 0 ? values[to - 1] : values[to];
    values[from] = values[to] + 0.25 * (next - values[to]);
    if (from != to)
        values[to] -= 0.25 * (values[to] - before);
    ganq__table_set(table, levels, values, NULL);
}

/* One column in `every` goes to a neighboring entry. */
static void shake_codes(uint8_t *codes, int64_t count, int levels, uint64_t every,
                        uint64_t *random) {
    for (int64_t k = 0; k < count; k++) {
        const uint64_t r = next_random(random);
        if (r % every != 0)
            continue;
        const int up = (r >> 32) & 1;
        if (up && codes[k] + 1 < levels)
            codes[k]++;
        else if (!up && codes[k] > 0)
            codes[k]--;
    }
}

int ganq__mutate(const ganq__problem *problem, const ganq__trial *parent, uint64_t seed,
                 int variant, ganq__trial *trial) {
    uint64_t random = seed + 0x632be59bd9b4e019u * (uint64_t)(variant + 1);
    next_random(&random);
    const int levels = problem->levels;
    trial->row = parent->row;
    trial->table = trial->best = parent->best;
    trial->outliers = parent->outliers;
    static const int kinds[6] = {0, 1, 1, 0, 1, 2}; /* docs/solver.md has what each is worth */
    switch (kinds[variant % 6]) {
    case 0:
        shake_table(&trial->table, levels, 0.3, &random);
        return 2;
    case 1:
        move_entry(&trial->table, levels, &random);
        return 3;
    default:
        break;
    }
    memcpy(trial->codes, parent->codes, (size_t)problem->live);
    shake_codes(trial->codes, problem->live, levels, 16, &random);
    return 0;
}
