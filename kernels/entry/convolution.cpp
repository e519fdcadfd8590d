// Convolution and its two gradients.
#include "../common/convolution.h"

#include <atomic>

#include "optional.h"

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
