/* fuzz_main.c - a fuzz target without libFuzzer: every seed of the folders given, then mutations of
 * them, the same ones in every run. An input that takes too long, crashes or trips a sanitizer
 * fails the test; GANQ_FUZZ_KEEP=FILE keeps the last input, and GANQ_FUZZ_RUNS=N runs more
 * mutations.
 *
 *   fuzz_<target> FOLDER...
 *   fuzz_<target> -r FILE        one input */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "random.h"

enum { MAX_SEEDS = 256, INPUT_CAPACITY = 1 << 16, RUNS = 2000, SECONDS_PER_INPUT = 60 };

typedef struct input {
    uint8_t *data;
    size_t size;
} input;

static input seeds[MAX_SEEDS];
static int seed_count;

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_seed(const char *path) {
    static uint8_t bytes[INPUT_CAPACITY];
    FILE *file = fopen(path, "rb");
    if (!file || seed_count == MAX_SEEDS) {
        fprintf(stderr, "%s: cannot be read, or more than %d seeds\n", path, MAX_SEEDS);
        exit(2);
    }
    input *seed = &seeds[seed_count++];
    seed->size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    seed->data = malloc(seed->size + 1);
    memcpy(seed->data, bytes, seed->size);
}

static void read_folder(const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, by_name); /* sorted: the same mutations everywhere */
    if (count < 0) {
        fprintf(stderr, "%s: cannot be listed\n", path);
        exit(2);
    }
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            read_seed(name);
        free(entries[i]);
    }
    free(entries);
}

static void run(const uint8_t *data, size_t size) {
    const char *keep = getenv("GANQ_FUZZ_KEEP");
    if (keep) {
        FILE *file = fopen(keep, "wb");
        FUZZ_CHECK(file && fwrite(data, 1, size, file) == size && !fclose(file));
    }
    /* an exact copy, so that a read past its end is seen */
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    alarm(SECONDS_PER_INPUT);
    LLVMFuzzerTestOneInput(copy, size);
    alarm(0);
    free(copy);
}

static size_t below(ganq__random *random, size_t n) {
    return (size_t)ganq__random_below(random, n ? n : 1);
}

/* Replaces data[begin, end) with the insert. */
static size_t splice(uint8_t *data, size_t size, size_t begin, size_t end, const void *insert,
                     size_t length) {
    if (size - (end - begin) + length > INPUT_CAPACITY)
        return size;
    memmove(data + begin + length, data + end, size - end);
    memcpy(data + begin, insert, length);
    return size - (end - begin) + length;
}

static size_t mutate(ganq__random *random, uint8_t *data, size_t size) {
    static const char *const words[] = {
        "0",
        "-1",
        "1e999",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "99999999999999999999999",
        "0.5",
        "null",
        "true",
        "{}",
        "[]",
        "\"\"",
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\\u0000",
        "\\ud800",
        "\n",
        "\xff\xff\xff\xff",
        "\0\0\0\0",
        "\x7f\xff\xff\xff",
        "U8",
        "F64",
        "\xf0\x9f\x98\x80",
    };
    uint8_t piece[64];
    size_t begin = below(random, size + 1),
           end = begin + below(random, (size - begin < 40 ? size - begin : 40) + 1);
    const input *other = &seeds[below(random, (size_t)seed_count)];
    const char *word = words[below(random, sizeof words / sizeof *words)];
    switch (below(random, 8)) {
    case 0: /* one bit */
        if (size)
            data[below(random, size)] ^= (uint8_t)(1u << below(random, 8));
        return size;
    case 1: /* one byte */
        if (size)
            data[below(random, size)] = (uint8_t)below(random, 256);
        return size;
    case 2: /* remove a piece */
        return splice(data, size, begin, end, "", 0);
    case 3: /* repeat a piece */
        memcpy(piece, data + begin, end - begin);
        return splice(data, size, begin, begin, piece, end - begin);
    case 4: /* a word in place of a piece */
        return splice(data, size, begin, end, word, strlen(word));
    case 5: { /* a word in place of a number or string */
        while (begin < size && !strchr("0123456789\"", data[begin]))
            begin++;
        end = begin + (begin < size);
        while (end < size && !strchr(",]}: \n", data[end]))
            end++;
        return splice(data, size, begin, end, word, strlen(word));
    }
    case 6: /* cut */
        return begin;
    default: { /* a piece of another seed */
        size_t from = below(random, other->size + 1);
        size_t length = below(random, (other->size - from < 64 ? other->size - from : 64) + 1);
        return splice(data, size, begin, end, other->data + from, length);
    }
    }
}

int main(int argc, char **argv) {
    static uint8_t data[INPUT_CAPACITY];
    const char *asked = getenv("GANQ_FUZZ_RUNS");
    const long runs = asked ? atol(asked) : RUNS;
    if (argc == 3 && !strcmp(argv[1], "-r")) {
        read_seed(argv[2]);
        run(seeds[0].data, seeds[0].size);
        free(seeds[0].data);
        return 0;
    }
    for (int i = 1; i < argc; i++)
        read_folder(argv[i]);
    if (!seed_count) {
        fprintf(stderr, "usage: %s FOLDER... | -r FILE; folders must hold seeds\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < seed_count; i++)
        run(seeds[i].data, seeds[i].size);
    ganq__random random;
    ganq__random_seed(&random, 1);
    for (long i = 0; i < runs; i++) {
        const input *seed = &seeds[below(&random, (size_t)seed_count)];
        size_t size = seed->size;
        memcpy(data, seed->data, size);
        for (size_t n = 1 + below(&random, 4); n > 0; n--)
            size = mutate(&random, data, size);
        run(data, size);
    }
    for (int i = 0; i < seed_count; i++)
        free(seeds[i].data);
    printf("%d seeds, %ld mutations\n", seed_count, runs);
    return 0;
}
