// Formulas of the unary family, T the compute type (float, double or an integer type).
#pragma once
#include "math.h"
#include "op_codes.h"
#include "tensor.h"

namespace dg {

constexpr bool tests(UnaryOp op) { return op >= UnaryOp::isnan; }
constexpr bool takes_integers(UnaryOp op) {
  return tests(op) || op == UnaryOp::neg || op == UnaryOp::abs || op == UnaryOp::sign || op == UnaryOp::square ||
         (op >= UnaryOp::ceil && op <= UnaryOp::bitwise_not);
}
constexpr bool takes_floats(UnaryOp op) { return op != UnaryOp::bitwise_not; }

constexpr bool periodic(UnaryOp op) { return op == UnaryOp::sin || op == UnaryOp::cos || op == UnaryOp::tan; }

template <UnaryOp op, class T>
DG_MATH T unary_value(T x) {
  if constexpr (op == UnaryOp::neg) return T(T(0) - x);
  else if constexpr (op == UnaryOp::abs) return x < T(0) ? T(T(0) - x) : (x == T(0) ? T(0) : x);
  else if constexpr (op == UnaryOp::sign) return x > T(0) ? T(1) : (x < T(0) ? T(T(0) - T(1)) : T(0));
  else if constexpr (op == UnaryOp::square) return T(x * x);
  else if constexpr (std::is_integral_v<T>) return op == UnaryOp::bitwise_not ? T(~x) : x;  // rounding leaves integers alone
  else if constexpr (op == UnaryOp::sqrt) return std::sqrt(x);
  else if constexpr (op == UnaryOp::rsqrt) return T(1) / std::sqrt(x);
  else if constexpr (op == UnaryOp::reciprocal) return T(1) / x;
  else if constexpr (op == UnaryOp::exp) return exp_(x);
  else if constexpr (op == UnaryOp::exp2) return exp2_(x);
  else if constexpr (op == UnaryOp::expm1) return expm1_(x);
  else if constexpr (op == UnaryOp::log) return log_(x);
  else if constexpr (op == UnaryOp::log2) return log2_(x);
  else if constexpr (op == UnaryOp::log10) return log10_(x);
  else if constexpr (op == UnaryOp::log1p) return log1p_(x);
  else if constexpr (op == UnaryOp::sin) return sin_(x);
  else if constexpr (op == UnaryOp::cos) return cos_(x);
  else if constexpr (op == UnaryOp::tan) return tan_(x);
  else if constexpr (op == UnaryOp::asin) return asin_(x);
  else if constexpr (op == UnaryOp::acos) return acos_(x);
  else if constexpr (op == UnaryOp::atan) return atan_(x);
  else if constexpr (op == UnaryOp::sinh) return sinh_(x);
  else if constexpr (op == UnaryOp::cosh) return cosh_(x);
  else if constexpr (op == UnaryOp::tanh) return tanh_(x);
  else if constexpr (op == UnaryOp::asinh) return asinh_(x);
  else if constexpr (op == UnaryOp::acosh) return acosh_(x);
  else if constexpr (op == UnaryOp::atanh) return atanh_(x);
  else if constexpr (op == UnaryOp::erf) return erf_(x);
  else if constexpr (op == UnaryOp::erfc) return erfc_(x);
  else if constexpr (op == UnaryOp::ceil) return std::ceil(x);
  else if constexpr (op == UnaryOp::floor) return std::floor(x);
  else if constexpr (op == UnaryOp::round) return std::nearbyint(x);  // half to even, as PyTorch
  else if constexpr (op == UnaryOp::trunc) return std::trunc(x);
  else return x;
}

template <UnaryOp op, class T>
DG_MATH bool unary_test(T x) {
  if constexpr (op == UnaryOp::logical_not) return x == T(0);
  else if constexpr (std::is_integral_v<T>) return op == UnaryOp::isfinite;
  else if constexpr (op == UnaryOp::isnan) return x != x;
  else if constexpr (op == UnaryOp::isinf) return x - x != x - x && x == x;
  else return x - x == x - x;
}

// Provided by each library (unary.cpp, unary.cu): checked by entry/unary.cpp.
void unary(const Tensor& out, const Tensor& x, UnaryOp op);

}  // namespace dg
