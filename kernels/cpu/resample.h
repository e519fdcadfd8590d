// Separable linear maps over the spatial axes, given as tables of taps: y[o] = sum over taps of weight * x[index], axis by axis.
// Interpolation and padding are such maps, and so are their adjoints (the same tables, transposed).
#pragma once
#include <vector>

#include "../common/tensor.h"

namespace dg {

// Taps begin[o] .. begin[o + 1] - 1 belong to output position o.
struct Taps {
  std::vector<int64_t> begin{0};
  std::vector<int32_t> index;
  std::vector<double> weight;

  void add(int64_t at, double by) {
    index.push_back(int32_t(at));
    weight.push_back(by);
  }
  void end() { begin.push_back(int64_t(index.size())); }
  int64_t outputs() const { return int64_t(begin.size()) - 1; }
};

// The one tap that copies, for an axis that does not exist.
Taps identity_taps();

// The adjoint: from an axis of `inputs` positions.
Taps transposed(const Taps& taps, int64_t inputs);

// y from x for floating-point dtypes; deterministic, each output written once.
void resample(const char* op, const Tensor& y, const Tensor& x, const Taps (&taps)[3]);

// The same for tables with one tap of weight 1 per output, any dtype: a copy.
void resample_copy(const Tensor& y, const Tensor& x, const Taps (&taps)[3]);

}  // namespace dg
