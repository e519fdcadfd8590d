// Cross entropy of class labels, fused with log-softmax. x [N, C, spatial...], labels int64 [N, spatial...]; a position is one label.
// With lp = x - max - log(sum(exp(x - max))) along C (or lp = x when logits == 0), s the smoothing, w the weight [C] (default 1):
//   loss = -(1 - s) w[label] lp[label] - s / C sum over c of w[c] lp[c]; 0 where label == ignore
//   reduction 0: out [N, spatial...]; 1: sum of losses / sum of w[label] over what is not ignored (nan of nothing); 2: sum of losses
// backward: dx = g (exp(lp) ((1 - s) w[label] + s / C sum(w)) - (1 - s) w[label] [c == label] - s / C w[c]), without the first term when
// logits == 0; g is dy / total for a mean, else dy.
// stats [2, N, spatial...] receives max and log of the sum, total the sum of weights, both in the computing type (float, or double for f64).
#pragma once
#include "tensor.h"

namespace dg {

// The operands and options of both directions.
struct CrossEntropy {
  const char* name;
  Tensor x, labels, stats, total, weight;
  bool weighted;
  double smoothing;
  int64_t ignore;
  uint32_t reduction;
  bool logits;
  int64_t classes, positions;

  // Factors of the label's own loss, and of the loss of each class.
  double keep() const { return 1 - smoothing; }
  double spread() const { return smoothing / double(std::max<int64_t>(classes, 1)); }

  // The geometry of x, or of its gradient, without the classes.
  Tensor heads(const Tensor& of) const {
    Tensor h = of;
    h.rank = labels.rank;
    h.numel = positions;
    for (int i = 1; i < h.rank; i++) h.sizes[i] = of.sizes[i + 1], h.strides[i] = of.strides[i + 1];
    return h;
  }

  // A row-major tensor over the positions, to number them.
  Tensor numbers() const {
    Tensor n = labels;
    if (positions == 0) return n;
    int64_t step = 1;
    for (int i = n.rank - 1; i >= 0; i--) n.strides[i] = step, step *= n.sizes[i];
    return n;
  }

  // What is said of a label outside the classes; a printf format that takes the label.
  std::string outside() const {
    return std::string(name) + ": label %lld is outside 0 .. " + std::to_string(classes - 1) + ": the input has " +
           std::to_string(classes) + " classes (and ignoreIndex is " + std::to_string(ignore) + ")";
  }
};

// Provided by each library (cross_entropy.cpp, cross_entropy.cu); checked by entry/cross_entropy.cpp. A label outside the classes fails with
// DG_RANGE and outside(), at once or later.
void cross_entropy(const CrossEntropy& e, const Tensor& out);
void cross_entropy_backward(const CrossEntropy& e, const Tensor& dx, const Tensor& dy);

}  // namespace dg
