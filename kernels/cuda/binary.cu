// Binary functions: out[i] = op(x[i], y[i]), operands expanded to one shape. Formulas in common/binary.h. In place (out = x) is allowed.
// An integer division by zero is reported and leaves the element of x.
#include "../common/binary.h"

#include "map.h"
#include "select.h"

namespace dg {
namespace {

template <BinaryOp op, class C>
__device__ C value(C x, C y, C scale) {
  if constexpr (scaled(op)) y = wrapping_value<BinaryOp::mul, C>(scale, y);
  return wrapping_value<op, C>(x, y);
}

// Ops of many instructions, among them every division of 64-bit integers.
template <class C>
constexpr bool slow(BinaryOp op) {
  return op == BinaryOp::pow || op == BinaryOp::atan2 || (divides(op) && (std::is_integral_v<C> || op != BinaryOp::div));
}

template <class T, bool slow_ops>
struct Binary {
  using C = wide_t<T>;
  static constexpr bool packed = !slow_ops;
  BinaryOp op;
  C scale;  // of y in sums and differences
  Report report;

  template <class Go>
  __device__ void with(Go&& go) const {
    select<BinaryOp, BinaryOp::count>(op, [&](auto code) {
      constexpr BinaryOp known = decltype(code)::value;
      if constexpr (takes<C>(known) && slow<C>(known) == slow_ops)
        go([scale = scale, report = report](T x, T y) {
          if constexpr (std::is_integral_v<T> && divides(known))
            if (y == T(0)) {
              report();
              return x;
            }
          return convert<T>(value<known, C>(C(x), C(y), scale));
        });
    });
  }
};

// One operand is a number; a divisor of zero among these is refused before.
template <class T, bool slow_ops>
struct WithNumber {
  using C = wide_t<T>;
  static constexpr bool packed = !slow_ops;
  BinaryOp op;
  C number;
  bool reversed;
  int power;  // known_power of the number
  Report report;

  template <class Go>
  __device__ void with(Go&& go) const {
    if constexpr (!std::is_integral_v<T> && !slow_ops) {
      if (power == 2) return go([](T x) { return T(power_value<2, C>(C(x))); });
      if (power == 3) return go([](T x) { return T(power_value<3, C>(C(x))); });
      if (power == 1) return go([](T x) { return T(power_value<1, C>(C(x))); });
      if (power == -1) return go([](T x) { return T(power_value<-1, C>(C(x))); });
    }
    select<BinaryOp, BinaryOp::count>(op, [&](auto code) {
      constexpr BinaryOp known = decltype(code)::value;
      if constexpr (takes<C>(known) && slow<C>(known) == slow_ops)
        go([number = number, reversed = reversed, report = report](T x) {
          if constexpr (std::is_integral_v<T> && divides(known))
            if (reversed && x == T(0)) {
              report();
              return x;
            }
          return convert<T>(value<known, C>(reversed ? number : C(x), reversed ? C(x) : number, C(1)));
        });
    });
  }
};

template <class T>
Report division_by_zero(BinaryOp op) {
  if (std::is_integral_v<T> && divides(op)) return report(DG_RANGE, "integer division by zero");
  return {};
}

}  // namespace

void binary(const Tensor& out, const Tensor& x, const Tensor& y, BinaryOp op, double alpha) {
  dispatch_all(x.dtype, "binary", [&](auto kind) {
    using T = typename decltype(kind)::type;
    const auto run = [&](auto family) { map<T, T, T>("binary", family, out, x, y); };
    const wide_t<T> scale = convert<wide_t<T>>(alpha);
    if (slow<wide_t<T>>(op)) run(Binary<T, true>{op, scale, division_by_zero<T>(op)});
    else run(Binary<T, false>{op, scale, {}});
  });
}

void binary_scalar(const Tensor& out, const Tensor& x, double number, BinaryOp op, bool reversed) {
  dispatch_all(x.dtype, "binary_scalar", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = wide_t<T>;
    const C operand = operand_of<C>(number, x.dtype);
    const int power = !std::is_integral_v<T> && op == BinaryOp::pow && !reversed ? known_power(number) : 0;
    const auto run = [&](auto family) { map<T, T>("binary_scalar", family, out, x); };
    if (slow<C>(op) && power == 0) run(WithNumber<T, true>{op, operand, reversed, 0, division_by_zero<T>(op)});
    else run(WithNumber<T, false>{op, operand, reversed, power, {}});
  });
}

}  // namespace dg
