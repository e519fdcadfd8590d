// The functions of external.h.
#include "external.h"

#include "state.h"

using namespace emulation;

int32_t dg_emulated_progress(void* stream, int32_t (*progress)(void*), void* context) {
  return enqueue_progress(static_cast<cudaStream_t>(stream), [=] { return progress(context) != 0; });
}

void dg_emulated_access(const void* memory, size_t bytes, int32_t write, const char* what) { check_access(memory, bytes, write != 0, what); }

int32_t dg_emulated_device(void) {
  Lock lock(mutex);
  return current;
}

int32_t dg_emulated_device_of(const void* memory) {
  Lock lock(mutex);
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  return in_arena(at) ? device_of(at) : -1;
}
