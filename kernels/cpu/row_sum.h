// Sums whose order depends on the number of terms alone.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

namespace dg {

// Sum of f(i) for i < n: blocks of 1024 terms in vector lanes of C (or in order, where there are none), the blocks in double. f may write.
template <class C, class F>
inline double row_sum(int64_t n, F&& f) {
  double total = 0;
  for (int64_t from = 0; from < n; from += 1024) {
    const int64_t until = std::min<int64_t>(n, from + 1024);
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = from; i < until; i++) sum += f(i);
    total += double(sum);
  }
  return total;
}

}  // namespace dg
