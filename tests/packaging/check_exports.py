"""check_exports.py LIBRARY SYMS HEADER_DIR: names, version nodes, SONAME and dependencies of the shared library.

The exported names are those of tests/abi/ganq.syms ("name@@NODE" per line), which are those declared with GANQ_API in
the public headers, and nothing else. No dependency on a CUDA library, on libstdc++ or on a thread runtime of a compiler.
"""
import pathlib
import re
import subprocess
import sys

library, syms, headers = sys.argv[1:4]
errors = []


def lines(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


exported = set()
for line in lines("nm", "-D", "--defined-only", "--with-symbol-versions", library):
    kind, name = line.split()[-2:]
    if kind != "A":  # the version nodes themselves
        exported.add(name)
listed = set(pathlib.Path(syms).read_text().split())
for name in sorted(exported - listed):
    errors.append(f"exported but not in {syms}: {name}")
for name in sorted(listed - exported):
    errors.append(f"in {syms} but not exported: {name}")

declared = set()
for path in pathlib.Path(headers).glob("*.h"):
    text = re.sub(r"/\*.*?\*/|^\s*#.*?$", "", path.read_text(), flags=re.S | re.M)
    for declaration in re.findall(r"GANQ_API\s([^;{]*?)\(", text):
        declared.add(re.split(r"[\s*]+", declaration.strip())[-1])
for name in sorted(declared ^ {s.split("@")[0] for s in exported}):
    errors.append(f"declared in a public header or exported, but not both: {name}")

dynamic = "\n".join(lines("readelf", "-d", library))
if "[libganq.so.1]" not in dynamic:
    errors.append("SONAME is not libganq.so.1")
needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
for name in needed:
    if re.match(r"lib(cuda|cudart|cublas|cusolver|stdc\+\+|gomp|omp|openblas|nvidia)", name):
        errors.append(f"NEEDED entry: {name}")
print(f"{len(exported)} functions; needs {', '.join(needed)}")
if not exported:
    errors.append("nothing is exported")
sys.exit("\n".join(errors) if errors else 0)
