"""check_kernels.py NVCC SOURCE_DIR ARCHITECTURES OBJECTS...: what the compilers made of the kernels.

1. ptxas: no stack, no spills, for any kernel on any architecture (its report lies beside each object); products of warpgroups
   stay under way while the next ones are made ready.
2. PTX: the kernels that a decode step waits for read the device's memory 16 bytes at a time.
3. Machine code: the same, and no local memory in any kernel. Needs cuobjdump and nvdisasm: in PATH, in $GANQ_CUDA_TOOLS, or
   from the Python packages of tests/requirements.txt; else this part is skipped, and says so.
"""
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

from kernel_report import plain_names, read_reports

# Kernels of decode steps, by the beginning of their plain names: the others are bound by something else than their loads.
DECODE = [r"simt_kernel<", r"mma_kernel<", r"wgmma_kernel<", r"few<.*, true>", r"decode<"]
PTX_WIDE = re.compile(r"ld\.global[.\w:]*\.v4\.[uf]32|ld\.global[.\w:]*\.v4\.b32|ld\.global[.\w:]*\.v2\.[ub]64|"
                      r"cp\.async\.c[ag]\.shared\.global\s*\[[^]]+\],\s*\[[^]]+\],\s*16")
SASS_WIDE = re.compile(r"\bLDG\.E\S*\.128\b|\bLDGSTS\.E\S*\.128\b")
SASS_LOCAL = re.compile(r"\b(LDL|STL)\b")


def is_decode(name):
    return any(re.match(pattern, name.split("::")[-1]) for pattern in DECODE)


def functions_of(text, begin):
    """{symbol: its lines} of a listing in which the pattern `begin` opens each function."""
    functions, symbol = {}, None
    for line in text.splitlines():
        if match := re.search(begin, line):
            symbol = match.group(1)
            functions[symbol] = []
        elif symbol:
            functions[symbol].append(line)
    return {s: "\n".join(lines) for s, lines in functions.items()}


def check_wide(listing, functions, wide, errors):
    """Every decode kernel has wide loads; returns how many there are."""
    names = plain_names(functions)
    decode = [s for s in functions if is_decode(names[s])]
    for symbol in decode:
        if not wide.search(functions[symbol]):
            errors.append(f"{listing}: {names[symbol]} has no 128-bit load of the device's memory")
    return len(decode)


def find_tools():
    """The folder of cuobjdump and nvdisasm; None."""
    folders = [os.environ.get("GANQ_CUDA_TOOLS", "")] + os.environ.get("PATH", "").split(os.pathsep)
    folders += glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "*", "bin"))
    for folder in folders:
        if folder and all(shutil.which(os.path.join(folder, tool)) for tool in ("cuobjdump", "nvdisasm")):
            return folder
    return None


def main():
    nvcc, source, architectures, objects = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    wanted = {"sm_" + re.match(r"\d+a?", a).group() for a in architectures.split(",")}
    errors = []

    kernels = read_reports(objects)
    names = plain_names(k.symbol for k in kernels)
    for k in kernels:
        if k.stack is None or k.registers is None:
            errors.append(f"{k.source}: ptxas says nothing of {names[k.symbol]} on {k.arch}")
        elif k.stack or k.spills:
            errors.append(f"{k.source}: {names[k.symbol]} on {k.arch}: {k.stack} bytes of stack, {k.spills} of spills")
    for name in objects:
        log = pathlib.Path(name + ".ptxas")
        for line in log.read_text().splitlines() if log.exists() else []:
            if "Potential Performance Loss" in line or "injected" in line:
                errors.append(f"{log.name}: {line}")
    found = {k.arch for k in kernels}
    if found != wanted:
        errors.append(f"reports for {sorted(found)}, expected {sorted(wanted)}")
    print(f"ptxas: {len(kernels)} kernels on {', '.join(sorted(found))}, at most {max(k.registers or 0 for k in kernels)} registers")

    includes = [f"-I{source / folder}" for folder in ("include", "cuda", "lib/base", "lib/backend", "lib/pack", "lib/io")]
    decode_sources = {k.source: k.arch for k in sorted(kernels, key=lambda k: k.arch, reverse=True) if is_decode(names[k.symbol])}
    if not decode_sources:
        errors.append("no decode kernel was found")
    count = 0
    for name, arch in sorted(decode_sources.items()):
        with tempfile.NamedTemporaryFile(suffix=".ptx") as out:
            command = [nvcc, "--ptx", "-std=c++17", "-O3", f"-arch={arch.replace('sm', 'compute')}", *includes,
                       "-o", out.name, str(source / "cuda" / name)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            text = pathlib.Path(out.name).read_text()
        count += check_wide(f"PTX of {name}", functions_of(text, r"\.entry (\w+)\("), PTX_WIDE, errors)
    print(f"PTX: {count} decode kernels of {', '.join(sorted(decode_sources))}")

    tools = find_tools()
    if tools:
        environment = dict(os.environ, PATH=tools + os.pathsep + os.environ.get("PATH", ""))
        count = total = 0
        for name in objects:
            if not name.endswith(".cu.o"):
                continue
            text = subprocess.run(["cuobjdump", "-sass", name], check=True, capture_output=True, text=True, env=environment).stdout
            for part in text.split("\tcode for ")[1:]:
                functions = functions_of(part, r"Function : (\w+)")
                where = f"{pathlib.Path(name).name} on {part.split()[0]}"
                total += len(functions)
                for symbol, lines in functions.items():
                    if "wgmma_kernel" in symbol and "HGMMA" not in lines:
                        errors.append(f"{where}: {plain_names([symbol])[symbol]} has no product of a warpgroup")
                count += check_wide(where, functions, SASS_WIDE, errors)
                for symbol, lines in functions.items():
                    if SASS_LOCAL.search(lines):
                        errors.append(f"{where}: {plain_names([symbol])[symbol]} uses local memory")
        print(f"machine code: {total} kernels, {count} of them of decode steps")
        if total < len(kernels):
            errors.append(f"machine code of {total} kernels, ptxas spoke of {len(kernels)}")
    else:
        print("machine code: skipped, no cuobjdump and nvdisasm (tests/requirements.txt)")
    sys.exit("\n".join(errors) if errors else 0)


main()
