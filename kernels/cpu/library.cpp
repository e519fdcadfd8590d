// Threads.
#include <atomic>

#include "../common/status.h"
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

int32_t dg_set_threads(int32_t count) {
  return dg::guard([&] {
    if (count < 1 || count > omp_get_num_procs())
      dg::fail(DG_RANGE, "setThreads: got %d, this machine allows 1 to %d", count, omp_get_num_procs());
    dg::threads.store(count);
    omp_set_num_threads(count);
  });
}

int32_t dg_get_threads(void) { return dg::thread_count(); }
