// Normalisation of rows of row-major memory, the twin of cpu/layer_norm.cpp. A row is served by a power of two of lanes, few for short rows, which
// read it twice (the second time from the cache). The gradients of the parameters are sums down the columns (columns.h).
#include "../common/row_norm.h"

#include <bit>

#include "../common/normalization.h"
#include "columns.h"
#include "moments.h"

namespace dg {
namespace {

constexpr int kLanes = 512;  // of a row at most

// Lanes (x) and rows (y) of a block for rows of `packs`.
struct RowGrid {
  dim3 grid, block;
  RowGrid(int64_t rows, int64_t packs) {
    const int64_t x = std::clamp<int64_t>(std::bit_ceil(uint64_t((packs + 3) / 4)), 1, kLanes);
    const int64_t y = std::min<int64_t>(std::max<int64_t>(1, 128 / x), std::max<int64_t>(std::bit_ceil(uint64_t(rows)), (31 + x) / x));
    block = dim3(unsigned(x), unsigned(y));
    grid = dim3(unsigned((rows + y - 1) / y));
  }
};

template <class C>
__device__ Moments<C> shuffled(const Moments<C>& m, int with) {
  return {__shfl_xor_sync(0xffffffffu, m.mean, with), __shfl_xor_sync(0xffffffffu, m.square, with), __shfl_xor_sync(0xffffffffu, m.count, with)};
}
template <class C>
__device__ Sums<C> shuffled(const Sums<C>& s, int with) {
  return {__shfl_xor_sync(0xffffffffu, s.one, with), __shfl_xor_sync(0xffffffffu, s.two, with)};
}

// Joins what the lanes of a row hold; every lane gets the same bits. All threads must call it. `shared`: a value for each warp.
template <class S>
__device__ S join_lanes(S value, S* shared) {
  const int lanes = blockDim.x, lane = threadIdx.x;
  for (int distance = 1; distance < min(lanes, 32); distance *= 2) {
    const S other = shuffled(value, distance);
    value = lane & distance ? merge(other, value) : merge(value, other);
  }
  if (lanes <= 32) return value;
  const int warps = lanes / 32;
  S* const mine = shared + threadIdx.y * warps;
  if (lane % 32 == 0) mine[lane / 32] = value;
  __syncthreads();
  value = mine[0];
  for (int w = 1; w < warps; w++) value = merge(value, mine[w]);
  return value;
}

// Where the parameters of a value lie: one a column, or (groups) one a channel.
struct Parameters {
  int64_t groups, per, inner;  // groups == 0: a parameter a column
  __device__ int64_t first(int64_t row) const { return groups ? row % groups * per : 0; }
  // Of the value at `i` of a row.
  __device__ int64_t at(int64_t i) const { return !groups ? i : i < INT32_MAX && inner < INT32_MAX ? uint32_t(i) / uint32_t(inner) : i / inner; }
};

// Means and 1 / sqrt(var + eps) of rows of n values, and the rows normalised. V divides n (and inner).
template <int V, class T, class C>
__global__ void __launch_bounds__(kLanes)
    normalise(T* y, C* means, C* invstds, const T* x, const C* weight, const C* bias, int64_t rows, int64_t n, Parameters parameters, C eps,
              bool centre) {
  DG_SHARED(Moments<C>[kLanes / 32], shared);
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, packs = n / V;
  const bool inside = row < rows;
  const T* const from = x + row * n;
  Moments<C> lanes[V] = {};
  const C about = inside ? C(from[0]) : C(0);
  if (inside) {
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
      const Pack<T, V> v = load<T, V>(from + i * V);
      const C one_over = C(1) / (lanes[0].count + 1);
#pragma unroll
      for (int j = 0; j < V; j++) lanes[j].add(C(v.at[j]) - about, one_over);
    }
  }
#pragma unroll
  for (int j = 1; j < V; j++) lanes[0] = merge(lanes[0], lanes[j]);
  const Moments<C> all = join_lanes(lanes[0], shared);
  if (!inside) return;
  const C mean = about + all.mean, var = all.square / all.count;
  const C invstd = C(1) / std::sqrt((centre ? var : var + mean * mean) + eps), m = centre ? mean : C(0);
  if (threadIdx.x == 0) {
    if (means) means[row] = mean;
    invstds[row] = invstd;
  }
  const int64_t first = parameters.first(row);
  for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
    const Pack<T, V> v = load<T, V>(from + i * V);
    Pack<T, V> out;
    if (parameters.groups) {
      const int64_t c = first + parameters.at(i * V);
      const C w = weight ? weight[c] : C(1), b = bias ? bias[c] : C(0);
#pragma unroll
      for (int j = 0; j < V; j++) out.at[j] = T(normalised<C>(C(v.at[j]), m, invstd * w, b));
    } else {
#pragma unroll
      for (int j = 0; j < V; j++) {
        const C w = weight ? weight[i * V + j] : C(1), b = bias ? bias[i * V + j] : C(0);
        out.at[j] = T(normalised<C>(C(v.at[j]), m, invstd * w, b));
      }
    }
    store(y + row * n + i * V, out);
  }
}

// dx = invstd (g - mean(g) - xhat mean(g xhat)), g = dy weight.
template <int V, class T, class C>
__global__ void __launch_bounds__(kLanes)
    normalise_backward(T* dx, const T* dy, const T* x, const C* means, const C* invstds, const C* weight, int64_t rows, int64_t n) {
  DG_SHARED(Sums<C>[kLanes / 32], shared);
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, packs = n / V, start = row * n;
  const bool inside = row < rows;
  const C m = inside && means ? means[row] : C(0), s = inside ? invstds[row] : C(0);
  Sums<C> sums{};
  if (inside) {
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
      const Pack<T, V> v = load<T, V>(x + start + i * V), g = load<T, V>(dy + start + i * V);
#pragma unroll
      for (int j = 0; j < V; j++) {
        const C slope = C(g.at[j]) * (weight ? weight[i * V + j] : C(1));
        sums.one += slope;
        sums.two += slope * ((C(v.at[j]) - m) * s);
      }
    }
  }
  sums = join_lanes(sums, shared);
  if (!inside) return;
  const C one = means ? sums.one / C(n) : C(0), two = sums.two / C(n) * s;
  for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
    const Pack<T, V> v = load<T, V>(x + start + i * V), g = load<T, V>(dy + start + i * V);
    Pack<T, V> out;
#pragma unroll
    for (int j = 0; j < V; j++)
      out.at[j] = T(normalised_slope<C>(C(g.at[j]) * (weight ? weight[i * V + j] : C(1)), C(v.at[j]), m, s, one, two));
    store(dx + start + i * V, out);
  }
}

// dweight = sum of dy xhat, dbias = sum of dy over rows.
template <class T, class C>
struct ParameterSums {
  using State = Sums<C>;
  using Total = Sums<double>;
  struct Column {};
  const T *dy, *x;
  const C *means, *invstds;
  C *dweight, *dbias;
  int64_t n;

  __device__ Column column(int64_t) const { return {}; }
  template <int V, int P>
  __device__ void add(State (&sums)[V], int64_t row, int64_t column, const Column (&)[P]) const {
    const Pack<T, V> v = load<T, V>(x + row * n + column), g = load<T, V>(dy + row * n + column);
    const C m = means ? means[row] : C(0), s = invstds[row];
#pragma unroll
    for (int j = 0; j < V; j++) {
      sums[j].one += C(g.at[j]);
      sums[j].two += C(g.at[j]) * ((C(v.at[j]) - m) * s);
    }
  }
  __device__ void finish(int64_t column, const Total& total) const {
    if (dbias) dbias[column] = C(total.one);
    if (dweight) dweight[column] = C(total.two);
  }
};

// Sums of dy and of dy xhat over each plane (a channel of a sample).
template <int V, class T, class C>
__global__ void __launch_bounds__(kLanes)
    plane_sums(Sums<C>* sums, const T* dy, const T* x, const C* means, const C* invstds, int64_t planes, int64_t per, int64_t inner) {
  DG_SHARED(Sums<C>[kLanes / 32], shared);
  const int64_t plane = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, packs = inner / V, start = plane * inner;
  Sums<C> sum{};
  if (plane < planes) {
    const C m = means[plane / per], s = invstds[plane / per];
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
      const Pack<T, V> v = load<T, V>(x + start + i * V), g = load<T, V>(dy + start + i * V);
#pragma unroll
      for (int j = 0; j < V; j++) {
        sum.one += C(g.at[j]);
        sum.two += C(g.at[j]) * ((C(v.at[j]) - m) * s);
      }
    }
  }
  sum = join_lanes(sum, shared);
  if (plane < planes && threadIdx.x == 0) sums[plane] = sum;
}

// The first `row_blocks` blocks make dx of rows (groups), the others the parameters' gradients of channels.
template <int V, class T, class C>
__global__ void __launch_bounds__(kLanes)
    groups_backward(T* dx, C* dweight, C* dbias, const Sums<C>* sums, const T* dy, const T* x, const C* means, const C* invstds, const C* weight,
                    NormGroups g, unsigned row_blocks) {
  DG_SHARED(Sums<C>[kLanes / 32], shared);
  if (blockIdx.x >= row_blocks) {
    const int64_t channels = g.groups * g.per;
    const int64_t c = (int64_t(blockIdx.x - row_blocks) * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    Sums<double> total{};
    for (int64_t sample = 0; sample < g.rows / g.groups; sample++) total = merge(total, Sums<double>(sums[sample * channels + c]));
    if (dbias) dbias[c] = C(total.one);
    if (dweight) dweight[c] = C(total.two);
    return;
  }
  const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y, n = g.per * g.inner, packs = n / V, start = row * n;
  const bool inside = row < g.rows;
  const int64_t channel = inside ? row % g.groups * g.per : 0;
  Sums<C> sum{};
  if (inside) {
    for (int64_t c = threadIdx.x; c < g.per; c += blockDim.x) {
      const C w = weight ? weight[channel + c] : C(1);
      const Sums<C> part = sums[row * g.per + c];
      sum = merge(sum, Sums<C>(w * part.one, w * part.two));
    }
  }
  sum = join_lanes(sum, shared);
  if (!inside) return;
  const C m = means[row], s = invstds[row], a = sum.one / C(n), b = sum.two / C(n) * s;
  const Parameters parameters{g.groups, g.per, g.inner};
  for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
    const Pack<T, V> v = load<T, V>(x + start + i * V), d = load<T, V>(dy + start + i * V);
    const C w = weight ? weight[channel + parameters.at(i * V)] : C(1);
    Pack<T, V> out;
#pragma unroll
    for (int j = 0; j < V; j++) out.at[j] = T(normalised_slope<C>(C(d.at[j]) * w, C(v.at[j]), m, s, a, b));
    store(dx + start + i * V, out);
  }
}

// Calls f(integral_constant<int, V>) with the number of elements that are moved at once, V a divisor of n.
template <class T, class F, class... P>
void with_packs(int64_t n, F&& f, const P*... pointers) {
  constexpr int V = 16 / sizeof(T);
  if (n % V == 0 && ((!pointers || packs_fit<V>(pointers)) && ...)) f(std::integral_constant<int, V>{});
  else f(std::integral_constant<int, 1>{});
}

template <class T, class C>
void normalise_rows(const char* name, T* y, C* means, C* invstds, const T* x, const C* weight, const C* bias, int64_t rows, int64_t n,
                    const Parameters& parameters, double eps, bool centre) {
  if (rows == 0) return;
  with_packs<T>(parameters.groups ? parameters.inner : n, [&](auto v) {
    const RowGrid g(rows, n / v());
    launch(name, normalise<v(), T, C>, g.grid, g.block, 0, y, means, invstds, x, weight, bias, rows, n, parameters, C(eps), centre);
  }, x, y);
}

}  // namespace

void layer_norm(const Tensor& y, const Tensor* mean, const Tensor& invstd, const Tensor& x, const Tensor* weight, const Tensor* bias,
                const NormRows& r, double eps) {
  const char* const name = "layer_norm";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    normalise_rows<T, C>(name, y.data<T>(), data_of<C>(mean), invstd.data<C>(), x.data<T>(), data_of<C>(weight), data_of<C>(bias), r.rows,
                         r.columns, {0, 0, 0}, eps, mean != nullptr);
  });
}

void layer_norm_backward(const Tensor* dx, const Tensor* dweight, const Tensor* dbias, const Tensor& dy, const Tensor& x, const Tensor* mean,
                         const Tensor& invstd, const Tensor* weight, const NormRows& r) {
  const char* const name = "layer_norm_backward";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    T* const out = data_of<T>(dx);
    const ParameterSums<T, C> op{dy.data<T>(), x.data<T>(), data_of<C>(mean), invstd.data<C>(),
                                 data_of<C>(dweight), data_of<C>(dbias), r.columns};
    with_packs<T>(r.columns, [&](auto v) {
      if (out && r.rows > 0) {
        const RowGrid g(r.rows, r.columns / v());
        launch(name, normalise_backward<v(), T, C>, g.grid, g.block, 0, out, op.dy, op.x, op.means, op.invstds, data_of<C>(weight), r.rows,
               r.columns);
      }
      if (dweight || dbias) launch_columns<v()>("layer_norm_parameters", op, r.rows, r.columns);
    }, out, op.dy, op.x);
  });
}

void group_norm(const Tensor& y, const Tensor& mean, const Tensor& invstd, const Tensor& x, const Tensor* weight, const Tensor* bias,
                const NormGroups& g, double eps) {
  const char* const name = "group_norm";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    normalise_rows<T, C>(name, y.data<T>(), mean.data<C>(), invstd.data<C>(), x.data<T>(), data_of<C>(weight), data_of<C>(bias), g.rows,
                         g.per * g.inner, {g.groups, g.per, g.inner}, eps, true);
  });
}

void group_norm_backward(const Tensor* dx, const Tensor* dweight, const Tensor* dbias, const Tensor& dy, const Tensor& x, const Tensor& mean,
                         const Tensor& invstd, const Tensor* weight, const NormGroups& g) {
  const char* const name = "group_norm_backward";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    T* const out = data_of<T>(dx);
    const T *const pd = dy.data<T>(), *const px = x.data<T>();
    const C *const means = mean.data<C>(), *const invstds = invstd.data<C>();
    const int64_t planes = g.rows * g.per;
    const Scratch scratch(planes * int64_t(sizeof(Sums<C>)));
    Sums<C>* const sums = scratch.as<Sums<C>>();
    with_packs<T>(g.inner, [&](auto v) {
      const RowGrid p(planes, g.inner / v()), r(g.rows, g.per * g.inner / v());
      launch("group_norm_sums", plane_sums<v(), T, C>, p.grid, p.block, 0, sums, pd, px, means, invstds, planes, g.per, g.inner);
      const unsigned row_blocks = out ? r.grid.x : 0, threads = r.block.x * r.block.y;
      const unsigned channel_blocks = dweight || dbias ? blocks_for(g.groups * g.per, threads) : 0;
      if (row_blocks + channel_blocks == 0) return;
      launch(name, groups_backward<v(), T, C>, row_blocks + channel_blocks, r.block, 0, out, data_of<C>(dweight), data_of<C>(dbias), sums, pd, px,
             means, invstds, data_of<C>(weight), g, row_blocks);
    }, out, pd, px);
  });
}

}  // namespace dg
