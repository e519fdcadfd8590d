// Decoding a tensor that a call may leave out.
#pragma once
#include "../common/tensor.h"

namespace dg {

class Optional {
 public:
  Optional(const dg_tensor* frame, uint32_t slot, const char* op, Access access = Access::read) : given_(present(slot)) {
    if (given_) tensor_ = tensor_at(frame, slot, op, access);
  }
  const Tensor* get() const { return given_ ? &tensor_ : nullptr; }
  operator const Tensor*() const { return get(); }
  const Tensor* operator->() const { return &tensor_; }

 private:
  bool given_;
  Tensor tensor_;
};

}  // namespace dg
