# The CUDA backend on a device made of fibers (emulator/): the same files as the real one, compiled by the host's C++
# compiler. Needs neither nvcc nor a GPU. ThreadSanitizer does not know these fibers.
include(CheckLanguage)
check_language(CXX)
if(CMAKE_CXX_COMPILER AND NOT GANQ_SANITIZE MATCHES "thread")
  enable_language(CXX)
  include(${PROJECT_SOURCE_DIR}/cuda/sources.cmake)
  set(cuda_emulator ${CMAKE_CURRENT_LIST_DIR}/emulator)
  list(APPEND ganq_cuda_sources ${ganq_cuda_90a_sources})
  set(cuda_kernels ${ganq_cuda_sources})
  list(FILTER cuda_kernels INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX)

  add_library(cuda_emulated OBJECT ${ganq_cuda_sources} ${cuda_emulator}/emulator.cpp)
  target_include_directories(cuda_emulated BEFORE PRIVATE ${cuda_emulator})
  target_include_directories(cuda_emulated PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/cuda
                             ${CMAKE_CURRENT_LIST_DIR})
  foreach(floor cuda ${ganq_uses_cuda})
    target_include_directories(cuda_emulated PRIVATE ${PROJECT_SOURCE_DIR}/lib/${floor})
  endforeach()
  target_compile_definitions(cuda_emulated PRIVATE GANQ_HAS_WGMMA GANQ_BUILT_FOR="the emulator")
  set_target_properties(cuda_emulated PROPERTIES CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
  # An address that is not aligned as its type asks, or an index outside a fixed array, ends the program.
  target_compile_options(cuda_emulated PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=alignment,bounds
                         -fsanitize-undefined-trap-on-error -Wno-unknown-pragmas>)
  target_link_libraries(cuda_emulated PRIVATE ganq_flags)

  # cuda_test(<name> <sources>...): the whole library with the emulated backend in place of the real one. C tests, or
  # .cu with kernels of their own. Sees the inside of every floor.
  add_library(cuda_emulated_api OBJECT ${PROJECT_SOURCE_DIR}/lib/api/backends.c)
  target_compile_definitions(cuda_emulated_api PRIVATE GANQ_HAS_CUDA)
  get_target_property(api_sources ganq_api SOURCES)
  list(REMOVE_ITEM api_sources backends.c)
  list(TRANSFORM api_sources PREPEND ${PROJECT_SOURCE_DIR}/lib/api/)
  target_sources(cuda_emulated_api PRIVATE ${api_sources})
  target_link_libraries(cuda_emulated_api PRIVATE ganq_flags)
  target_include_directories(cuda_emulated_api PRIVATE ${PROJECT_SOURCE_DIR}/include)
  add_library(ganq_emulated STATIC $<TARGET_OBJECTS:cuda_emulated> $<TARGET_OBJECTS:cuda_emulated_api>)
  target_include_directories(ganq_emulated PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/cuda
                             ${PROJECT_SOURCE_DIR}/tests ${CMAKE_CURRENT_LIST_DIR})
  foreach(floor ${ganq_floors})
    target_include_directories(cuda_emulated_api PRIVATE ${PROJECT_SOURCE_DIR}/lib/${floor})
    target_include_directories(ganq_emulated PUBLIC ${PROJECT_SOURCE_DIR}/lib/${floor})
    if(NOT floor STREQUAL "api")
      target_sources(ganq_emulated PRIVATE $<TARGET_OBJECTS:ganq_${floor}>)
    endif()
  endforeach()
  target_link_libraries(ganq_emulated PUBLIC ganq_flags ${ganq_test_libraries} PkgConfig::CHECK)

  function(cuda_test name)
    add_executable(${name} ${ARGN})
    set(kernels ${ARGN})
    list(FILTER kernels INCLUDE REGEX "\\.cu$")
    set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX)
    set_target_properties(${name} PROPERTIES CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF LINKER_LANGUAGE CXX)
    target_include_directories(${name} BEFORE PRIVATE ${cuda_emulator})
    target_compile_definitions(${name} PRIVATE GANQ_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=alignment,bounds
                           -fsanitize-undefined-trap-on-error -Wno-unknown-pragmas>)
    target_link_libraries(${name} PRIVATE ganq_emulated)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 ENVIRONMENT CK_DEFAULT_TIMEOUT=600)
  endfunction()

  cuda_test(cuda_emulator cuda/test_emulator.cu)
  cuda_test(cuda_backend cuda/test_backend.c)
  foreach(library cublaslt cusolver) # under the names that CUDA 13, which the emulator is, gives them
    add_library(fake_${library} MODULE cuda/fake_${library}.c)
    set_target_properties(fake_${library} PROPERTIES C_VISIBILITY_PRESET default LIBRARY_OUTPUT_DIRECTORY
                          ${CMAKE_CURRENT_BINARY_DIR}/fake_cuda)
  endforeach()
  set_target_properties(fake_cublaslt PROPERTIES OUTPUT_NAME cublasLt SUFFIX .so.13)
  set_target_properties(fake_cusolver PROPERTIES OUTPUT_NAME cusolver SUFFIX .so.12)
  cuda_test(cuda_libraries cuda/test_libraries.c)
  target_compile_definitions(cuda_libraries PRIVATE GANQ_FAKE_CUDA="${CMAKE_CURRENT_BINARY_DIR}/fake_cuda")
  add_dependencies(cuda_libraries fake_cublaslt fake_cusolver)
  cuda_test(cuda_lut_engine cuda/test_lut_engine.c)
  cuda_test(cuda_lut_gemm cuda/test_lut_gemm.c)
  cuda_test(cuda_lut_layout cuda/test_lut_layout.c)
  cuda_test(cuda_model_ops cuda/test_model_ops.c)
  cuda_test(cuda_session cuda/test_session.c model/tiny.c)
  cuda_test(cuda_solver cuda/test_solver.c)
endif()

# What the compilers made of the kernels, and the library that was built with CUDA where there is no driver.
if(GANQ_HAS_CUDA)
  string(REPLACE ";" "," cuda_architectures "${GANQ_CUDA_ARCHITECTURES}")
  if(TARGET ganq_cuda_90a)
    string(APPEND cuda_architectures ",90a")
  endif()
  add_test(NAME cuda_kernels COMMAND ${GANQ_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/check_kernels.py ${CMAKE_CUDA_COMPILER}
           ${PROJECT_SOURCE_DIR} ${cuda_architectures} ${ganq_cuda_objects} COMMAND_EXPAND_LISTS)
  set_tests_properties(cuda_kernels PROPERTIES TIMEOUT 600)
endif()
