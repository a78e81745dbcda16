"""check_consumers.py SOURCE_DIR BUILD_DIR CMAKE: install into a prefix, then build and run consumers against it.

C through pkg-config, C++ through find_package, Python through ctypes, and the numbered examples.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

source, build, cmake = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
here = pathlib.Path(__file__).resolve().parent


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


with tempfile.TemporaryDirectory(prefix="ganq-consumers-") as scratch:
    scratch = pathlib.Path(scratch)
    prefix = scratch / "prefix"
    run(cmake, "--install", build, "--prefix", prefix)
    pc = next(prefix.rglob("ganq.pc"))
    libdir = pc.parent.parent
    # ganq.pc carries the prefix that was configured; --define-prefix follows the file instead.
    env = dict(os.environ, PKG_CONFIG_PATH=str(pc.parent), LD_LIBRARY_PATH=str(libdir))
    flags = run("pkg-config", "--define-prefix", "--cflags", "--libs", "ganq", env=env).split()
    assert any(f.endswith("include") for f in flags) or (prefix / "include/ganq/ganq.h").exists(), flags

    run("gcc", "-std=c99", "-Wall", "-Werror", here / "consumer.c", "-o", scratch / "consumer_c", *flags, "-lm")
    expected = run(scratch / "consumer_c", env=env)
    print("C:", expected.strip())

    (scratch / "cxx").mkdir()
    (scratch / "cxx/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(consumer CXX)\nset(CMAKE_CXX_STANDARD 11)\n"
        "find_package(ganq 0.1 REQUIRED)\n"
        f"add_executable(consumer {here}/consumer.cpp)\ntarget_link_libraries(consumer PRIVATE ganq::ganq)\n")
    run(cmake, "-G", "Ninja", "-S", scratch / "cxx", "-B", scratch / "cxx/build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run(cmake, "--build", scratch / "cxx/build")
    output = run(scratch / "cxx/build/consumer", env=env)
    print("C++:", output.strip())
    assert output == expected, "C and C++ consumers disagree"

    output = run(sys.executable, here / "consumer.py", env=env)
    print("Python:", output.strip())
    assert output == expected, "C and Python consumers disagree"

    for example in sorted((source / "examples").glob("[0-9]*_*.c")):
        program = scratch / example.stem
        run("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", example, "-o", program, *flags, "-lm")
        output = run(program, env=env, cwd=source)
        print(f"{example.name}: {output.strip().splitlines()[-1] if output.strip() else '(no output)'}")
        assert output.strip(), f"{example.name} printed nothing"
