// Max pooling: y[o] = max over the window of o (PyTorch's rule: the first maximum wins, NaN wins over numbers, the last NaN over NaN).
// codes[o] is the winning tap's number in its window, ((kd * KH) + kh) * KW + kw with K* the largest window; one byte where that suffices.
// backward: dx[i] = sum of dy[o] over the windows whose winner is i, gathered per i; no two threads write one element.
// gather: y[o] = x[winner of o], the adjoint of backward.
#include <limits>

#include "allocator.h"
#include "pooling.h"
#include "tile.h"

namespace dg {
namespace {

// Offsets of the taps of one window along an axis.
struct Span {
  int64_t start, low, high;
  Span(const PoolAxis& axis, int64_t o) : start(axis.begin(o)), low(axis.low(start)), high(axis.high(start, axis.taps(o))) {}
};

template <class T, bool with_codes>
void forward(const Pool& pool, const Tensor& y, const Tensor* indices, const Tensor* codes, const Tensor& x) {
  using C = compute_t<T>;
  const PlaneView vx(x), vy(y), vi(indices ? *indices : y), vc(codes ? *codes : y);
  const PoolAxis *const d = &pool.axis[0], *const h = &pool.axis[1], *const w = &pool.axis[2];
  const int64_t kh = h->extent(), kw = w->extent();
  const T* const px = x.data<T>();
  T* const py = y.data<T>();
  pool_rows(pool, d->out, h->out, w->out * pool.extent(), [&](int64_t n, int64_t c, int64_t od, int64_t oh, int64_t from, int64_t to) {
    const Span sd(*d, od), sh(*h, oh);
    for (int64_t ow = 0; ow < w->out; ow++) {
      const Span sw(*w, ow);
      pool_blocks(from, to, [&](auto fixed, int64_t c0, int64_t most) {
        const int64_t count = fixed > 0 ? int64_t(fixed) : most;
        C best[kPoolBlock];
        int32_t code[kPoolBlock];
        bool started = false;
        for (int64_t i = sd.low; i < sd.high; i++)
          for (int64_t j = sh.low; j < sh.high; j++)
            for (int64_t k = sw.low; k < sw.high; k++) {
              const T* p = px + n * vx.n + (c + c0) * vx.c + (sd.start + i * d->dilation) * vx.axis[0] +
                           (sh.start + j * h->dilation) * vx.axis[1] + (sw.start + k * w->dilation) * vx.axis[2];
              const int32_t at = int32_t((i * kh + j) * kw + k);
              if (!started) {
                for (int64_t l = 0; l < count; l++) best[l] = C(p[l]);
                if constexpr (with_codes)
                  for (int64_t l = 0; l < count; l++) code[l] = at;
                started = true;
                continue;
              }
#pragma omp simd
              for (int64_t l = 0; l < count; l++) {
                const C v = C(p[l]);
                const bool take = (v > best[l]) | (v != v);
                best[l] = take ? v : best[l];
                if constexpr (with_codes) code[l] = take ? at : code[l];
              }
            }
        if (!started)  // a dilated window that straddles the input
          for (int64_t l = 0; l < count; l++) best[l] = -std::numeric_limits<C>::infinity(), code[l] = 0;
        auto offset = [&](const PlaneView& v) {
          return n * v.n + (c + c0) * v.c + od * v.axis[0] + oh * v.axis[1] + ow * v.axis[2];
        };
        T* const out = py + offset(vy);
        for (int64_t l = 0; l < count; l++) out[l] = T(best[l]);
        if constexpr (with_codes) {
          if (codes && codes->dtype == DG_U8) {
            uint8_t* const o = codes->data<uint8_t>() + offset(vc);
            for (int64_t l = 0; l < count; l++) o[l] = uint8_t(code[l]);
          } else if (codes) {
            int32_t* const o = codes->data<int32_t>() + offset(vc);
            for (int64_t l = 0; l < count; l++) o[l] = code[l];
          }
          if (indices) {
            int64_t* const o = indices->data<int64_t>() + offset(vi);
            for (int64_t l = 0; l < count; l++) {
              const int64_t a = sd.start + code[l] / (kh * kw) * d->dilation, b = sh.start + code[l] / kw % kh * h->dilation;
              o[l] = started ? (a * h->in + b) * w->in + sw.start + code[l] % kw * w->dilation : -1;
            }
          }
        }
      });
    }
  });
}

// sum[l] += g[l] where `code` says that tap `at` has won.
template <class T, class Code, int64_t Fixed, class C>
[[gnu::always_inline]] inline void add_won(C* sum, const T* g, const Code* code, int32_t at, std::integral_constant<int64_t, Fixed>, int64_t count) {
#if defined(__AVX512F__)
  // What the compiler makes of widening bytes goes through memory.
  if constexpr (std::is_same_v<T, float> && sizeof(Code) == 1 && Fixed % 16 == 0 && Fixed > 0) {
    for (int64_t l = 0; l < Fixed; l += 16) {
      const __m512i codes = _mm512_maskz_cvtepu8_epi32(__mmask16(-1), _mm_loadu_si128(reinterpret_cast<const __m128i*>(code + l)));
      const __mmask16 won = _mm512_cmpeq_epi32_mask(codes, _mm512_set1_epi32(at));
      const __m512 old = _mm512_loadu_ps(sum + l);
      _mm512_storeu_ps(sum + l, _mm512_mask_add_ps(old, won, old, _mm512_loadu_ps(g + l)));
    }
    return;
  }
#endif
#pragma omp simd
  for (int64_t l = 0; l < count; l++) sum[l] += int32_t(code[l]) == at ? C(g[l]) : C(0);
}

template <class T, class Code>
void backward(const Pool& pool, const Tensor& dx, const Tensor& dy, const Tensor& codes) {
  using C = compute_t<T>;
  const PlaneView vx(dx), vy(dy), vc(codes);
  const PoolAxis *const d = &pool.axis[0], *const h = &pool.axis[1], *const w = &pool.axis[2];
  const int64_t kh = h->extent(), kw = w->extent();
  const T* const py = dy.data<T>();
  const Code* const pc = codes.data<Code>();
  T* const px = dx.data<T>();
  // Windows of each column, the first and the last: divisions that the rows need not repeat.
  const Scratch memory(2 * w->in * int64_t(sizeof(int64_t)));
  int64_t* const windows = memory.as<int64_t>();
  for (int64_t iw = 0; iw < w->in; iw++) windows[2 * iw] = w->first(iw), windows[2 * iw + 1] = w->last(iw);
  pool_rows(pool, d->in, h->in, w->in, [&](int64_t n, int64_t c, int64_t id, int64_t ih, int64_t from, int64_t to) {
    const int64_t d0 = d->first(id), d1 = d->last(id), h0 = h->first(ih), h1 = h->last(ih);
    for (int64_t iw = 0; iw < w->in; iw++)
      pool_blocks(from, to, [&](auto fixed, int64_t c0, int64_t most) {
        const int64_t count = fixed > 0 ? int64_t(fixed) : most;
        C sum[fixed > 0 ? int64_t(fixed) : kPoolBlock];
        for (int64_t l = 0; l < count; l++) sum[l] = 0;
        for (int64_t od = d0; od <= d1; od++) {
          const int64_t i = d->tap(od, id);
          if (i < 0) continue;
          for (int64_t oh = h0; oh <= h1; oh++) {
            const int64_t j = h->tap(oh, ih);
            if (j < 0) continue;
            for (int64_t ow = windows[2 * iw], last = windows[2 * iw + 1]; ow <= last; ow++) {
              const int64_t k = w->tap(ow, iw);
              if (k < 0) continue;
              const int32_t at = int32_t((i * kh + j) * kw + k);
              const T* const g = py + n * vy.n + (c + c0) * vy.c + od * vy.axis[0] + oh * vy.axis[1] + ow * vy.axis[2];
              const Code* const code = pc + n * vc.n + (c + c0) * vc.c + od * vc.axis[0] + oh * vc.axis[1] + ow * vc.axis[2];
              add_won(sum, g, code, at, fixed, count);
            }
          }
        }
        T* const out = px + n * vx.n + (c + c0) * vx.c + id * vx.axis[0] + ih * vx.axis[1] + iw * vx.axis[2];
        for (int64_t l = 0; l < count; l++) out[l] = T(sum[l]);
      });
  });
}

template <class T, class Code>
void gather(const Pool& pool, const Tensor& y, const Tensor& x, const Tensor& codes) {
  const PlaneView vx(x), vy(y), vc(codes);
  const PoolAxis *const d = &pool.axis[0], *const h = &pool.axis[1], *const w = &pool.axis[2];
  const int64_t kh = h->extent(), kw = w->extent();
  pool_rows(pool, d->out, h->out, w->out, [&](int64_t n, int64_t c, int64_t od, int64_t oh, int64_t from, int64_t to) {
    for (int64_t ow = 0; ow < w->out; ow++) {
      const int64_t sd = d->begin(od), sh = h->begin(oh), sw = w->begin(ow);
      const T* const from_x = x.data<T>() + n * vx.n;
      const Code* const code = codes.data<Code>() + n * vc.n + od * vc.axis[0] + oh * vc.axis[1] + ow * vc.axis[2];
      T* const out = y.data<T>() + n * vy.n + od * vy.axis[0] + oh * vy.axis[1] + ow * vy.axis[2];
      for (int64_t l = c + from; l < c + to; l++) {
        const int64_t at = code[l * vc.c];
        const int64_t a = sd + at / (kh * kw) * d->dilation, b = sh + at / kw % kh * h->dilation, e = sw + at % kw * w->dilation;
        const bool inside = at >= 0 && a >= 0 && a < d->in && b >= 0 && b < h->in && e >= 0 && e < w->in;
        out[l * vy.c] = inside ? from_x[l * vx.c + a * vx.axis[0] + b * vx.axis[1] + e * vx.axis[2]] : T(0.0f);
      }
    }
  });
}

}  // namespace

void max_pool(const Tensor& y, const Tensor* indices, const Tensor* codes, const Tensor& x, const Pool& pool) {
  const Pool inner = with_inner(pool, {&x, &y, indices ? indices : &y, codes ? codes : &y});
  dispatch_floats(x.dtype, "max_pool", [&](auto in) {
    using T = typename decltype(in)::type;
    if (indices || codes) forward<T, true>(inner, y, indices, codes, x);
    else forward<T, false>(inner, y, nullptr, nullptr, x);
  });
}

void max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& codes, const Pool& pool) {
  const Pool inner = with_inner(pool, {&dx, &dy, &codes});
  dispatch_floats(dx.dtype, "max_pool_backward", [&](auto in) {
    using T = typename decltype(in)::type;
    if (codes.dtype == DG_U8) backward<T, uint8_t>(inner, dx, dy, codes);
    else backward<T, int32_t>(inner, dx, dy, codes);
  });
}

void max_pool_gather(const Tensor& y, const Tensor& x, const Tensor& codes, const Pool& pool) {
  const Pool inner = with_inner(pool, {&x, &y, &codes});
  dispatch_floats(x.dtype, "max_pool_gather", [&](auto in) {
    using T = typename decltype(in)::type;
    if (codes.dtype == DG_U8) gather<T, uint8_t>(inner, y, x, codes);
    else gather<T, int32_t>(inner, y, x, codes);
  });
}

}  // namespace dg
