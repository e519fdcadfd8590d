// Shapes of a convolution: y[n, o, j] = bias[o] + sum over c, k of
// x[n, c, j * stride - padding + k * dilation] * w[o, c, k].
// x is [N, C, spatial...], w is [O, C / groups, kernel...], y is [N, O, spatial...]; one to three spatial axes.
#pragma once
#include "batch_norm.h"
#include "tensor.h"

namespace dg {

// The parameters of the C ABI, one number for each spatial axis (unused ones are ignored).
struct ConvParameters {
  uint32_t stride[3], padding[3], dilation[3], groups;
};

// With three spatial axes always: missing ones are leading axes of size 1.
struct ConvShape {
  int spatial = 0;  // axes that the tensors have
  int64_t batch = 0, channels = 0, filters = 0, groups = 1;
  int64_t pixel = 0;  // elements between neighbouring pixels of x in the internal form: more than the channels where x is a slice of them
  int64_t input[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, output[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1}, padding[3] = {0, 0, 0}, dilation[3] = {1, 1, 1};

  int64_t group_channels() const { return channels / groups; }
  int64_t group_filters() const { return filters / groups; }
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t input_pixels() const { return batch * input[0] * input[1] * input[2]; }
  int64_t output_pixels() const { return batch * output[0] * output[1] * output[2]; }
};

// Validates the three tensors of a convolution against each other. y may have any number of positions: x counts as zero outside its bounds, so
// that more padding behind than in front ("same" with an even kernel) and output padding need no parameters of their own.
inline ConvShape conv_shape(const Tensor& y, const Tensor& x, const Tensor& w, const ConvParameters& p, const char* op) {
  if (x.rank < 3 || x.rank > 5) fail(DG_SHAPE, "%s: takes 1 to 3 spatial axes, got an input of rank %d", op, x.rank);
  if (y.rank != x.rank || w.rank != x.rank) fail(DG_SHAPE, "%s: ranks differ: %d, %d and %d", op, y.rank, x.rank, w.rank);
  if (y.dtype != x.dtype || w.dtype != x.dtype)
    fail(DG_DTYPE, "%s: dtypes differ: %s, %s and %s", op, dtype_name(y.dtype), dtype_name(x.dtype), dtype_name(w.dtype));
  if (!(x.dtype == DG_F32 || x.dtype == DG_F64 || x.dtype == DG_F16 || x.dtype == DG_BF16))
    fail(DG_DTYPE, "%s: takes a floating point dtype, got %s", op, dtype_name(x.dtype));
  ConvShape s;
  s.spatial = x.rank - 2;
  s.batch = x.sizes[0], s.channels = s.pixel = x.sizes[1], s.filters = w.sizes[0], s.groups = p.groups;
  if (p.groups == 0 || s.channels % s.groups || s.filters % s.groups)
    fail(DG_SHAPE, "%s: %u groups do not divide %lld and %lld channels", op, p.groups, static_cast<long long>(s.channels),
         static_cast<long long>(s.filters));
  if (y.sizes[0] != s.batch || y.sizes[1] != s.filters || w.sizes[1] != s.group_channels())
    fail(DG_SHAPE, "%s: %s, %s and %s with %u groups do not belong together", op, shape_text(y).c_str(), shape_text(x).c_str(),
         shape_text(w).c_str(), p.groups);
  constexpr int64_t limit = int64_t(1) << 30;  // products of two of these do not overflow
  int64_t taps = 1;
  for (int i = 0; i < s.spatial; i++) {
    const int at = 3 - s.spatial + i;
    if (p.stride[i] == 0 || p.dilation[i] == 0 || p.stride[i] > limit || p.dilation[i] > limit || p.padding[i] > limit)
      fail(DG_RANGE, "%s: stride %u, padding %u, dilation %u", op, p.stride[i], p.padding[i], p.dilation[i]);
    s.input[at] = x.sizes[2 + i], s.kernel[at] = w.sizes[2 + i], s.output[at] = y.sizes[2 + i];
    s.stride[at] = p.stride[i], s.padding[at] = p.padding[i], s.dilation[at] = p.dilation[i];
    if (s.kernel[at] < 1 || s.kernel[at] > limit || s.input[at] > limit || s.output[at] > limit)
      fail(DG_SHAPE, "%s: kernel size %lld, input size %lld", op, static_cast<long long>(s.kernel[at]), static_cast<long long>(s.input[at]));
    taps *= s.kernel[at];
    if (taps > 1 << 24) fail(DG_SHAPE, "%s: a kernel of more than 2^24 positions", op);
  }
  return s;
}

inline void require_bias(const Tensor& bias, int64_t channels, const Tensor& x, const char* op) {
  if (bias.rank != 1 || bias.sizes[0] != channels)
    fail(DG_SHAPE, "%s: bias %s for %lld channels", op, shape_text(bias).c_str(), static_cast<long long>(channels));
  require_dtype(bias, x.dtype, op, "the bias");
}

// Provided by each library (convolution.cpp, convolution.cu); checked by entry/convolution.cpp. An absent bias is null.
void conv_forward(const ConvShape& s, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias);
void conv_backward_input(const ConvShape& s, const Tensor& dx, const Tensor& dy, const Tensor& w, const Tensor* bias);
void conv_backward_weight(const ConvShape& s, const Tensor& dw, const Tensor* db, const Tensor& dy, const Tensor& x);

// The convolution, normalised by running statistics: (x * w + bias - mean) / sqrt(var + eps) * weight + bias of the channel (+ residual) (relu), as
// batch_norm_apply of its result, whose shape is `n`.
void conv_norm(const ConvShape& s, const batch_norm::Shape& n, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias,
               const BatchNormChannels& channels, const BatchNormVariance& variance, const Tensor* residual, bool relu);

// The convolution, and batch_norm_stats of its result, whose shape is `n`.
void conv_stats(const ConvShape& s, const batch_norm::Shape& n, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias,
                const Tensor& mean, const Tensor& var, const BatchNormUpdate& update);

// When Winograd products are used, where a library has them (entry/convolution.cpp).
enum class Winograd : uint32_t { never, where_faster, where_possible };
Winograd winograd_mode();

// Counts an operand or result that had to be copied into another memory order (entry/convolution.cpp).
void count_reorder();

namespace conv {

// A weight [O, C / groups, D, H, W] in any memory order; missing axes have size 1.
template <class T> struct Weight {
  T* data = nullptr;
  int64_t filter = 0, channel = 0, tap[3] = {0, 0, 0};  // strides
  Weight() = default;
  Weight(const Tensor& t, T* data) : data(data), filter(t.strides[0]), channel(t.strides[1]) {
    for (int i = 2; i < t.rank; i++) tap[i + 3 - t.rank] = t.strides[i];
  }
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace conv
}  // namespace dg
