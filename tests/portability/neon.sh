#!/bin/sh
# neon.sh SOURCE BUILD CMAKE [COMPILER_LAUNCHER] - builds the library and the tests of its kernels for 64-bit ARM in the
# folder BUILD and runs them under qemu. 77, with a line that says why, where that cannot be done.
set -eu
source=$1 build=$2 cmake=$3 launcher=${4:-}
tests='test_lut_gemm cpu_dense_products cpu_dense_convert cpu_dense_backend test_planes test_layer test_layer_file
    solver_kernels'

skip() {
    echo "portability_neon: $1"
    exit 77
}
command -v aarch64-linux-gnu-gcc >/dev/null || skip "no cross compiler (Debian: gcc-aarch64-linux-gnu)"
[ -e /usr/aarch64-linux-gnu/lib/libc.so ] || skip "no C library for the target (Debian: libc6-dev-arm64-cross)"
command -v qemu-aarch64-static >/dev/null || command -v qemu-aarch64 >/dev/null ||
    skip "no qemu-aarch64 (Debian: qemu-user-static)"

libraries=$build/libraries
mkdir -p "$build"
if [ ! -d "$libraries" ]; then
    rm -rf "$libraries.part"
    sh "$source/tests/portability/sysroot.sh" "$libraries.part" >"$build/libraries.log" 2>&1 ||
        skip "the target's libraries could not be had: $(tail -1 "$build/libraries.log")"
    mv "$libraries.part" "$libraries"
fi

"$cmake" -G Ninja -B "$build" -S "$source" -DCMAKE_TOOLCHAIN_FILE="$source/cmake/aarch64-linux-gnu.cmake" \
    -DGANQ_SYSROOT="$libraries" -DGANQ_WERROR=ON -DGANQ_BUILD_EXAMPLES=OFF \
    ${launcher:+-DCMAKE_C_COMPILER_LAUNCHER="$launcher"}
"$cmake" --build "$build" -j 2 --target ganq $tests
# More time than elsewhere: emulated instructions are slow ones.
pattern="^($(echo $tests | tr ' ' '|'))\$"
CK_TIMEOUT_MULTIPLIER=10 ctest --test-dir "$build" -j 2 --output-on-failure -R "$pattern" --no-tests=error
