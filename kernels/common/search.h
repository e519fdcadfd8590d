// Places of numbers: in a sorted row, in a histogram.
#pragma once
#include "dtype.h"

namespace dg {

// First position of the sorted row at(0) .. at(count - 1) whose element is not less than v (or is greater, with `right`); NaN is never passed.
template <class A, class At>
DG_HD int64_t sorted_bound(int64_t count, A v, bool right, At at) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const A element = at(middle);
    if (right ? !(element > v) : !(element >= v)) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The part of [low, high], out of `bins` equal ones, that holds x; x lies in it, and `high` belongs to the last part.
template <class A>
DG_HD int64_t histogram_bin(A x, A low, A high, int64_t bins) {
  const int64_t at = int64_t((x - low) / (high - low) * A(bins));
  return at < bins ? at : bins - 1;
}

}  // namespace dg
