// Index maps of interpolation and padding, one axis at a time: which input positions an output position reads, and how much of each.
// R is the type in which positions are computed: float for float and the half types, double for double (as in PyTorch).
#pragma once
#include "op_codes.h"
#include "tensor.h"

namespace dg {

constexpr bool copies(InterpolateMode mode) { return mode == InterpolateMode::nearest || mode == InterpolateMode::nearest_exact; }
constexpr bool antialiased(InterpolateMode mode) {
  return mode == InterpolateMode::linear_antialias || mode == InterpolateMode::cubic_antialias;
}

template <class R>
struct InterpolateAxis {
  int64_t in, out;
  bool align;
  R scale;  // input positions per output position

  // `factor` is the scale factor that the caller gave, 0 for none.
  DG_HD InterpolateAxis(int64_t in_, int64_t out_, bool align_, double factor) : in(in_), out(out_), align(align_) {
    if (align) scale = out > 1 ? R(in - 1) / R(out - 1) : R(0);
    else scale = factor > 0 ? R(1.0 / factor) : R(in) / R(out);
  }

  // Where output position o lies, in input positions.
  DG_HD R source(int64_t o) const { return align ? scale * R(o) : scale * (R(o) + R(0.5)) - R(0.5); }

  DG_HD int64_t floor_index(R real) const {
    if (!(real < R(in - 1))) return in - 1;
    const int64_t index = int64_t(std::floor(real));
    return index < in ? index : in - 1;
  }

  // PyTorch maps images (two spatial axes) by their sizes where these are equal or double, whatever the scale factor.
  DG_HD int64_t nearest(int64_t o, bool image) const {
    if (image && in == out) return o;
    return image && out == 2 * in ? o / 2 : floor_index(scale * R(o));
  }
  DG_HD int64_t nearest_exact(int64_t o) const {
    const R real = scale * (R(o) + R(0.5)) - R(0.5);
    return floor_index((real < R(0) ? R(0) : real) + R(0.5));
  }

  DG_HD static R unit(R fraction) { return fraction < R(0) ? R(0) : (fraction > R(1) ? R(1) : fraction); }
  DG_HD int64_t clamp(int64_t i) const { return i < 0 ? 0 : (i < in ? i : in - 1); }

  // Two taps; equal sizes copy.
  DG_HD void linear(int64_t o, int64_t* index, R* weight) const {
    if (in == out) {
      index[0] = index[1] = o;
      weight[0] = R(1);
      weight[1] = R(0);
      return;
    }
    R real = source(o);
    real = real < R(0) ? R(0) : real;
    index[0] = floor_index(real);
    index[1] = index[0] < in - 1 ? index[0] + 1 : index[0];
    weight[1] = unit(real - R(index[0]));
    weight[0] = R(1) - weight[1];
  }

  // Four taps of the cubic convolution with a = -0.75, positions clamped to the borders.
  DG_HD void cubic(int64_t o, int64_t* index, R* weight) const {
    const R real = source(o);
    const int64_t middle = floor_index(real);
    const R t = unit(real - R(middle)), a = R(-0.75);
    const R near[2] = {t, R(1) - t}, far[2] = {t + R(1), R(2) - t};
    for (int side = 0; side < 2; side++) {
      const R x = near[side], z = far[side];
      weight[1 + side] = ((a + R(2)) * x - (a + R(3))) * x * x + R(1);
      weight[3 * side] = ((a * z - R(5) * a) * z + R(8) * a) * z - R(4) * a;
    }
    for (int tap = 0; tap < 4; tap++) index[tap] = clamp(middle + tap - 1);
  }

  // Antialiased: a triangle (radius 1) or cubic (a = -0.5, radius 2) as wide as an output position. Taps [low, low + count); equal sizes copy.
  DG_HD R radius(bool cubic_filter) const {
    const R support = cubic_filter ? R(2) : R(1);
    return scale >= R(1) ? support * scale : support;
  }
  DG_HD void span(int64_t o, bool cubic_filter, int64_t* low, int64_t* count) const {
    if (in == out) {
      *low = o;
      *count = 1;
      return;
    }
    const R center = scale * (R(o) + R(0.5)), reach = radius(cubic_filter);
    const R first = center - reach + R(0.5), end = center + reach + R(0.5);
    *low = first > R(0) ? (first < R(in) ? int64_t(first) : in) : 0;
    const int64_t high = end < R(in) ? int64_t(end) : in;
    *count = high > *low ? high - *low : 0;
  }
  DG_HD R filter(int64_t o, int64_t i, bool cubic_filter) const {  // not yet divided by the sum over the taps
    if (in == out) return R(1);
    const R center = scale * (R(o) + R(0.5));
    R x = (R(i) - center + R(0.5)) * (scale >= R(1) ? R(1) / scale : R(1));
    x = x < R(0) ? -x : x;
    if (!cubic_filter) return x < R(1) ? R(1) - x : R(0);
    const R a = R(-0.5);
    if (x < R(1)) return ((a + R(2)) * x - (a + R(3))) * x * x + R(1);
    return x < R(2) ? (((x - R(5)) * x + R(8)) * x - R(4)) * a : R(0);
  }
};

// An interpolation, or its adjoint, from the sizes `in` to `out`, which are 1 for axes in front that do not exist.
struct Interpolation {
  InterpolateMode mode;
  bool align, adjoint;
  int axes;  // that exist
  int64_t in[3], out[3];
  double factor[3];

  const char* name() const { return adjoint ? "interpolate_backward" : "interpolate"; }
  template <class R>
  InterpolateAxis<R> axis(int a) const {
    return {in[a], out[a], align, factor[a]};
  }
};

// The most taps of an output position where taps are kept in tables.
template <class R>
double most_taps(InterpolateMode mode, const InterpolateAxis<R>& axis) {
  return antialiased(mode) ? std::min(double(axis.in), 2 * double(axis.radius(mode == InterpolateMode::cubic_antialias)) + 2) : 4;
}

// One axis of padding: `in` positions become `out`, `before` of them in front of the first.
struct PadAxis {
  PadMode mode = PadMode::reflect;
  int64_t in = 1, out = 1, before = 0;

  // The most positions that may be added on a side.
  int64_t most() const { return mode == PadMode::reflect ? in - 1 : (mode == PadMode::circular ? in : INT32_MAX); }

  // The input position that padded position o copies.
  DG_HD int64_t source(int64_t o) const {
    const int64_t i = o - before;
    if (mode == PadMode::replicate) return i < 0 ? 0 : (i < in ? i : in - 1);
    if (mode == PadMode::reflect) return i < 0 ? -i : (i < in ? i : 2 * (in - 1) - i);
    return i < 0 ? i + in : (i < in ? i : i - in);
  }
};

struct Padding {
  bool adjoint;
  int axes;  // that exist, the last ones
  PadAxis axis[3];

  const char* name() const { return adjoint ? "pad_backward" : "pad"; }
};

// Provided by each library (interpolate.cpp, interpolate.cu) for tensors that are not empty; checked by entry/interpolate.cpp. An adjoint
// makes the gradient y of the input from the gradient x of the output.
void interpolate(const Tensor& y, const Tensor& x, const Interpolation& p);
void pad(const Tensor& y, const Tensor& x, const Padding& p);

}  // namespace dg
