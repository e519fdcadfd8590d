// Index tensors in kernels: numbers of rows made from them, and checks of their range.
#pragma once
#include "../common/indexing.h"

#include "block.h"
#include "map.h"

namespace dg {

// Up to eight index tensors of one shape, which name rows along as many axes.
struct Indices {
  struct Axis {
    const char* data;
    uint64_t strides[DG_MAX_RANK];
    int64_t size;
    uint64_t step;  // what an index counts in the number (or offset) of a row
    bool wide;      // int64, else int32
  };
  int count, rank;
  bool wrap;
  uint64_t sizes[DG_MAX_RANK];
  Axis axes[DG_MAX_RANK];

  // The index of axis k at row-major position `at` of a tensor that begins `base` elements further on.
  __device__ int64_t given(int k, uint64_t at, uint64_t base = 0) const {
    const Axis& axis = axes[k];
    for (int i = rank - 1; i > 0; i--) {
      const uint64_t next = at / sizes[i];
      base += (at - next * sizes[i]) * axis.strides[i];
      at = next;
    }
    base += at * axis.strides[0];
    return axis.wide ? reinterpret_cast<const int64_t*>(axis.data)[base] : reinterpret_cast<const int32_t*>(axis.data)[base];
  }
  __device__ int64_t wrapped(int k, int64_t index) const { return index < 0 && wrap ? index + axes[k].size : index; }
  __device__ bool inside(int k, int64_t index) const { return uint64_t(wrapped(k, index)) < uint64_t(axes[k].size); }

  // The number of the row; the indices must be inside.
  __device__ uint64_t number(uint64_t at, uint64_t base = 0) const {
    uint64_t sum = 0;
    for (int k = 0; k < count; k++) sum += uint64_t(wrapped(k, given(k, at, base))) * axes[k].step;
    return sum;
  }
};

struct IndexReports {
  Report axes[DG_MAX_RANK];
};

inline Report bad_index(int64_t size, int axis, bool wrap) {
  return report(DG_RANGE, "index %lld " + outside_axis(size, axis, wrap));
}

// A check of all indices, in the order of axes and then positions: `numel` of them an axis.
struct IndexCheck {
  Indices indices;
  IndexReports reports;
  uint64_t numel;

  // The first one outside, of those that the grid's thread looks at.
  __device__ uint64_t find(uint64_t first, uint64_t step) const {
    for (uint64_t i = first; i < numel * uint64_t(indices.count); i += step) {
      const int k = int(i / numel);
      if (!indices.inside(k, indices.given(k, i - uint64_t(k) * numel))) return i;
    }
    return UINT64_MAX;
  }
  // Reports the first one outside, if any, from what the threads of a block found; the same result in all of them.
  __device__ bool refuse(uint64_t found) const {
    found = block_reduce(found, uint64_t(UINT64_MAX), [](uint64_t a, uint64_t b) { return a < b ? a : b; });
    if (found == UINT64_MAX) return false;
    if (threadIdx.x == 0) {
      const int k = int(found / numel);
      const Report bad = reports.axes[k];
      bad(indices.given(k, found - uint64_t(k) * numel));
    }
    return true;
  }
};

// One operand of a nest.
template <int K>
Nest<1, uint64_t> operand(const Loop<K>& loop, int k) {
  const Tensor nothing;
  Loop<1> one({&nothing});
  one.rank = loop.rank;
  one.numel = loop.numel;
  std::copy(loop.sizes, loop.sizes + loop.rank, one.sizes);
  std::copy(loop.strides[k], loop.strides[k] + loop.rank, one.strides[0]);
  return Nest<1, uint64_t>(one);
}

// Operands `first` and on of a nest become the places of the indices.
template <int K>
void set_places(Indices& indices, const Loop<K>& loop, int first) {
  indices.rank = loop.rank;
  for (int i = 0; i < loop.rank; i++) {
    indices.sizes[i] = uint64_t(loop.sizes[i]);
    for (int k = 0; k < indices.count; k++) indices.axes[k].strides[i] = uint64_t(loop.strides[first + k][i]);
  }
}

inline Indices::Axis index_axis(const Tensor& index, int64_t size, uint64_t step) {
  return {index.storage_data + index.offset * dtype_size(index.dtype), {}, size, step, index.dtype == DG_I64};
}

// The rows of x that index tensors name. The number of a row is its place among the rows of these axes or, with `offsets`, where it begins.
struct NamedRows {
  Indices indices = {};
  IndexReports reports = {};
  Tensor shape, tensors[DG_MAX_RANK];

  NamedRows(const RowIndices& given, const Tensor& x, bool offsets) : shape(given.shape()) {
    const int count = given.count;
    indices.count = count;
    indices.wrap = given.wrap;
    uint64_t step = 1;
    for (int k = count - 1; k >= 0; k--) {
      tensors[k] = given.tensors[k];
      indices.axes[k] = index_axis(tensors[k], x.sizes[k], offsets ? uint64_t(x.strides[k]) : step);
      reports.axes[k] = bad_index(x.sizes[k], given.axes[k], given.wrap);
      step *= uint64_t(x.sizes[k]);
    }
    for (int k = count; k < DG_MAX_RANK; k++) tensors[k] = tensors[0];
  }
  int count() const { return indices.count; }

  // The nest over the shape of the indices, row-major: row-major positions, `other` (of the same sizes), the index tensors.
  Loop<10> loop(const Tensor& other) const {
    const Tensor order = row_major(shape);
    return Loop<10>({&order, &other, &tensors[0], &tensors[1], &tensors[2], &tensors[3], &tensors[4], &tensors[5], &tensors[6], &tensors[7]});
  }
};

}  // namespace dg
