// Batch normalisation of x [N, C, S...], per channel over N and S, in four passes that synchronised statistics can join between:
//   stats     mean, var (biased)                            reads x once
//   apply     y = (x - mean) * invstd * weight + bias (+ residual) (relu)
//   reduce    sums of dy and of dy * xhat                   reads dy, x once (masked by the relu, if there is one)
//   backward  dx from these sums
// Layouts: "rows" (channels-last: C innermost, rows of C) and "planes" (contiguous: S innermost). All tensors of a call have the same.
// x, y, dy in any float dtype, everything per channel in the dtype they are computed in (float32 for halves).
// Sums run over fixed blocks of about 16384 elements, whose float results are added in double in a fixed order.
#include "../common/normalization.h"

#include "allocator.h"
#include "elementwise.h"

namespace dg {
namespace {

constexpr int64_t kBlock = 16384;   // elements of a block: twice through it stays in the cache
constexpr int64_t kColumns = 1024;  // columns of a block at most

// Element (row, channel, position). As rows, short ones are taken `group` at a time, as rows of `width` = group * C columns.
struct Layout {
  bool rows;
  int64_t outer, channels, inner;  // rows: outer = N * S, inner = 1
  int64_t group = 1, width = 1;
  int64_t block_rows = 1, blocks = 0;  // blocks of a channel: rows of a block, or positions of a plane
  int64_t tiles = 1;                   // rows: column tiles of a block

  Layout(const Tensor* const* tensors, int count, const char* op) {
    const Tensor& x = *tensors[0];
    if (x.rank < 2) fail(DG_SHAPE, "%s: takes a tensor [N, C, ...], got %s", op, shape_text(x).c_str());
    bool last = true, contiguous = true;
    for (int i = 0; i < count; i++) {
      require_same_sizes(x, *tensors[i], op);
      require_dtype(*tensors[i], x.dtype, op, "each of input, output, residual and gradients");
      last &= tensors[i]->channels_last();
      contiguous &= tensors[i]->contiguous();
    }
    if (!last && !contiguous) fail(DG_SHAPE, "%s: tensors must all be contiguous or all be channels-last", op);
    channels = x.sizes[1];
    const int64_t positions = x.numel == 0 ? 0 : x.numel / x.sizes[0] / channels;
    rows = last;
    if (x.numel == 0) {
      outer = inner = 0;
      return;
    }
    if (rows) {
      outer = x.sizes[0] * positions;
      inner = 1;
      if (channels < 64) group = (64 + channels - 1) / channels;
      width = group * channels;
      block_rows = (std::max<int64_t>(32, kBlock / channels) + group - 1) / group * group;
      blocks = (outer + block_rows - 1) / block_rows;
      if (group == 1) tiles = (channels + kColumns - 1) / kColumns;
    } else {
      outer = x.sizes[0];
      inner = positions;
      block_rows = std::min(inner, kBlock);
      blocks = outer * ((inner + block_rows - 1) / block_rows);
    }
  }
  int64_t segments() const { return blocks / outer; }                 // planes: blocks of one plane
  int64_t count() const { return outer * inner; }                     // elements of a channel
  int64_t block_count(int64_t block) const {                          // elements of a channel in a block
    const int64_t at = rows ? block : block % segments();
    return std::min(block_rows, (rows ? outer : inner) - at * block_rows);
  }
};

// A per-channel tensor of `dtype`; null when absent.
template <class C>
C* channel_data(const dg_tensor* t, uint32_t slot, const Layout& layout, uint32_t dtype, const char* op, Access access = Access::read) {
  if (!present(slot)) return nullptr;
  const Tensor v = tensor_at(t, slot, op, access);
  require_dtype(v, dtype, op, "each per-channel tensor");
  if (v.rank != 1 || v.sizes[0] != layout.channels || !v.contiguous())
    fail(DG_SHAPE, "%s: per-channel tensors must be contiguous of size [%lld], got %s", op, (long long)layout.channels, shape_text(v).c_str());
  return v.data<C>();
}

template <class C> constexpr uint32_t channel_dtype() { return std::is_same_v<C, double> ? DG_F64 : DG_F32; }

// Blocks of rows: piece(block, channel0, width of channels, rows) with rows of all columns of a tile; planes: piece(block, channel, 1, ...).
template <class F>
void for_blocks(const Layout& l, F&& f) {
  if (l.rows) {
    parallel_for(l.blocks * l.tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) f(job / l.tiles, job % l.tiles * kColumns);
    });
  } else {
    const int64_t jobs = l.blocks * l.channels;
    parallel_for(jobs, std::max<int64_t>(1, kBlock / l.block_rows), [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) {
        const int64_t segment = job % l.segments(), plane = job / l.segments();
        f(plane / l.channels * l.segments() + segment, plane % l.channels);
      }
    });
  }
}

// Where a block of planes starts.
inline int64_t plane_start(const Layout& l, int64_t block, int64_t channel) {
  return (block / l.segments() * l.channels + channel) * l.inner + block % l.segments() * l.block_rows;
}

// Calls f(start, columns) for the rows of a block of the rows layout; columns fold onto channels channel0 + column % C.
template <class F>
void block_rows(const Layout& l, int64_t block, int64_t channel0, F&& f) {
  const int64_t first = block * l.block_rows, last = std::min(l.outer, first + l.block_rows);
  if (l.group > 1) {
    const int64_t end = last * l.channels;
    for (int64_t at = first * l.channels; at < end; at += l.width) f(at, std::min(l.width, end - at));
  } else {
    const int64_t columns = std::min(kColumns, l.channels - channel0);
    for (int64_t row = first; row < last; row++) f(row * l.channels + channel0, columns);
  }
}

// Folds columns onto channels (acc[0 .. C) is the sum) and spreads channel values over columns.
template <class C>
void fold(const Layout& l, C* acc) {
  for (int64_t g = 1; g < l.group; g++)
    for (int64_t c = 0; c < l.channels; c++) acc[c] += acc[g * l.channels + c];
}
template <class C>
void spread(const Layout& l, C* values) {
  for (int64_t g = 1; g < l.group; g++) std::copy(values, values + l.channels, values + g * l.channels);
}
inline int64_t tile_channels(const Layout& l, int64_t channel0) { return std::min(kColumns, l.channels - channel0); }

// Sum of f(i) for i in [0, n) with 64 partial sums.
template <class C, class F>
C lane_sum(int64_t n, F f) {
  constexpr int64_t lanes = 64;
  if (n < lanes) {
    C sum = 0;
    for (int64_t i = 0; i < n; i++) sum += f(i);
    return sum;
  }
  C acc[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
#pragma omp simd
    for (int64_t k = 0; k < lanes; k++) acc[k] += f(i + k);
  for (int64_t k = 0; i + k < n; k++) acc[k] += f(i + k);
  for (int64_t half = lanes / 2; half > 0; half /= 2)
    for (int64_t k = 0; k < half; k++) acc[k] += acc[k + half];
  return acc[0];
}

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

// Calls body(at, count, offset of the column) over all elements; column values come from arrays of `width` for rows, or one channel for planes.
template <class F>
void for_elements(const Layout& l, F&& f) {
  for_blocks(l, [&](int64_t block, int64_t channel0) {
    if (l.rows) block_rows(l, block, channel0, [&](int64_t at, int64_t columns) { f(at, columns, channel0); });
    else f(plane_start(l, block, channel0), l.block_count(block), channel0);
  });
}

// K per-channel arrays, spread to the width of a row. Absent ones hold `missing`.
template <class C, int K>
class Columns {
 public:
  Columns(const Layout& l, const C* const (&sources)[K], const C (&missing)[K])
      : stride_(l.rows ? std::max(l.width, l.channels) : l.channels), memory_(int64_t(sizeof(C)) * K * std::max<int64_t>(stride_, 1)) {
    for (int k = 0; k < K; k++) {
      if (sources[k]) std::copy(sources[k], sources[k] + l.channels, at(k));
      else std::fill(at(k), at(k) + l.channels, missing[k]);
      if (l.rows) spread(l, at(k));
    }
  }
  C* at(int k) const { return memory_.as<C>() + k * stride_; }
  int64_t stride() const { return stride_; }

 private:
  int64_t stride_;
  Scratch memory_;
};

// scale = invstd * weight, in place of weight.
template <class C, int K>
void scale_columns(const Columns<C, K>& columns, int weight, int invstd) {
  for (int64_t i = 0; i < columns.stride(); i++) columns.at(weight)[i] *= columns.at(invstd)[i];
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
}  // namespace dg

using namespace dg;

int32_t dg_batch_norm_stats(const dg_tensor* t, uint32_t mean_slot, uint32_t var_slot, uint32_t x_slot) {
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
      if (x.numel == 0) fail(DG_SHAPE, "%s: no values to take the mean of", name);
      const int64_t partials = l.blocks * l.channels;
      const Scratch scratch(partials * int64_t(sizeof(double) + sizeof(C)));
      double* const means = scratch.as<double>();
      C* const squares = reinterpret_cast<C*>(means + partials);
      block_moments<T, C>(l, x.data<T>(), means, squares);
      merge_moments<C>(l, means, squares, mean, var);
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
      if (present(invstd_slot)) {
        C* invstd = vector(invstd_slot, Access::write).template data<C>();
        for (int64_t c = 0; c < var.numel; c++) invstd[c] = C(1.0 / std::sqrt(double(v[c]) + eps));
      }
      if (!present(running_mean_slot)) return;
      C* running_mean = vector(running_mean_slot, Access::write).template data<C>();
      C* running_var = vector(running_var_slot, Access::write).template data<C>();
      const C* mean = vector(mean_slot, Access::read).template data<C>();
      const double unbiased = count / (count - 1);
      for (int64_t c = 0; c < var.numel; c++) {
        running_mean[c] = C((1 - momentum) * double(running_mean[c]) + momentum * double(mean[c]));
        running_var[c] = C((1 - momentum) * double(running_var[c]) + momentum * unbiased * double(v[c]));
      }
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

int32_t dg_batch_norm_reduce(const dg_tensor* t, uint32_t sum_dy_slot, uint32_t sum_dy_xhat_slot, uint32_t masked_slot, uint32_t dy_slot,
                             uint32_t x_slot, uint32_t y_slot, uint32_t mean_slot, uint32_t invstd_slot, uint32_t weight_slot,
                             uint32_t bias_slot, uint32_t relu) {
  return guard([&] {
    const char* const name = "batch_norm_backward";
    const Tensor dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name);
    Tensor masked, y;
    const Tensor* tensors[4] = {&x, &dy};
    int count = 2;
    if (present(masked_slot)) masked = tensor_at(t, masked_slot, name, Access::write), tensors[count++] = &masked;
    if (present(y_slot)) y = tensor_at(t, y_slot, name), tensors[count++] = &y;
    const Layout l(tensors, count, name);
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      auto channel = [&](uint32_t slot, Access access) { return channel_data<C>(t, slot, l, channel_dtype<C>(), name, access); };
      const C* const sources[] = {channel(mean_slot, Access::read), channel(invstd_slot, Access::read), channel(weight_slot, Access::read),
                                  channel(bias_slot, Access::read)};
      C *sum_dy = channel(sum_dy_slot, Access::write), *sum_dy_xhat = channel(sum_dy_xhat_slot, Access::write);
      if (!sum_dy || !sum_dy_xhat) fail(DG_SHAPE, "%s: both sums must be given", name);
      const C missing[] = {0, 1, 1, 0};
      const Columns<C, 4> columns(l, sources, missing);
      scale_columns(columns, 2, 1);
      const Scratch scratch(std::max<int64_t>(1, 2 * l.blocks * l.channels * int64_t(sizeof(C))));
      C* const sums = scratch.as<C>();
      auto run = [&](auto mask) {
        if (x.numel == 0) return;
        block_sums<T, C, decltype(mask)::value>(l, dy.data<T>(), x.data<T>(), present(y_slot) ? y.data<T>() : nullptr,
                                                present(masked_slot) ? masked.data<T>() : nullptr, columns.at(0), columns.at(2), columns.at(3),
                                                sums);
      };
      if (!relu) run(std::integral_constant<Mask, Mask::none>{});
      else if (present(y_slot)) run(std::integral_constant<Mask, Mask::output>{});
      else run(std::integral_constant<Mask, Mask::again>{});
      merge_sums<C>(l, sums, columns.at(1), sum_dy, sum_dy_xhat);
    });
  });
}

int32_t dg_batch_norm_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t x_slot, uint32_t mean_slot, uint32_t invstd_slot,
                               uint32_t weight_slot, uint32_t bias_slot, uint32_t sum_dy_slot, uint32_t sum_dy_xhat_slot, double count,
                               uint32_t relu) {
  return guard([&] {
    const char* const name = "batch_norm_backward";
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name);
    const Tensor* const tensors[] = {&x, &dx, &dy};
    const Layout l(tensors, 3, name);
    if (x.numel == 0) return;
    if (!(count >= 1)) fail(DG_RANGE, "%s: the count must be >= 1, got %g", name, count);
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      auto channel = [&](uint32_t slot) -> const C* { return channel_data<C>(t, slot, l, channel_dtype<C>(), name); };
      const C* const sources[] = {channel(mean_slot), channel(invstd_slot), channel(weight_slot), channel(bias_slot), channel(sum_dy_slot),
                                  channel(sum_dy_xhat_slot)};
      const C missing[] = {0, 1, 1, 0, 0, 0};
      const Columns<C, 6> columns(l, sources, missing);
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
  });
}
