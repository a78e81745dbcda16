"""check_consumers.py SOURCE_DIR BUILD_DIR CMAKE: install into a prefix, then build and run consumers against it.

C through pkg-config, C++ through find_package, Python through ctypes, and the numbered examples. Then what ganq.pc says for
other library folders, and that the presets need no make.
"""
import json
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
    env = dict(os.environ, PKG_CONFIG_PATH=str(pc.parent), LD_LIBRARY_PATH=str(libdir))
    flags = run("pkg-config", "--cflags", "--libs", "ganq", env=env).split()
    assert (prefix / "include/ganq/ganq.h").samefile(next(f for f in flags if f.startswith("-I"))[2:] + "/ganq/ganq.h"), flags

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

    presets = json.loads((source / "CMakePresets.json").read_text())["configurePresets"]
    assert all(p.get("generator") == "Ninja" for p in presets), "a preset would use CMake's default generator"
    for libdir, expected_prefix in (("lib/x86_64-linux-gnu", scratch), ("/opt/ganq/lib", pathlib.Path("/nowhere"))):
        tree = scratch / f"tree{len(libdir)}"
        run(cmake, "--preset", "release", "-B", tree, f"-DCMAKE_INSTALL_LIBDIR={libdir}",
            "-DCMAKE_INSTALL_PREFIX=/nowhere", "-DGANQ_CUDA=OFF", "-DGANQ_BUILD_TESTS=OFF", "-DGANQ_BUILD_EXAMPLES=OFF",
            cwd=source, env={k: v for k, v in os.environ.items() if k != "CMAKE_GENERATOR"})
        assert "CMAKE_GENERATOR:INTERNAL=Ninja" in (tree / "CMakeCache.txt").read_text()
        place = scratch / "lib/x86_64-linux-gnu/pkgconfig"
        place.mkdir(parents=True, exist_ok=True)
        (place / "ganq.pc").write_text((tree / "pkgconfig/ganq.pc").read_text())
        env["PKG_CONFIG_PATH"] = str(place)
        found = [os.path.normpath(run("pkg-config", f"--variable={v}", "ganq", env=env).strip())
                 for v in ("prefix", "libdir", "includedir")]
        print(f"ganq.pc with {libdir}: {' '.join(found)}")
        assert found == [str(expected_prefix), os.path.join(expected_prefix, libdir), f"{expected_prefix}/include"], found
