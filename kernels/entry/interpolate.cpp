// Interpolation and padding of the spatial axes of [N, C, spatial...], and their adjoints.
#include "../common/interpolate.h"

using namespace dg;

namespace {

// Checks ranks 3 to 5, batch, channels, and sizes 1 .. 2^31 - 1 of the spatial axes; returns the number of spatial axes.
int check_planes(const char* op, const Tensor& y, const Tensor& x) {
  if (x.rank < 3 || x.rank > 5 || y.rank != x.rank || x.sizes[0] != y.sizes[0] || x.sizes[1] != y.sizes[1])
    fail(DG_SHAPE, "%s: takes [N, C, spatial...] with 1 to 3 spatial axes, got %s and %s", op, shape_text(x).c_str(),
         shape_text(y).c_str());
  require_dtype(y, x.dtype, op, "the output");
  for (int a = 2; a < x.rank; a++)
    for (const int64_t size : {x.sizes[a], y.sizes[a]})
      if (size < 1 || size > INT32_MAX)
        fail(DG_SHAPE, "%s: sizes outside 1 .. 2^31 - 1: %s and %s", op, shape_text(x).c_str(), shape_text(y).c_str());
  return x.rank - 2;
}

// Tables of taps are in memory: the header of a broadcast tensor could ask for more than there is.
void check_entries(double taps) {
  if (!(taps < double(int64_t(1) << 30))) fail(DG_RANGE, "interpolate: tables of %g entries are too large", taps);
}
template <class R>
void check_taps(const Interpolation& p) {
  for (int a = 0; a < 3; a++) check_entries(most_taps(p.mode, p.axis<R>(a)) * double(p.out[a]));
}

void checked_interpolate(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, bool adjoint, uint32_t mode, uint32_t align,
                         const double (&factors)[3]) {
  Interpolation p{InterpolateMode(mode), align != 0, adjoint, 0, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}};
  const char* const name = p.name();
  const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
  if (mode >= uint32_t(InterpolateMode::count)) fail(DG_RANGE, "%s: mode %u does not exist", name, mode);
  p.axes = check_planes(name, y, x);
  for (const double factor : factors)
    if (!(factor >= 0 && factor < 1e300)) fail(DG_RANGE, "%s: a scale factor must be positive, got %g", name, factor);
  if (!copies(p.mode) || adjoint) require_float(x, name);
  if (y.numel == 0) return;
  for (int a = 3 - p.axes; a < 3; a++) {
    const int at = a + x.rank - 3;
    p.in[a] = adjoint ? y.sizes[at] : x.sizes[at];
    p.out[a] = adjoint ? x.sizes[at] : y.sizes[at];
    p.factor[a] = factors[a];
  }
  if (x.dtype == DG_F64) check_taps<double>(p);
  else check_taps<float>(p);
  interpolate(y, x, p);
}

void checked_pad(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, bool adjoint, uint32_t mode, const uint32_t (&before)[3]) {
  Padding p{adjoint, 0, {}};
  const char* const name = p.name();
  const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
  if (mode >= uint32_t(PadMode::count)) fail(DG_RANGE, "%s: mode %u does not exist", name, mode);
  p.axes = check_planes(name, y, x);
  if (adjoint) require_float(x, name);
  for (PadAxis& axis : p.axis) axis.mode = PadMode(mode);
  for (int a = 3 - p.axes; a < 3; a++) {
    const int at = a + x.rank - 3;
    PadAxis& axis = p.axis[a];
    axis.in = adjoint ? y.sizes[at] : x.sizes[at];
    axis.out = adjoint ? x.sizes[at] : y.sizes[at];
    axis.before = before[a];
    const int64_t most = axis.most(), behind = axis.out - axis.in - axis.before;
    if (axis.before > most || behind > most || behind < 0)
      fail(DG_SHAPE, "%s: %lld positions do not become %lld with %lld in front", name, (long long)axis.in, (long long)axis.out,
           (long long)axis.before);
    if (y.numel > 0) check_entries(double(axis.out));
  }
  if (y.numel > 0) pad(y, x, p);
}

}  // namespace

int32_t dg_interpolate(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t mode, uint32_t align_corners, double scale0, double scale1,
                       double scale2) {
  return guard([&] { checked_interpolate(t, y_slot, x_slot, false, mode, align_corners, {scale0, scale1, scale2}); });
}

int32_t dg_interpolate_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t mode, uint32_t align_corners, double scale0,
                                double scale1, double scale2) {
  return guard([&] { checked_interpolate(t, dx_slot, dy_slot, true, mode, align_corners, {scale0, scale1, scale2}); });
}

int32_t dg_pad(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t mode, uint32_t before0, uint32_t before1, uint32_t before2) {
  return guard([&] { checked_pad(t, y_slot, x_slot, false, mode, {before0, before1, before2}); });
}

int32_t dg_pad_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t mode, uint32_t before0, uint32_t before1,
                        uint32_t before2) {
  return guard([&] { checked_pad(t, dx_slot, dy_slot, true, mode, {before0, before1, before2}); });
}
