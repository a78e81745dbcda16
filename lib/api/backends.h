/* backends.h - the list of backends this library was built with. */
#ifndef GANQ_API_BACKENDS_H
#define GANQ_API_BACKENDS_H

#include "registry.h"

extern const ganq__backend_list ganq__backends;

#endif
