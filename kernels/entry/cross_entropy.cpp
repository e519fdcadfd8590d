// Cross entropy of class labels and its gradient.
#include "../common/cross_entropy.h"

using namespace dg;

namespace {

struct Slots {
  uint32_t x, labels, weight, stats, total;
};

// The operands, checked against each other; `access`: to what the forward direction leaves for the backward one.
CrossEntropy operands(const char* name, const dg_tensor* t, const Slots& slots, Access access, double ignore, double smoothing,
                      uint32_t reduction, uint32_t logits) {
  const Tensor x = tensor_at(t, slots.x, name), labels = tensor_at(t, slots.labels, name), stats = tensor_at(t, slots.stats, name, access),
               total = tensor_at(t, slots.total, name, access);
  if (reduction > 2) fail(DG_RANGE, "%s: reduction %u does not exist", name, reduction);
  if (!(smoothing >= 0 && smoothing <= 1)) fail(DG_RANGE, "%s: labelSmoothing must be 0 to 1, got %g", name, smoothing);
  if (!(std::fabs(ignore) <= 9007199254740992.0)) fail(DG_RANGE, "%s: ignoreIndex must be a whole number, got %g", name, ignore);
  bool fits = x.rank >= 2 && labels.rank == x.rank - 1 && x.sizes[0] == labels.sizes[0];
  for (int i = 2; fits && i < x.rank; i++) fits = x.sizes[i] == labels.sizes[i - 1];
  if (!fits) fail(DG_SHAPE, "%s: %s does not hold scores for labels %s", name, shape_text(x).c_str(), shape_text(labels).c_str());
  const int64_t classes = x.sizes[1], positions = labels.numel;
  require_dtype(labels, DG_I64, name, "labels");
  const uint32_t computed = x.dtype == DG_F64 ? DG_F64 : DG_F32;
  require_dtype(stats, computed, name, "the statistics");
  require_dtype(total, computed, name, "the total");
  if (total.rank != 0) fail(DG_SHAPE, "%s: the total has no axes", name);
  if (stats.rank != 2 || stats.sizes[0] != 2 || stats.sizes[1] != positions || (positions > 0 && !stats.contiguous()))
    fail(DG_SHAPE, "%s: statistics must be [2, %lld] without gaps", name, static_cast<long long>(positions));
  Tensor weight;
  if (present(slots.weight)) {
    weight = tensor_at(t, slots.weight, name);
    require_dtype(weight, x.dtype, name, "the weight");
    if (weight.rank != 1 || weight.sizes[0] != classes)
      fail(DG_SHAPE, "%s: the weight must have one element a class, [%lld], got %s", name, static_cast<long long>(classes),
           shape_text(weight).c_str());
  }
  require_float(x, name);
  return {name, x, labels, stats, total, weight, present(slots.weight), smoothing, int64_t(ignore),
          reduction, logits != 0, classes, positions};
}

}  // namespace

int32_t dg_cross_entropy(const dg_tensor* t, uint32_t out_slot, uint32_t stats_slot, uint32_t total_slot, uint32_t x_slot, uint32_t labels_slot,
                         uint32_t weight_slot, double ignore, double smoothing, uint32_t reduction, uint32_t logits) {
  return guard([&] {
    const char* const name = logits ? "crossEntropy" : "nllLoss";
    const CrossEntropy e =
        operands(name, t, {x_slot, labels_slot, weight_slot, stats_slot, total_slot}, Access::write, ignore, smoothing, reduction, logits);
    const Tensor out = tensor_at(t, out_slot, name, Access::write);
    require_dtype(out, e.x.dtype, name, "the output");
    if (reduction == 0) require_same_sizes(out, e.labels, name);
    else if (out.rank != 0) fail(DG_SHAPE, "%s: a reduced output has no axes, got %s", name, shape_text(out).c_str());
    cross_entropy(e, out);
  });
}

int32_t dg_cross_entropy_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t stats_slot, uint32_t total_slot,
                                  uint32_t x_slot, uint32_t labels_slot, uint32_t weight_slot, double ignore, double smoothing,
                                  uint32_t reduction, uint32_t logits) {
  return guard([&] {
    const char* const name = "cross_entropy_backward";
    const CrossEntropy e =
        operands(name, t, {x_slot, labels_slot, weight_slot, stats_slot, total_slot}, Access::read, ignore, smoothing, reduction, logits);
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name);
    require_same_sizes(dx, e.x, name);
    require_same_sizes(dy, e.labels, name);
    require_dtype(dx, e.x.dtype, name, "the gradient of the input");
    require_dtype(dy, e.x.dtype, name, "the gradient of the output");
    cross_entropy_backward(e, dx, dy);
  });
}
