// Normalisation of rows of row-major memory, each while it is in the cache.
//   layer norm  rows of D values:               y = (x - mean) * invstd * weight[i] + bias[i]; without means: root mean square norm
//   group norm  rows of channels * inner values: y = (x - mean) * invstd * weight[c] + bias[c], c the channel of the position
// x, y, dy in any float dtype; mean and invstd [rows] and parameters in float32 (float64 for float64).
// Sums of a row are made of pieces of 4096 values added in double; sums over rows run over fixed blocks of rows.
#include "../common/row_norm.h"

#include "../common/normalization.h"
#include "allocator.h"
#include "elementwise.h"

namespace dg {
namespace {

struct Pair {
  double first, second;
};

// Sums of a(i) and b(i) that f(i, a, b) sets, for i in [0, n).
template <class C, class F>
Pair sums(int64_t n, F f) {
  constexpr int64_t lanes = 32, piece = 4096;
  Pair total{0, 0};
  for (int64_t from = 0; from < n; from += piece) {
    const int64_t count = std::min(piece, n - from);
    C first[lanes] = {}, second[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes)
#pragma omp simd
      for (int64_t k = 0; k < lanes; k++) {
        C a, b;
        f(from + i + k, a, b);
        first[k] += a;
        second[k] += b;
      }
    for (int64_t k = 0; i + k < count; k++) {
      C a, b;
      f(from + i + k, a, b);
      first[k] += a;
      second[k] += b;
    }
    for (int64_t half = lanes / 2; half > 0; half /= 2)
      for (int64_t k = 0; k < half; k++) {
        first[k] += first[k + half];
        second[k] += second[k + half];
      }
    total.first += double(first[0]);
    total.second += double(second[0]);
  }
  return total;
}

template <class C>
struct Moments {
  C mean, invstd;
};

// Mean and 1 / sqrt(var + eps) of a row; about 0 for root mean square norms.
template <class T, class C>
Moments<C> moments(const T* x, int64_t n, double eps, bool centre) {
  C mean = 0;
  if (centre) {
    // The first pass also finds what float lost: a second one about its result corrects both.
    mean = C(sums<C>(n, [x](int64_t i, C& a, C& b) { a = C(x[i]); b = 0; }).first / double(n));
  }
  const Pair rest = sums<C>(n, [x, mean](int64_t i, C& a, C& b) {
    a = C(x[i]) - mean;
    b = a * a;
  });
  const double shift = centre ? rest.first / double(n) : 0;
  const double var = std::max(0.0, rest.second / double(n) - shift * shift);
  return {C(double(mean) + shift), C(1.0 / std::sqrt(var + eps))};
}

// Calls f(row) for all rows, in chunks that depend on the problem alone.
template <class F>
void for_rows(int64_t rows, int64_t columns, F&& f) {
  parallel_for(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(columns, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) f(row);
  });
}

// weight, or ones; bias, or zeros.
template <class C>
void parameters(C* w, C* b, const C* weight, const C* bias, int64_t n) {
  if (weight) std::copy(weight, weight + n, w);
  else std::fill(w, w + n, C(1));
  if (bias) std::copy(bias, bias + n, b);
  else std::fill(b, b + n, C(0));
}

template <class T, class C>
void rows_forward(T* y, C* means, C* invstds, const T* x, const C* weight, const C* bias, int64_t rows, int64_t n, double eps) {
  const Scratch scratch(2 * n * int64_t(sizeof(C)));
  C *w = scratch.as<C>(), *b = w + n;
  parameters(w, b, weight, bias, n);
  for_rows(rows, n, [=](int64_t row) {
    const T* px = x + row * n;
    T* py = y + row * n;
    const auto [mean, invstd] = moments<T, C>(px, n, eps, means != nullptr);
    if (means) means[row] = mean;
    invstds[row] = invstd;
    const C m = mean, s = invstd;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) py[i] = T(normalised<C>(C(px[i]), m, s * w[i], b[i]));
  });
}

// dx = invstd (g - mean(g) - xhat mean(g xhat)), g = dy weight; dweight = sum of dy xhat, dbias = sum of dy over rows.
template <class T, class C>
void rows_backward(T* dx, C* dweight, C* dbias, const T* dy, const T* x, const C* means, const C* invstds, const C* weight, int64_t rows,
                   int64_t n) {
  constexpr int64_t flush = 64;  // rows added in float before they are added in double
  const int64_t block = std::max<int64_t>(16, (rows + 63) / 64), blocks = (rows + block - 1) / block;
  const bool shared = dweight || dbias;
  const Scratch scratch(n * int64_t(sizeof(C)) * (2 + (shared ? 2 * blocks : 0)) + (shared ? 2 * blocks * n * 8 : 0));
  double* const totals = scratch.as<double>();                                     // [blocks][2][n]
  C* const partials = reinterpret_cast<C*>(totals + (shared ? 2 * blocks * n : 0));  // [blocks][2][n]
  C *w = partials + (shared ? 2 * blocks * n : 0), *unused = w + n;
  parameters<C>(w, unused, weight, nullptr, n);
  parallel_for(blocks, 1, [=](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at++) {
      double* const total = totals + at * 2 * n;
      C *first = partials + at * 2 * n, *second = first + n;
      if (shared) std::fill(total, total + 2 * n, 0.0);
      const int64_t last = std::min(rows, (at + 1) * block);
      for (int64_t from = at * block; from < last; from += flush) {
        if (shared) std::fill(first, first + 2 * n, C(0));
        const int64_t until = std::min(last, from + flush);
        for (int64_t row = from; row < until; row++) {
          const T *px = x + row * n, *pd = dy + row * n;
          const C m = means ? means[row] : C(0), s = invstds[row];
          if (shared) {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) {
              const C g = C(pd[i]);
              first[i] += g * ((C(px[i]) - m) * s);
              second[i] += g;
            }
          }
          if (!dx) continue;
          const Pair sum = sums<C>(n, [=](int64_t i, C& a, C& b) {
            a = C(pd[i]) * w[i];
            b = a * ((C(px[i]) - m) * s);
          });
          const C one = means ? C(sum.first / double(n)) : C(0), two = C(sum.second / double(n)) * s;
          T* po = dx + row * n;
#pragma omp simd
          for (int64_t i = 0; i < n; i++) po[i] = T(normalised_slope<C>(C(pd[i]) * w[i], C(px[i]), m, s, one, two));
        }
        if (shared)
          for (int64_t i = 0; i < 2 * n; i++) total[i] += double(first[i]);
      }
    }
  });
  if (!shared) return;
  for (int64_t at = 1; at < blocks; at++)
    for (int64_t i = 0; i < 2 * n; i++) totals[i] += totals[at * 2 * n + i];
  for (int64_t i = 0; i < n; i++) {
    if (dweight) dweight[i] = blocks ? C(totals[i]) : C(0);
    if (dbias) dbias[i] = blocks ? C(totals[n + i]) : C(0);
  }
}

template <class T, class C>
void groups_forward(T* y, C* means, C* invstds, const T* x, const C* weight, const C* bias, const NormGroups& g, double eps) {
  const auto [rows, groups, per, inner] = g;
  const int64_t n = per * inner;
  for_rows(rows, n, [=](int64_t row) {
    const auto [m, s] = moments<T, C>(x + row * n, n, eps, true);
    means[row] = m;
    invstds[row] = s;
    for (int64_t c = 0; c < per; c++) {
      const T* px = x + row * n + c * inner;
      T* py = y + row * n + c * inner;
      const int64_t channel = row % groups * per + c;
      const C mean = m, scale = s * (weight ? weight[channel] : C(1)), shift = bias ? bias[channel] : C(0);
#pragma omp simd
      for (int64_t i = 0; i < inner; i++) py[i] = T(normalised<C>(C(px[i]), mean, scale, shift));
    }
  });
}

template <class T, class C>
void groups_backward(T* dx, C* dweight, C* dbias, const T* dy, const T* x, const C* means, const C* invstds, const C* weight,
                     const NormGroups& g) {
  const auto [rows, groups, per, inner] = g;
  const int64_t n = per * inner, channels = groups * per;
  const Scratch scratch(2 * rows * per * int64_t(sizeof(double)) + 8);
  double *ds = scratch.as<double>(), *db = ds + rows * per;  // [samples][channels]
  for_rows(rows, n, [=](int64_t row) {
    const C m = means[row], s = invstds[row];
    double one = 0, two = 0;
    for (int64_t c = 0; c < per; c++) {
      const T *px = x + row * n + c * inner, *pd = dy + row * n + c * inner;
      const Pair sum = sums<C>(inner, [=](int64_t i, C& a, C& b) {
        a = C(pd[i]);
        b = a * ((C(px[i]) - m) * s);
      });
      db[row * per + c] = sum.first;
      ds[row * per + c] = sum.second;
      const double w = weight ? double(weight[row % groups * per + c]) : 1.0;
      one += w * sum.first;
      two += w * sum.second;
    }
    if (!dx) return;
    const C a = C(one / double(n)), b = C(two / double(n) * double(s));
    for (int64_t c = 0; c < per; c++) {
      const T *px = x + row * n + c * inner, *pd = dy + row * n + c * inner;
      T* po = dx + row * n + c * inner;
      const C w = weight ? weight[row % groups * per + c] : C(1);
#pragma omp simd
      for (int64_t i = 0; i < inner; i++) po[i] = T(normalised_slope<C>(C(pd[i]) * w, C(px[i]), m, s, a, b));
    }
  });
  for (int64_t c = 0; c < channels; c++) {
    double one = 0, two = 0;
    for (int64_t sample = 0; sample < rows / groups; sample++) {
      one += db[sample * channels + c];
      two += ds[sample * channels + c];
    }
    if (dweight) dweight[c] = C(two);
    if (dbias) dbias[c] = C(one);
  }
}

}  // namespace

void layer_norm(const Tensor& y, const Tensor* mean, const Tensor& invstd, const Tensor& x, const Tensor* weight, const Tensor* bias,
                const NormRows& r, double eps) {
  dispatch_floats(x.dtype, "layer_norm", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    rows_forward<T, C>(y.data<T>(), data_of<C>(mean), invstd.data<C>(), x.data<T>(), data_of<C>(weight), data_of<C>(bias), r.rows, r.columns,
                       eps);
  });
}

void layer_norm_backward(const Tensor* dx, const Tensor* dweight, const Tensor* dbias, const Tensor& dy, const Tensor& x, const Tensor* mean,
                         const Tensor& invstd, const Tensor* weight, const NormRows& r) {
  dispatch_floats(x.dtype, "layer_norm_backward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    rows_backward<T, C>(data_of<T>(dx), data_of<C>(dweight), data_of<C>(dbias), dy.data<T>(), x.data<T>(), data_of<C>(mean), invstd.data<C>(),
                        data_of<C>(weight), r.rows, r.columns);
  });
}

void group_norm(const Tensor& y, const Tensor& mean, const Tensor& invstd, const Tensor& x, const Tensor* weight, const Tensor* bias,
                const NormGroups& g, double eps) {
  dispatch_floats(x.dtype, "group_norm", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    groups_forward<T, C>(y.data<T>(), mean.data<C>(), invstd.data<C>(), x.data<T>(), data_of<C>(weight), data_of<C>(bias), g, eps);
  });
}

void group_norm_backward(const Tensor* dx, const Tensor* dweight, const Tensor* dbias, const Tensor& dy, const Tensor& x, const Tensor& mean,
                         const Tensor& invstd, const Tensor* weight, const NormGroups& g) {
  dispatch_floats(x.dtype, "group_norm_backward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    groups_backward<T, C>(data_of<T>(dx), data_of<C>(dweight), data_of<C>(dbias), dy.data<T>(), x.data<T>(), mean.data<C>(), invstd.data<C>(),
                          data_of<C>(weight), g);
  });
}

}  // namespace dg
