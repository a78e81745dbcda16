# The library as a package: floors, exported names, struct layout, dependencies, headers alone, consumers of an install.
set(packaging ${CMAKE_CURRENT_LIST_DIR})

add_test(NAME packaging_layers COMMAND ${GANQ_PYTHON} ${packaging}/check_layers.py ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
add_test(NAME packaging_exports COMMAND ${GANQ_PYTHON} ${packaging}/check_exports.py $<TARGET_FILE:ganq>
         ${PROJECT_SOURCE_DIR}/tests/abi/ganq.syms ${PROJECT_SOURCE_DIR}/include/ganq)

# Each public header alone, as C99 and as C++11.
file(GLOB ganq_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/ganq/*.h)
foreach(header ${ganq_headers})
  get_filename_component(name ${header} NAME_WE)
  add_test(NAME packaging_header_${name} COMMAND sh ${packaging}/check_header.sh ${header} ${PROJECT_SOURCE_DIR}/include)
endforeach()

# Sanitized libraries do not load into programs that were built without the sanitizer.
if(NOT GANQ_SANITIZE)
  add_test(NAME packaging_consumers COMMAND ${GANQ_PYTHON} ${packaging}/check_consumers.py ${PROJECT_SOURCE_DIR}
           ${PROJECT_BINARY_DIR} ${CMAKE_COMMAND})
  set_tests_properties(packaging_consumers PROPERTIES TIMEOUT 600)
endif()

# Sizes and offsets of every public struct, pinned at compile time.
add_library(abi_layout OBJECT ${PROJECT_SOURCE_DIR}/tests/abi/layout.c)
target_include_directories(abi_layout PRIVATE ${PROJECT_SOURCE_DIR}/include)
target_link_libraries(abi_layout PRIVATE ganq_flags)
