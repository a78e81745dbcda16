/* version.c - version numbers and ganq_free: the public functions that need no context. */
#include "ganq/common.h"

#include "alloc.h"

void ganq_free(void *memory) { ganq__free(memory); }

const char *ganq_version(void) {
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
    return TEXT(GANQ_VERSION_MAJOR) "." TEXT(GANQ_VERSION_MINOR) "." TEXT(GANQ_VERSION_PATCH);
}

int32_t ganq_abi_version(void) { return GANQ_ABI_VERSION; }
