// Activations: y[i] = op(x[i]); backward: dx[i] = dy[i] * op'(x[i]). Formulas in common/activation.h. In place is allowed.
#include "../common/activation.h"

#include <array>
#include <utility>

#include "map.h"

namespace dg {
namespace {

template <ActivationOp op, class A>
void forward(A* y, const A* x, int64_t count, const Parameters& p) {
  const A a = A(p.a), b = A(p.b);
#pragma omp simd
  for (int64_t i = 0; i < count; i++) y[i] = activation_value<op, A>(x[i], a, b);
}

template <ActivationOp op, class A>
void backward(A* dx, const A* dy, const A* x, int64_t count, const Parameters& p) {
  const A a = A(p.a), b = A(p.b);
#pragma omp simd
  for (int64_t i = 0; i < count; i++) dx[i] = dy[i] * activation_slope<op, A>(x[i], a, b);
}

template <class A>
struct Kernel {
  Map1<A, A> forward;
  Map2<A, A> backward;
};
template <class A, unsigned... op>
constexpr auto kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<Kernel<A>, sizeof...(op)>{Kernel<A>{forward<ActivationOp(op), A>, backward<ActivationOp(op), A>}...};
}
constexpr auto kCodes = std::make_integer_sequence<unsigned, unsigned(ActivationOp::count)>{};
template <class A> constexpr auto kernels = kernels_of<A>(kCodes);

template <class F>
void dispatch_activation(uint32_t op, uint32_t dtype, const char* name, F&& f) {
  if (op >= kernels<float>.size()) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
  if (dtype > DG_BF16) fail(DG_DTYPE, "%s: takes a floating point dtype, got %s", name, dtype_name(dtype));
  if (dtype == DG_F64) f(kernels<double>[op]);
  else f(kernels<float>[op]);
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
    dispatch_activation(op, x.dtype, name, [&]<class A>(const Kernel<A>& kernel) {
      map_blocks<A, A>(y, x, kernel.forward, {a, b}, writer_of<A>(y, name), reader_of<A>(x, name));
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
    dispatch_activation(op, x.dtype, name, [&]<class A>(const Kernel<A>& kernel) {
      map_blocks<A, A>(dx, dy, x, kernel.backward, {a, b}, writer_of<A>(dx, name), reader_of<A>(dy, name), reader_of<A>(x, name));
    });
  });
}
