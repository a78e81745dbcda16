"""Checks the library's safetensors files with a reader and a writer of its own, which know the format's definition
only (standard library). Usage: check_safetensors.py PATH_OF_sample_safetensors"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib

SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "U8": 1, "I8": 1, "BOOL": 1}


def no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"duplicate keys in {keys}"
    return dict(pairs)


def read(path):
    """name -> (dtype, shape, bytes), and the metadata."""
    with open(path, "rb") as file:
        raw = file.read()
    (length,) = struct.unpack("<Q", raw[:8])
    assert raw[8:9] == b"{", "the header begins with {"
    assert (8 + length) % 64 == 0, f"data begins at {8 + length}, no multiple of 64"
    header = json.loads(raw[8 : 8 + length].decode("utf-8"), object_pairs_hook=no_duplicates)
    data = raw[8 + length :]
    metadata = header.pop("__metadata__")
    assert all(type(value) is str for value in metadata.values())
    at, tensors = 0, {}
    for name, entry in sorted(header.items(), key=lambda item: (item[1]["data_offsets"])):
        begin, end = entry["data_offsets"]
        assert begin == at, f"{name} begins at {begin}, expected {at}"
        count = 1
        for size in entry["shape"]:
            count *= size
        assert end - begin == count * SIZES[entry["dtype"]], name
        tensors[name] = (entry["dtype"], entry["shape"], data[begin:end])
        at = end
    assert at == len(data), f"{len(data) - at} bytes after the last tensor"
    return tensors, metadata


def check_written(sample, directory):
    path = os.path.join(directory, "written.safetensors")
    subprocess.run([sample, "write", path], check=True)
    tensors, metadata = read(path)
    data = bytes((i * 37 + 11) % 256 for i in range(60))
    euro = 'a "b\\c"\t\u20ac'
    assert tensors == {
        "z.weight": ("F32", [3, 5], data),
        euro: ("BF16", [7], data[:14]),
        "nothing": ("I64", [2, 0, 3], b""),
        "scalar": ("I32", [], data[:4]),
    }, tensors
    expected = {"format": "pt", "ganq.block.\u00fc": '5,96,4 "quoted"\n'}
    for name, (_, _, stored) in tensors.items():
        expected["ganq.crc32." + name] = "%08x" % zlib.crc32(stored)
    assert metadata == expected, metadata


def check_read(sample, directory):
    """A file as the reference library lays it out: no CRCs, header padded to 8 bytes only, offsets not aligned."""
    path = os.path.join(directory, "foreign.safetensors")
    tensors = [("b", "U8", [3], b"xyz"), ("a.weight", "F16", [2, 2], bytes(range(8))), ("e", "F32", [0], b"")]
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, stored in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(stored)]}
        at += len(stored)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(t[3] for t in tensors))
    found = subprocess.run([sample, "read", path], check=True, stdout=subprocess.PIPE, text=True).stdout
    expected = "".join(
        " ".join([name, dtype, str(len(shape)), *map(str, shape), str(len(stored)), "%08x" % zlib.crc32(stored)]) + "\n"
        for name, dtype, shape, stored in tensors
    )
    assert found == expected, found


with tempfile.TemporaryDirectory() as scratch:
    check_written(sys.argv[1], scratch)
    check_read(sys.argv[1], scratch)
    print("safetensors: written and read files agree with the definition")
