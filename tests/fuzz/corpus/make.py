"""Writes the seeds beside this file that are not plain text: safetensors files, and documents (format byte, content)."""

import gzip
import json
import os
import struct
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))


def write(name, data):
    path = os.path.join(HERE, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def safetensors(name, header, data, pad=8):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % pad)
    write("safetensors/" + name, struct.pack("<Q", len(text)) + text + data)


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


half = bytes(range(32))
safetensors("none", {}, b"")
safetensors("one", {"x": entry("F32", [2, 4], 0, 32)}, half)
safetensors(
    "crc",
    {
        "__metadata__": {"format": "pt", "ganq.crc32.x": "%08x" % zlib.crc32(half[:12]), "ganq.x": "2,3,4"},
        "x": entry("F16", [2, 3], 0, 12),
        "y": entry("BF16", [2, 5], 12, 32),
    },
    half,
    64,
)
safetensors("kinds", {"a": entry("I64", [], 0, 8), "b": entry("U8", [0, 7], 8, 8), "c": entry("F64", [3], 8, 32)}, half)
safetensors("faults", {"a": entry("F8_E4M3", [4], 0, 4), "b": entry("F32", [9, 9], 4, 32)}, half)
safetensors("rank", {"a": entry("I8", [2, 2, 2, 2, 1, 1, 2, 1], 0, 32)}, half)

lines = b'"One day."\n\n{"text": "Two \\u00e9\\n", "url": "x"}\n'
write("documents/plain", b"\x00Some text.\n\nMore \xff text.\n")
write("documents/jsonl", b"\x01" + lines)
write("documents/list", b'\x02[ "one", {"text": "two"}, ""]')
write("documents/json_lines", b"\x02" + lines)
write("documents/ids", b"\x03" + b"1 2 3\n\n4, 5 2147483647\n" + b" ".join(b"%d" % i for i in range(20)))
for format_byte, content in ((4, b"plain " * 20), (5, lines), (6, b'["a","b"]'), (7, b"1 2 3\n4 5 6 7 8 9 10\n")):
    write("documents/gzip%d" % format_byte, bytes([format_byte]) + gzip.compress(content, mtime=0))
write("documents/stored", b"\x05" + gzip.compress(lines, 0, mtime=0))
