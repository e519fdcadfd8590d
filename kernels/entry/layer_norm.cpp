// Layer norm, root mean square norm, group norm, and their gradients.
#include "../common/row_norm.h"
#include "optional.h"

using namespace dg;

namespace {

// The headers of a call, all of which go with the input x.
struct Headers {
  const dg_tensor* t;
  const char* name;
  Tensor x;

  Headers(const char* op, const dg_tensor* frame, uint32_t x_slot) : t(frame), name(op), x(tensor_at(frame, x_slot, op)) {
    require_contiguous(x);
    require_float(x, name);
  }
  void require_contiguous(const Tensor& v) const {
    if (!v.contiguous()) fail(DG_SHAPE, "%s: tensors must be contiguous", name);
  }

  // A contiguous tensor with the sizes and dtype of x.
  void require_like_x(const Tensor& v) const {
    require_same_sizes(v, x, name);
    require_dtype(v, x.dtype, name, "each of input, output and gradients");
    require_contiguous(v);
  }
  Tensor like_x(uint32_t slot, Access access = Access::read) const {
    const Tensor v = tensor_at(t, slot, name, access);
    require_like_x(v);
    return v;
  }
  Optional optional_like_x(uint32_t slot, Access access) const {
    const Optional v(t, slot, name, access);
    if (v.get()) require_like_x(*v.get());
    return v;
  }

  // `count` contiguous values in the computing dtype.
  Optional values(uint32_t slot, int64_t count, Access access = Access::read) const {
    const Optional v(t, slot, name, access);
    if (!v.get()) return v;
    require_dtype(*v.get(), x.dtype == DG_F64 ? DG_F64 : DG_F32, name, "statistics and parameters");
    if (!v->contiguous() || v->numel != count)
      fail(DG_SHAPE, "%s: expected %lld contiguous values, got %s", name, static_cast<long long>(count), shape_text(*v.get()).c_str());
    return v;
  }

  NormRows rows(double columns) const {
    if (!(columns >= 1 && columns <= double(std::max<int64_t>(x.numel, 1))) || columns != std::floor(columns) ||
        x.numel % int64_t(columns) != 0)
      fail(DG_SHAPE, "%s: %s does not consist of rows of %g values", name, shape_text(x).c_str(), columns);
    return {x.numel / int64_t(columns), int64_t(columns)};
  }
  NormGroups groups(double count) const {
    if (x.rank < 2 || x.numel == 0 || !(count >= 1 && count <= double(x.sizes[1])) || count != std::floor(count) ||
        x.sizes[1] % int64_t(count) != 0)
      fail(DG_SHAPE, "%s: %g groups do not divide the channels of %s", name, count, shape_text(x).c_str());
    return {x.sizes[0] * int64_t(count), int64_t(count), x.sizes[1] / int64_t(count), x.numel / x.sizes[0] / x.sizes[1]};
  }
};

}  // namespace

int32_t dg_layer_norm(const dg_tensor* t, uint32_t y_slot, uint32_t mean_slot, uint32_t invstd_slot, uint32_t x_slot, uint32_t weight_slot,
                      uint32_t bias_slot, double columns, double eps) {
  return guard([&] {
    const Headers h("layer_norm", t, x_slot);
    const Tensor y = h.like_x(y_slot, Access::write);
    const NormRows r = h.rows(columns);
    const Optional mean = h.values(mean_slot, r.rows, Access::write), invstd = h.values(invstd_slot, r.rows, Access::write);
    const Optional weight = h.values(weight_slot, r.columns), bias = h.values(bias_slot, r.columns);
    if (!invstd.get()) fail(DG_SHAPE, "%s: invstd must be given", h.name);
    layer_norm(y, mean, *invstd.get(), h.x, weight, bias, r, eps);
  });
}

int32_t dg_layer_norm_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dweight_slot, uint32_t dbias_slot, uint32_t dy_slot, uint32_t x_slot,
                               uint32_t mean_slot, uint32_t invstd_slot, uint32_t weight_slot, double columns) {
  return guard([&] {
    const Headers h("layer_norm_backward", t, x_slot);
    const Tensor dy = h.like_x(dy_slot);
    const Optional dx = h.optional_like_x(dx_slot, Access::write);
    const NormRows r = h.rows(columns);
    const Optional dweight = h.values(dweight_slot, r.columns, Access::write), dbias = h.values(dbias_slot, r.columns, Access::write);
    const Optional mean = h.values(mean_slot, r.rows), invstd = h.values(invstd_slot, r.rows), weight = h.values(weight_slot, r.columns);
    if (!invstd.get()) fail(DG_SHAPE, "%s: invstd must be given", h.name);
    layer_norm_backward(dx, dweight, dbias, dy, h.x, mean, *invstd.get(), weight, r);
  });
}

int32_t dg_group_norm(const dg_tensor* t, uint32_t y_slot, uint32_t mean_slot, uint32_t invstd_slot, uint32_t x_slot, uint32_t weight_slot,
                      uint32_t bias_slot, double groups, double eps) {
  return guard([&] {
    const Headers h("group_norm", t, x_slot);
    const Tensor y = h.like_x(y_slot, Access::write);
    const NormGroups g = h.groups(groups);
    const int64_t channels = h.x.sizes[1];
    const Optional mean = h.values(mean_slot, g.rows, Access::write), invstd = h.values(invstd_slot, g.rows, Access::write);
    const Optional weight = h.values(weight_slot, channels), bias = h.values(bias_slot, channels);
    if (!mean.get() || !invstd.get()) fail(DG_SHAPE, "%s: mean and invstd must be given", h.name);
    group_norm(y, *mean.get(), *invstd.get(), h.x, weight, bias, g, eps);
  });
}

int32_t dg_group_norm_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dweight_slot, uint32_t dbias_slot, uint32_t dy_slot, uint32_t x_slot,
                               uint32_t mean_slot, uint32_t invstd_slot, uint32_t weight_slot, double groups) {
  return guard([&] {
    const Headers h("group_norm_backward", t, x_slot);
    const Tensor dy = h.like_x(dy_slot);
    const Optional dx = h.optional_like_x(dx_slot, Access::write);
    const NormGroups g = h.groups(groups);
    const int64_t channels = h.x.sizes[1];
    const Optional dweight = h.values(dweight_slot, channels, Access::write), dbias = h.values(dbias_slot, channels, Access::write);
    const Optional mean = h.values(mean_slot, g.rows), invstd = h.values(invstd_slot, g.rows), weight = h.values(weight_slot, channels);
    if (!mean.get() || !invstd.get()) fail(DG_SHAPE, "%s: mean and invstd must be given", h.name);
    group_norm_backward(dx, dweight, dbias, dy, h.x, *mean.get(), *invstd.get(), weight, g);
  });
}
