"""kernel_report.py - what ptxas said of the kernels, as the build kept it in OBJECT.ptxas (cuda/ptxas_log.sh).

kernel_report.py OBJECTS...   prints a table in Markdown: registers and shared memory of every kernel, per architecture.
Other scripts import read_reports.
"""
import pathlib
import re
import shutil
import subprocess
import sys


class Kernel:
    """One kernel on one architecture. symbol: its mangled name; shared: bytes of shared memory known at compile time."""

    def __init__(self, symbol, arch, source):
        self.symbol, self.arch, self.source = symbol, arch, source
        self.stack = self.spills = self.registers = None
        self.shared = 0


def read_reports(objects):
    """A Kernel for each kernel and architecture that the .ptxas files beside the objects name."""
    kernels = []
    for name in objects:
        path = pathlib.Path(name + ".ptxas")
        if not path.exists():
            continue
        kernel = None
        for line in path.read_text().splitlines():
            if match := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
                kernel = Kernel(match.group(1), match.group(2), pathlib.Path(name).name.removesuffix(".o"))
                kernels.append(kernel)
            elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
                # functions that are not entries come after "Function properties" of their own
                if kernel and kernel.stack is None:
                    kernel.stack, kernel.spills = int(match.group(1)), int(match.group(2)) + int(match.group(3))
            elif kernel and (match := re.search(r"Used (\d+) registers", line)):
                kernel.registers = int(match.group(1))
                if match := re.search(r"(\d+) bytes smem", line):
                    kernel.shared = int(match.group(1))
    return kernels


def plain_names(symbols):
    """{symbol: readable name without its arguments}; the symbol itself where there is no c++filt."""
    symbols = sorted(set(symbols))
    if not shutil.which("c++filt"):
        return {s: s for s in symbols}
    text = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    plain = {}
    for symbol, line in zip(symbols, text.splitlines()):
        line = re.sub(r"^void ", "", line)
        plain[symbol] = re.sub(r"\((?!anonymous|int|bool|unsigned).*$", "", line).replace("(int)", "").replace("(bool)", "")
    return plain


def main():
    kernels = read_reports(sys.argv[1:])
    names = plain_names(k.symbol for k in kernels)
    archs = sorted({k.arch for k in kernels}, key=lambda a: int(re.sub(r"\D", "", a)))
    rows = {}
    for k in kernels:
        rows.setdefault((k.source, names[k.symbol]), {})[k.arch] = k
    print("| file | kernel | " + " | ".join("registers " + a for a in archs) + " | static shared bytes |")
    print("|---|---|" + "---|" * (len(archs) + 1))
    for (source, name), by_arch in sorted(rows.items()):
        registers = [str(by_arch[a].registers) if a in by_arch else "" for a in archs]
        print(f"| {source} | `{name}` | " + " | ".join(registers) + f" | {max(k.shared for k in by_arch.values())} |")


if __name__ == "__main__":
    main()
