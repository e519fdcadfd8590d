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

// The operands, checked against each other.
struct CrossEntropy {
  const char* name;
  Tensor x, labels, weight, stats, total;
  bool weighted;
  double smoothing;
  int64_t ignore;
  uint32_t reduction;
  bool logits;
  int64_t classes, positions;

  CrossEntropy(const char* op, const dg_tensor* t, uint32_t x_slot, uint32_t labels_slot, uint32_t weight_slot, uint32_t stats_slot,
               uint32_t total_slot, double s, double ignored, uint32_t kind, uint32_t is_logits, Access access)
      : name(op), weighted(present(weight_slot)), smoothing(s), reduction(kind), logits(is_logits != 0) {
    x = tensor_at(t, x_slot, name);
    labels = tensor_at(t, labels_slot, name);
    stats = tensor_at(t, stats_slot, name, access);
    total = tensor_at(t, total_slot, name, access);
    if (reduction > 2) fail(DG_RANGE, "%s: reduction %u does not exist", name, reduction);
    if (!(smoothing >= 0 && smoothing <= 1)) fail(DG_RANGE, "%s: labelSmoothing must be 0 to 1, got %g", name, smoothing);
    if (!(std::fabs(ignored) <= 9007199254740992.0)) fail(DG_RANGE, "%s: ignoreIndex must be a whole number, got %g", name, ignored);
    ignore = int64_t(ignored);
    if (x.rank < 2 || labels.rank != x.rank - 1) fail(DG_SHAPE, "%s: %s does not hold scores for labels %s", name, shape_text(x).c_str(), shape_text(labels).c_str());
    bool fits = x.sizes[0] == labels.sizes[0];
    for (int i = 2; i < x.rank; i++) fits &= x.sizes[i] == labels.sizes[i - 1];
    if (!fits) fail(DG_SHAPE, "%s: %s does not hold scores for labels %s", name, shape_text(x).c_str(), shape_text(labels).c_str());
    classes = x.sizes[1];
    positions = labels.numel;
    require_dtype(labels, DG_I64, name, "labels");
    const uint32_t computed = x.dtype == DG_F64 ? DG_F64 : DG_F32;
    require_dtype(stats, computed, name, "the statistics");
    require_dtype(total, computed, name, "the total");
    if (total.rank != 0) fail(DG_SHAPE, "%s: the total has no axes", name);
    if (stats.rank != 2 || stats.sizes[0] != 2 || stats.sizes[1] != positions || (positions > 0 && !stats.contiguous()))
      fail(DG_SHAPE, "%s: statistics must be [2, %lld] without gaps", name, static_cast<long long>(positions));
    if (weighted) {
      weight = tensor_at(t, weight_slot, name);
      require_dtype(weight, x.dtype, name, "the weight");
      if (weight.rank != 1 || weight.sizes[0] != classes)
        fail(DG_SHAPE, "%s: the weight must have one element a class, [%lld], got %s", name, static_cast<long long>(classes), shape_text(weight).c_str());
    }
  }

  // The geometry of x without its classes.
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
};

}  // namespace dg
