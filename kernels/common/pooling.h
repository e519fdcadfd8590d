// Window rules of pooling, one axis at a time.
#pragma once
#include "dtype.h"

namespace dg {

// Window o covers begin(o) + k * dilation for k in [0, kernel), or, when adaptive, the positions floor(o in / out) .. ceil((o + 1) in / out) - 1.
struct PoolAxis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, padding = 0, dilation = 1;
  bool adaptive = false;

  DG_HD int64_t begin(int64_t o) const { return adaptive ? o * in / out : o * stride - padding; }
  DG_HD int64_t taps(int64_t o) const { return adaptive ? ((o + 1) * in + out - 1) / out - o * in / out : kernel; }

  // Taps [low, high) of the window at `start` that lie inside the input.
  DG_HD int64_t low(int64_t start) const { return start < 0 ? (-start + dilation - 1) / dilation : 0; }
  DG_HD int64_t high(int64_t start, int64_t count) const {
    const int64_t inside = start < in ? (in - start + dilation - 1) / dilation : 0;
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
    const int64_t distance = i - begin(o);
    return distance >= 0 && distance % dilation == 0 && distance / dilation < taps(o) ? distance / dilation : -1;
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

}  // namespace dg
