# The command as a person uses it; with real data the figures that a release must reach (too slow under ThreadSanitizer).
if(TARGET ganq_cli)
  add_test(NAME cli COMMAND ${GANQ_PYTHON} ${PROJECT_SOURCE_DIR}/tests/cli/test_cli.py $<TARGET_FILE:ganq_cli>
           ${PROJECT_SOURCE_DIR})
  set_tests_properties(cli PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1800)
  if(NOT GANQ_SANITIZE STREQUAL "thread")
    add_test(NAME cli_acceptance COMMAND ${GANQ_PYTHON} ${PROJECT_SOURCE_DIR}/tests/cli/acceptance.py
             $<TARGET_FILE:ganq_cli>)
    set_tests_properties(cli_acceptance PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1800)
  endif()
endif()
