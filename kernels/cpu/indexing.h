// What reading and writing through indices share: checked indices, row offsets, row-major walks.
#pragma once
#include <atomic>
#include <mutex>
#include <optional>

#include "allocator.h"
#include "elementwise.h"

namespace dg {

// The first index (in walking order) that was out of range, over all threads.
class BadIndex {
 public:
  void note(int64_t position, int64_t index) {
    if (position >= position_.load(std::memory_order_relaxed)) return;
    std::lock_guard<std::mutex> lock(mutex_);
    if (position >= position_.load(std::memory_order_relaxed)) return;
    position_.store(position, std::memory_order_relaxed);
    index_ = index;
  }
  void check(int64_t size, int axis, bool wrap) const {
    if (position_.load() == INT64_MAX) return;
    fail(DG_RANGE, "index %lld is outside axis %d of size %lld, allowed are %lld to %lld", static_cast<long long>(index_), axis,
         static_cast<long long>(size), static_cast<long long>(wrap ? -size : 0), static_cast<long long>(size - 1));
  }

 private:
  std::atomic<int64_t> position_{INT64_MAX};
  std::mutex mutex_;
  int64_t index_ = 0;
};

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

// Rows of `x` named by indices into its first axes: the set bits of `axes` say how many, and which axes of the caller's tensor errors name.
// offset(b) is the element offset of row b, in row-major order over the common shape of the indices.
class Rows {
 public:
  Rows(const dg_tensor* t, uint32_t first, uint32_t axes, const Tensor& x, bool wrap, const char* op) {
    count = __builtin_popcount(axes);
    if (count < 1 || count > DG_MAX_RANK || count > x.rank) fail(DG_SHAPE, "%s: %d indices for a tensor of %d axes", op, count, x.rank);
    if (first >= DG_MAX_SLOTS - DG_MAX_RANK) fail(DG_RANGE, "%s: header slot %u does not exist", op, first);
    shape = tensor_at(t, first, op);
    limit_work(shape.numel);
    offsets_.emplace(std::max<int64_t>(8, shape.numel * 8));
    int64_t* const to = offsets_->as<int64_t>();
    std::fill(to, to + shape.numel, 0);
    for (int k = 0; k < count; k++) {
      const Tensor index = tensor_at(t, first + k, op);
      require_index(index, op);
      require_same_sizes(index, shape, op);
      while (!(axes & 1u << bit_)) bit_++;
      add(index, x.sizes[k], x.strides[k], bit_++, wrap);
    }
  }

  int64_t size() const { return shape.numel; }
  const int64_t* offsets() const { return offsets_->as<int64_t>(); }

  int count;
  Tensor shape;

 private:
  void add(const Tensor& index, int64_t size, int64_t stride, int axis, bool wrap) {
    const Tensor order = row_major(index);
    const Loop<2> loop({&order, &index});
    int64_t* const to = offsets_->as<int64_t>();
    BadIndex bad;
    dispatch_index(index, [&](auto kind) {
      using I = typename decltype(kind)::type;
      const I* const from = index.data<I>();
      const int64_t step = loop.strides[1][loop.rank - 1];
      parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
        loop.rows(begin, end, [&](const int64_t* offset, int64_t n) {
          for (int64_t i = 0; i < n; i++) {
            const int64_t given = from[offset[1] + i * step], at = given < 0 && wrap ? given + size : given;
            if (uint64_t(at) >= uint64_t(size)) bad.note(offset[0] + i, given);
            else to[offset[0] + i] += int64_t(uint64_t(at) * uint64_t(stride));
          }
        });
      });
    });
    bad.check(size, axis, wrap);
  }

  int bit_ = 0;
  std::optional<Scratch> offsets_;
};

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

// Offsets of the positions of `x` in row-major order.
class Positions {
 public:
  explicit Positions(const Tensor& x) : scratch_(std::max<int64_t>(8, x.numel * 8)) {
    const Tensor order = row_major(x);
    const Loop<2> loop({&order, &x});
    const int64_t step = loop.strides[1][loop.rank - 1];
    parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
      loop.rows(begin, end, [&](const int64_t* offset, int64_t n) {
        for (int64_t i = 0; i < n; i++) scratch_.as<int64_t>()[offset[0] + i] = offset[1] + i * step;
      });
    });
  }
  const int64_t* offsets() const { return scratch_.as<int64_t>(); }

 private:
  Scratch scratch_;
};

inline void require_row_sizes(const Tensor& packed, const Tensor& x, const Rows& rows, const char* op) {
  const int lead = rows.shape.rank;
  bool fits = packed.rank == lead + x.rank - rows.count && std::equal(rows.shape.sizes, rows.shape.sizes + lead, packed.sizes) &&
              std::equal(x.sizes + rows.count, x.sizes + x.rank, packed.sizes + lead);
  if (!fits) fail(DG_SHAPE, "%s: a tensor of sizes %s does not hold the rows of %s", op, shape_text(packed).c_str(), shape_text(x).c_str());
}

}  // namespace dg
