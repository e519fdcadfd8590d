// Convolution of one to three spatial axes, forward and both gradients; the transposed form is these three exchanged. Here: checks and the choice of
// the algorithm. Tensors are taken in any memory order, without copies; channels-last is the fastest.
#include "convolution.h"

#include <optional>

#include "columns.h"
#include "copy.h"
#include "matmul.h"

namespace dg::conv {
namespace {

constexpr int64_t kFewColumns = 4;  // columns of a product that tiles would waste

// The bias as a tensor of the sizes of y.
Tensor spread(const Tensor& bias, const Tensor& y) {
  Tensor t = bias;
  t.rank = y.rank;
  t.numel = y.numel;
  for (int i = 0; i < y.rank; i++) t.sizes[i] = y.sizes[i], t.strides[i] = i == 1 ? bias.strides[0] : 0;
  return t;
}

bool pointwise(const ConvShape& s) {
  bool one = s.groups == 1 && s.taps() == 1 && s.batch > 0 && s.channels > 0 && s.filters > 0 && s.output_pixels() > 0;
  for (int i = 0; i < 3; i++) one &= s.stride[i] == 1 && s.padding[i] == 0 && s.input[i] == s.output[i];
  return one;
}

void* address(const Tensor& t) { return t.storage_data + t.offset * dtype_size(t.dtype); }

// out = product of x with the weights as a matrix whose rows are the channels of x; false where the layouts do not allow it.
bool pointwise_product(const ConvShape& s, const Tensor& out, const Tensor& x, const Tensor& w, const Tensor* bias, int64_t channels, int64_t columns,
                       int64_t channel_step, int64_t column_step) {
  if (!pointwise(s)) return false;
  const int64_t area = s.output[0] * s.output[1] * s.output[2], positions = s.batch * area;
  const bool last = x.channels_last() && out.channels_last(), planes = x.contiguous() && out.contiguous();
  if (!last && !planes) return false;
  if (bias) copy_tensor(out, spread(*bias, out));
  void* const weights = address(w);
  if (last)
    product(out.dtype, 1, positions, columns, channels, {address(x), 0, channels, 1}, {weights, 0, channel_step, column_step},
            {address(out), 0, columns, 1}, bias != nullptr);
  else
    product(out.dtype, s.batch, columns, area, channels, {weights, 0, column_step, channel_step}, {address(x), channels * area, area, 1},
            {address(out), columns * area, area, 1}, bias != nullptr);
  return true;
}

bool pointwise_weight(const ConvShape& s, const Tensor& dw, const Tensor& dy, const Tensor& x) {
  const Matrix out{address(dw), 0, dw.strides[0], dw.strides[1]};
  if (!pointwise(s) || !x.channels_last() || !dy.channels_last() || !addressable(out, s.filters, s.channels)) return false;
  product(dw.dtype, 1, s.filters, s.channels, s.output_pixels(), {address(dy), 0, 1, s.filters}, {address(x), 0, s.channels, 1}, out, false);
  return true;
}

// db = sum of dy over positions.
template <class T, class C>
struct BiasGradient {
  using State = SumState<C>;
  using Total = SumTotal;
  struct Column {};
  const T* dy;
  int64_t row_step;  // 0: `column` is the position in memory
  T* db;
  int64_t db_step;

  __device__ Column column(int64_t) const { return {}; }
  template <int V, int P>
  __device__ void add(State (&sums)[V], int64_t row, int64_t column, const Column (&)[P]) const {
    const Pack<T, V> v = load<T, V>(dy + row * row_step + column);
#pragma unroll
    for (int j = 0; j < V; j++) sums[j].value += C(v.at[j]);
  }
  __device__ void finish(int64_t column, const Total& total) const { db[column * db_step] = T(C(total.value)); }
};

template <class T>
void backward_bias(const ConvShape& s, const Tensor& db, const Tensor& dy) {
  constexpr int V = 16 / sizeof(T);
  std::optional<Scratch> memory;
  Tensor g = dy;
  if (g.numel > 0 && !g.channels_last() && !g.contiguous()) {
    memory.emplace(g.numel * int64_t(sizeof(T)));
    g.storage_data = memory->as<char>();
    g.offset = 0;
    int64_t step = 1;
    for (int i = g.rank - 1; i >= 0; i--) g.strides[i] = step, step *= g.sizes[i];
    copy_tensor(g, dy);
  }
  const char* const name = "convolution_bias_gradient";
  BiasGradient<T, compute_t<T>> op{g.data<T>(), 0, db.data<T>(), db.strides[0]};
  const int64_t positions = s.output_pixels();
  if (g.numel == 0 || g.channels_last()) {
    op.row_step = s.filters;
    if (g.numel > 0 && s.filters % V == 0 && packs_fit<V>(op.dy)) launch_columns<V>(name, op, positions, s.filters);
    else launch_columns<1>(name, op, positions, s.filters);
  } else {
    const int64_t area = positions / s.batch;
    if (area % V == 0 && packs_fit<V>(op.dy)) launch_planes<V>(name, op, s.batch, s.filters, area);
    else launch_planes<1>(name, op, s.batch, s.filters, area);
  }
}

}  // namespace
}  // namespace dg::conv

namespace dg {
using namespace conv;

void conv_forward(const ConvShape& s, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias) {
  if (y.numel == 0) return;
  if (pointwise_product(s, y, x, w, bias, s.channels, s.filters, w.strides[1], w.strides[0])) return;
  dispatch_floats(x.dtype, "conv_forward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    const T* const b = bias ? bias->data<T>() : nullptr;
    const bool direct = s.group_filters() <= kFewColumns || !small_coordinates(s);
    (direct ? direct_forward<T> : gather_forward<T>)(s, activation<T>(y), activation<T>(x), weight<T>(w), b, bias ? bias->strides[0] : 0);
  });
}

void conv_norm(const ConvShape& s, const batch_norm::Shape& n, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias,
               const BatchNormChannels& channels, const BatchNormVariance& variance, const Tensor* residual, bool relu) {
  conv_forward(s, y, x, w, bias);
  batch_norm_apply(n, y, y, channels, variance, residual, relu);
}

void conv_stats(const ConvShape& s, const batch_norm::Shape& n, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias,
                const Tensor& mean, const Tensor& var, const BatchNormUpdate& update) {
  conv_forward(s, y, x, w, bias);
  batch_norm_stats(n, mean, var, y, update);
}

void conv_backward_input(const ConvShape& s, const Tensor& dx, const Tensor& dy, const Tensor& w, const Tensor* bias) {
  if (dx.numel == 0) return;
  if (pointwise_product(s, dx, dy, w, bias, s.filters, s.channels, w.strides[0], w.strides[1])) return;
  dispatch_floats(dx.dtype, "conv_backward_input", [&](auto kind) {
    using T = typename decltype(kind)::type;
    const T* const b = bias ? bias->data<T>() : nullptr;
    const bool direct = s.group_channels() <= kFewColumns || !small_coordinates(s);
    (direct ? direct_backward_input<T> : gather_backward_input<T>)(s, activation<T>(dx), activation<T>(dy), weight<T>(w), b,
                                                                   bias ? bias->strides[0] : 0);
  });
}

void conv_backward_weight(const ConvShape& s, const Tensor& dw, const Tensor* db, const Tensor& dy, const Tensor& x) {
  dispatch_floats(x.dtype, "conv_backward_weight", [&](auto kind) {
    using T = typename decltype(kind)::type;
    if (dw.numel > 0 && !pointwise_weight(s, dw, dy, x)) {
      const bool direct = (s.groups > 1 && s.group_filters() <= kFewColumns && s.group_channels() <= kFewColumns) || !small_coordinates(s);
      (direct ? direct_backward_weight<T> : gather_backward_weight<T>)(s, weight<T>(dw), activation<T>(dy), activation<T>(x));
    }
    if (db) backward_bias<T>(s, *db, dy);
  });
}

}  // namespace dg
