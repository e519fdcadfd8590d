// Version, errors and threads.
#include <atomic>
#include <cstring>

#include "../common/tensor.h"
#include "parallel.h"

namespace dg {
namespace {
std::atomic<int> threads{0};
}

int thread_count() {
  int count = threads.load(std::memory_order_relaxed);
  if (count == 0) threads.store(count = omp_get_max_threads(), std::memory_order_relaxed);
  return count;
}
}  // namespace dg

int32_t dg_abi_version(void) { return DG_ABI_VERSION; }

uint32_t dg_last_error(char* text, uint32_t capacity) {
  const std::string& message = dg::last_error();
  if (text && capacity) {
    const size_t count = std::min<size_t>(message.size(), capacity - 1);
    std::memcpy(text, message.data(), count);
    text[count] = 0;
  }
  return static_cast<uint32_t>(message.size());
}

int32_t dg_set_threads(int32_t count) {
  return dg::guard([&] {
    if (count < 1 || count > omp_get_num_procs())
      dg::fail(DG_RANGE, "setThreads: got %d, this machine allows 1 to %d", count, omp_get_num_procs());
    dg::threads.store(count);
    omp_set_num_threads(count);
  });
}

int32_t dg_get_threads(void) { return dg::thread_count(); }
