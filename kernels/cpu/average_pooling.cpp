// Average pooling: y[o] = sum over the window of o / divisor(o); backward: dx[i] = sum of dy[o] / divisor(o) over the windows that cover i.
// Each row of a window is summed by itself first, so that rounding errors do not grow with the window's area.
#include "allocator.h"
#include "pooling.h"

namespace dg {
namespace {

constexpr int64_t kAverageBlock = 512;  // channels of a position that are read in a row

template <class T>
void forward(const Pool& pool, const Tensor& y, const Tensor& x, const PoolDivisor& divisor) {
  using C = compute_t<T>;
  const PlaneView vx(x), vy(y);
  const PoolAxis *const d = &pool.axis[0], *const h = &pool.axis[1], *const w = &pool.axis[2];
  const T* const px = x.data<T>();
  T* const py = y.data<T>();
  pool_rows(pool, d->out, h->out, w->out * pool.extent(), [&](int64_t n, int64_t c, int64_t od, int64_t oh, int64_t from, int64_t to) {
    const int64_t d0 = std::max<int64_t>(d->begin(od), 0), d1 = std::min(d->begin(od) + d->taps(od), d->in);
    const int64_t h0 = std::max<int64_t>(h->begin(oh), 0), h1 = std::min(h->begin(oh) + h->taps(oh), h->in);
    for (int64_t ow = 0; ow < w->out; ow++) {
      const int64_t w0 = std::max<int64_t>(w->begin(ow), 0), w1 = std::min(w->begin(ow) + w->taps(ow), w->in);
      const C by = C(divisor.of(*d, *h, *w, od, oh, ow));
      for (int64_t c0 = from; c0 < to; c0 += kAverageBlock) {
        const int64_t count = std::min(kAverageBlock, to - c0);
        C sum[kAverageBlock], row[kAverageBlock];
        for (int64_t l = 0; l < count; l++) sum[l] = 0;
        for (int64_t i = d0; i < d1; i++)
          for (int64_t j = h0; j < h1; j++) {
            const T* const first = px + n * vx.n + (c + c0) * vx.c + i * vx.axis[0] + j * vx.axis[1];
            if (w1 - w0 <= 4) {  // too short to matter to the error
              for (int64_t k = w0; k < w1; k++) {
                const T* const p = first + k * vx.axis[2];
                for (int64_t l = 0; l < count; l++) sum[l] += C(p[l]);
              }
              continue;
            }
            for (int64_t l = 0; l < count; l++) row[l] = 0;
            for (int64_t k = w0; k < w1; k++) {
              const T* const p = first + k * vx.axis[2];
              for (int64_t l = 0; l < count; l++) row[l] += C(p[l]);
            }
            for (int64_t l = 0; l < count; l++) sum[l] += row[l];
          }
        T* const out = py + n * vy.n + (c + c0) * vy.c + od * vy.axis[0] + oh * vy.axis[1] + ow * vy.axis[2];
        for (int64_t l = 0; l < count; l++) out[l] = T(sum[l] / by);
      }
    }
  });
}

template <class T>
void backward(const Pool& pool, const Tensor& dx, const Tensor& dy, const PoolDivisor& divisor) {
  using C = compute_t<T>;
  const PlaneView vx(dx), vy(dy);
  const PoolAxis *const d = &pool.axis[0], *const h = &pool.axis[1], *const w = &pool.axis[2];
  // Shares of the windows first, as dy is divided once and read for each position of a window: [n, outer, od, oh, ow, inner].
  const int64_t inner = pool.inner, outer = pool.outer_channels(), plane = d->out * h->out * w->out;
  const Scratch memory(pool.n * pool.channels * plane * int64_t(sizeof(C)));
  C* const shares = memory.as<C>();
  const T* const py = dy.data<T>();
  parallel_for(pool.n * outer * plane, std::max<int64_t>(1, kGrain / std::max<int64_t>(inner, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t ow = job % w->out, oh = job / w->out % h->out, od = job / (w->out * h->out) % d->out, image = job / plane;
      const C by = C(divisor.of(*d, *h, *w, od, oh, ow));
      const T* const g = py + image / outer * vy.n + image % outer * vy.c + od * vy.axis[0] + oh * vy.axis[1] + ow * vy.axis[2];
      C* const share = shares + job * inner;
      for (int64_t l = 0; l < inner; l++) share[l] = C(g[l]) / by;
    }
  });
  T* const px = dx.data<T>();
  pool_rows(pool, d->in, h->in, w->in, [&](int64_t n, int64_t c, int64_t id, int64_t ih, int64_t from, int64_t to) {
    const int64_t d0 = d->first(id), d1 = d->last(id), h0 = h->first(ih), h1 = h->last(ih);
    for (int64_t iw = 0; iw < w->in; iw++) {
      const int64_t w0 = w->first(iw), w1 = w->last(iw);
      for (int64_t c0 = from; c0 < to; c0 += kAverageBlock) {
        const int64_t count = std::min(kAverageBlock, to - c0);
        C sum[kAverageBlock];
        bool first = true;
        for (int64_t od = d0; od <= d1; od++)
          for (int64_t oh = h0; oh <= h1; oh++)
            for (int64_t ow = w0; ow <= w1; ow++) {
              const C* const share = shares + ((((n * outer + c) * d->out + od) * h->out + oh) * w->out + ow) * inner + c0;
              if (first)
                for (int64_t l = 0; l < count; l++) sum[l] = share[l];
              else
                for (int64_t l = 0; l < count; l++) sum[l] += share[l];
              first = false;
            }
        if (first) std::fill_n(sum, count, C(0));
        T* const out = px + n * vx.n + (c + c0) * vx.c + id * vx.axis[0] + ih * vx.axis[1] + iw * vx.axis[2];
        for (int64_t l = 0; l < count; l++) out[l] = T(sum[l]);
      }
    }
  });
}

}  // namespace

void avg_pool(const Tensor& y, const Tensor& x, const Pool& pool, const PoolDivisor& divisor) {
  dispatch_floats(x.dtype, "avg_pool", [&](auto in) { forward<typename decltype(in)::type>(with_inner(pool, {&x, &y}), y, x, divisor); });
}

void avg_pool_backward(const Tensor& dx, const Tensor& dy, const Pool& pool, const PoolDivisor& divisor) {
  dispatch_floats(dx.dtype, "avg_pool_backward", [&](auto in) {
    backward<typename decltype(in)::type>(with_inner(pool, {&dx, &dy}), dx, dy, divisor);
  });
}

}  // namespace dg
