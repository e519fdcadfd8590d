// The derivative of batch normalisation: reduce and backward (see batch_norm.cpp).
#include "batch_norm.h"

namespace dg::batch_norm {
namespace {

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
