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

// The sizes of `packed` must be those of `shape` and then those of x beyond its first `count` axes.
inline void require_row_sizes(const Tensor& packed, const Tensor& x, const Tensor& shape, int count, const char* op) {
  const int lead = shape.rank;
  const bool fits = packed.rank == lead + x.rank - count && std::equal(shape.sizes, shape.sizes + lead, packed.sizes) &&
                    std::equal(x.sizes + count, x.sizes + x.rank, packed.sizes + lead);
  if (!fits) fail(DG_SHAPE, "%s: a tensor of sizes %s does not hold the rows of %s", op, shape_text(packed).c_str(), shape_text(x).c_str());
}

}  // namespace dg
