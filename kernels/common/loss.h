// Losses of one prediction and one target, and their derivatives with respect to the prediction. T is float or double.
// Kinks take the value that PyTorch takes: sign(0) = 0; the quadratic side of smooth_l1 is |d| < beta, of huber |d| <= delta.
#pragma once
#include "math.h"
#include "op_codes.h"
#include "tensor.h"

namespace dg {

template <LossOp op, class T>
DG_HD T loss_value(T x, T target, T parameter) {
  const T d = x - target, magnitude = d < T(0) ? -d : d;
  if constexpr (op == LossOp::mse) return d * d;
  else if constexpr (op == LossOp::l1) return magnitude;
  else if constexpr (op == LossOp::smooth_l1) return magnitude < parameter ? T(0.5) * d * d / parameter : magnitude - T(0.5) * parameter;
  else if constexpr (op == LossOp::huber) return magnitude <= parameter ? T(0.5) * d * d : parameter * (magnitude - T(0.5) * parameter);
  else if constexpr (op == LossOp::bce_with_logits) return (T(1) - target) * x + softplus_(-x);
  else {  // bce: logarithms limited to -100
    const T yes = log_(x), no = log_(T(1) - x);
    return (target - T(1)) * (no < T(-100) ? T(-100) : no) - target * (yes < T(-100) ? T(-100) : yes);
  }
}

template <LossOp op, class T>
DG_HD T loss_slope(T x, T target, T parameter) {
  const T d = x - target, magnitude = d < T(0) ? -d : d;
  const T sign = d > T(0) ? T(1) : (d < T(0) ? T(-1) : d);
  if constexpr (op == LossOp::mse) return T(2) * d;
  else if constexpr (op == LossOp::l1) return sign;
  else if constexpr (op == LossOp::smooth_l1) return magnitude < parameter ? d / parameter : sign;
  else if constexpr (op == LossOp::huber) return magnitude <= parameter ? d : parameter * sign;
  else if constexpr (op == LossOp::bce_with_logits) return sigmoid_(x) - target;
  else {
    const T spread = (T(1) - x) * x;
    return d / (spread < T(1e-12) ? T(1e-12) : spread);
  }
}

inline constexpr const char* kNotProbabilities = "binaryCrossEntropy: every prediction must be a probability between 0 and 1";

// Provided by each library (loss.cpp, loss.cu); checked by entry/loss.cpp. Predictions of bce that are no probabilities fail with DG_RANGE
// and kNotProbabilities, at once or later.
//   reduction 0: out[i] = f(x[i], target[i]); 1: the mean in one element (nan of nothing); 2: the sum in one element
//   backward: dx[i] = dy[i] f'(x[i], target[i]) scale; dy has the sizes of x (one number: strides 0)
void loss(const Tensor& out, const Tensor& x, const Tensor& target, LossOp op, double parameter, uint32_t reduction);
void loss_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& target, LossOp op, double parameter, double scale);

}  // namespace dg
