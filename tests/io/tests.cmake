ganq_unit_test(io_safetensors FLOORS base io SOURCES io/test_safetensors.c)
ganq_unit_test(io_json FLOORS base io SOURCES io/test_json.c)
ganq_unit_test(io_documents FLOORS base io SOURCES io/test_documents.c)
ganq_unit_test(io_corpus FLOORS base io SOURCES io/test_corpus.c)

# An independent reader and writer, in Python, against the library's.
add_executable(sample_safetensors io/sample_safetensors.c $<TARGET_OBJECTS:ganq_base> $<TARGET_OBJECTS:ganq_io>)
target_include_directories(sample_safetensors PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/lib/base
                           ${PROJECT_SOURCE_DIR}/lib/io)
target_link_libraries(sample_safetensors PRIVATE ganq_flags ${ganq_test_libraries})
add_test(NAME io_safetensors_python
         COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/tests/io/check_safetensors.py $<TARGET_FILE:sample_safetensors>)
ganq_api_test(io_api_corpus io/test_api_corpus.c)
