// What reading and writing through indices share: checked indices, row offsets.
#pragma once
#include <atomic>
#include <mutex>

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
    fail(DG_RANGE, "index %lld %s", static_cast<long long>(index_), outside_axis(size, axis, wrap).c_str());
  }

 private:
  std::atomic<int64_t> position_{INT64_MAX};
  std::mutex mutex_;
  int64_t index_ = 0;
};

// Where the rows of x begin that the indices name: element offsets, in row-major order over the shape of the indices.
class RowOffsets {
 public:
  RowOffsets(const RowIndices& indices, const Tensor& x)
      : count(indices.count), shape(indices.shape()), offsets_(std::max<int64_t>(8, shape.numel * 8)) {
    int64_t* const to = offsets_.as<int64_t>();
    std::fill(to, to + shape.numel, 0);
    for (int k = 0; k < count; k++) add(indices.tensors[k], x.sizes[k], x.strides[k], indices.axes[k], indices.wrap);
  }

  int64_t size() const { return shape.numel; }
  const int64_t* offsets() const { return offsets_.as<int64_t>(); }

  int count;
  Tensor shape;

 private:
  void add(const Tensor& index, int64_t size, int64_t stride, int axis, bool wrap) {
    const Tensor order = row_major(index);
    const Loop<2> loop({&order, &index});
    int64_t* const to = offsets_.as<int64_t>();
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

  Scratch offsets_;
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
