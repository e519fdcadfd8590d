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

bool takes_integers(UnaryOp op) {
  switch (op) {
    case UnaryOp::neg: case UnaryOp::abs: case UnaryOp::sign: case UnaryOp::square: case UnaryOp::ceil: case UnaryOp::floor: case UnaryOp::round:
    case UnaryOp::trunc: case UnaryOp::bitwise_not: return true;
    default: return false;
  }
}

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_unary(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t op) {
  return guard([&] {
    const char* const name = "unary";
    if (op >= uint32_t(UnaryOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    const UnaryOp code = UnaryOp(op);
    const bool test = code >= UnaryOp::isnan;
    require_dtype(out, test ? uint32_t(DG_BOOL) : x.dtype, name, test ? "the result of a test" : "the output");
    if (test)
      return dispatch_all(x.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        map<bool, T>("unary_test", UnaryTest<T>{code}, out, x);
      });
    dispatch_numbers(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      if (is_float<T> ? code == UnaryOp::bitwise_not : !takes_integers(code))
        fail(DG_DTYPE, "%s: this function does not take %s", name, dtype_name(x.dtype));
      map<T, T>(name, Unary<T>{code}, out, x);
    });
  });
}
