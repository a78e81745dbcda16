foreach(part status dtype memory file threads random)
  ganq_unit_test(base_${part} FLOORS base SOURCES base/test_${part}.c)
endforeach()
