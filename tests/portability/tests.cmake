# The kernels of instruction sets that this machine may lack: NEON under qemu, AVX-512 as SIMDe's plain C.
set(portability ${CMAKE_CURRENT_LIST_DIR})

# A test that says why it does not run.
function(ganq_skipped_test name reason)
  add_test(NAME ${name} COMMAND sh -c "echo '${reason}'; exit 77")
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
endfunction()

# The library and the tests of its kernels, built for 64-bit ARM. Not from within that build.
if(NOT CMAKE_CROSSCOMPILING AND NOT GANQ_SANITIZE)
  add_test(NAME portability_neon COMMAND sh ${portability}/neon.sh ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/arm64
           ${CMAKE_COMMAND} "${CMAKE_C_COMPILER_LAUNCHER}")
  set_tests_properties(portability_neon PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1800 PROCESSORS 2)
endif()

# The AVX-512 kernels without AVX-512: their sources with tests/portability/simde in front of the compiler's headers, the
# other objects as they are. The unrolling that the sources ask for would make them a hundred times as long here.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT GANQ_SANITIZE)
  find_path(GANQ_SIMDE simde/x86/avx512.h)
  if(GANQ_SIMDE)
    get_target_property(sources ganq_cpu SOURCES)
    list(FILTER sources INCLUDE REGEX "_avx512\\.c$")
    list(TRANSFORM sources PREPEND ${PROJECT_SOURCE_DIR}/lib/cpu/)
    set(plain -O1 -Wno-psabi $<$<C_COMPILER_ID:GNU>:-fdisable-tree-cunrolli> $<$<C_COMPILER_ID:GNU>:-fdisable-tree-cunroll>)
    ganq_unit_test(portability_simde FLOORS base io backend solver pack gemm
                   SOURCES gemm/test_lut_gemm.c portability/simde_cpu.c ${sources})
    target_sources(portability_simde PRIVATE $<FILTER:$<TARGET_OBJECTS:ganq_cpu>,EXCLUDE,/cpu\\.c|_avx512\\.c>)
    target_include_directories(portability_simde BEFORE PRIVATE ${portability}/simde)
    target_include_directories(portability_simde PRIVATE ${PROJECT_SOURCE_DIR}/lib/cpu)
    target_include_directories(portability_simde SYSTEM PRIVATE ${GANQ_SIMDE})
    target_compile_options(portability_simde PRIVATE ${plain})

    add_library(portability_native OBJECT portability/intrinsics.c)
    target_compile_definitions(portability_native PRIVATE GANQ_NATIVE)
    target_compile_options(portability_native PRIVATE -mavx512f -mavx512bw -mavx512dq -mavx512vl)
    target_link_libraries(portability_native PRIVATE ganq_flags)
    ganq_unit_test(portability_intrinsics FLOORS base SOURCES portability/test_intrinsics.c portability/intrinsics.c)
    target_sources(portability_intrinsics PRIVATE $<TARGET_OBJECTS:portability_native>)
    target_include_directories(portability_intrinsics BEFORE PRIVATE ${portability}/simde)
    target_include_directories(portability_intrinsics SYSTEM PRIVATE ${GANQ_SIMDE})
    target_compile_options(portability_intrinsics PRIVATE ${plain})
  else()
    ganq_skipped_test(portability_simde "no SIMDe headers (Debian: libsimde-dev)")
  endif()
endif()
