// What reading and writing through indices share: checked indices, row offsets.
#pragma once
#include <atomic>
#include <mutex>
#include <optional>

#include "../common/indexing.h"
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

}  // namespace dg
