// Tensors [N, C, (D, (H,)) W] as if they always had three spatial axes.
#pragma once
#include "tensor.h"

namespace dg {

struct PlaneView {
  int64_t n, c, axis[3] = {0, 0, 0};  // strides
  explicit PlaneView(const Tensor& t) : n(t.strides[0]), c(t.strides[1]) {
    for (int a = 2; a < t.rank; a++) axis[a + 3 - t.rank] = t.strides[a];
  }
  DG_HD int64_t offset(int64_t d, int64_t h, int64_t w) const { return d * axis[0] + h * axis[1] + w * axis[2]; }
};

// A view with the sizes of its planes, whose positions may be numbered row by row.
struct Planes : PlaneView {
  int64_t size[3] = {1, 1, 1}, count;
  explicit Planes(const Tensor& t) : PlaneView(t) {
    for (int a = 2; a < t.rank; a++) size[a + 3 - t.rank] = t.sizes[a];
    count = size[0] * size[1] * size[2];
  }
  DG_HD int64_t flat_offset(int64_t at) const { return offset(at / (size[1] * size[2]), at / size[2] % size[1], at % size[2]); }
};

}  // namespace dg
