// Batch normalisation of x [N, C, S...], per channel over N and S, in four passes that synchronised statistics can join between:
//   stats     mean, var (biased)                            reads x once
//   apply     y = (x - mean) * invstd * weight + bias (+ residual) (relu), invstd made of a variance where that is given
//   reduce    sums of dy and of dy * xhat                   reads dy, x once (masked by the relu, if there is one)
//   backward  dx from these sums
// Layouts: "rows" (channels-last: C innermost, rows of C) and "planes" (contiguous: S innermost). All tensors of a call have the same.
// x, y, dy in any float dtype, everything per channel in the dtype they are computed in (float32 for halves).
// Sums run over fixed blocks of about 16384 elements, whose float results are added in double in a fixed order.
#include "batch_norm.h"

namespace dg::batch_norm {
namespace {

// mean and squared deviations of each block and channel.
template <class T, class C>
void block_moments(const Layout& l, const T* x, double* means, C* squares) {
  for_blocks(l, [&](int64_t block, int64_t channel0) {
    const C n = C(l.block_count(block));
    if (!l.rows) {
      const T* p = x + plane_start(l, block, channel0);
      const int64_t count = l.block_count(block);
      const C m = lane_sum<C>(count, [p](int64_t i) { return C(p[i]); }) / n;
      const C rest = lane_sum<C>(count, [p, m](int64_t i) { return C(p[i]) - m; });
      const C square = lane_sum<C>(count, [p, m](int64_t i) { return (C(p[i]) - m) * (C(p[i]) - m); });
      means[block * l.channels + channel0] = double(m) + double(rest / n);
      squares[block * l.channels + channel0] = std::max(C(0), square - rest * rest / n);
      return;
    }
    alignas(64) C mean[kColumns] = {}, rest[kColumns] = {}, square[kColumns] = {};
    block_rows(l, block, channel0, [&](int64_t at, int64_t columns) {
      const T* p = x + at;
#pragma omp simd
      for (int64_t v = 0; v < columns; v++) mean[v] += C(p[v]);
    });
    fold(l, mean);
    const int64_t channels = tile_channels(l, channel0);
    for (int64_t c = 0; c < channels; c++) mean[c] /= n;
    spread(l, mean);
    block_rows(l, block, channel0, [&](int64_t at, int64_t columns) {
      const T* p = x + at;
#pragma omp simd
      for (int64_t v = 0; v < columns; v++) {
        const C d = C(p[v]) - mean[v];
        rest[v] += d;
        square[v] += d * d;
      }
    });
    fold(l, rest);
    fold(l, square);
    double* const m = means + block * l.channels + channel0;
    C* const s = squares + block * l.channels + channel0;
    for (int64_t c = 0; c < channels; c++) {
      m[c] = double(mean[c]) + double(rest[c] / n);
      s[c] = std::max(C(0), square[c] - rest[c] * rest[c] / n);
    }
  });
}

template <class T, class C, bool relu, bool residual>
void apply(const Layout& l, T* y, const T* x, const T* r, const C* mean, const C* scale, const C* shift) {
  for_elements(l, [=, &l](int64_t at, int64_t count, int64_t channel) {
    const T* px = x + at;
    const T* pr = residual ? r + at : nullptr;
    T* py = y + at;
    auto value = [](C v, C other) {
      if constexpr (residual) v += other;
      return T(relu && !(v > C(0)) ? (v == v ? C(0) : v) : v);
    };
    if (l.rows) {
      const C *m = mean + channel, *s = scale + channel, *b = shift + channel;
#pragma omp simd
      for (int64_t i = 0; i < count; i++) py[i] = value(normalised<C>(px[i], m[i], s[i], b[i]), residual ? C(pr[i]) : C(0));
    } else {
      const C m = mean[channel], s = scale[channel], b = shift[channel];
#pragma omp simd
      for (int64_t i = 0; i < count; i++) py[i] = value(normalised<C>(px[i], m, s, b), residual ? C(pr[i]) : C(0));
    }
  });
}

// How the gradient passes the relu: everywhere, where the saved output is > 0, or where the output computed again is > 0.
enum class Mask { none, output, again };

template <class T, class C, Mask mask>
inline C passed(C dy, C x, const T* y, int64_t i, C mean, C scale, C shift) {
  if constexpr (mask == Mask::output) return C(y[i]) > C(0) ? dy : C(0);
  if constexpr (mask == Mask::again) return C(T(normalised<C>(x, mean, scale, shift))) > C(0) ? dy : C(0);
  return dy;
}

// sums[block][0][c] = sum of dy, sums[block][1][c] = sum of dy * (x - mean), over the block; the masked dy goes to `out` where given.
template <class T, class C, Mask mask>
void block_sums(const Layout& l, const T* dy, const T* x, const T* y, T* out, const C* mean, const C* scale, const C* shift, C* sums) {
  for_blocks(l, [=, &l](int64_t block, int64_t channel0) {
    C* const first = sums + block * 2 * l.channels + channel0;
    C* const second = first + l.channels;
    if (!l.rows) {
      const int64_t at = plane_start(l, block, channel0), count = l.block_count(block);
      const C m = mean[channel0], s = scale[channel0], b = shift[channel0];
      const T *px = x + at, *pd = dy + at, *py = mask == Mask::output ? y + at : nullptr;
      auto gradient = [=](int64_t i) { return passed<T, C, mask>(C(pd[i]), C(px[i]), py, i, m, s, b); };
      if (out) {
        T* po = out + at;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) po[i] = T(gradient(i));
      }
      constexpr int64_t piece = 2048;  // both sums while the piece is in the nearest cache
      C one = 0, two = 0;
      for (int64_t from = 0; from < count; from += piece) {
        const int64_t n = std::min(piece, count - from);
        one += lane_sum<C>(n, [=](int64_t i) { return gradient(from + i); });
        two += lane_sum<C>(n, [=](int64_t i) { return gradient(from + i) * (C(px[from + i]) - m); });
      }
      *first = one;
      *second = two;
      return;
    }
    alignas(64) C one[kColumns] = {}, two[kColumns] = {};
    const C *m = mean + channel0, *s = scale + channel0, *b = shift + channel0;
    block_rows(l, block, channel0, [&](int64_t at, int64_t columns) {
      const T *px = x + at, *pd = dy + at, *py = mask == Mask::output ? y + at : nullptr;
      if (out) {
        T* po = out + at;
#pragma omp simd
        for (int64_t v = 0; v < columns; v++) {
          const C g = passed<T, C, mask>(C(pd[v]), C(px[v]), py, v, m[v], s[v], b[v]);
          po[v] = T(g);
          one[v] += g;
          two[v] += g * (C(px[v]) - m[v]);
        }
      } else {
#pragma omp simd
        for (int64_t v = 0; v < columns; v++) {
          const C g = passed<T, C, mask>(C(pd[v]), C(px[v]), py, v, m[v], s[v], b[v]);
          one[v] += g;
          two[v] += g * (C(px[v]) - m[v]);
        }
      }
    });
    fold(l, one);
    fold(l, two);
    const int64_t channels = tile_channels(l, channel0);
    std::copy(one, one + channels, first);
    std::copy(two, two + channels, second);
  });
}

// The sums of all blocks; the second times invstd.
template <class C>
void merge_sums(const Layout& l, const C* sums, const C* invstd, C* sum_dy, C* sum_dy_xhat) {
  parallel_for(l.channels, 64, [&](int64_t begin, int64_t end) {
    double one[64] = {}, two[64] = {};
    for (int64_t b = 0; b < l.blocks; b++)
      for (int64_t c = begin; c < end; c++) {
        one[c - begin] += double(sums[b * 2 * l.channels + c]);
        two[c - begin] += double(sums[(b * 2 + 1) * l.channels + c]);
      }
    for (int64_t c = begin; c < end; c++) {
      sum_dy[c] = C(one[c - begin]);
      sum_dy_xhat[c] = C(two[c - begin] * double(invstd[c]));
    }
  });
}

template <class T, class C, Mask mask>
void input_gradient(const Layout& l, T* dx, const T* dy, const T* x, const C* mean, const C* scale, const C* shift, const C* a, const C* b) {
  for_elements(l, [=, &l](int64_t at, int64_t count, int64_t channel) {
    const T *px = x + at, *pd = dy + at;
    T* po = dx + at;
    if (l.rows) {
      const C *m = mean + channel, *s = scale + channel, *h = shift + channel, *ca = a + channel, *cb = b + channel;
#pragma omp simd
      for (int64_t i = 0; i < count; i++) {
        const C g = passed<T, C, mask>(C(pd[i]), C(px[i]), nullptr, i, m[i], s[i], h[i]);
        po[i] = T(normalised_slope<C>(g, C(px[i]), m[i], s[i], ca[i], cb[i]));
      }
    } else {
      const C m = mean[channel], s = scale[channel], h = shift[channel], ca = a[channel], cb = b[channel];
#pragma omp simd
      for (int64_t i = 0; i < count; i++) {
        const C g = passed<T, C, mask>(C(pd[i]), C(px[i]), nullptr, i, m, s, h);
        po[i] = T(normalised_slope<C>(g, C(px[i]), m, s, ca, cb));
      }
    }
  });
}

}  // namespace
}  // namespace dg::batch_norm

namespace dg {
using namespace batch_norm;

void batch_norm_stats(const Shape& s, const Tensor& mean, const Tensor& var, const Tensor& x, const BatchNormUpdate& update) {
  const Layout l(s);
  dispatch_floats(x.dtype, "batch_norm_stats", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const int64_t partials = l.blocks * l.channels;
    const Scratch scratch(partials * int64_t(sizeof(double) + sizeof(C)));
    double* const means = scratch.as<double>();
    C* const squares = reinterpret_cast<C*>(means + partials);
    block_moments<T, C>(l, x.data<T>(), means, squares);
    merge_moments<C>(l.channels, l.blocks, [&](int64_t b) { return l.block_count(b); }, means, squares, mean.data<C>(), var.data<C>());
    const ChannelUpdate<C> next = update.of<C>();
    for (int64_t c = 0; c < l.channels; c++) next(c, mean.data<C>()[c], var.data<C>()[c]);
  });
}

void batch_norm_update(const Tensor& mean, const Tensor& var, const BatchNormUpdate& update) {
  dispatch_floats(var.dtype, "batch_norm_update", [&](auto kind) {
    using C = compute_t<typename decltype(kind)::type>;
    const ChannelUpdate<C> next = update.of<C>();
    for (int64_t c = 0; c < var.numel; c++) next(c, mean.data<C>()[c], var.data<C>()[c]);
  });
}

void batch_norm_apply(const Shape& s, const Tensor& y, const Tensor& x, const BatchNormChannels& channels, const BatchNormVariance& variance,
                      const Tensor* residual, bool relu) {
  const Layout l(s);
  dispatch_floats(x.dtype, "batch_norm", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Columns<C, 4> columns(l, {channels.mean, variance.var ? variance.var : channels.invstd, channels.weight, channels.bias}, {0, 1, 1, 0});
    if (variance.var) {
      C* const invstd = columns.at(1);
      for (int64_t i = 0; i < columns.stride(); i++) invstd[i] = inverse_deviation(invstd[i], variance.eps);
      if (variance.kept_mean) {
        std::copy_n(columns.at(0), l.channels, variance.kept_mean->data<C>());
        std::copy_n(invstd, l.channels, variance.kept_invstd->data<C>());
      }
    }
    scale_columns(columns, 2, 1);
    auto run = [&](auto with_relu, auto with_residual) {
      apply<T, C, decltype(with_relu)::value, decltype(with_residual)::value>(l, y.data<T>(), x.data<T>(), data_or_null<T>(residual), columns.at(0),
                                                                             columns.at(2), columns.at(3));
    };
    const std::true_type yes;
    const std::false_type no;
    if (relu) residual ? run(yes, yes) : run(yes, no);
    else residual ? run(no, yes) : run(no, no);
  });
}

void batch_norm_reduce(const Shape& s, const Tensor& sum_dy, const Tensor& sum_dy_xhat, const Tensor* masked, const Tensor& dy, const Tensor& x,
                       const Tensor* y, const BatchNormChannels& channels, bool relu) {
  const Layout l(s);
  dispatch_floats(x.dtype, "batch_norm_backward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Columns<C, 4> columns(l, {channels.mean, channels.invstd, channels.weight, channels.bias}, {0, 1, 1, 0});
    scale_columns(columns, 2, 1);
    const Scratch scratch(std::max<int64_t>(1, 2 * l.blocks * l.channels * int64_t(sizeof(C))));
    C* const sums = scratch.as<C>();
    auto run = [&](auto mask) {
      if (x.numel == 0) return;
      block_sums<T, C, decltype(mask)::value>(l, dy.data<T>(), x.data<T>(), data_or_null<T>(y), data_or_null<T>(masked), columns.at(0), columns.at(2),
                                              columns.at(3), sums);
    };
    if (!relu) run(std::integral_constant<Mask, Mask::none>{});
    else if (y) run(std::integral_constant<Mask, Mask::output>{});
    else run(std::integral_constant<Mask, Mask::again>{});
    merge_sums<C>(l, sums, columns.at(1), sum_dy.data<C>(), sum_dy_xhat.data<C>());
  });
}

void batch_norm_backward(const Shape& s, const Tensor& dx, const Tensor& dy, const Tensor& x, const BatchNormChannels& channels, const Tensor* sum_dy,
                         const Tensor* sum_dy_xhat, double count, bool relu) {
  const Layout l(s);
  dispatch_floats(x.dtype, "batch_norm_backward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Columns<C, 6> columns(l, {channels.mean, channels.invstd, channels.weight, channels.bias, sum_dy, sum_dy_xhat}, {0, 1, 1, 0, 0, 0});
    scale_columns(columns, 2, 1);
    for (int64_t i = 0; i < columns.stride(); i++) {
      columns.at(4)[i] = C(double(columns.at(4)[i]) / count);
      columns.at(5)[i] = C(double(columns.at(5)[i]) / count * double(columns.at(1)[i]));
    }
    auto run = [&](auto mask) {
      input_gradient<T, C, decltype(mask)::value>(l, dx.data<T>(), dy.data<T>(), x.data<T>(), columns.at(0), columns.at(2), columns.at(3),
                                                  columns.at(4), columns.at(5));
    };
    if (relu) run(std::integral_constant<Mask, Mask::again>{});
    else run(std::integral_constant<Mask, Mask::none>{});
  });
}

}  // namespace dg
