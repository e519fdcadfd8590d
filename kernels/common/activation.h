// Activation functions and their derivatives, both from the input x. T is float or double; a and b are the op's parameters.
// Kinks take the value that PyTorch takes: relu'(0) = 0, leaky_relu'(0) = slope, hardtanh'(bound) = 0.
#pragma once
#include "math.h"
#include "op_codes.h"
#include "tensor.h"

namespace dg {

inline constexpr double kSeluAlpha = 1.6732632423543772848170429916717, kSeluScale = 1.0507009873554804934193349852946;
inline constexpr double kSqrtHalf = 0.70710678118654752440, kInvSqrt2Pi = 0.39894228040143267794;
inline constexpr double kGeluA = 0.79788456080286535588, kGeluB = 0.044715;

// tanh(softplus(x)) = n / (n + 2) with n = e^x (e^x + 2); it is 1 from kMishOne on.
inline constexpr double kMishOne = 24;
template <class T>
DG_MATH T mish_ratio(T e) {
  return e * (e + T(2));
}

template <ActivationOp op, class T>
DG_MATH T activation_value(T x, T a, T b) {
  using A = ActivationOp;
  if constexpr (op == A::relu) return x < T(0) ? T(0) : x;
  else if constexpr (op == A::leaky_relu) return x > T(0) ? x : x * a;
  else if constexpr (op == A::elu) return x > T(0) ? x : a * expm1_(x);
  else if constexpr (op == A::selu) return T(kSeluScale) * (x > T(0) ? x : T(kSeluAlpha) * expm1_(x));
  else if constexpr (op == A::celu) return x > T(0) ? x : a * expm1_(x / a);
  else if constexpr (op == A::gelu) return T(0.5) * x * (T(1) + erf_(x * T(kSqrtHalf)));
  else if constexpr (op == A::gelu_tanh) return T(0.5) * x * (T(1) + tanh_(T(kGeluA) * (x + T(kGeluB) * x * x * x)));
  else if constexpr (op == A::silu) return x * sigmoid_(x);
  else if constexpr (op == A::mish) {
    const T n = mish_ratio(exp_(x));
    return x > T(kMishOne) ? x : x * (n / (n + T(2)));
  }
  else if constexpr (op == A::sigmoid) return sigmoid_(x);
  else if constexpr (op == A::log_sigmoid) return -softplus_(-x);
  else if constexpr (op == A::softplus) return x * a > b ? x : softplus_(x * a) / a;
  else if constexpr (op == A::softsign) return x / (T(1) + (x < T(0) ? -x : x));
  else if constexpr (op == A::hardtanh) return x < a ? a : (x > b ? b : x);
  else if constexpr (op == A::hardsigmoid) return x <= T(-3) ? T(0) : (x >= T(3) ? T(1) : x / T(6) + T(0.5));
  else if constexpr (op == A::hardswish) return x <= T(-3) ? T(0) : (x >= T(3) ? x : x * (x + T(3)) / T(6));
  else if constexpr (op == A::tanhshrink) return x - tanh_(x);
  else if constexpr (op == A::softshrink) return x > a ? x - a : (x < -a ? x + a : x * T(0));
  else if constexpr (op == A::hardshrink) return x >= -a && x <= a ? T(0) : x;
  else return x <= a ? b : x;  // threshold
}

template <ActivationOp op, class T>
DG_MATH T activation_slope(T x, T a, T b) {
  using A = ActivationOp;
  if constexpr (op == A::relu) return x <= T(0) ? T(0) : T(1);
  else if constexpr (op == A::leaky_relu) return x > T(0) ? T(1) : a;
  else if constexpr (op == A::elu) return x > T(0) ? T(1) : a * exp_(x);
  else if constexpr (op == A::selu) return T(kSeluScale) * (x > T(0) ? T(1) : T(kSeluAlpha) * exp_(x));
  else if constexpr (op == A::celu) return x > T(0) ? T(1) : exp_(x / a);
  else if constexpr (op == A::gelu) return T(0.5) * (T(1) + erf_(x * T(kSqrtHalf))) + x * T(kInvSqrt2Pi) * exp_(T(-0.5) * x * x);
  else if constexpr (op == A::gelu_tanh) {
    const T t = tanh_(T(kGeluA) * (x + T(kGeluB) * x * x * x));
    return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * T(kGeluA) * (T(1) + T(3 * kGeluB) * x * x);
  } else if constexpr (op == A::silu) {
    const T s = sigmoid_(x);
    return s * (T(1) + x * (T(1) - s));
  } else if constexpr (op == A::mish) {
    const T w = exp_(x), n = mish_ratio(w), r = T(1) / (n + T(2));
    return x > T(kMishOne) ? T(1) : n * r + (x * r) * (T(4) * w * (T(1) + w) * r);
  } else if constexpr (op == A::sigmoid) {
    const T s = sigmoid_(x);
    return s * (T(1) - s);
  } else if constexpr (op == A::log_sigmoid) return sigmoid_(-x);
  else if constexpr (op == A::softplus) return x * a > b ? T(1) : sigmoid_(x * a);
  else if constexpr (op == A::softsign) {
    const T d = T(1) + (x < T(0) ? -x : x);
    return T(1) / (d * d);
  } else if constexpr (op == A::hardtanh) return x <= a || x >= b ? T(0) : T(1);
  else if constexpr (op == A::hardsigmoid) return x > T(-3) && x < T(3) ? T(1) / T(6) : T(0);
  else if constexpr (op == A::hardswish) return x <= T(-3) ? T(0) : (x < T(3) ? x / T(3) + T(0.5) : T(1));
  else if constexpr (op == A::tanhshrink) {
    const T t = tanh_(x);
    return t * t;
  } else if constexpr (op == A::softshrink || op == A::hardshrink) return x >= -a && x <= a ? T(0) : T(1);
  else return x <= a ? T(0) : T(1);  // threshold
}

// Provided by each library (activation.cpp, activation.cu); checked by entry/activation.cpp.
void activation(const Tensor& y, const Tensor& x, ActivationOp op, double a, double b);
void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, ActivationOp op, double a, double b);

}  // namespace dg
