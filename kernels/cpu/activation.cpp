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
void dispatch_activation(ActivationOp op, uint32_t dtype, F&& f) {
  if (dtype == DG_F64) f(kernels<double>[unsigned(op)]);
  else f(kernels<float>[unsigned(op)]);
}

}  // namespace

void activation(const Tensor& y, const Tensor& x, ActivationOp op, double a, double b) {
  dispatch_activation(op, x.dtype, [&]<class A>(const Kernel<A>& kernel) {
    map_blocks<A, A>(y, x, kernel.forward, {a, b}, writer_of<A>(y, "activation"), reader_of<A>(x, "activation"));
  });
}

void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, ActivationOp op, double a, double b) {
  const char* const name = "activation_backward";
  dispatch_activation(op, x.dtype, [&]<class A>(const Kernel<A>& kernel) {
    map_blocks<A, A>(dx, dy, x, kernel.backward, {a, b}, writer_of<A>(dx, name), reader_of<A>(dy, name), reader_of<A>(x, name));
  });
}

}  // namespace dg
