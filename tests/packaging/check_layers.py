"""check_layers.py SOURCE_DIR BUILD_DIR: the floors of lib/ include only themselves and the floors they may use.

Reads what the compiler really read (ninja's dependency log, or the .d files of make) and the table in
lib/CMakeLists.txt, and fails on an upward include, on an include with a path, and if it found nothing to check.
"""
import pathlib
import re
import subprocess
import sys


def allowed_floors(lists):
    """{floor: floors it may use} from the set(ganq_uses_<floor> ...) lines."""
    uses = {}
    for floor, words in re.findall(r"set\(ganq_uses_(\w+)([^)]*)\)", lists):
        floors = set()
        for word in words.split():
            reference = re.fullmatch(r"\$\{ganq_uses_(\w+)\}", word)
            floors |= uses[reference.group(1)] if reference else {word}
        uses[floor] = floors
    return uses


def dependencies(build):
    """(object, [files]) for every object that was compiled."""
    if (build / ".ninja_deps").exists():
        text = subprocess.run(["ninja", "-C", build, "-t", "deps"], check=True, capture_output=True, text=True).stdout
        target, files = None, []
        for line in text.splitlines():
            if line.startswith("    "):
                files.append(line.strip())
            elif ": #deps" in line:
                target, files = line.split(":")[0], []
                yield target, files
        return
    for path in build.rglob("*.o.d"):
        words = path.read_text().replace("\\\n", " ").split()
        yield words[0].rstrip(":"), words[1:]


def main():
    source, build = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
    lib = source / "lib"
    uses = allowed_floors((lib / "CMakeLists.txt").read_text())
    errors, checked = [], 0
    for target, files in dependencies(build):
        match = re.search(r"(?:lib/\w+|cuda)/CMakeFiles/ganq_(\w+)\.dir/", target)
        if not match:
            continue
        floor = match.group(1)
        checked += 1
        for name in files:
            path = (build / name).resolve()
            if lib in path.parents:
                other = path.relative_to(lib).parts[0]
                if other != floor and other not in uses[floor]:
                    errors.append(f"{floor} must not include {other}: {target} reads {path.name}")
    for path in sorted(lib.rglob("*.[ch]")):
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.M):
            if "/" in name and not name.startswith("ganq/"):
                errors.append(f'{path.relative_to(source)}: #include "{name}": give the bare name')
    print(f"{checked} objects of {len(uses)} floors")
    if checked < len(uses):
        errors.append("fewer objects than floors: was the library built here?")
    sys.exit("\n".join(errors) if errors else 0)


main()
