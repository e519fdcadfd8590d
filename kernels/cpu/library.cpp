// Threads.
#include "../common/library.h"

#include <omp.h>

#include <atomic>

namespace dg {
namespace {
std::atomic<int> threads{0};
}

int thread_count() {
  if (call_threads > 0) return call_threads;
  int count = threads.load(std::memory_order_relaxed);
  if (count == 0) threads.store(count = omp_get_max_threads(), std::memory_order_relaxed);
  return call_threads = count;
}

void set_thread_count(int32_t count) {
  if (count < 1 || count > omp_get_num_procs())
    fail(DG_RANGE, "setThreads: got %d, this machine allows 1 to %d", count, omp_get_num_procs());
  threads.store(count);
}

}  // namespace dg
