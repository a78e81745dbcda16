# Builds for 64-bit ARM on another machine, with Debian's gcc-aarch64-linux-gnu; tests run under qemu-user:
#   sh tests/portability/sysroot.sh <folder>
#   cmake -B build-arm64 -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DGANQ_SYSROOT=<folder>
# GANQ_SYSROOT holds the libraries that libganq links, as usr/include and usr/lib/aarch64-linux-gnu; the C library is
# the compiler's.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
find_program(GANQ_CROSS_CXX aarch64-linux-gnu-g++) # for a few tests; never this machine's
set(CMAKE_CXX_COMPILER ${GANQ_CROSS_CXX})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
# gcc 12.2's vectorizer stops with an internal error where a loop keeps the fmax of converted values.
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG -fno-tree-loop-vectorize" CACHE STRING "Flags of a release build")

set(GANQ_CUDA OFF CACHE STRING "Build the CUDA backend")

set(GANQ_SYSROOT "" CACHE PATH "Folder with the libraries that libganq links, built for the target")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES GANQ_SYSROOT)
set(CMAKE_FIND_ROOT_PATH ${GANQ_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${GANQ_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${GANQ_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)

find_program(GANQ_QEMU NAMES qemu-aarch64-static qemu-aarch64)
if(GANQ_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${GANQ_QEMU} -L /usr/aarch64-linux-gnu)
endif()
