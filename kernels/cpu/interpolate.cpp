// Interpolation of the spatial axes of [N, C, spatial...] and its adjoint. Index maps in common/interpolate.h, loops in resample.cpp.
#include "../common/interpolate.h"

#include "resample.h"

namespace dg {
namespace {

template <class R>
Taps taps_of(InterpolateMode mode, const InterpolateAxis<R>& axis, bool image) {
  using M = InterpolateMode;
  Taps taps;
  check_taps(mode, axis);
  if (mode == M::linear_antialias || mode == M::cubic_antialias) {
    const bool cubic = mode == M::cubic_antialias;
    std::vector<R> weight;
    for (int64_t o = 0; o < axis.out; o++) {
      int64_t low, count;
      axis.span(o, cubic, &low, &count);
      weight.resize(size_t(count));
      R total = 0;
      for (int64_t i = 0; i < count; i++) total += weight[i] = axis.filter(o, low + i, cubic);
      for (int64_t i = 0; i < count; i++) taps.add(low + i, total != 0 ? weight[i] / total : weight[i]);
      taps.end();
    }
    return taps;
  }
  for (int64_t o = 0; o < axis.out; o++) {
    int64_t index[4];
    R weight[4] = {1, 0, 0, 0};
    int count = 1;
    switch (mode) {
      case M::nearest: index[0] = axis.nearest(o, image); break;
      case M::nearest_exact: index[0] = axis.nearest_exact(o); break;
      case M::linear: axis.linear(o, index, weight), count = 2; break;
      default: axis.cubic(o, index, weight), count = 4; break;
    }
    for (int tap = 0; tap < count; tap++) taps.add(index[tap], weight[tap]);
    taps.end();
  }
  return taps;
}

void interpolate(const char* name, const Tensor& y, const Tensor& x, bool adjoint, uint32_t code, bool align, const double (&factors)[3]) {
  const int axes = check_interpolation(name, y, x, adjoint, code, factors);
  const InterpolateMode mode = InterpolateMode(code);
  const bool nearest = mode <= InterpolateMode::nearest_exact;
  if (y.numel == 0) return;
  Taps taps[3];
  for (int a = 0; a < 3; a++) {
    if (a < 3 - axes) {
      taps[a] = identity_taps();
      continue;
    }
    const int at = a + x.rank - 3;
    const int64_t from = adjoint ? y.sizes[at] : x.sizes[at], to = adjoint ? x.sizes[at] : y.sizes[at];
    taps[a] = x.dtype == DG_F64 ? taps_of(mode, InterpolateAxis<double>(from, to, align, factors[a]), axes == 2)
                                : taps_of(mode, InterpolateAxis<float>(from, to, align, factors[a]), axes == 2);
    if (adjoint) taps[a] = transposed(taps[a], from);
  }
  if (nearest && !adjoint) resample_copy(y, x, taps);
  else resample(name, y, x, taps);
}

void pad(const char* name, const Tensor& y, const Tensor& x, bool adjoint, uint32_t code, const uint32_t (&before)[3]) {
  if (code >= uint32_t(PadMode::count)) fail(DG_RANGE, "%s: mode %u does not exist", name, code);
  const PadMode mode = PadMode(code);
  const int axes = check_planes(name, y, x);
  if (adjoint) dispatch_floats(x.dtype, name, [](auto) {});
  Taps taps[3];
  for (int a = 0; a < 3; a++) {
    if (a < 3 - axes) {
      taps[a] = identity_taps();
      continue;
    }
    const int at = a + x.rank - 3;
    const int64_t in = adjoint ? y.sizes[at] : x.sizes[at], out = adjoint ? x.sizes[at] : y.sizes[at], front = before[a];
    check_padding(name, mode, in, out, front);
    if (y.numel == 0) continue;
    check_entries(double(out));
    for (int64_t o = 0; o < out; o++) {
      taps[a].add(padded_source(mode, o, in, front), 1);
      taps[a].end();
    }
    if (adjoint) taps[a] = transposed(taps[a], in);
  }
  if (y.numel == 0) return;
  if (adjoint) resample(name, y, x, taps);
  else resample_copy(y, x, taps);
}

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_interpolate(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t mode, uint32_t align_corners, double scale0, double scale1,
                       double scale2) {
  return guard([&] {
    const Tensor y = tensor_at(t, y_slot, "interpolate", Access::write), x = tensor_at(t, x_slot, "interpolate");
    interpolate("interpolate", y, x, false, mode, align_corners != 0, {scale0, scale1, scale2});
  });
}

int32_t dg_interpolate_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t mode, uint32_t align_corners, double scale0,
                                double scale1, double scale2) {
  return guard([&] {
    const Tensor dx = tensor_at(t, dx_slot, "interpolate_backward", Access::write), dy = tensor_at(t, dy_slot, "interpolate_backward");
    interpolate("interpolate_backward", dx, dy, true, mode, align_corners != 0, {scale0, scale1, scale2});
  });
}

int32_t dg_pad(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t mode, uint32_t before0, uint32_t before1, uint32_t before2) {
  return guard([&] {
    const Tensor y = tensor_at(t, y_slot, "pad", Access::write), x = tensor_at(t, x_slot, "pad");
    pad("pad", y, x, false, mode, {before0, before1, before2});
  });
}

int32_t dg_pad_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t mode, uint32_t before0, uint32_t before1,
                        uint32_t before2) {
  return guard([&] {
    const Tensor dx = tensor_at(t, dx_slot, "pad_backward", Access::write), dy = tensor_at(t, dy_slot, "pad_backward");
    pad("pad_backward", dx, dy, true, mode, {before0, before1, before2});
  });
}
