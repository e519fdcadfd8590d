// What reading and writing through indices share: checks of the operands, row-major walks, the two sides of a row operation.
#pragma once
#include "tensor.h"

namespace dg {

// A tensor of the sizes of `x` in row-major order over no memory: put first in a Loop, it makes the walk row-major and its offset the position.
inline Tensor row_major(const Tensor& x) {
  Tensor order = x;
  order.storage_data = nullptr;
  order.offset = 0;
  if (x.numel == 0) return order;
  int64_t step = 1;
  for (int i = order.rank - 1; i >= 0; i--) {
    order.strides[i] = step;
    step *= std::max<int64_t>(order.sizes[i], 1);
  }
  return order;
}

// Refuses element counts that only an expanded tensor can have, before work space is sized by them.
inline void limit_work(int64_t numel) {
  if (numel > int64_t(1) << 40) fail(DG_OUT_OF_MEMORY, "%lld indexed elements exceed any memory", static_cast<long long>(numel));
}

inline void require_index(const Tensor& index, const char* op) {
  if (index.dtype != DG_I32 && index.dtype != DG_I64) fail(DG_DTYPE, "%s: an index must be int32 or int64, got %s", op, dtype_name(index.dtype));
}

template <class F>
void dispatch_index(const Tensor& index, F&& f) {
  if (index.dtype == DG_I32) f(tag<int32_t>{});
  else f(tag<int64_t>{});
}

// Calls f with an unsigned integer type as wide as an element, for what only moves elements.
template <class F>
void dispatch_width(uint32_t dtype, F&& f) {
  switch (dtype_size(dtype)) {
    case 1: return f(tag<uint8_t>{});
    case 2: return f(tag<uint16_t>{});
    case 4: return f(tag<uint32_t>{});
    default: return f(tag<uint64_t>{});
  }
}

// True when two tensors may have bytes in common.
inline bool overlaps(const Tensor& a, const Tensor& b) {
  if (a.numel == 0 || b.numel == 0) return false;
  auto end = [](const Tensor& t) {
    int64_t last = t.offset;
    for (int i = 0; i < t.rank; i++) last += (t.sizes[i] - 1) * t.strides[i];
    return t.storage_data + (last + 1) * dtype_size(t.dtype);
  };
  return a.storage_data + a.offset * dtype_size(a.dtype) < end(b) && b.storage_data + b.offset * dtype_size(b.dtype) < end(a);
}

// The two sides of a row operation: axes [0, lead) and the rest of a tensor.
inline Tensor leading_axes(const Tensor& x, int lead) {
  Tensor t = x;
  t.rank = lead;
  uint64_t numel = 1;
  for (int i = 0; i < lead; i++) numel *= uint64_t(t.sizes[i]);
  t.numel = int64_t(numel);
  return t;
}
inline Tensor trailing_axes(const Tensor& x, int lead) {
  Tensor t = x;
  t.rank = x.rank - lead;
  uint64_t numel = 1;
  for (int i = 0; i < t.rank; i++) {
    t.sizes[i] = x.sizes[i + lead];
    t.strides[i] = x.strides[i + lead];
    numel *= uint64_t(t.sizes[i]);
  }
  t.numel = int64_t(numel);
  return t;
}

// Index tensors of one shape, which name rows along the first `count` axes of a tensor; `axes` are the numbers that errors give these axes,
// `wrap` lets negative indices count from the end.
struct RowIndices {
  int count = 0;
  bool wrap = false;
  Tensor tensors[DG_MAX_RANK];
  int axes[DG_MAX_RANK] = {};

  const Tensor& shape() const { return tensors[0]; }
};

// Decodes the index tensors in the slots from `first` on for x: as many as `axes` has bits, which are their axes' numbers.
inline RowIndices row_indices(const dg_tensor* t, uint32_t first, uint32_t axes, const Tensor& x, bool wrap, const char* op) {
  RowIndices rows;
  rows.count = __builtin_popcount(axes);
  rows.wrap = wrap;
  if (rows.count < 1 || rows.count > DG_MAX_RANK || rows.count > x.rank)
    fail(DG_SHAPE, "%s: %d indices for a tensor of %d axes", op, rows.count, x.rank);
  if (first >= DG_MAX_SLOTS - DG_MAX_RANK) fail(DG_RANGE, "%s: header slot %u does not exist", op, first);
  for (int k = 0, bit = 0; k < rows.count; k++, bit++) {
    while (!(axes & 1u << bit)) bit++;
    rows.axes[k] = bit;
    rows.tensors[k] = tensor_at(t, first + uint32_t(k), op);
    require_index(rows.tensors[k], op);
    require_same_sizes(rows.tensors[k], rows.shape(), op);
  }
  limit_work(rows.shape().numel);
  return rows;
}

// The sizes of `packed` must be those of the indices and then those of x beyond the axes that they name.
inline void require_row_sizes(const Tensor& packed, const Tensor& x, const RowIndices& rows, const char* op) {
  const Tensor& shape = rows.shape();
  const int lead = shape.rank;
  const bool fits = packed.rank == lead + x.rank - rows.count && std::equal(shape.sizes, shape.sizes + lead, packed.sizes) &&
                    std::equal(x.sizes + rows.count, x.sizes + x.rank, packed.sizes + lead);
  if (!fits) fail(DG_SHAPE, "%s: a tensor of sizes %s does not hold the rows of %s", op, shape_text(packed).c_str(), shape_text(x).c_str());
}

// How errors about an index go on.
inline std::string outside_axis(int64_t size, int axis, bool wrap) {
  return "is outside axis " + std::to_string(axis) + " of size " + std::to_string(size) + ", allowed are " +
         std::to_string(wrap ? -size : 0) + " to " + std::to_string(size - 1);
}

// x with the axes reversed whose bit is set; it has negative strides.
inline Tensor reversed_axes(const Tensor& x, uint32_t axes) {
  Tensor turned = x;
  for (int i = 0; i < x.rank; i++) {
    if (!(axes >> i & 1)) continue;
    turned.offset += (x.sizes[i] - 1) * x.strides[i];
    turned.strides[i] = -x.strides[i];
  }
  return turned;
}

// Provided by each library (indexing.cpp, indexing.cu); checked by entry/indexing.cpp, but for the values of indices and, in nonzero, the
// number of true elements.
// gather: `base` has the sizes of the index and the strides of x, 0 along `axis`.
void gather(const Tensor& out, const Tensor& x, const Tensor& index, const Tensor& base, int axis);
void index_get(const Tensor& out, const Tensor& x, const RowIndices& rows);
void count_nonzero(const Tensor& out, const Tensor& x);
void nonzero(const Tensor& out, const Tensor& x);
void flip(const Tensor& out, const Tensor& x, uint32_t axes);
// Keeps the columns j of row i with j - i >= diagonal (upper) or <= diagonal (lower).
void triangle(const Tensor& out, const Tensor& x, int64_t diagonal, bool upper);

}  // namespace dg
