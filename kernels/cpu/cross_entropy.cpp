// Cross entropy of class labels, fused with log-softmax; what it is: common/cross_entropy.h. Overwrites out, stats, total and dx.
#include "../common/cross_entropy.h"
#include "../common/math.h"

#include <atomic>

#include "allocator.h"
#include "elementwise.h"
#include "row_sum.h"

namespace dg {
namespace {

// Weights in the computing type and their sum, into `to`.
template <class T, class C>
C weights(const CrossEntropy& e, C* to) {
  double sum = 0;
  for (int64_t c = 0; c < e.classes; c++) {
    to[c] = e.weighted ? C(e.weight.data<T>()[c * e.weight.strides[0]]) : C(1);
    sum += double(to[c]);
  }
  return C(sum);
}

// ---- few classes: vectors run over positions, a block of which is brought together class by class

constexpr int64_t kFewClasses = 16, kPositions = 256;

// A block of positions: `apart` elements between the classes of a tensor, `step` between positions. Filled up to whole vectors, so that each
// position is computed alike wherever it comes in a block.
template <class C>
struct Block {
  int64_t classes, count, filled;
  C x[kFewClasses][kPositions];
  int32_t label[kPositions];  // -1: counts for nothing

  explicit Block(int64_t classes) : classes(classes) {}
  void resize(int64_t n) { count = n, filled = (n + 15) / 16 * 16; }
  // Calls f(class, position, offset), innermost what lies closer together.
  template <class F>
  void each(int64_t apart, int64_t step, F&& f) const {
    const auto side_by_side = [&](auto known) {
      constexpr int n = decltype(known)::value;
#pragma omp simd
      for (int64_t i = 0; i < count; i++)
        for (int c = 0; c < n; c++) f(c, i, i * n + c);
    };
    if (apart == 1 && step == classes && classes == 2) return side_by_side(std::integral_constant<int, 2>{});
    if (apart == 1 && step == classes && classes == 3) return side_by_side(std::integral_constant<int, 3>{});
    if (apart == 1 && step == classes && classes == 4) return side_by_side(std::integral_constant<int, 4>{});
    if (apart < step) {
      for (int64_t i = 0; i < count; i++)
        for (int64_t c = 0; c < classes; c++) f(c, i, i * step + c * apart);
    } else if (step == 1) {
      for (int64_t c = 0; c < classes; c++) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) f(c, i, i + c * apart);
      }
    } else {
      for (int64_t c = 0; c < classes; c++)
        for (int64_t i = 0; i < count; i++) f(c, i, i * step + c * apart);
    }
  }
  template <class T>
  void read(const T* from, int64_t apart, int64_t step) {
    each(apart, step, [&](int64_t c, int64_t i, int64_t at) __attribute__((always_inline)) { x[c][i] = C(from[at]); });
    for (int64_t c = 0; c < classes; c++) std::fill(x[c] + count, x[c] + filled, C(0));
  }
  template <class T>
  void write(T* to, int64_t apart, int64_t step) const {
    each(apart, step, [&](int64_t c, int64_t i, int64_t at) __attribute__((always_inline)) { to[at] = T(x[c][i]); });
  }
  // The first label outside the classes that is not to be ignored, or -1.
  int64_t read_labels(const int64_t* from, int64_t step, int64_t ignore) {
    bool outside = false;
    for (int64_t i = 0; i < count; i++) {
      const int64_t l = from[i * step];
      const bool inside = l >= 0 && l < classes;
      outside |= !inside && l != ignore;
      label[i] = inside && l != ignore ? int32_t(l) : -1;
    }
    std::fill(label + count, label + filled, -1);
    if (!outside) return -1;
    for (int64_t i = 0;; i++)
      if (label[i] < 0 && from[i * step] != ignore) return i;
  }
};

// Losses, weights of the labels and statistics of a block.
template <class C>
void few_losses(const Block<C>& b, const C* w, C keep, C spread, C* loss, C* weight, C* top, C* shift) {
  const int64_t n = b.filled;
  std::fill_n(top, n, -std::numeric_limits<C>::infinity());
  std::fill_n(shift, n, C(0));
  for (int64_t c = 0; c < b.classes; c++) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) top[i] = b.x[c][i] > top[i] ? b.x[c][i] : top[i];
  }
  for (int64_t c = 0; c < b.classes; c++) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) shift[i] += exp_(b.x[c][i] - top[i]);
  }
#pragma omp simd
  for (int64_t i = 0; i < n; i++) shift[i] = log_(shift[i]);
  std::fill_n(weight, n, C(0));
  std::fill_n(loss, n, C(0));
  for (int c = 0; c < int(b.classes); c++) {
    const C of_class = w[c];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const C log_of_share = (b.x[c][i] - top[i]) - shift[i];
      weight[i] = b.label[i] == c ? of_class : weight[i];
      loss[i] = b.label[i] == c ? log_of_share : loss[i];
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < n; i++) loss[i] *= -keep * weight[i];
  if (spread != 0) {
    for (int64_t c = 0; c < b.classes; c++) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) loss[i] -= spread * w[c] * ((b.x[c][i] - top[i]) - shift[i]);
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const bool counts = b.label[i] >= 0;
    loss[i] = counts ? loss[i] : C(0), top[i] = counts ? top[i] : C(0), shift[i] = counts ? shift[i] : C(0);
  }
}

// The scores become their gradients; g is that of each loss.
template <class C>
void few_gradients(Block<C>& b, const C* w, C weight_sum, C keep, C spread, const C* g, const C* top, const C* shift) {
  const int64_t n = b.filled;
  C hit[kPositions], all[kPositions];
  std::fill_n(hit, n, C(0));
  for (int c = 0; c < int(b.classes); c++) {
    const C of_class = keep * w[c];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) hit[i] = b.label[i] == c ? of_class : hit[i];
  }
#pragma omp simd
  for (int64_t i = 0; i < n; i++) all[i] = g[i] * (hit[i] + spread * weight_sum);
  for (int c = 0; c < int(b.classes); c++) {
    const C share = spread * w[c];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const C y = all[i] * exp_((b.x[c][i] - top[i]) - shift[i]) - g[i] * share;
      const C slope = b.label[i] == c ? y - g[i] * hit[i] : y;
      b.x[c][i] = b.label[i] < 0 ? C(0) : slope;
    }
  }
}

int64_t grain_for(int64_t classes) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(classes, 1)); }

template <class T>
void forward(const CrossEntropy& e, const Tensor& out) {
  using C = compute_t<T>;
  const int64_t n = e.classes, step = e.x.strides[1];
  const int64_t grain = grain_for(n), chunks = (e.positions + grain - 1) / grain;
  const Scratch space(int64_t(sizeof(double)) * 2 * std::max<int64_t>(chunks, 1) + int64_t(sizeof(C)) * (n + 1));
  double* const sums = space.as<double>();
  C* const w = reinterpret_cast<C*>(sums + 2 * std::max<int64_t>(chunks, 1));
  weights<T, C>(e, w);
  const Tensor head = e.heads(e.x), number = e.numbers();
  Tensor target = out;
  if (e.reduction != 0) target = e.labels;
  const Loop<4> loop({&number, &head, &e.labels, &target});
  const int last = loop.rank - 1;
  std::atomic<int64_t> bad{INT64_MAX};  // first position whose label is outside
  const auto report = [&](int64_t position) {
    for (int64_t known = bad.load(); position < known && !bad.compare_exchange_weak(known, position);) {}
  };
  C* const stats = e.stats.data<C>();
  const C keep = C(e.keep()), spread = C(e.spread());
  const bool few = e.logits && n <= kFewClasses;
  parallel_for(loop.numel, grain, [&](int64_t begin, int64_t end) {
    double sum = 0, total = 0;
    loop.rows(begin, end, [&](const int64_t* offsets, int64_t count) {
      if (few) {
        Block<C> b(n);
        C loss[kPositions], weight[kPositions], top[kPositions], shift[kPositions];
        for (int64_t i = 0; i < count; i += kPositions) {
          b.resize(std::min(kPositions, count - i));
          const int64_t position = offsets[0] + i;
          const int64_t wrong = b.read_labels(e.labels.data<int64_t>() + offsets[2] + i * loop.strides[2][last], loop.strides[2][last], e.ignore);
          if (wrong >= 0) report(position + wrong);
          b.read(e.x.data<T>() + offsets[1] + i * loop.strides[1][last], step, loop.strides[1][last]);
          few_losses<C>(b, w, keep, spread, loss, weight, top, shift);
          std::copy_n(top, b.count, stats + position);
          std::copy_n(shift, b.count, stats + e.positions + position);
          // One after the other, for the order not to depend on how the scores lie.
          for (int64_t j = 0; j < b.count; j++) sum += double(loss[j]), total += double(weight[j]);
          T* const each = out.data<T>() + offsets[3] + i * loop.strides[3][last];
          for (int64_t j = 0; e.reduction == 0 && j < b.count; j++) each[j * loop.strides[3][last]] = T(loss[j]);
        }
        return;
      }
      for (int64_t i = 0; i < count; i++) {
        const int64_t position = offsets[0] + i * loop.strides[0][last];
        const T* x = e.x.data<T>() + offsets[1] + i * loop.strides[1][last];
        const int64_t label = e.labels.data<int64_t>()[offsets[2] + i * loop.strides[2][last]];
        C loss = 0, top = 0, shift = 0;
        if (label != e.ignore) {
          if (label < 0 || label >= n) {
            report(position);
            continue;
          }
          if (e.logits) {
            top = -std::numeric_limits<C>::infinity();
            if (step == 1) {
#pragma omp simd reduction(max : top)
              for (int64_t c = 0; c < n; c++) top = C(x[c]) > top ? C(x[c]) : top;
              shift = C(row_sum<C>(n, [=](int64_t c) { return exp_(C(x[c]) - top); }));
            } else {
              for (int64_t c = 0; c < n; c++) top = C(x[c * step]) > top ? C(x[c * step]) : top;
              shift = C(row_sum<C>(n, [=](int64_t c) { return exp_(C(x[c * step]) - top); }));
            }
            shift = log_(shift);
          }
          loss = -keep * w[label] * ((C(x[label * step]) - top) - shift);
          if (spread != 0) loss -= spread * C(row_sum<C>(n, [=](int64_t c) { return w[c] * ((C(x[c * step]) - top) - shift); }));
          total += double(w[label]);
          sum += double(loss);
        }
        stats[position] = top;
        stats[e.positions + position] = shift;
        if (e.reduction == 0) out.data<T>()[offsets[3] + i * loop.strides[3][last]] = T(loss);
      }
    });
    sums[begin / grain * 2] = sum;
    sums[begin / grain * 2 + 1] = total;
  });
  if (bad != INT64_MAX) {
    int64_t rest = bad, offset = 0;
    for (int i = e.labels.rank - 1; i >= 0; i--) offset += rest % e.labels.sizes[i] * e.labels.strides[i], rest /= e.labels.sizes[i];
    fail(DG_RANGE, e.outside().c_str(), static_cast<long long>(e.labels.data<int64_t>()[offset]));
  }
  double sum = 0, total = 0;
  for (int64_t i = 0; i < chunks; i++) sum += sums[2 * i], total += sums[2 * i + 1];
  *e.total.data<C>() = C(total);
  if (e.reduction != 0) *out.data<T>() = T(C(e.reduction == 1 ? sum / total : sum));
}

template <class T>
void backward(const CrossEntropy& e, const Tensor& dx, const Tensor& dy) {
  using C = compute_t<T>;
  const int64_t n = e.classes, sx = e.x.strides[1], so = dx.strides[1];
  const Scratch space(int64_t(sizeof(C)) * (n + 1));
  C* const w = space.as<C>();
  const C weight_sum = weights<T, C>(e, w);
  const Tensor to = e.heads(dx), from = e.heads(e.x), number = e.numbers();
  const Loop<5> loop({&to, &from, &number, &e.labels, &dy});
  const int last = loop.rank - 1;
  const C* const stats = e.stats.data<C>();
  const C keep = C(e.keep()), spread = C(e.spread());
  const C scale = e.reduction == 1 ? C(1) / *e.total.data<C>() : C(1);
  const bool unit = sx == 1 && so == 1, few = e.logits && n <= kFewClasses;
  parallel_for(loop.numel, grain_for(n), [&](int64_t begin, int64_t end) {
    loop.rows(begin, end, [&](const int64_t* offsets, int64_t count) {
      if (few) {
        Block<C> b(n);
        C g[kPositions] = {}, top[kPositions] = {}, shift[kPositions] = {};
        for (int64_t i = 0; i < count; i += kPositions) {
          b.resize(std::min(kPositions, count - i));
          b.read_labels(e.labels.data<int64_t>() + offsets[3] + i * loop.strides[3][last], loop.strides[3][last], e.ignore);
          b.read(e.x.data<T>() + offsets[1] + i * loop.strides[1][last], sx, loop.strides[1][last]);
          const T* const dys = dy.data<T>() + offsets[4] + i * loop.strides[4][last];
          for (int64_t j = 0; j < b.count; j++) {
            const int64_t position = offsets[2] + (i + j) * loop.strides[2][last];
            g[j] = C(dys[j * loop.strides[4][last]]) * scale, top[j] = stats[position], shift[j] = stats[e.positions + position];
          }
          few_gradients<C>(b, w, weight_sum, keep, spread, g, top, shift);
          b.write(dx.data<T>() + offsets[0] + i * loop.strides[0][last], so, loop.strides[0][last]);
        }
        return;
      }
      for (int64_t i = 0; i < count; i++) {
        T* const o = dx.data<T>() + offsets[0] + i * loop.strides[0][last];
        const T* const x = e.x.data<T>() + offsets[1] + i * loop.strides[1][last];
        const int64_t position = offsets[2] + i * loop.strides[2][last];
        const int64_t label = e.labels.data<int64_t>()[offsets[3] + i * loop.strides[3][last]];
        const C g = C(dy.data<T>()[offsets[4] + i * loop.strides[4][last]]) * scale;
        if (label == e.ignore || label < 0 || label >= n) {
          for (int64_t c = 0; c < n; c++) o[c * so] = T(C(0));
          continue;
        }
        const C top = stats[position], shift = stats[e.positions + position];
        const C hit = keep * w[label], all = e.logits ? g * (hit + spread * weight_sum) : C(0), each = g * spread;
        const C at_label = C(x[label * sx]);  // dx may be x
        if (!e.logits) {
          for (int64_t c = 0; c < n; c++) o[c * so] = T(-each * w[c]);
        } else if (unit && each == 0) {
#pragma omp simd
          for (int64_t c = 0; c < n; c++) o[c] = T(all * exp_((C(x[c]) - top) - shift));
        } else {
          for (int64_t c = 0; c < n; c++) o[c * so] = T(all * exp_((C(x[c * sx]) - top) - shift) - each * w[c]);
        }
        const C p = e.logits ? all * exp_((at_label - top) - shift) : C(0);
        o[label * so] = T((p - each * w[label]) - g * hit);
      }
    });
  });
}

}  // namespace

void cross_entropy(const CrossEntropy& e, const Tensor& out) {
  dispatch_floats(e.x.dtype, e.name, [&](auto kind) { forward<typename decltype(kind)::type>(e, out); });
}

void cross_entropy_backward(const CrossEntropy& e, const Tensor& dx, const Tensor& dy) {
  dispatch_floats(e.x.dtype, e.name, [&](auto kind) { backward<typename decltype(kind)::type>(e, dx, dy); });
}

}  // namespace dg
