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

}  // namespace

void activation(const Tensor& y, const Tensor& x, ActivationOp op, double a, double b) {
  const char* const name = "activation";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    map<T, T>(name, Forward<T>{op, compute_t<T>(a), compute_t<T>(b)}, y, x);
  });
}

void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, ActivationOp op, double a, double b) {
  const char* const name = "activation_backward";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    map<T, T, T>(name, Backward<T>{op, compute_t<T>(a), compute_t<T>(b)}, dx, dy, x);
  });
}

}  // namespace dg
