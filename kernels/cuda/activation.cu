// Activations: y[i] = op(x[i]); backward: dx[i] = dy[i] * op'(x[i]). Formulas in common/activation.h. In place is allowed.
#include "../common/activation.h"

#include "map.h"
#include "select.h"

namespace dg {
namespace {

template <class T>
struct Forward {
  using C = compute_t<T>;
  ActivationOp op;
  C a, b;
  template <class Go>
  __device__ void with(Go&& go) const {
    select<ActivationOp, ActivationOp::count>(
        op, [&](auto code) { go([a = a, b = b](T x) { return T(activation_value<decltype(code)::value, C>(C(x), a, b)); }); });
  }
};

template <class T>
struct Backward {
  using C = compute_t<T>;
  ActivationOp op;
  C a, b;
  template <class Go>
  __device__ void with(Go&& go) const {
    select<ActivationOp, ActivationOp::count>(
        op, [&](auto code) { go([a = a, b = b](T dy, T x) { return T(C(dy) * activation_slope<decltype(code)::value, C>(C(x), a, b)); }); });
  }
};

void check(uint32_t op, uint32_t dtype, const char* name) {
  if (op >= uint32_t(ActivationOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
  if (dtype > DG_BF16) fail(DG_DTYPE, "%s: takes a floating point dtype, got %s", name, dtype_name(dtype));
}

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_activation(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t op, double a, double b) {
  return guard([&] {
    const char* const name = "activation";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(y, x, name);
    require_dtype(y, x.dtype, name, "the output");
    check(op, x.dtype, name);
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      map<T, T>(name, Forward<T>{ActivationOp(op), compute_t<T>(a), compute_t<T>(b)}, y, x);
    });
  });
}

int32_t dg_activation_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t x_slot, uint32_t op, double a, double b) {
  return guard([&] {
    const char* const name = "activation_backward";
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name);
    require_same_sizes(dx, x, name);
    require_same_sizes(dy, x, name);
    require_dtype(dx, x.dtype, name, "the gradient of the input");
    require_dtype(dy, x.dtype, name, "the gradient of the output");
    check(op, x.dtype, name);
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      map<T, T, T>(name, Backward<T>{ActivationOp(op), compute_t<T>(a), compute_t<T>(b)}, dx, dy, x);
    });
  });
}
