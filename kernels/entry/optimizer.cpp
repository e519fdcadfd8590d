// Steps of the optimisers. One call updates all parameters of a group. Headers lie one after the other from slot `first`: for each parameter itself,
// its gradient, its states. All of a parameter's tensors have its sizes and strides and no gaps, so each is one run of memory.
#include "../common/optimizer.h"

using namespace dg;

namespace {

// Validates `count` parameters from slot `first`, each followed by its gradient and its states.
std::vector<Item> collect(const dg_tensor* t, uint32_t first, uint32_t count, int states, const char* op) {
  const uint32_t each = uint32_t(states) + 2;
  if (count > DG_MAX_SLOTS || first > DG_MAX_SLOTS || first + count * each > DG_MAX_SLOTS)
    fail(DG_RANGE, "%s: %u parameters from slot %u exceed the %d headers of a call", op, count, first, DG_MAX_SLOTS);
  const auto start = [](const Tensor& x) { return x.storage_data + x.offset * dtype_size(x.dtype); };
  std::vector<Item> items(count);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t slot = first + i * each;
    const Tensor p = tensor_at(t, slot, op, Access::write);
    if (!is_float_dtype(p.dtype)) fail(DG_DTYPE, "%s: a parameter must be floating point, got %s", op, dtype_name(p.dtype));
    if (p.numel > 0 && !p.dense()) fail(DG_SHAPE, "%s: a parameter must have no gaps in memory", op);
    Item& item = items[i];
    item = {start(p), nullptr, {}, p.dtype, p.numel};
    for (uint32_t k = 1; k < each; k++) {
      const Tensor x = tensor_at(t, slot + k, op, k == 1 ? Access::read : Access::write);
      require_same_sizes(x, p, op);
      if (!same_strides(x, p)) fail(DG_SHAPE, "%s: gradient and states must have the strides of the parameter", op);
      require_dtype(x, k == 1 ? p.dtype : p.dtype == DG_F64 ? uint32_t(DG_F64) : uint32_t(DG_F32), op, k == 1 ? "the gradient" : "a state");
      if (k == 1) item.g = start(x);
      else item.state[k - 2] = start(x);
    }
  }
  return items;
}

}  // namespace

int32_t dg_sgd(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t has_buffer, double lr, double momentum, double dampening,
               double weight_decay, uint32_t nesterov, uint32_t maximize, uint32_t fresh) {
  return guard([&] {
    const SgdOptions options{lr, momentum, dampening, weight_decay, has_buffer != 0, nesterov != 0, maximize != 0, fresh != 0};
    sgd(collect(t, first, count, options.states(), "sgd"), options);
  });
}

int32_t dg_adam(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t amsgrad, double lr, double beta1, double beta2, double eps,
                double weight_decay, uint32_t decoupled, uint32_t maximize, double step) {
  return guard([&] {
    if (!(step >= 1)) fail(DG_RANGE, "adam: step %g must be at least 1", step);
    const AdamOptions options{lr, beta1, beta2, eps, weight_decay, amsgrad != 0, decoupled != 0, maximize != 0};
    adam(collect(t, first, count, options.states(), "adam"), options, step);
  });
}

int32_t dg_rmsprop(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t centered, double lr, double alpha, double eps, double weight_decay,
                   double momentum, uint32_t maximize) {
  return guard([&] {
    const RmsPropOptions options{lr, alpha, eps, weight_decay, momentum, centered != 0, maximize != 0};
    rmsprop(collect(t, first, count, options.states(), "rmsprop"), options);
  });
}

int32_t dg_adagrad(const dg_tensor* t, uint32_t first, uint32_t count, double rate, double eps, double weight_decay, uint32_t maximize) {
  return guard([&] {
    const AdagradOptions options{rate, eps, weight_decay, maximize != 0};
    adagrad(collect(t, first, count, options.states(), "adagrad"), options);
  });
}
