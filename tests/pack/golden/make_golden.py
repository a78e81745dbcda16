#!/usr/bin/env python3
"""Writes layers.safetensors and dense.safetensors beside this script: quantized layers in the format of
docs/format.md, and the weights they stand for. Standard library only, and nothing of libganq, so that reader and
writer of the library are held against a third hand. Run it again only when the format grows."""
import json
import os
import struct
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))


def f16(value):
    return struct.unpack("<e", struct.pack("<e", value))[0]


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def random_numbers(seed):
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 33


def bitplanes(codes, bits):
    """One row: bit j of word g*bits+b is bit b of the code of column 32g+j."""
    words = []
    for first in range(0, len(codes), 32):
        for b in range(bits):
            words.append(sum((code >> b & 1) << j for j, code in enumerate(codes[first:first + 32])))
    return struct.pack("<%dI" % len(words), *words)


def layer(name, N, K, bits, lut_dtype, outliers, bias_dtype, seed):
    """Tensors of the file, and the dense rows."""
    random = random_numbers(seed)
    L, tensors, dense = 2**bits, {}, []
    round_table = f16 if lut_dtype == "F16" else f32
    codes = [[next(random) % L for _ in range(K)] for _ in range(N)]
    tables = [sorted(round_table((next(random) % 2000001 - 1000000) / 7e6) for _ in range(L)) for _ in range(N)]
    tables[0][1] = tables[0][0]  # equal entries are allowed
    rowptr, cols, vals = [0], [], []
    for n in range(N):
        row = [tables[n][code] for code in codes[n]]
        if outliers:
            chosen = sorted({next(random) % K for _ in range(n)})
            for k in chosen:
                cols.append(k)
                vals.append(f16((next(random) % 2001 - 1000) / 256))
                row[k] = f32(row[k] + vals[-1])
            rowptr.append(len(cols))
        dense.append(row)
    form = {"F16": "e", "F32": "f"}
    tensors[name + ".qweight"] = ("I32", [N, (K + 31) // 32 * bits], b"".join(bitplanes(row, bits) for row in codes))
    tensors[name + ".lut"] = (lut_dtype, [N, L],
                              b"".join(struct.pack("<%d%s" % (L, form[lut_dtype]), *row) for row in tables))
    if outliers:
        tensors[name + ".outlier_rowptr"] = ("I32", [N + 1], struct.pack("<%di" % (N + 1), *rowptr))
        tensors[name + ".outlier_cols"] = ("I32", [len(cols)], struct.pack("<%di" % len(cols), *cols))
        tensors[name + ".outlier_vals"] = ("F16", [len(vals)], struct.pack("<%de" % len(vals), *vals))
    if bias_dtype:
        tensors[name + ".bias"] = (bias_dtype, [N], struct.pack("<%d%s" % (N, form[bias_dtype]),
                                                                *(0.5 * n - 1 for n in range(N))))
    flat = [value for row in dense for value in row]
    return tensors, {name: ("F32", [N, K], struct.pack("<%df" % len(flat), *flat))}


def write(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def main():
    layers, dense, metadata = {}, {}, {"format": "pt"}
    for args in (("two", 3, 161, 2, "F16", False, None, 11),
                 ("three", 4, 300, 3, "F16", True, "F32", 12),
                 ("four", 5, 70, 4, "F16", True, "F16", 13),
                 ("wide", 2, 33, 4, "F32", False, None, 14)):
        tensors, rows = layer(*args)
        layers.update(tensors)
        dense.update(rows)
        metadata["ganq." + args[0]] = "%d,%d,%d" % args[1:4]
    for name, (_, _, data) in layers.items():
        metadata["ganq.crc32." + name] = "%08x" % zlib.crc32(data)
    write(os.path.join(HERE, "layers.safetensors"), layers, metadata)
    write(os.path.join(HERE, "dense.safetensors"), dense, {"format": "pt"})


if __name__ == "__main__":
    main()
