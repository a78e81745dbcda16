ganq_unit_test(tokenizer_components FLOORS base io SOURCES tokenizer/test_components.c)
ganq_unit_test(tokenizer_bad_files FLOORS base io SOURCES tokenizer/test_bad_files.c)
ganq_unit_test(tokenizer_families FLOORS base io SOURCES tokenizer/test_families.c)
ganq_api_test(tokenizer_api tokenizer/test_api.c)
