ganq_unit_test(backend_attachment FLOORS base backend SOURCES backend/test_attachment.c)
