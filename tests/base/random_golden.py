"""Prints random_golden.h: what Python's random module draws, for test_random.c."""

import random
import struct
import zlib

SEEDS = [0, 1, 42, 123456789, 2**32 - 1, 2**32, 2**63 + 12345]
RANGES = [1, 2, 3, 7, 128, 1000, 356317, 2**31, 2**32 - 1, 2**32, 2**40 + 1, 2**63 + 1]

print("/* random_golden.h - made by random_golden.py: 1000 draws of random.randint(0, n - 1) after random.seed(seed): the first")
print(" * three, and the CRC-32 of all as little-endian 64-bit words; and the first random.random() of each seed. */")
print("static const struct {\n    uint64_t seed, n, first[3];\n    uint32_t crc32;\n} integers[] = {")
for seed in SEEDS:
    for n in RANGES:
        random.seed(seed)
        draws = [random.randint(0, n - 1) for _ in range(1000)]
        first = ", ".join(f"{d}u" for d in draws[:3])
        print(f"    {{{seed}u, {n}u, {{{first}}}, {zlib.crc32(struct.pack('<1000Q', *draws)):#010x}u}},")
print("};\nstatic const struct {\n    uint64_t seed;\n    double first[3];\n} doubles[] = {")
for seed in SEEDS:
    random.seed(seed)
    print(f"    {{{seed}u, {{{', '.join(random.random().hex() for _ in range(3))}}}}},")
print("};")
