// Places of numbers: in a sorted row, in a histogram.
#pragma once
#include "tensor.h"

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

// Provided by each library (search.cpp, search.cu); checked by entry/search.cpp, but for values of elements.
// searchsorted: `starts` has the sizes of x, and its strides tell where in `sorted` the row of each value begins. `weights` may be null.
void searchsorted(const Tensor& out, const Tensor& sorted, const Tensor& x, const Tensor& starts, bool right);
void bincount(const Tensor& out, const Tensor& x, const Tensor* weights);
void histc(const Tensor& out, const Tensor& x, double low, double high);
// group[i] = how many distinct elements precede element i of a sorted row; NaN differs from itself.
void groups(const Tensor& group, const Tensor& sorted);
// The distinct elements, how often each occurs (counts), and where each of the unsorted elements went (inverse).
struct UniqueTensors {
  Tensor values, inverse, counts, sorted, order, group;
};
void unique(const UniqueTensors& io);

}  // namespace dg
