// Formulas of the binary and comparison families, T the compute type. Integer division by zero is the caller's to refuse.
#pragma once
#include "loop.h"
#include "math.h"
#include "op_codes.h"

namespace dg {

constexpr bool divides(BinaryOp op) {
  return op == BinaryOp::div || op == BinaryOp::fmod || op == BinaryOp::remainder || op == BinaryOp::floor_divide;
}
constexpr bool bitwise(BinaryOp op) { return op >= BinaryOp::bitwise_and; }
constexpr bool scaled(BinaryOp op) { return op == BinaryOp::add || op == BinaryOp::sub; }  // those whose y is multiplied by alpha
constexpr bool takes_bool(BinaryOp op) {
  return op == BinaryOp::maximum || op == BinaryOp::minimum || op == BinaryOp::add || op == BinaryOp::mul ||
         (bitwise(op) && op < BinaryOp::left_shift);
}
// Whether an op works on compute type A at all.
template <class A>
constexpr bool takes(BinaryOp op) {
  return std::is_integral_v<A> ? op != BinaryOp::atan2 && op != BinaryOp::tanh_backward && op != BinaryOp::sigmoid_backward : !bitwise(op);
}

// x^n for integers; a negative exponent gives 0 except for bases 1 and -1.
template <class T>
DG_HD T integer_power(T x, T n) {
  if (n < T(0)) return x == T(1) ? T(1) : (x == T(T(0) - T(1)) ? (n % 2 ? x : T(1)) : T(0));
  T result = 1;
  for (; n > 0; n = T(n / 2)) {
    if (n % 2) result = T(result * x);
    x = T(x * x);
  }
  return result;
}

template <class T>
DG_HD T integer_divide(T x, T y) {
  return y == T(T(0) - T(1)) ? T(T(0) - x) : T(x / y);  // the most negative number over -1 wraps
}

template <BinaryOp op, class T>
DG_HD T binary_value(T x, T y) {
  using B = BinaryOp;
  constexpr bool whole = std::is_integral_v<T>;
  if constexpr (op == B::add) return T(x + y);
  else if constexpr (op == B::sub) return T(x - y);
  else if constexpr (op == B::mul) return T(x * y);
  else if constexpr (op == B::maximum) return x != x ? x : (x < y || y != y ? y : x);
  else if constexpr (op == B::minimum) return x != x ? x : (y < x || y != y ? y : x);
  else if constexpr (whole) {
    if constexpr (op == B::div) return integer_divide(x, y);
    else if constexpr (op == B::pow) return integer_power(x, y);
    else if constexpr (op == B::fmod) return y == T(T(0) - T(1)) ? T(0) : T(x % y);
    else if constexpr (op == B::remainder) {
      if (y == T(T(0) - T(1))) return T(0);
      const T r = T(x % y);
      return r != 0 && (r < 0) != (y < 0) ? T(r + y) : r;
    } else if constexpr (op == B::floor_divide) {
      const T q = integer_divide(x, y);
      return y != T(T(0) - T(1)) && x % y != 0 && (x < 0) != (y < 0) ? T(q - 1) : q;
    } else if constexpr (op == B::bitwise_and) return T(x & y);
    else if constexpr (op == B::bitwise_or) return T(x | y);
    else if constexpr (op == B::bitwise_xor) return T(x ^ y);
    else if constexpr (std::is_same_v<T, bool>) return x;  // bool has no shifts
    else if constexpr (op == B::left_shift) return y >= 0 && uint64_t(y) < sizeof(T) * 8 ? T(uint64_t(x) << y) : T(0);
    else if constexpr (op == B::right_shift) return y >= 0 && uint64_t(y) < sizeof(T) * 8 ? T(x >> y) : (x < 0 ? T(T(0) - T(1)) : T(0));
    else return x;
  } else {
    if constexpr (op == B::div) return x / y;
    else if constexpr (op == B::pow) return pow_(x, y);
    else if constexpr (op == B::atan2) return std::atan2(x, y);
    else if constexpr (op == B::tanh_backward) return x * (T(1) - y * y);  // x the gradient, y the hyperbolic tangent
    else if constexpr (op == B::sigmoid_backward) return x * (y * (T(1) - y));  // likewise
    else if constexpr (op == B::fmod) return std::fmod(x, y);
    else if constexpr (op == B::remainder) {
      const T r = std::fmod(x, y);
      return r != 0 && (r < 0) != (y < 0) ? r + y : r;
    } else if constexpr (op == B::floor_divide) {
      if (y == T(0)) return x / y;
      const T r = std::fmod(x, y);
      T q = (x - r) / y;
      if (r != 0 && (y < 0) != (r < 0)) q -= T(1);
      if (q == 0) return std::copysign(T(0), x / y);
      const T f = std::floor(q);
      return q - f > T(0.5) ? f + T(1) : f;
    } else return x;
  }
}

// Integers wrap: sums and products are taken without sign.
template <BinaryOp op, class A>
DG_HD A wrapping_value(A x, A y) {
  if constexpr (std::is_integral_v<A> && (op == BinaryOp::add || op == BinaryOp::sub || op == BinaryOp::mul))
    return A(binary_value<op, uint64_t>(uint64_t(x), uint64_t(y)));
  else return binary_value<op, A>(x, y);
}

// Powers that have cheaper names: x^2, x^3, the square root (1) and the reciprocal (-1); 0 for other exponents.
inline int known_power(double exponent) { return exponent == 2 ? 2 : exponent == 3 ? 3 : exponent == 0.5 ? 1 : exponent == -1 ? -1 : 0; }
template <int n, class A>
DG_HD A power_value(A v) {
  return n == 3 ? v * v * v : n == 2 ? v * v : n == 1 ? std::sqrt(v) : A(1) / v;
}

// The operand that a number is for a tensor of `dtype` with compute type A: integers wrap into the dtype.
template <class A>
A operand_of(double number, uint32_t dtype) {
  const A value = convert<A>(number);
  switch (dtype) {
    case DG_I32: return A(int32_t(int64_t(value)));
    case DG_U8: return A(uint8_t(int64_t(value)));
    case DG_BOOL: return A(value != A(0));
    default: return value;
  }
}

template <CompareOp op, class T>
DG_HD bool compare_value(T x, T y) {
  using C = CompareOp;
  if constexpr (op == C::eq) return x == y;
  else if constexpr (op == C::ne) return x != y;
  else if constexpr (op == C::lt) return x < y;
  else if constexpr (op == C::le) return x <= y;
  else if constexpr (op == C::gt) return x > y;
  else if constexpr (op == C::ge) return x >= y;
  else if constexpr (op == C::logical_and) return x != T(0) && y != T(0);
  else if constexpr (op == C::logical_or) return x != T(0) || y != T(0);
  else return (x != T(0)) != (y != T(0));
}

// Provided by each library (binary.cpp, binary.cu); checked by entry/binary.cpp. Sums and differences multiply y by alpha. An integer
// division by an element that is zero fails with DG_RANGE, at once or later.
void binary(const Tensor& out, const Tensor& x, const Tensor& y, BinaryOp op, double alpha);
void binary_scalar(const Tensor& out, const Tensor& x, double number, BinaryOp op, bool reversed);

// Provided by each library (compare.cpp, compare.cu); checked by entry/compare.cpp.
void compare(const Tensor& out, const Tensor& x, const Tensor& y, CompareOp op);
void compare_scalar(const Tensor& out, const Tensor& x, double number, CompareOp op);
void where(const Tensor& out, const Tensor& condition, const Tensor& x, const Tensor& y);

}  // namespace dg
