# The Python binding: installed into a virtual environment of the system's Python (no network), then tested from there.
# Not with sanitizers: the interpreter is not built with them.
if(NOT GANQ_SANITIZE)
  add_test(NAME python_binding COMMAND ${GANQ_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/run.py ${PROJECT_SOURCE_DIR}
           $<TARGET_FILE:ganq>)
  set_tests_properties(python_binding PROPERTIES TIMEOUT 600)
endif()
