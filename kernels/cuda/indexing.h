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
  return report(DG_RANGE, "index %lld is outside axis " + std::to_string(axis) + " of size " + std::to_string(size) + ", allowed are " +
                              std::to_string(wrap ? -size : 0) + " to " + std::to_string(size - 1));
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

// Index tensors in the slots from `first` on for the first axes of x, as many as `axes` has bits; the bits name the axes in errors. The number of a
// row is its place among the rows of these axes or, with `offsets`, where it begins.
struct RowIndices {
  Indices indices = {};
  IndexReports reports = {};
  Tensor shape, tensors[DG_MAX_RANK];

  RowIndices(const dg_tensor* t, uint32_t first, uint32_t axes, const Tensor& x, bool wrap, bool offsets, const char* op) {
    const int count = __builtin_popcount(axes);
    if (count < 1 || count > DG_MAX_RANK || count > x.rank) fail(DG_SHAPE, "%s: %d indices for a tensor of %d axes", op, count, x.rank);
    if (first >= DG_MAX_SLOTS - DG_MAX_RANK) fail(DG_RANGE, "%s: header slot %u does not exist", op, first);
    shape = tensor_at(t, first, op);
    limit_work(shape.numel);
    indices.count = count;
    indices.wrap = wrap;
    uint64_t step = 1;
    for (int k = count - 1; k >= 0; k--) {
      indices.axes[k].step = offsets ? uint64_t(x.strides[k]) : step;
      step *= uint64_t(x.sizes[k]);
    }
    for (int k = 0, bit = 0; k < count; k++, bit++) {
      tensors[k] = tensor_at(t, first + k, op);
      require_index(tensors[k], op);
      require_same_sizes(tensors[k], shape, op);
      while (!(axes & 1u << bit)) bit++;
      indices.axes[k] = index_axis(tensors[k], x.sizes[k], indices.axes[k].step);
      reports.axes[k] = bad_index(x.sizes[k], bit, wrap);
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
