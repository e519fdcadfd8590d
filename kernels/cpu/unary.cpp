// Unary functions: out[i] = op(x[i]). Formulas in common/unary.h. In place (out = x) is allowed.
#include "../common/unary.h"

#include <array>
#include <utility>

#include "elementwise.h"

namespace dg {
namespace {

template <UnaryOp op>
void run(const Tensor& out, const Tensor& x) {
  const char* const name = "unary";
  if constexpr (op >= UnaryOp::isnan) {
    require_dtype(out, DG_BOOL, name, "the result of a test");
    dispatch_all(x.dtype, name, [&](auto in) {
      using T = typename decltype(in)::type;
      map1<bool, T>(out, x, [](T v) { return unary_test<op, compute_t<T>>(v); });
    });
  } else {
    require_dtype(out, x.dtype, name, "the output");
    auto go = [&](auto in) {
      using T = typename decltype(in)::type;
      map1<T, T>(out, x, [](T v) { return T(unary_value<op, compute_t<T>>(v)); });
    };
    if constexpr (op == UnaryOp::neg || op == UnaryOp::abs || op == UnaryOp::sign || op == UnaryOp::square ||
                  (op >= UnaryOp::ceil && op <= UnaryOp::trunc)) {
      dispatch_numbers(x.dtype, name, go);
    } else if constexpr (op == UnaryOp::bitwise_not) {
      switch (x.dtype) {
        case DG_I32: return go(tag<int32_t>{});
        case DG_I64: return go(tag<int64_t>{});
        case DG_U8: return go(tag<uint8_t>{});
        default: fail(DG_DTYPE, "bitwiseNot: takes an integer dtype, got %s", dtype_name(x.dtype));
      }
    } else {
      dispatch_floats(x.dtype, name, go);
    }
  }
}

using Kernel = void (*)(const Tensor&, const Tensor&);
template <unsigned... op>
constexpr auto kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<Kernel, sizeof...(op)>{run<UnaryOp(op)>...};
}
constexpr auto kernels = kernels_of(std::make_integer_sequence<unsigned, unsigned(UnaryOp::count)>{});

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_unary(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t op) {
  return guard([&] {
    if (op >= kernels.size()) fail(DG_RANGE, "unary: op code %u does not exist", op);
    const Tensor out = tensor_at(t, out_slot, "unary", Access::write), x = tensor_at(t, x_slot, "unary");
    require_same_sizes(out, x, "unary");
    kernels[op](out, x);
  });
}
