// Window rules of pooling, one axis at a time, and what its functions demand of their tensors.
#pragma once
#include "planes.h"

namespace dg {

// Window o covers begin(o) + k * dilation for k in [0, kernel), or, when adaptive, the positions floor(o in / out) .. ceil((o + 1) in / out) - 1.
struct PoolAxis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, padding = 0, dilation = 1;
  bool adaptive = false;

  DG_HD int64_t begin(int64_t o) const { return adaptive ? o * in / out : o * stride - padding; }
  DG_HD int64_t taps(int64_t o) const { return adaptive ? ((o + 1) * in + out - 1) / out - o * in / out : kernel; }

  // x / dilation; on devices without integer division the usual 1 is worth a question.
  DG_HD int64_t undilated(int64_t x) const { return dilation == 1 ? x : x / dilation; }

  // Taps [low, high) of the window at `start` that lie inside the input.
  DG_HD int64_t low(int64_t start) const { return start < 0 ? undilated(-start + dilation - 1) : 0; }
  DG_HD int64_t high(int64_t start, int64_t count) const {
    const int64_t inside = start < in ? undilated(in - start + dilation - 1) : 0;
    return inside < count ? inside : count;
  }

  // Windows [first, last] that may cover position i.
  DG_HD int64_t first(int64_t i) const {
    if (adaptive) return i * out / in;
    const int64_t reach = i + padding - (kernel - 1) * dilation;
    return reach <= 0 ? 0 : (reach + stride - 1) / stride;
  }
  DG_HD int64_t last(int64_t i) const {
    const int64_t o = adaptive ? ((i + 1) * out + in - 1) / in - 1 : (i + padding) / stride;
    return o < out ? o : out - 1;
  }
  // Which tap of window o position i is, or -1.
  DG_HD int64_t tap(int64_t o, int64_t i) const {
    const int64_t distance = i - begin(o), k = undilated(distance);
    return distance >= 0 && k * dilation == distance && k < taps(o) ? k : -1;
  }

  // Positions by which an average over window o divides: with padding counted (up to the padded border), or only those inside.
  DG_HD int64_t divisor(int64_t o, bool include_padding) const {
    const int64_t start = begin(o), wide = start + taps(o), end = wide < in + padding ? wide : in + padding;
    if (include_padding) return end - start;
    return (end < in ? end : in) - (start > 0 ? start : 0);
  }

  // Number of windows; with `ceil`, a last window may reach over the border if it starts inside the input or the left padding.
  DG_HD int64_t windows(bool ceil) const {
    const int64_t room = in + 2 * padding - dilation * (kernel - 1) - 1;
    if (room < 0 && !(ceil && room + stride - 1 >= 0)) return 0;
    int64_t count = (room + (ceil ? stride - 1 : 0)) / stride + 1;
    if (ceil && (count - 1) * stride >= in + padding) count--;
    return count;
  }
  // The most taps of any window.
  DG_HD int64_t extent() const { return adaptive ? (in + out - 1) / out + 1 : kernel; }
};

// Window arguments of the C ABI, outermost axis first; all kernels 0 stands for adaptive windows.
struct PoolWindow {
  uint32_t kernel[3], stride[3], padding[3], dilation[3];
};

struct Pool {
  int64_t n = 0, channels = 0;
  PoolAxis axis[3];
  int64_t inner = 1;  // channels handled side by side: all of them where they are adjacent in memory, else one
  int64_t outer_channels() const { return channels / inner; }
  int64_t extent() const { return axis[0].extent() * axis[1].extent() * axis[2].extent(); }
  double exact_extent() const { return double(axis[0].extent()) * double(axis[1].extent()) * double(axis[2].extent()); }
};

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

// What an average divides by; `override` 0 for none.
struct PoolDivisor {
  bool include_padding;
  double override;
  DG_HD double of(const PoolAxis& d, const PoolAxis& h, const PoolAxis& w, int64_t od, int64_t oh, int64_t ow) const {
    if (override != 0) return override;
    return double(d.divisor(od, include_padding)) * double(h.divisor(oh, include_padding)) * double(w.divisor(ow, include_padding));
  }
};

// Provided by each library (average_pooling.cpp, average_pooling.cu); checked by entry/average_pooling.cpp.
void avg_pool(const Tensor& y, const Tensor& x, const Pool& pool, const PoolDivisor& divisor);
void avg_pool_backward(const Tensor& dx, const Tensor& dy, const Pool& pool, const PoolDivisor& divisor);

// Provided by each library (max_pooling.cpp, max_pooling.cu); checked by entry/max_pooling.cpp. The winners of windows are told by codes, their
// numbers in the window (one byte or int32), and by indices, their places in the plane.
void max_pool(const Tensor& y, const Tensor* indices, const Tensor* codes, const Tensor& x, const Pool& pool);
void max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& codes, const Pool& pool);
void max_pool_gather(const Tensor& y, const Tensor& x, const Tensor& codes, const Pool& pool);

// Provided by each library (unpooling.cpp, unpooling.cu); checked by entry/unpooling.cpp. An index outside the planes of the larger tensor
// fails with DG_RANGE and outside_plane(), at once or later.
void unpool_scatter(const Tensor& y, const Tensor& x, const Tensor& indices, bool accumulate);
void unpool_gather(const Tensor& y, const Tensor& x, const Tensor& indices);

inline std::string outside_plane(const char* op, const Tensor& full) {
  return std::string(op) + ": an index is outside 0 .. " + std::to_string(Planes(full).count - 1) + " of the output " + shape_text(full);
}

}  // namespace dg
