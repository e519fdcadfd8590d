// Activations: y[i] = op(x[i]); backward: dx[i] = dy[i] * op'(x[i]). Formulas in common/activation.h. In place is allowed.
#include "../common/activation.h"

#include <array>
#include <utility>

#include "elementwise.h"

namespace dg {
namespace {

template <ActivationOp op>
void forward(const Tensor& y, const Tensor& x, double a, double b) {
  dispatch_floats(x.dtype, "activation", [&](auto in) {
    using T = typename decltype(in)::type;
    using C = compute_t<T>;
    const C ca = C(a), cb = C(b);
    map1<T, T>(y, x, [ca, cb](T v) { return T(activation_value<op, C>(v, ca, cb)); });
  });
}

template <ActivationOp op>
void backward(const Tensor& dx, const Tensor& dy, const Tensor& x, double a, double b) {
  dispatch_floats(x.dtype, "activation_backward", [&](auto in) {
    using T = typename decltype(in)::type;
    using C = compute_t<T>;
    const C ca = C(a), cb = C(b);
    map2<T, T>(dx, dy, x, [ca, cb](T g, T v) { return T(C(g) * activation_slope<op, C>(v, ca, cb)); });
  });
}

struct Kernel {
  void (*forward)(const Tensor&, const Tensor&, double, double);
  void (*backward)(const Tensor&, const Tensor&, const Tensor&, double, double);
};
template <unsigned... op>
constexpr auto kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<Kernel, sizeof...(op)>{Kernel{forward<ActivationOp(op)>, backward<ActivationOp(op)>}...};
}
constexpr auto kernels = kernels_of(std::make_integer_sequence<unsigned, unsigned(ActivationOp::count)>{});

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_activation(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t op, double a, double b) {
  return guard([&] {
    if (op >= kernels.size()) fail(DG_RANGE, "activation: op code %u does not exist", op);
    const Tensor y = tensor_at(t, y_slot, "activation", Access::write), x = tensor_at(t, x_slot, "activation");
    require_same_sizes(y, x, "activation");
    require_dtype(y, x.dtype, "activation", "the output");
    kernels[op].forward(y, x, a, b);
  });
}

int32_t dg_activation_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t x_slot, uint32_t op, double a, double b) {
  return guard([&] {
    const char* const name = "activation_backward";
    if (op >= kernels.size()) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name);
    require_same_sizes(dx, x, name);
    require_same_sizes(dy, x, name);
    require_dtype(dx, x.dtype, name, "the gradient of the input");
    require_dtype(dy, x.dtype, name, "the gradient of the output");
    kernels[op].backward(dx, dy, x, a, b);
  });
}
