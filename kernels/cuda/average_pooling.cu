// Average pooling and its gradient: see the CPU's average_pooling.cpp for the rules. Each row of a window is summed by itself first, so that
// rounding errors do not grow with the window's area. Wide windows with few outputs are shared by the threads of a block.
#include "../common/pooling.h"
#include "planes.h"

namespace dg {
namespace {

struct Windows {
  PoolAxis d, h, w;
  PoolDivisor divisor;
  __device__ double size(int64_t od, int64_t oh, int64_t ow) const { return divisor.of(d, h, w, od, oh, ow); }
};

// Positions [low, low + count) of a window along an axis.
struct Span {
  int64_t low, count;
  __device__ Span(const PoolAxis& axis, int64_t o) {
    const int64_t begin = axis.begin(o), end = begin + axis.taps(o);
    low = begin > 0 ? begin : 0;
    count = (end < axis.in ? end : axis.in) - low;
  }
};

template <class T, int N>
__global__ void average_pool(Places<N> places, Windows v, T* y, PlaneView vy, const T* x, PlaneView vx) {
  using C = compute_t<T>;
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const Span d(v.d, p.at[0]), h(v.h, p.at[1]), w(v.w, p.at[2]);
  const T* const base = x + places.offset(p, vx, d.low, h.low, w.low);
  C sum[N];
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] = 0;
  for (int64_t a = 0; a < d.count; a++)
    for (int64_t b = 0; b < h.count; b++) {
      const T* from = base + vx.offset(a, b, 0);
      C row[N];
#pragma unroll
      for (int j = 0; j < N; j++) row[j] = 0;
      for (int64_t k = 0; k < w.count; k++, from += vx.axis[2]) {
        C value[N];
        load_channels(places, p, from, vx.c, value);
#pragma unroll
        for (int j = 0; j < N; j++) row[j] += value[j];
      }
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += row[j];
    }
  const C by = C(v.size(p.at[0], p.at[1], p.at[2]));
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] /= by;
  store_channels(places, p, y + places.offset(p, vy), vy.c, sum);
}

// `slices` threads (a power of two) an item. Threads of a warp are neighbouring items where channels are innermost, else slices of one window.
template <class T, int N>
__global__ void average_pool_shared(Places<N> places, Windows v, int slices, T* y, PlaneView vy, const T* x, PlaneView vx) {
  using C = compute_t<T>;
  DG_SHARED(C[kThreads][N], partial);
  const int thread = int(threadIdx.x), items = kThreads / slices;
  const int local = places.inside ? thread % items : thread / slices, slice = places.inside ? thread / items : thread % slices;
  const int64_t item = int64_t(blockIdx.x) * items + local;
  const bool active = item < places.count;
  Place p{};
  C sum[N];
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] = 0;
  if (active) {
    p = places.place(item);
    const Span d(v.d, p.at[0]), h(v.h, p.at[1]), w(v.w, p.at[2]);
    const T* const base = x + places.offset(p, vx, d.low, h.low, w.low);
    const uint64_t plane = uint64_t(h.count * w.count), count = uint64_t(d.count) * plane;
    for (uint64_t i = uint64_t(slice); i < count; i += uint64_t(slices)) {
      const uint64_t a = i / plane, rest = i - a * plane, b = rest / uint64_t(w.count);
      C value[N];
      load_channels(places, p, base + vx.offset(int64_t(a), int64_t(b), int64_t(rest - b * uint64_t(w.count))), vx.c, value);
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += value[j];
    }
  }
  for (int half = slices / 2; half > 0; half /= 2) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < N; j++) partial[thread][j] = sum[j];
    __syncthreads();
    if (slice < half) {
      const int other = thread + (places.inside ? half * items : half);
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += partial[other][j];
    }
  }
  if (!active || slice > 0) return;
  const C by = C(v.size(p.at[0], p.at[1], p.at[2]));
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] /= by;
  store_channels(places, p, y + places.offset(p, vy), vy.c, sum);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads, 3) average_pool_backward(Places<N> places, Windows v, T* dx, PlaneView vx, const T* dy, PlaneView vy) {
  using C = compute_t<T>;
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const int64_t ld = v.d.last(p.at[0]), fh = v.h.first(p.at[1]), lh = v.h.last(p.at[1]), fw = v.w.first(p.at[2]), lw = v.w.last(p.at[2]);
  C sum[N];
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] = 0;
  for (int64_t od = v.d.first(p.at[0]); od <= ld; od++)
    for (int64_t oh = fh; oh <= lh; oh++)
      for (int64_t ow = fw; ow <= lw; ow++) {
        const C by = C(v.size(od, oh, ow));
        C value[N];
        load_channels(places, p, dy + places.offset(p, vy, od, oh, ow), vy.c, value);
#pragma unroll
        for (int j = 0; j < N; j++) sum[j] += value[j] / by;
      }
  store_channels(places, p, dx + places.offset(p, vx), vx.c, sum);
}

constexpr int64_t kWide = 64, kFew = 1 << 16;  // positions of a window, and items

int64_t widest(const PoolAxis& axis) { return std::min(axis.extent(), axis.in); }

}  // namespace

void avg_pool(const Tensor& y, const Tensor& x, const Pool& pool, const PoolDivisor& divisor) {
  const char* const name = "avg_pool";
  const Windows windows{pool.axis[0], pool.axis[1], pool.axis[2], divisor};
  dispatch_floats(x.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    constexpr int N = kChannels<T>;
    const Places<N> places(y, {&y, &x});
    if (places.count == 0) return;
    const int64_t window = widest(windows.d) * widest(windows.h) * widest(windows.w);
    if (window >= kWide && places.count < kFew) {
      const int slices = places.inside ? 16 : 32;
      launch(name, average_pool_shared<T, N>, blocks_for(places.count, kThreads / slices), kThreads, 0, places, windows, slices, y.data<T>(),
             PlaneView(y), x.data<T>(), PlaneView(x));
    } else {
      const unsigned threads = threads_for(places.count);
      launch(name, average_pool<T, N>, blocks_for(places.count, threads), threads, 0, places, windows, y.data<T>(), PlaneView(y), x.data<T>(),
             PlaneView(x));
    }
  });
}

void avg_pool_backward(const Tensor& dx, const Tensor& dy, const Pool& pool, const PoolDivisor& divisor) {
  const char* const name = "avg_pool_backward";
  const Windows windows{pool.axis[0], pool.axis[1], pool.axis[2], divisor};
  dispatch_floats(dx.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    constexpr int N = kChannels<T>;
    const Places<N> places(dx, {&dx, &dy});
    if (places.count == 0) return;
    const unsigned threads = threads_for(places.count);
    launch(name, average_pool_backward<T, N>, blocks_for(places.count, threads), threads, 0, places, windows, dx.data<T>(), PlaneView(dx),
           dy.data<T>(), PlaneView(dy));
  });
}

}  // namespace dg
