// Batch normalisation: statistics, the normalised result, and both passes of the gradient.
#include "../common/batch_norm.h"
#include "per_channel.h"

using namespace dg;

int32_t dg_batch_norm_stats(const dg_tensor* t, uint32_t mean_slot, uint32_t var_slot, uint32_t invstd_slot, uint32_t running_mean_slot,
                            uint32_t running_var_slot, uint32_t batches_slot, uint32_t x_slot, double momentum, double eps) {
  return guard([&] {
    const char* const name = "batch_norm_stats";
    const Tensor x = tensor_at(t, x_slot, name);
    const Tensor* const tensors[] = {&x};
    const batch_norm::Shape s(tensors, 1, name);
    require_float(x, name);
    const PerChannel mean(t, mean_slot, s.channels, x.dtype, name, Access::write), var(t, var_slot, s.channels, x.dtype, name, Access::write);
    if (!mean.get() || !var.get()) fail(DG_SHAPE, "%s: both outputs must be given", name);
    const Updated u(t, invstd_slot, running_mean_slot, running_var_slot, batches_slot, s.channels, x.dtype, name);
    if (x.numel == 0) fail(DG_SHAPE, "%s: no values to take the mean of", name);
    batch_norm_stats(s, *mean.get(), *var.get(), x, {u.invstd, u.running_mean, u.running_var, u.batches, double(s.count()), momentum, eps});
  });
}

int32_t dg_batch_norm_update(const dg_tensor* t, uint32_t invstd_slot, uint32_t mean_slot, uint32_t var_slot, uint32_t running_mean_slot,
                             uint32_t running_var_slot, uint32_t batches_slot, double count, double momentum, double eps) {
  return guard([&] {
    const char* const name = "batch_norm_update";
    const Tensor var = tensor_at(t, var_slot, name);
    if (var.dtype != DG_F32 && var.dtype != DG_F64) fail(DG_DTYPE, "%s: takes float32 or float64, got %s", name, dtype_name(var.dtype));
    if (var.rank != 1 || !var.contiguous()) fail(DG_SHAPE, "%s: per-channel tensors must be contiguous and have one axis", name);
    const PerChannel mean(t, mean_slot, var.numel, var.dtype, name);
    if (!mean.get()) fail(DG_SHAPE, "%s: the mean must be given", name);
    const Updated u(t, invstd_slot, running_mean_slot, running_var_slot, batches_slot, var.numel, var.dtype, name);
    batch_norm_update(*mean.get(), var, {u.invstd, u.running_mean, u.running_var, u.batches, count, momentum, eps});
  });
}

int32_t dg_batch_norm_apply(const dg_tensor* t, uint32_t y_slot, uint32_t kept_mean_slot, uint32_t kept_invstd_slot, uint32_t x_slot,
                            uint32_t mean_slot, uint32_t invstd_slot, uint32_t var_slot, uint32_t weight_slot, uint32_t bias_slot,
                            uint32_t residual_slot, double eps, uint32_t relu) {
  return guard([&] {
    const char* const name = "batch_norm";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const Optional residual(t, residual_slot, name);
    const Tensor* const tensors[] = {&x, &y, residual};
    const batch_norm::Shape s(tensors, residual.get() ? 3 : 2, name);
    require_float(x, name);
    const auto channel = [&](uint32_t slot) { return PerChannel(t, slot, s.channels, x.dtype, name); };
    const PerChannel mean = channel(mean_slot), invstd = channel(invstd_slot), var = channel(var_slot), weight = channel(weight_slot),
                     bias = channel(bias_slot);
    const PerChannel kept_mean(t, kept_mean_slot, s.channels, x.dtype, name, Access::write),
        kept_invstd(t, kept_invstd_slot, s.channels, x.dtype, name, Access::write);
    if (var.get() && (invstd.get() || !mean.get())) fail(DG_SHAPE, "%s: a variance comes with a mean and without invstd", name);
    if (!kept_mean.get() != !kept_invstd.get() || (kept_mean.get() && !var.get()))
      fail(DG_SHAPE, "%s: mean and invstd are kept together, of a variance", name);
    if (x.numel > 0) batch_norm_apply(s, y, x, {mean, invstd, weight, bias}, {var, kept_mean, kept_invstd, eps}, residual, relu != 0);
  });
}

int32_t dg_batch_norm_reduce(const dg_tensor* t, uint32_t sum_dy_slot, uint32_t sum_dy_xhat_slot, uint32_t masked_slot, uint32_t dy_slot,
                             uint32_t x_slot, uint32_t y_slot, uint32_t mean_slot, uint32_t invstd_slot, uint32_t weight_slot,
                             uint32_t bias_slot, uint32_t relu) {
  return guard([&] {
    const char* const name = "batch_norm_backward";
    const Tensor dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name);
    const Optional masked(t, masked_slot, name, Access::write), y(t, y_slot, name);
    const Tensor* tensors[4] = {&x, &dy};
    int count = 2;
    if (masked.get()) tensors[count++] = masked;
    if (y.get()) tensors[count++] = y;
    const batch_norm::Shape s(tensors, count, name);
    require_float(x, name);
    const auto channel = [&](uint32_t slot, Access access = Access::read) { return PerChannel(t, slot, s.channels, x.dtype, name, access); };
    const PerChannel mean = channel(mean_slot), invstd = channel(invstd_slot), weight = channel(weight_slot), bias = channel(bias_slot),
                     sum_dy = channel(sum_dy_slot, Access::write), sum_dy_xhat = channel(sum_dy_xhat_slot, Access::write);
    if (!sum_dy.get() || !sum_dy_xhat.get()) fail(DG_SHAPE, "%s: both sums must be given", name);
    batch_norm_reduce(s, *sum_dy.get(), *sum_dy_xhat.get(), masked, dy, x, y, {mean, invstd, weight, bias}, relu != 0);
  });
}

int32_t dg_batch_norm_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t x_slot, uint32_t mean_slot, uint32_t invstd_slot,
                               uint32_t weight_slot, uint32_t bias_slot, uint32_t sum_dy_slot, uint32_t sum_dy_xhat_slot, double count,
                               uint32_t relu) {
  return guard([&] {
    const char* const name = "batch_norm_backward";
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name);
    const Tensor* const tensors[] = {&x, &dx, &dy};
    const batch_norm::Shape s(tensors, 3, name);
    require_float(x, name);
    const auto channel = [&](uint32_t slot) { return PerChannel(t, slot, s.channels, x.dtype, name); };
    const PerChannel mean = channel(mean_slot), invstd = channel(invstd_slot), weight = channel(weight_slot), bias = channel(bias_slot),
                     sum_dy = channel(sum_dy_slot), sum_dy_xhat = channel(sum_dy_xhat_slot);
    if (x.numel == 0) return;
    if (!(count >= 1)) fail(DG_RANGE, "%s: the count must be >= 1, got %g", name, count);
    batch_norm_backward(s, dx, dy, x, {mean, invstd, weight, bias}, sum_dy, sum_dy_xhat, count, relu != 0);
  });
}
