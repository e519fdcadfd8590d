// The operands of an optimiser's step.
#pragma once
#include <vector>

#include "tensor.h"

namespace dg {

inline constexpr int kStates = 3;

// A parameter as a run of memory, with its gradient and states in the same order.
struct Item {
  void* p;
  const void* g;
  void* state[kStates];
  uint32_t dtype;
  int64_t numel;
};

// Validates `count` parameters from slot `first`, each followed by its gradient and its states.
inline std::vector<Item> collect(const dg_tensor* t, uint32_t first, uint32_t count, int states, const char* op) {
  const uint32_t each = uint32_t(states) + 2;
  if (count > DG_MAX_SLOTS || first > DG_MAX_SLOTS || first + count * each > DG_MAX_SLOTS)
    fail(DG_RANGE, "%s: %u parameters from slot %u exceed the %d headers of a call", op, count, first, DG_MAX_SLOTS);
  std::vector<Item> items(count);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t slot = first + i * each;
    const Tensor p = tensor_at(t, slot, op, Access::write);
    if (p.dtype > DG_BF16) fail(DG_DTYPE, "%s: a parameter must be floating point, got %s", op, dtype_name(p.dtype));
    if (p.numel > 0 && !p.dense()) fail(DG_SHAPE, "%s: a parameter must have no gaps in memory", op);
    Item& item = items[i];
    item = {p.data<char>(), nullptr, {}, p.dtype, p.numel};
    item.p = p.storage_data + p.offset * dtype_size(p.dtype);
    for (uint32_t k = 1; k < each; k++) {
      const Tensor x = tensor_at(t, slot + k, op, k == 1 ? Access::read : Access::write);
      require_same_sizes(x, p, op);
      if (!same_strides(x, p)) fail(DG_SHAPE, "%s: gradient and states must have the strides of the parameter", op);
      require_dtype(x, k == 1 ? p.dtype : p.dtype == DG_F64 ? uint32_t(DG_F64) : uint32_t(DG_F32), op, k == 1 ? "the gradient" : "a state");
      char* const data = x.storage_data + x.offset * dtype_size(x.dtype);
      if (k == 1) item.g = data;
      else item.state[k - 2] = data;
    }
  }
  return items;
}

}  // namespace dg
