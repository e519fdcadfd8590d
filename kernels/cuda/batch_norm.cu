// Batch normalisation of x [N, C, S...], the passes of cpu/batch_norm.cpp: statistics and sums in one launch each,
// whose last blocks join the others, and one launch for each of the other passes. Rows (channels-last) and planes (contiguous) have kernels of
// their own; both move packs of 16 bytes where sizes and addresses allow it. Moments are taken about the first value of a channel.
#include "../common/batch_norm.h"

#include <optional>

#include "../common/normalization.h"
#include "columns.h"
#include "moments.h"

namespace dg::batch_norm {
namespace {

// Values of a channel that may be absent.
template <class C>
__device__ C or_else(const C* values, int64_t channel, C missing) {
  return values ? values[channel] : missing;
}

template <class T, class C>
struct Statistics {
  using State = Moments<C>;
  using Total = Moments<double>;
  using Column = C;
  Shape s;
  const T* x;
  C *mean, *var;
  ChannelUpdate<C> update;

  // The value that deviations are taken from first.
  __device__ C column(int64_t channel) const { return C(x[channel * s.inner]); }
  template <int V, int P>
  __device__ void add(State (&sums)[V], int64_t row, int64_t column, const C (&about)[P]) const {
    const Pack<T, V> v = load<T, V>(x + (s.rows ? row * s.channels + column : column));
    const C one_over = C(1) / (sums[0].count + 1);
#pragma unroll
    for (int j = 0; j < V; j++) sums[j].add(C(v.at[j]) - about[P == 1 ? 0 : j], one_over);
  }
  __device__ void finish(int64_t channel, const Total& total) const {
    const C m = C(double(column(channel)) + total.mean), v = C(total.square / total.count);
    mean[channel] = m;
    var[channel] = v;
    update(channel, m, v);
  }
};

// Parameters of a channel: y = (x - mean) * scale + shift.
template <class C>
struct Affine {
  C mean, scale, shift;
};
template <class C>
struct Channels {
  const C *mean, *invstd, *weight, *bias;
  __device__ Affine<C> at(int64_t c) const {
    return {or_else(mean, c, C(0)), or_else(weight, c, C(1)) * or_else(invstd, c, C(1)), or_else(bias, c, C(0))};
  }
};

// The same with a variance in the place of invstd.
template <class C>
struct Running {
  const C *mean, *var, *weight, *bias;
  double eps;
  __device__ Affine<C> at(int64_t c) const { return {mean[c], or_else(weight, c, C(1)) * inverse_deviation(var[c], eps), or_else(bias, c, C(0))}; }
};

// How the gradient passes the relu: everywhere, where the saved output is > 0, or where the output computed again is > 0.
enum class Mask : uint32_t { none, output, again };

template <class T, class C>
struct GradientSums {
  using State = Sums<C>;
  using Total = Sums<double>;
  using Column = Affine<C>;
  Shape s;
  Channels<C> channels;
  Mask mask;
  const T *dy, *x, *y;
  T* masked;
  C *sum_dy, *sum_dy_xhat;

  __device__ Column column(int64_t channel) const { return channels.at(channel); }
  template <int V, int P>
  __device__ void add(State (&sums)[V], int64_t row, int64_t column, const Column (&p)[P]) const {
    const int64_t i = s.rows ? row * s.channels + column : column;
    Pack<T, V> g = load<T, V>(dy + i);
    const Pack<T, V> v = load<T, V>(x + i);
    if (mask == Mask::output) {
      const Pack<T, V> out = load<T, V>(y + i);
#pragma unroll
      for (int j = 0; j < V; j++)
        if (!(C(out.at[j]) > C(0))) g.at[j] = T(0);
    } else if (mask == Mask::again) {
#pragma unroll
      for (int j = 0; j < V; j++) {
        const Column& a = p[P == 1 ? 0 : j];
        if (!(C(T(normalised<C>(C(v.at[j]), a.mean, a.scale, a.shift))) > C(0))) g.at[j] = T(0);
      }
    }
    if (masked) store(masked + i, g);
#pragma unroll
    for (int j = 0; j < V; j++) {
      sums[j].one += C(g.at[j]);
      sums[j].two += C(g.at[j]) * (C(v.at[j]) - p[P == 1 ? 0 : j].mean);
    }
  }
  __device__ void finish(int64_t channel, const Total& total) const {
    sum_dy[channel] = C(total.one);
    sum_dy_xhat[channel] = C(total.two * double(or_else(channels.invstd, channel, C(1))));
  }
};

// Source: Channels or Running.
template <class T, class C, class Source>
struct Apply {
  using Column = Affine<C>;
  Source channels;
  T* y;
  const T *x, *residual;
  bool relu;

  __device__ Column column(int64_t channel) const { return channels.at(channel); }
  template <int V, int P>
  __device__ void run(int64_t i, const Column (&p)[P]) const {
    const Pack<T, V> v = load<T, V>(x + i);
    Pack<T, V> r{}, out;
    if (residual) r = load<T, V>(residual + i);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const Column& a = p[P == 1 ? 0 : j];
      C value = normalised<C>(C(v.at[j]), a.mean, a.scale, a.shift);
      if (residual) value += C(r.at[j]);
      out.at[j] = T(relu && value <= C(0) ? C(0) : value);
    }
    store(y + i, out);
  }
};

template <class T, class C>
struct InputGradient {
  struct Column {
    C mean, scale, shift, a, b;
  };
  Channels<C> channels;
  const C *sum_dy, *sum_dy_xhat;
  T* dx;
  const T *dy, *x;
  C one_over_count;
  bool relu;

  __device__ Column column(int64_t channel) const {
    const Affine<C> p = channels.at(channel);
    return {p.mean, p.scale, p.shift, or_else(sum_dy, channel, C(0)) * one_over_count,
            or_else(sum_dy_xhat, channel, C(0)) * one_over_count * or_else(channels.invstd, channel, C(1))};
  }
  template <int V, int P>
  __device__ void run(int64_t i, const Column (&p)[P]) const {
    const Pack<T, V> g = load<T, V>(dy + i), v = load<T, V>(x + i);
    Pack<T, V> out;
#pragma unroll
    for (int j = 0; j < V; j++) {
      const Column& a = p[P == 1 ? 0 : j];
      const C value = C(v.at[j]);
      const bool passes = !relu || C(T(normalised<C>(value, a.mean, a.scale, a.shift))) > C(0);
      out.at[j] = T(normalised_slope<C>(passes ? C(g.at[j]) : C(0), value, a.mean, a.scale, a.a, a.b));
    }
    store(dx + i, out);
  }
};

// Threads keep their columns' parameters while they go down the rows.
template <int V, class Op>
__global__ void __launch_bounds__(kThreads) map_rows(Op op, int64_t rows, int64_t channels) {
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V, step = int64_t(gridDim.y) * blockDim.y;
  if (first >= channels) return;
  typename Op::Column column[V];
#pragma unroll
  for (int j = 0; j < V; j++) column[j] = op.column(first + j);
  for (int64_t row = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step) op.template run<V>(row * channels + first, column);
}

// I is uint32_t where the number of packs fits.
template <int V, class I, class Op>
__global__ void __launch_bounds__(kThreads) map_planes(Op op, I packs, I inner, I channels) {
  const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < packs; i += step) {
    const typename Op::Column column[1] = {op.column(I(i) / inner % channels)};
    op.template run<V>(int64_t(i) * V, column);
  }
}

template <int V, class Op>
void launch_map_rows(const char* name, const Op& op, const Shape& s) {
  const ColumnGrid g(s.outer, s.channels / V, 4, 16 * kColumnBlocks);
  launch(name, map_rows<V, Op>, g.grid, g.block, 0, op, s.outer, s.channels);
}

template <int V, class Op>
void launch_map(const char* name, const Op& op, const Shape& s) {
  if (s.rows) return launch_map_rows<V>(name, op, s);
  const int64_t packs = s.outer * s.channels * (s.inner / V);
  const unsigned threads = unsigned(std::clamp<int64_t>(std::bit_ceil(uint64_t(packs)), 32, kThreads)), blocks = blocks_for(packs, threads);
  if (packs < int64_t(1) << 31) launch(name, map_planes<V, uint32_t, Op>, blocks, threads, 0, op, packs, s.inner / V, s.channels);
  else launch(name, map_planes<V, uint64_t, Op>, blocks, threads, 0, op, packs, s.inner / V, s.channels);
}

template <int V, class Op>
void launch_reduction(const char* name, const Op& op, const Shape& s) {
  if (s.rows) launch_columns<V>(name, op, s.outer, s.channels);
  else launch_planes<V>(name, op, s.outer, s.channels, s.inner);
}

// Calls f(integral_constant<int, V>) with the number of elements that are moved at once.
template <class T, class F, class... P>
void with_packs(const Shape& s, F&& f, const P*... pointers) {
  constexpr int V = 16 / sizeof(T);
  const bool packed = (s.rows ? s.channels : s.inner) % V == 0 && ((!pointers || packs_fit<V>(pointers)) && ...);
  if (packed) f(std::integral_constant<int, V>{});
  else f(std::integral_constant<int, 1>{});
}

template <class C>
__global__ void update_channels(int64_t channels, ChannelUpdate<C> update, const C* mean, const C* var) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c < channels) update(c, mean[c], var[c]);
}

// What a variance comes to, and a copy of the mean, where wanted.
template <class C>
__global__ void keep_channels(int64_t channels, C* kept_mean, C* invstd, const C* mean, const C* var, double eps) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  if (kept_mean) kept_mean[c] = mean[c];
  invstd[c] = inverse_deviation(var[c], eps);
}

template <class C>
Channels<C> columns(const BatchNormChannels& c) {
  return {data_or_null<C>(c.mean), data_or_null<C>(c.invstd), data_or_null<C>(c.weight), data_or_null<C>(c.bias)};
}

}  // namespace
}  // namespace dg::batch_norm

namespace dg {
using namespace batch_norm;

void batch_norm_stats(const Shape& s, const Tensor& mean, const Tensor& var, const Tensor& x, const BatchNormUpdate& update) {
  const char* const name = "batch_norm_stats";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Statistics<T, C> op{s, x.data<T>(), mean.data<C>(), var.data<C>(), update.of<C>()};
    with_packs<T>(s, [&](auto v) { launch_reduction<v()>(name, op, s); }, op.x);
  });
}

void batch_norm_update(const Tensor& mean, const Tensor& var, const BatchNormUpdate& update) {
  if (var.numel == 0) return;
  dispatch_floats(var.dtype, "batch_norm_update", [&](auto kind) {
    using C = compute_t<typename decltype(kind)::type>;
    launch("batch_norm_update", update_channels<C>, blocks_for(var.numel, 128), 128, 0, var.numel, update.of<C>(), mean.data<C>(), var.data<C>());
  });
}

void batch_norm_apply(const Shape& s, const Tensor& y, const Tensor& x, const BatchNormChannels& channels, const BatchNormVariance& variance,
                      const Tensor* residual, bool relu) {
  const char* const name = "batch_norm";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    Channels<C> c = columns<C>(channels);
    const C* const var = data_or_null<C>(variance.var);
    const T* const r = data_or_null<T>(residual);
    // Threads of rows come to invstd by themselves, once a column.
    if (var && s.rows && !variance.kept_invstd) {
      const Apply<T, C, Running<C>> op{{c.mean, var, c.weight, c.bias, variance.eps}, y.data<T>(), x.data<T>(), r, relu};
      return with_packs<T>(s, [&](auto v) { launch_map_rows<v()>(name, op, s); }, op.x, op.y, op.residual);
    }
    std::optional<Scratch> own;
    if (var) {
      C* const invstd = variance.kept_invstd ? variance.kept_invstd->data<C>() : own.emplace(s.channels * int64_t(sizeof(C))).template as<C>();
      launch(name, keep_channels<C>, blocks_for(s.channels, 128), 128, 0, s.channels, data_or_null<C>(variance.kept_mean), invstd, c.mean, var,
             variance.eps);
      c.invstd = invstd;
    }
    const Apply<T, C, Channels<C>> op{c, y.data<T>(), x.data<T>(), r, relu};
    with_packs<T>(s, [&](auto v) { launch_map<v()>(name, op, s); }, op.x, op.y, op.residual);
  });
}

void batch_norm_reduce(const Shape& s, const Tensor& sum_dy, const Tensor& sum_dy_xhat, const Tensor* masked, const Tensor& dy, const Tensor& x,
                       const Tensor* y, const BatchNormChannels& channels, bool relu) {
  const char* const name = "batch_norm_backward";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const GradientSums<T, C> op{s, columns<C>(channels), !relu ? Mask::none : y ? Mask::output : Mask::again, dy.data<T>(), x.data<T>(),
                                data_or_null<T>(y), data_or_null<T>(masked), sum_dy.data<C>(), sum_dy_xhat.data<C>()};
    if (x.numel == 0) return launch_columns<1>(name, op, 0, s.channels);
    with_packs<T>(s, [&](auto v) { launch_reduction<v()>(name, op, s); }, op.x, op.dy, op.y, op.masked);
  });
}

void batch_norm_backward(const Shape& s, const Tensor& dx, const Tensor& dy, const Tensor& x, const BatchNormChannels& channels, const Tensor* sum_dy,
                         const Tensor* sum_dy_xhat, double count, bool relu) {
  const char* const name = "batch_norm_backward";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const InputGradient<T, C> op{columns<C>(channels), data_or_null<C>(sum_dy), data_or_null<C>(sum_dy_xhat), dx.data<T>(), dy.data<T>(), x.data<T>(),
                                 C(1.0 / count), relu};
    with_packs<T>(s, [&](auto v) { launch_map<v()>(name, op, s); }, op.x, op.dx, op.dy);
  });
}

}  // namespace dg
