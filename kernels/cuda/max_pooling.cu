// Max pooling, its gradient and its gather: see the CPU's max_pooling.cpp for the rules. Every output is made by one thread.
#include "../common/pooling.h"

#include <limits>

#include "planes.h"

namespace dg {
namespace {

struct Windows {
  PoolAxis d, h, w;
  int64_t kh, kw;
  explicit Windows(const Pool& pool)
      : d(pool.axis[0]), h(pool.axis[1]), w(pool.axis[2]), kh(pool.axis[1].extent()), kw(pool.axis[2].extent()) {}
};

// Winners as they lie in memory: one byte or int32.
struct Codes {
  void* data;
  PlaneView view;
  bool bytes;
  explicit Codes(const Tensor& t)
      : data(t.dtype == DG_U8 ? static_cast<void*>(t.data<uint8_t>()) : static_cast<void*>(t.data<int32_t>())), view(t), bytes(t.dtype == DG_U8) {}

  template <int N>
  __device__ void load(const Places<N>& places, const Place& p, int64_t at, int32_t (&code)[N]) const {
    if (bytes) load_channels(places, p, static_cast<const uint8_t*>(data) + at, view.c, code);
    else load_channels(places, p, static_cast<const int32_t*>(data) + at, view.c, code);
  }
  template <int N>
  __device__ void store(const Places<N>& places, const Place& p, int64_t at, const int32_t (&code)[N]) const {
    if (bytes) store_channels(places, p, static_cast<uint8_t*>(data) + at, view.c, code);
    else store_channels(places, p, static_cast<int32_t*>(data) + at, view.c, code);
  }
};

// The taps of one window along an axis that lie inside.
struct Span {
  int64_t start, low, high;
  __device__ Span(const PoolAxis& axis, int64_t o) : start(axis.begin(o)), low(axis.low(start)), high(axis.high(start, axis.taps(o))) {}
};

template <class T, int N>
__global__ void max_pool_kernel(Places<N> places, Windows v, T* y, PlaneView vy, int64_t* indices, PlaneView vi, Codes codes, bool with_codes,
                                const T* x, PlaneView vx) {
  using C = compute_t<T>;
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const Span d(v.d, p.at[0]), h(v.h, p.at[1]), w(v.w, p.at[2]);
  const T* const base = x + places.offset(p, vx, d.start, h.start, w.start);
  const int64_t step = v.w.dilation * vx.axis[2];
  C best[N];
  int32_t code[N];
#pragma unroll
  for (int j = 0; j < N; j++) best[j] = -std::numeric_limits<C>::infinity(), code[j] = 0;
  bool started = false;
  for (int64_t a = d.low; a < d.high; a++)
    for (int64_t b = h.low; b < h.high; b++) {
      const T* from = base + vx.offset(a * v.d.dilation, b * v.h.dilation, w.low * v.w.dilation);
      int32_t at = int32_t((a * v.kh + b) * v.kw + w.low);
      for (int64_t k = w.low; k < w.high; k++, at++, from += step) {
        C value[N];
        load_channels(places, p, from, vx.c, value);
#pragma unroll
        for (int j = 0; j < N; j++) {
          const bool take = !started | (value[j] > best[j]) | (value[j] != value[j]);
          best[j] = take ? value[j] : best[j];
          code[j] = take ? at : code[j];
        }
        started = true;
      }
    }
  store_channels(places, p, y + places.offset(p, vy), vy.c, best);
  if (with_codes) codes.store(places, p, places.offset(p, codes.view), code);
  if (!indices) return;
  int64_t* const to = indices + places.offset(p, vi);
#pragma unroll
  for (int j = 0; j < N; j += 2) {
    Pack<int64_t, 2> index;
#pragma unroll
    for (int l = 0; l < 2; l++) {  // a window may straddle the input and hold nothing of it
      const int32_t row = code[j + l] / int32_t(v.kw), plane = row / int32_t(v.kh);
      const int64_t a = d.start + plane * v.d.dilation, b = h.start + (row - plane * v.kh) * v.h.dilation;
      index.at[l] = started ? (a * v.h.in + b) * v.w.in + w.start + (code[j + l] - row * v.kw) * v.w.dilation : -1;
      if (!places.packed && j + l < p.count) to[(j + l) * vi.c] = index.at[l];
    }
    if (places.packed) *reinterpret_cast<Pack<int64_t, 2>*>(to + j) = index;
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads, 3)
    max_pool_backward_kernel(Places<N> places, Windows v, T* dx, PlaneView vx, const T* dy, PlaneView vy, Codes codes) {
  using C = compute_t<T>;
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const int64_t id = p.at[0], ih = p.at[1], iw = p.at[2];
  const int64_t ld = v.d.last(id), fh = v.h.first(ih), lh = v.h.last(ih), fw = v.w.first(iw), lw = v.w.last(iw);
  C sum[N];
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] = 0;
  for (int64_t od = v.d.first(id); od <= ld; od++) {
    const int64_t a = v.d.tap(od, id);
    if (a < 0) continue;
    for (int64_t oh = fh; oh <= lh; oh++) {
      const int64_t b = v.h.tap(oh, ih);
      if (b < 0) continue;
      for (int64_t ow = fw; ow <= lw; ow++) {
        const int64_t k = v.w.tap(ow, iw);
        if (k < 0) continue;
        const int32_t at = int32_t((a * v.kh + b) * v.kw + k);
        int32_t code[N];
        C gradient[N];
        codes.load(places, p, places.offset(p, codes.view, od, oh, ow), code);
        load_channels(places, p, dy + places.offset(p, vy, od, oh, ow), vy.c, gradient);
#pragma unroll
        for (int j = 0; j < N; j++) sum[j] += code[j] == at ? gradient[j] : C(0);
      }
    }
  }
  store_channels(places, p, dx + places.offset(p, vx, id, ih, iw), vx.c, sum);
}

template <class T, int N>
__global__ void max_pool_gather_kernel(Places<N> places, Windows v, T* y, PlaneView vy, const T* x, PlaneView vx, Codes codes) {
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const int64_t sd = v.d.begin(p.at[0]), sh = v.h.begin(p.at[1]), sw = v.w.begin(p.at[2]);
  int32_t code[N];
  codes.load(places, p, places.offset(p, codes.view), code);
  T value[N];
#pragma unroll
  for (int j = 0; j < N; j++) {
    const int64_t at = code[j], row = at / v.kw;
    const int64_t a = sd + row / v.kh * v.d.dilation, b = sh + row % v.kh * v.h.dilation, e = sw + at % v.kw * v.w.dilation;
    const bool inside = j < p.count && at >= 0 && a >= 0 && a < v.d.in && b >= 0 && b < v.h.in && e >= 0 && e < v.w.in;
    value[j] = inside ? x[p.n * vx.n + (p.c + j) * vx.c + vx.offset(a, b, e)] : T(0.0f);
  }
  store_channels(places, p, y + places.offset(p, vy), vy.c, value);
}

}  // namespace

void max_pool(const Tensor& y, const Tensor* indices, const Tensor* codes, const Tensor& x, const Pool& pool) {
  const char* const name = "max_pool";
  const Tensor &i = indices ? *indices : y, &c = codes ? *codes : y;  // placeholders where absent
  dispatch_floats(x.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    const Places<kChannels<T>> places(y, {&y, &x, &i, &c});
    if (places.count == 0) return;
    const unsigned threads = threads_for(places.count);
    launch(name, max_pool_kernel<T, kChannels<T>>, blocks_for(places.count, threads), threads, 0, places, Windows(pool), y.data<T>(), PlaneView(y),
           indices ? indices->data<int64_t>() : nullptr, PlaneView(i), Codes(c), codes != nullptr, x.data<T>(), PlaneView(x));
  });
}

void max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& codes, const Pool& pool) {
  const char* const name = "max_pool_backward";
  dispatch_floats(dx.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    const Places<kChannels<T>> places(dx, {&dx, &dy, &codes});
    if (places.count == 0) return;
    const unsigned threads = threads_for(places.count);
    launch(name, max_pool_backward_kernel<T, kChannels<T>>, blocks_for(places.count, threads), threads, 0, places, Windows(pool), dx.data<T>(),
           PlaneView(dx), dy.data<T>(), PlaneView(dy), Codes(codes));
  });
}

void max_pool_gather(const Tensor& y, const Tensor& x, const Tensor& codes, const Pool& pool) {
  const char* const name = "max_pool_gather";
  dispatch_floats(x.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    const Places<kChannels<T>> places(y, {&y, &x, &codes});
    if (places.count == 0) return;
    const unsigned threads = threads_for(places.count);
    launch(name, max_pool_gather_kernel<T, kChannels<T>>, blocks_for(places.count, threads), threads, 0, places, Windows(pool), y.data<T>(),
           PlaneView(y), x.data<T>(), PlaneView(x), Codes(codes));
  });
}

}  // namespace dg
