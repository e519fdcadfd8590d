// Convolution and its two gradients.
#include "../common/convolution.h"

#include <atomic>

#include "per_channel.h"

using namespace dg;

namespace {
std::atomic<Winograd> winograd{Winograd::where_faster};
std::atomic<uint32_t> reorders{0};
}  // namespace

void dg::count_reorder() { reorders.fetch_add(1, std::memory_order_relaxed); }

Winograd dg::winograd_mode() { return winograd.load(std::memory_order_relaxed); }

#define DG_CONV_PARAMETERS \
  uint32_t stride0, uint32_t stride1, uint32_t stride2, uint32_t padding0, uint32_t padding1, uint32_t padding2, uint32_t dilation0, \
      uint32_t dilation1, uint32_t dilation2, uint32_t groups
#define DG_CONV_GIVEN \
  { {stride0, stride1, stride2}, {padding0, padding1, padding2}, {dilation0, dilation1, dilation2}, groups }

int32_t dg_conv_forward(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t w_slot, uint32_t bias_slot, DG_CONV_PARAMETERS) {
  return guard([&] {
    const char* const op = "conv_forward";
    const Tensor y = tensor_at(t, y_slot, op, Access::write), x = tensor_at(t, x_slot, op), w = tensor_at(t, w_slot, op);
    const ConvShape s = conv_shape(y, x, w, DG_CONV_GIVEN, op);
    const Optional bias(t, bias_slot, op);
    if (bias.get()) require_bias(*bias.get(), s.filters, x, op);
    conv_forward(s, y, x, w, bias);
  });
}

int32_t dg_conv_norm(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t w_slot, uint32_t bias_slot, uint32_t mean_slot, uint32_t var_slot,
                     uint32_t weight_slot, uint32_t shift_slot, uint32_t residual_slot, double eps, uint32_t relu, DG_CONV_PARAMETERS) {
  return guard([&] {
    const char* const op = "conv_norm";
    const Tensor y = tensor_at(t, y_slot, op, Access::write), x = tensor_at(t, x_slot, op), w = tensor_at(t, w_slot, op);
    const ConvShape s = conv_shape(y, x, w, DG_CONV_GIVEN, op);
    const Optional bias(t, bias_slot, op), residual(t, residual_slot, op);
    if (bias.get()) require_bias(*bias.get(), s.filters, x, op);
    const Tensor* const tensors[] = {&y, residual};
    const batch_norm::Shape n(tensors, residual.get() ? 2 : 1, op);
    const auto channel = [&](uint32_t slot) { return PerChannel(t, slot, s.filters, x.dtype, op); };
    const PerChannel mean = channel(mean_slot), var = channel(var_slot), weight = channel(weight_slot), shift = channel(shift_slot);
    if (!mean.get() || !var.get()) fail(DG_SHAPE, "%s: both statistics must be given", op);
    if (y.numel > 0) conv_norm(s, n, y, x, w, bias, {mean, nullptr, weight, shift}, {var, nullptr, nullptr, eps}, residual, relu != 0);
  });
}

int32_t dg_conv_stats(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t w_slot, uint32_t bias_slot, uint32_t mean_slot, uint32_t var_slot,
                      uint32_t invstd_slot, uint32_t running_mean_slot, uint32_t running_var_slot, uint32_t batches_slot, double momentum, double eps,
                      DG_CONV_PARAMETERS) {
  return guard([&] {
    const char* const op = "conv_stats";
    const Tensor y = tensor_at(t, y_slot, op, Access::write), x = tensor_at(t, x_slot, op), w = tensor_at(t, w_slot, op);
    const ConvShape s = conv_shape(y, x, w, DG_CONV_GIVEN, op);
    const Optional bias(t, bias_slot, op);
    if (bias.get()) require_bias(*bias.get(), s.filters, x, op);
    const Tensor* const tensors[] = {&y};
    const batch_norm::Shape n(tensors, 1, op);
    const PerChannel mean(t, mean_slot, s.filters, x.dtype, op, Access::write), var(t, var_slot, s.filters, x.dtype, op, Access::write);
    if (!mean.get() || !var.get()) fail(DG_SHAPE, "%s: both outputs must be given", op);
    const Updated u(t, invstd_slot, running_mean_slot, running_var_slot, batches_slot, s.filters, x.dtype, op);
    if (y.numel == 0) fail(DG_SHAPE, "%s: no values to take the mean of", op);
    conv_stats(s, n, y, x, w, bias, *mean.get(), *var.get(), {u.invstd, u.running_mean, u.running_var, u.batches, double(n.count()), momentum, eps});
  });
}

int32_t dg_conv_backward_input(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t w_slot, uint32_t bias_slot, DG_CONV_PARAMETERS) {
  return guard([&] {
    const char* const op = "conv_backward_input";
    const Tensor dx = tensor_at(t, dx_slot, op, Access::write), dy = tensor_at(t, dy_slot, op), w = tensor_at(t, w_slot, op);
    const ConvShape s = conv_shape(dy, dx, w, DG_CONV_GIVEN, op);
    const Optional bias(t, bias_slot, op);
    if (bias.get()) require_bias(*bias.get(), s.channels, dx, op);
    conv_backward_input(s, dx, dy, w, bias);
  });
}

int32_t dg_conv_backward_weight(const dg_tensor* t, uint32_t dw_slot, uint32_t db_slot, uint32_t dy_slot, uint32_t x_slot, DG_CONV_PARAMETERS) {
  return guard([&] {
    const char* const op = "conv_backward_weight";
    const Tensor dw = tensor_at(t, dw_slot, op, Access::write), dy = tensor_at(t, dy_slot, op), x = tensor_at(t, x_slot, op);
    const ConvShape s = conv_shape(dy, x, dw, DG_CONV_GIVEN, op);
    const Optional db(t, db_slot, op, Access::write);
    if (db.get()) require_bias(*db.get(), s.filters, x, op);
    conv_backward_weight(s, dw, db, dy, x);
  });
}

int32_t dg_conv_set_winograd(uint32_t mode) {
  return guard([&] {
    if (mode > uint32_t(Winograd::where_possible)) fail(DG_RANGE, "conv_set_winograd: takes 0, 1 or 2, got %u", mode);
    winograd.store(Winograd(mode), std::memory_order_relaxed);
  });
}

uint32_t dg_conv_get_winograd(void) { return uint32_t(winograd_mode()); }

uint32_t dg_conv_reorders(void) { return reorders.load(std::memory_order_relaxed); }
