// Batch normalisation of x [N, C, S...], per channel over N and S, in four passes that synchronised statistics can join between:
//   stats     mean, var (biased)                            reads x once
//   apply     y = (x - mean) * invstd * weight + bias (+ residual) (relu)
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

// var = (sum of squares + sum of n_b (mean_b - mean)^2) / n.
template <class C>
void merge_moments(const Layout& l, const double* means, const C* squares, C* mean, C* var) {
  parallel_for(l.channels, 64, [&](int64_t begin, int64_t end) {
    double total[64], square[64];
    const int64_t channels = end - begin;
    const double n = double(l.count());
    std::fill(total, total + channels, 0.0);
    for (int64_t b = 0; b < l.blocks; b++) {
      const double count = double(l.block_count(b));
      for (int64_t c = 0; c < channels; c++) total[c] += count * means[b * l.channels + begin + c];
    }
    for (int64_t c = 0; c < channels; c++) total[c] /= n;
    std::fill(square, square + channels, 0.0);
    for (int64_t b = 0; b < l.blocks; b++) {
      const double count = double(l.block_count(b));
      for (int64_t c = 0; c < channels; c++) {
        const double d = means[b * l.channels + begin + c] - total[c];
        square[c] += double(squares[b * l.channels + begin + c]) + count * d * d;
      }
    }
    for (int64_t c = 0; c < channels; c++) {
      mean[begin + c] = C(total[c]);
      var[begin + c] = C(square[c] / n);
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

}  // namespace
}  // namespace dg::batch_norm

using namespace dg;
using namespace dg::batch_norm;

int32_t dg_batch_norm_stats(const dg_tensor* t, uint32_t mean_slot, uint32_t var_slot, uint32_t invstd_slot, uint32_t running_mean_slot,
                            uint32_t running_var_slot, uint32_t x_slot, double momentum, double eps) {
  return guard([&] {
    const char* const name = "batch_norm_stats";
    const Tensor x = tensor_at(t, x_slot, name);
    const Tensor* const tensors[] = {&x};
    const Layout l(tensors, 1, name);
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      C* mean = channel_data<C>(t, mean_slot, l, channel_dtype<C>(), name, Access::write);
      C* var = channel_data<C>(t, var_slot, l, channel_dtype<C>(), name, Access::write);
      if (!mean || !var) fail(DG_SHAPE, "%s: both outputs must be given", name);
      ChannelUpdate<C> update;
      update.invstd = channel_data<C>(t, invstd_slot, l, channel_dtype<C>(), name, Access::write);
      update.running_mean = channel_data<C>(t, running_mean_slot, l, channel_dtype<C>(), name, Access::write);
      update.running_var = channel_data<C>(t, running_var_slot, l, channel_dtype<C>(), name, Access::write);
      if (!update.running_mean != !update.running_var) fail(DG_SHAPE, "%s: both running statistics must be given, or none", name);
      update.momentum = momentum, update.eps = eps;
      if (x.numel == 0) fail(DG_SHAPE, "%s: no values to take the mean of", name);
      update.unbiased = double(l.count()) / double(l.count() - 1);
      const int64_t partials = l.blocks * l.channels;
      const Scratch scratch(partials * int64_t(sizeof(double) + sizeof(C)));
      double* const means = scratch.as<double>();
      C* const squares = reinterpret_cast<C*>(means + partials);
      block_moments<T, C>(l, x.data<T>(), means, squares);
      merge_moments<C>(l, means, squares, mean, var);
      for (int64_t c = 0; c < l.channels; c++) update(c, mean[c], var[c]);
    });
  });
}

int32_t dg_batch_norm_update(const dg_tensor* t, uint32_t invstd_slot, uint32_t mean_slot, uint32_t var_slot, uint32_t running_mean_slot,
                             uint32_t running_var_slot, double count, double momentum, double eps) {
  return guard([&] {
    const char* const name = "batch_norm_update";
    const Tensor var = tensor_at(t, var_slot, name);
    auto vector = [&](uint32_t slot, Access access) {
      const Tensor v = tensor_at(t, slot, name, access);
      require_same_sizes(v, var, name);
      require_dtype(v, var.dtype, name, "each per-channel tensor");
      if (v.rank != 1 || !v.contiguous()) fail(DG_SHAPE, "%s: per-channel tensors must be contiguous and have one axis", name);
      return v;
    };
    auto update = [&](auto zero) {
      using C = decltype(zero);
      const C* v = vector(var_slot, Access::read).template data<C>();
      const C* mean = v;  // read only with running statistics
      ChannelUpdate<C> next{nullptr, nullptr, nullptr, count / (count - 1), momentum, eps};
      if (present(invstd_slot)) next.invstd = vector(invstd_slot, Access::write).template data<C>();
      if (present(running_mean_slot)) {
        next.running_mean = vector(running_mean_slot, Access::write).template data<C>();
        next.running_var = vector(running_var_slot, Access::write).template data<C>();
        mean = vector(mean_slot, Access::read).template data<C>();
      }
      for (int64_t c = 0; c < var.numel; c++) next(c, mean[c], v[c]);
    };
    if (var.dtype == DG_F32) update(0.0f);
    else if (var.dtype == DG_F64) update(0.0);
    else fail(DG_DTYPE, "%s: takes float32 or float64, got %s", name, dtype_name(var.dtype));
  });
}

int32_t dg_batch_norm_apply(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t mean_slot, uint32_t invstd_slot, uint32_t weight_slot,
                            uint32_t bias_slot, uint32_t residual_slot, uint32_t relu) {
  return guard([&] {
    const char* const name = "batch_norm";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    Tensor residual;
    if (present(residual_slot)) residual = tensor_at(t, residual_slot, name);
    const Tensor* const tensors[] = {&x, &y, &residual};
    const Layout l(tensors, present(residual_slot) ? 3 : 2, name);
    if (x.numel == 0) return;
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      auto channel = [&](uint32_t slot) -> const C* { return channel_data<C>(t, slot, l, channel_dtype<C>(), name); };
      const C* const sources[] = {channel(mean_slot), channel(invstd_slot), channel(weight_slot), channel(bias_slot)};
      const C missing[] = {0, 1, 1, 0};
      const Columns<C, 4> columns(l, sources, missing);
      scale_columns(columns, 2, 1);
      auto run = [&](auto with_relu, auto with_residual) {
        apply<T, C, decltype(with_relu)::value, decltype(with_residual)::value>(
            l, y.data<T>(), x.data<T>(), present(residual_slot) ? residual.data<T>() : nullptr, columns.at(0), columns.at(2), columns.at(3));
      };
      const std::true_type yes;
      const std::false_type no;
      if (relu) present(residual_slot) ? run(yes, yes) : run(yes, no);
      else present(residual_slot) ? run(no, yes) : run(no, no);
    });
  });
}
