foreach(part products convert backend)
  ganq_unit_test(cpu_dense_${part} FLOORS base io backend pack cpu SOURCES cpu/dense_${part}.c)
endforeach()
