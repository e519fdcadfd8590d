// Batch normalisation: the two layouts, and what each library provides.
#pragma once
#include "normalization.h"
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

}  // namespace dg::batch_norm

namespace dg {

// The tensors below that are pointers may be absent: null. Per-channel ones are contiguous [C], float64 for float64 inputs, else float32.
template <class C> C* data_or_null(const Tensor* t) { return t ? t->data<C>() : nullptr; }

// What becomes of a batch's mean and variance; `count` values a channel.
struct BatchNormUpdate {
  const Tensor *invstd, *running_mean, *running_var, *batches;  // batches: an int64 that counts them
  double count, momentum, eps;
  template <class C> ChannelUpdate<C> of() const {
    return {data_or_null<C>(invstd), data_or_null<C>(running_mean), data_or_null<C>(running_var), data_or_null<int64_t>(batches), count / (count - 1),
            momentum, eps};
  }
};
struct BatchNormChannels {
  const Tensor *mean, *invstd, *weight, *bias;
};
// A variance in the place of invstd, and what is kept for backward, as running statistics move on before it: both or none.
struct BatchNormVariance {
  const Tensor *var, *kept_mean, *kept_invstd;
  double eps;
};

// Provided by each library (batch_norm.cpp, batch_norm.cu); checked by entry/batch_norm.cpp.
void batch_norm_stats(const batch_norm::Shape& s, const Tensor& mean, const Tensor& var, const Tensor& x, const BatchNormUpdate& update);
void batch_norm_update(const Tensor& mean, const Tensor& var, const BatchNormUpdate& update);
void batch_norm_apply(const batch_norm::Shape& s, const Tensor& y, const Tensor& x, const BatchNormChannels& channels, const BatchNormVariance& variance,
                      const Tensor* residual, bool relu);
void batch_norm_reduce(const batch_norm::Shape& s, const Tensor& sum_dy, const Tensor& sum_dy_xhat, const Tensor* masked, const Tensor& dy,
                       const Tensor& x, const Tensor* y, const BatchNormChannels& channels, bool relu);
void batch_norm_backward(const batch_norm::Shape& s, const Tensor& dx, const Tensor& dy, const Tensor& x, const BatchNormChannels& channels,
                         const Tensor* sum_dy, const Tensor* sum_dy_xhat, double count, bool relu);

}  // namespace dg
