// Index maps of interpolation and padding, one axis at a time: which input positions an output position reads, and how much of each.
// R is the type in which positions are computed: float for float and the half types, double for double (as in PyTorch).
#pragma once
#include "op_codes.h"
#include "tensor.h"

namespace dg {

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

// The input position that padded position o copies, `before` positions having been added in front. Reflection needs before < in (circular:
// before <= in), and likewise behind.
DG_HD int64_t padded_source(PadMode mode, int64_t o, int64_t in, int64_t before) {
  const int64_t i = o - before;
  if (mode == PadMode::replicate) return i < 0 ? 0 : (i < in ? i : in - 1);
  if (mode == PadMode::reflect) return i < 0 ? -i : (i < in ? i : 2 * (in - 1) - i);
  return i < 0 ? i + in : (i < in ? i : i - in);
}

// Checks ranks 3 to 5, batch, channels, and sizes 1 .. 2^31 - 1 of the spatial axes; returns the number of spatial axes.
inline int check_planes(const char* op, const Tensor& y, const Tensor& x) {
  if (x.rank < 3 || x.rank > 5 || y.rank != x.rank || x.sizes[0] != y.sizes[0] || x.sizes[1] != y.sizes[1])
    fail(DG_SHAPE, "%s: takes [N, C, spatial...] with 1 to 3 spatial axes, got %s and %s", op, shape_text(x).c_str(), shape_text(y).c_str());
  require_dtype(y, x.dtype, op, "the output");
  for (int a = 2; a < x.rank; a++)
    for (const int64_t size : {x.sizes[a], y.sizes[a]})
      if (size < 1 || size > INT32_MAX)
        fail(DG_SHAPE, "%s: sizes outside 1 .. 2^31 - 1: %s and %s", op, shape_text(x).c_str(), shape_text(y).c_str());
  return x.rank - 2;
}

// Checks the arguments of interpolation; `adjoint` for its backward. Returns the number of spatial axes.
inline int check_interpolation(const char* op, const Tensor& y, const Tensor& x, bool adjoint, uint32_t mode, const double (&factors)[3]) {
  if (mode >= uint32_t(InterpolateMode::count)) fail(DG_RANGE, "%s: mode %u does not exist", op, mode);
  const int axes = check_planes(op, y, x);
  for (const double factor : factors)
    if (!(factor >= 0 && factor < 1e300)) fail(DG_RANGE, "%s: a scale factor must be positive, got %g", op, factor);
  if (InterpolateMode(mode) > InterpolateMode::nearest_exact || adjoint) dispatch_floats(x.dtype, op, [](auto) {});
  return axes;
}

// Tables of taps are in memory: the header of a broadcast tensor could ask for more than there is. The most taps of an output, checked.
inline void check_entries(double taps) {
  if (!(taps < double(int64_t(1) << 30))) fail(DG_RANGE, "interpolate: tables of %g entries are too large", taps);
}
template <class R>
int64_t check_taps(InterpolateMode mode, const InterpolateAxis<R>& axis) {
  double most = 4;
  if (mode == InterpolateMode::linear_antialias || mode == InterpolateMode::cubic_antialias)
    most = std::min(double(axis.in), 2 * double(axis.radius(mode == InterpolateMode::cubic_antialias)) + 2);
  check_entries(most * double(axis.out));
  return int64_t(most);
}

// Checks one axis of padding: `in` positions become `out`, `front` of them before the first.
inline void check_padding(const char* op, PadMode mode, int64_t in, int64_t out, int64_t front) {
  const int64_t most = mode == PadMode::reflect ? in - 1 : (mode == PadMode::circular ? in : INT32_MAX), behind = out - in - front;
  if (front > most || behind > most || behind < 0)
    fail(DG_SHAPE, "%s: %lld positions do not become %lld with %lld in front", op, (long long)in, (long long)out, (long long)front);
}

}  // namespace dg
