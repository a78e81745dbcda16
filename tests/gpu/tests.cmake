# Programs that need a GPU; without one they say so and count as skipped. run.sh, which runs them elsewhere, is tested without.
add_test(NAME gpu_run COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/check_run.sh)
set_tests_properties(gpu_run PROPERTIES TIMEOUT 120)

# gpu_test(<name> <sources>...): a test of tests/cuda on a real device, with device.c in the emulator's place.
if(GANQ_HAS_CUDA)
  function(gpu_test name)
    add_executable(${name} ${ARGN} gpu/device.c)
    target_include_directories(${name} BEFORE PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/cuda ${PROJECT_SOURCE_DIR}/tests
                               ${PROJECT_SOURCE_DIR}/tests/cuda)
    target_compile_definitions(${name} PRIVATE GANQ_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    target_link_libraries(${name} PRIVATE ganq_static PkgConfig::CHECK)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 900 ENVIRONMENT CK_DEFAULT_TIMEOUT=600
                         RUN_SERIAL ON)
  endfunction()
  gpu_test(gpu_lut_gemm cuda/test_lut_gemm.c)
  gpu_test(gpu_model_ops cuda/test_model_ops.c)
  gpu_test(gpu_session cuda/test_session.c model/tiny.c)
  gpu_test(gpu_solver cuda/test_solver.c)
  gpu_test(gpu_figures gpu/test_figures.c)

  # The shared library as it is, with or without a driver.
  ganq_api_test(gpu_no_driver gpu/no_driver.c)

  add_executable(bench_lut gpu/bench_lut.c)
  target_include_directories(bench_lut PRIVATE ${PROJECT_SOURCE_DIR}/cuda ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(bench_lut PRIVATE ganq_static)
  add_test(NAME bench_lut COMMAND bench_lut 512x512)
  set_tests_properties(bench_lut PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 600)
endif()
