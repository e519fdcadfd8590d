// What the pooling kernels share: geometry read from headers, and loops over rows of positions with channels innermost.
#pragma once
#include "../common/pooling.h"
#include "elementwise.h"

namespace dg {

// Window arguments of the C ABI, outermost axis first; all kernels 0 stands for adaptive windows.
struct PoolWindow {
  uint32_t kernel[3], stride[3], padding[3], dilation[3];
};

// Strides of a tensor [N, C, (D, (H,)) W] as if it had three spatial axes.
struct PoolView {
  int64_t n, c, axis[3];
  explicit PoolView(const Tensor& t) : n(t.strides[0]), c(t.strides[1]), axis{0, 0, 0} {
    for (int a = 2; a < t.rank; a++) axis[a + 5 - t.rank - 2] = t.strides[a];
  }
};

struct Pool {
  int64_t n = 0, channels = 0;
  PoolAxis axis[3];
  int64_t inner = 1;   // channels handled side by side: all of them where they are adjacent in memory, else one
  int64_t in_plane() const { return axis[0].in * axis[1].in * axis[2].in; }
  int64_t extent() const { return axis[0].extent() * axis[1].extent() * axis[2].extent(); }
  int64_t outer_channels() const { return channels / inner; }
};

inline constexpr int64_t kPoolBlock = 64;

// Reads and checks the geometry: `full` has the input's sizes, `pooled` the output's.
inline Pool pool_of(const char* op, const Tensor& full, const Tensor& pooled, const PoolWindow& window, bool half_of_effective) {
  if (full.rank < 3 || full.rank > 5 || pooled.rank != full.rank)
    fail(DG_SHAPE, "%s: takes [N, C, spatial...] with 1 to 3 spatial axes, got %s and %s", op, shape_text(full).c_str(), shape_text(pooled).c_str());
  if (full.sizes[0] != pooled.sizes[0] || full.sizes[1] != pooled.sizes[1])
    fail(DG_SHAPE, "%s: batch and channels differ: %s and %s", op, shape_text(full).c_str(), shape_text(pooled).c_str());
  Pool pool;
  pool.n = full.sizes[0];
  pool.channels = full.sizes[1];
  for (int a = 0; a < 3; a++) {
    PoolAxis& axis = pool.axis[a];
    const int at = a + full.rank - 3;
    if (at < 2) {
      if (window.kernel[a] > 1 || window.padding[a] != 0) fail(DG_RANGE, "%s: a window over an axis that does not exist", op);
      continue;
    }
    axis.in = full.sizes[at];
    axis.out = pooled.sizes[at];
    if (axis.in < 1 || axis.out < 1 || axis.in > INT32_MAX || axis.out > INT32_MAX)
      fail(DG_SHAPE, "%s: sizes outside 1 .. 2^31 - 1: %s and %s", op, shape_text(full).c_str(), shape_text(pooled).c_str());
    axis.adaptive = window.kernel[a] == 0;
    if (axis.adaptive) continue;
    axis.kernel = window.kernel[a];
    axis.stride = window.stride[a];
    axis.padding = window.padding[a];
    axis.dilation = window.dilation[a];
    const int64_t limit = int64_t(1) << 30;
    if (axis.stride < 1 || axis.dilation < 1 || axis.kernel > limit || axis.stride > limit || axis.padding > limit || axis.dilation > limit)
      fail(DG_RANGE, "%s: kernel, stride and dilation must be 1 .. 2^30, padding 0 .. 2^30", op);
    const int64_t reach = half_of_effective ? (axis.kernel - 1) * axis.dilation + 1 : axis.kernel;
    if (axis.padding > reach / 2) fail(DG_RANGE, "%s: padding %lld exceeds half of the window of %lld", op, (long long)axis.padding, (long long)reach);
    if (axis.out != axis.windows(false) && axis.out != axis.windows(true))
      fail(DG_SHAPE, "%s: %lld windows along an axis of %lld, expected %lld", op, (long long)axis.out, (long long)axis.in, (long long)axis.windows(false));
  }
  return pool;
}

// Calls row(n, c, i0, i1, from, to): channels [from, to) of `inner` at row (i0, i1) of a plane whose sizes are rows0 x rows1.
// `work` estimates the elements that one row reads.
template <class Row>
void pool_rows(const Pool& pool, int64_t rows0, int64_t rows1, int64_t work, Row&& row) {
  const int64_t outer = pool.outer_channels(), rows = pool.n * outer * rows0 * rows1;
  const int64_t pieces = rows < 32 ? (pool.inner + kPoolBlock - 1) / kPoolBlock : 1;
  const int64_t width = pieces > 1 ? kPoolBlock : pool.inner;
  parallel_for(rows * pieces, kGrain / std::max<int64_t>(work * width, 1), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t from = job % pieces * width, at = job / pieces, plane = at / (rows0 * rows1);
      row(plane / outer, plane % outer, at / rows1 % rows0, at % rows1, from, std::min(pool.inner, from + width));
    }
  });
}

}  // namespace dg
