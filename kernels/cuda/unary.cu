// Unary functions: out[i] = op(x[i]). Formulas in common/unary.h. In place is allowed.
#include "../common/unary.h"

#include "map.h"
#include "select.h"

namespace dg {
namespace {

// Sine, cosine and tangent of float: arguments past kPeriodicLimit take the long way through double.
template <UnaryOp op, class C>
__device__ C value(C x) {
  if constexpr (std::is_same_v<C, float> && periodic(op))
    if (fabsf(x) >= kPeriodicLimit) return float(unary_value<op, double>(double(x)));
  return unary_value<op, C>(x);
}

// The op is a uniform branch around a pack's arithmetic: a kernel a dtype instead of one an op and dtype, and memory-bound all the same.
template <class T>
struct Unary {
  UnaryOp op;
  __device__ T operator()(T x) const {
    using C = wide_t<T>;
    T y{};
    select<UnaryOp, UnaryOp::isnan>(op, [&](auto code) { y = T(value<decltype(code)::value, C>(C(x))); });
    return y;
  }
};

template <class T>
struct UnaryTest {
  UnaryOp op;
  __device__ bool operator()(T x) const {
    using C = wide_t<T>;
    switch (op) {
      case UnaryOp::isnan: return unary_test<UnaryOp::isnan, C>(C(x));
      case UnaryOp::isinf: return unary_test<UnaryOp::isinf, C>(C(x));
      case UnaryOp::isfinite: return unary_test<UnaryOp::isfinite, C>(C(x));
      default: return unary_test<UnaryOp::logical_not, C>(C(x));
    }
  }
};

}  // namespace

void unary(const Tensor& out, const Tensor& x, UnaryOp op) {
  if (tests(op))
    return dispatch_all(x.dtype, "unary", [&](auto kind) {
      using T = typename decltype(kind)::type;
      map<bool, T>("unary_test", UnaryTest<T>{op}, out, x);
    });
  dispatch_numbers(x.dtype, "unary", [&](auto kind) {
    using T = typename decltype(kind)::type;
    map<T, T>("unary", Unary<T>{op}, out, x);
  });
}

}  // namespace dg
