find_package(Python3 REQUIRED COMPONENTS Interpreter)
if(TARGET ganq_cli)
  add_test(NAME cli COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/cli/test_cli.py $<TARGET_FILE:ganq_cli>
           ${PROJECT_SOURCE_DIR})
  add_test(NAME cli_acceptance COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/cli/acceptance.py
           $<TARGET_FILE:ganq_cli>)
  set_tests_properties(cli cli_acceptance PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1800)
endif()
