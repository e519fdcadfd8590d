// Headers of batch normalisation: the two layouts and the per-channel tensors.
#pragma once
#include "tensor.h"

namespace dg::batch_norm {

// Element (outer, channel, inner) of x: rows of channels (channels-last, inner = 1), or planes (contiguous).
struct Shape {
  bool rows;
  int64_t outer, channels, inner;

  Shape(const Tensor* const* tensors, int count, const char* op) {
    const Tensor& x = *tensors[0];
    if (x.rank < 2) fail(DG_SHAPE, "%s: takes a tensor [N, C, ...], got %s", op, shape_text(x).c_str());
    bool last = true, contiguous = true;
    for (int i = 0; i < count; i++) {
      require_same_sizes(x, *tensors[i], op);
      require_dtype(*tensors[i], x.dtype, op, "each of input, output, residual and gradients");
      last &= tensors[i]->channels_last();
      contiguous &= tensors[i]->contiguous();
    }
    if (!last && !contiguous) fail(DG_SHAPE, "%s: tensors must all be contiguous or all be channels-last", op);
    channels = x.sizes[1];
    rows = last;
    const int64_t positions = x.numel == 0 ? 0 : x.numel / x.sizes[0] / channels;
    outer = x.numel == 0 ? 0 : rows ? x.sizes[0] * positions : x.sizes[0];
    inner = x.numel == 0 ? 0 : rows ? 1 : positions;
  }
  int64_t count() const { return outer * inner; }  // elements of a channel
};

// A per-channel tensor of `dtype`; null when absent.
template <class C>
C* channel_data(const dg_tensor* t, uint32_t slot, const Shape& shape, uint32_t dtype, const char* op, Access access = Access::read) {
  if (!present(slot)) return nullptr;
  const Tensor v = tensor_at(t, slot, op, access);
  require_dtype(v, dtype, op, "each per-channel tensor");
  if (v.rank != 1 || v.sizes[0] != shape.channels || !v.contiguous())
    fail(DG_SHAPE, "%s: per-channel tensors must be contiguous of size [%lld], got %s", op, (long long)shape.channels, shape_text(v).c_str());
  return v.data<C>();
}

template <class C> constexpr uint32_t channel_dtype() { return std::is_same_v<C, double> ? DG_F64 : DG_F32; }

}  // namespace dg::batch_norm
