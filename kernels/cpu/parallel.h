// Work sharing. Chunk boundaries depend on the problem alone, never on the number of threads, so neither do results.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "../common/library.h"

namespace dg {

// Calls f(begin, end) over [0, n) in chunks of `grain`; f must not throw.
template <class F>
void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t chunks = (n + grain - 1) / grain;
  const int threads = int(std::min<int64_t>(thread_count(), chunks));
  if (threads <= 1 || omp_in_parallel()) {
    for (int64_t c = 0; c < chunks; c++) f(c * grain, std::min(n, (c + 1) * grain));
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t c = 0; c < chunks; c++) f(c * grain, std::min(n, (c + 1) * grain));
}

// Elements that make a chunk worth a thread.
inline constexpr int64_t kGrain = 16384;

}  // namespace dg
