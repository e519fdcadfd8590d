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
  C* const stats = e.stats.data<C>();
  const C keep = C(e.keep()), spread = C(e.spread());
  parallel_for(loop.numel, grain, [&](int64_t begin, int64_t end) {
    double sum = 0, total = 0;
    loop.rows(begin, end, [&](const int64_t* offsets, int64_t count) {
      for (int64_t i = 0; i < count; i++) {
        const int64_t position = offsets[0] + i * loop.strides[0][last];
        const T* x = e.x.data<T>() + offsets[1] + i * loop.strides[1][last];
        const int64_t label = e.labels.data<int64_t>()[offsets[2] + i * loop.strides[2][last]];
        C loss = 0, top = 0, shift = 0;
        if (label != e.ignore) {
          if (label < 0 || label >= n) {
            for (int64_t known = bad.load(); position < known && !bad.compare_exchange_weak(known, position);) {}
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
  const bool unit = sx == 1 && so == 1;
  parallel_for(loop.numel, grain_for(n), [&](int64_t begin, int64_t end) {
    loop.rows(begin, end, [&](const int64_t* offsets, int64_t count) {
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
