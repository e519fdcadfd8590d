// What concerns a library as a whole.
#pragma once
#include <cstdint>

#include "status.h"

namespace dg {

// Provided by each library (library.cpp, library.cu). thread_count is 0 where a library does not compute with threads.
void set_thread_count(int32_t count);
int thread_count();

}  // namespace dg
