// Interpolation of the spatial axes of [N, C, spatial...] and its adjoint. Index maps in common/interpolate.h, loops in resample.cpp.
#include "../common/interpolate.h"

#include "resample.h"

namespace dg {
namespace {

template <class R>
Taps taps_of(InterpolateMode mode, const InterpolateAxis<R>& axis, bool image) {
  using M = InterpolateMode;
  Taps taps;
  if (antialiased(mode)) {
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

}  // namespace

void interpolate(const Tensor& y, const Tensor& x, const Interpolation& p) {
  const bool image = p.axes == 2;
  Taps taps[3];
  for (int a = 0; a < 3; a++) {
    if (a < 3 - p.axes) {
      taps[a] = identity_taps();
      continue;
    }
    taps[a] = x.dtype == DG_F64 ? taps_of(p.mode, p.axis<double>(a), image) : taps_of(p.mode, p.axis<float>(a), image);
    if (p.adjoint) taps[a] = transposed(taps[a], p.in[a]);
  }
  if (copies(p.mode) && !p.adjoint) resample_copy(y, x, taps);
  else resample(p.name(), y, x, taps);
}

void pad(const Tensor& y, const Tensor& x, const Padding& p) {
  Taps taps[3];
  for (int a = 0; a < 3; a++) {
    const PadAxis& axis = p.axis[a];
    for (int64_t o = 0; o < axis.out; o++) {
      taps[a].add(axis.source(o), 1);
      taps[a].end();
    }
    if (p.adjoint) taps[a] = transposed(taps[a], axis.in);
  }
  if (p.adjoint) resample(p.name(), y, x, taps);
  else resample_copy(y, x, taps);
}

}  // namespace dg
