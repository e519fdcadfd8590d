// Softmax along one axis of any strides. A row is the elements along the axis at one position of the others.
//   y = exp(x - max) / sum, or x - max - log(sum); backward from y: dx = y (dy - sum(dy y)), or dy - exp(y) sum(dy)
// Overwrites y and dx; may run in place. A row whose maximum is -inf or +inf gives NaN.
#include "../common/softmax.h"

#include "../common/math.h"
#include "elementwise.h"
#include "row_sum.h"

namespace dg {
namespace {

constexpr int64_t kLanes = 128;  // rows handled side by side when the axis is not the contiguous one

// One row; a step of 1 is a constant where Unit, so that loops vectorise.
template <class T, bool log, bool Unit>
void forward_row(T* y, int64_t y_step, const T* x, int64_t x_step, int64_t n) {
  using C = compute_t<T>;
  const int64_t sx = Unit ? 1 : x_step, sy = Unit ? 1 : y_step;
  C top = -std::numeric_limits<C>::infinity();
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < n; i++) top = C(x[i * sx]) > top ? C(x[i * sx]) : top;
  constexpr bool keep = !log && std::is_same_v<T, C>;  // the exponentials are exact enough to be kept in y
  const C sum = C(row_sum<C>(n, [=](int64_t i) {
    const C e = exp_(C(x[i * sx]) - top);
    if constexpr (keep) y[i * sy] = e;
    return e;
  }));
  if constexpr (log) {
    const C shift = log_(sum);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i * sy] = T((C(x[i * sx]) - top) - shift);
  } else if constexpr (keep) {
    const C scale = C(1) / sum;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i * sy] *= scale;
  } else {
    const C scale = C(1) / sum;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i * sy] = T(exp_(C(x[i * sx]) - top) * scale);
  }
}

// `count` neighbouring rows side by side: contiguous across rows, `step` apart along the axis.
template <class T, bool log>
void forward_lanes(T* y, int64_t y_step, const T* x, int64_t x_step, int64_t n, int64_t count) {
  using C = compute_t<T>;
  C top[kLanes], sum[kLanes];
  for (int64_t j = 0; j < count; j++) top[j] = -std::numeric_limits<C>::infinity(), sum[j] = 0;
  for (int64_t i = 0; i < n; i++) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++) top[j] = C(x[i * x_step + j]) > top[j] ? C(x[i * x_step + j]) : top[j];
  }
  for (int64_t i = 0; i < n; i++) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++) sum[j] += exp_(C(x[i * x_step + j]) - top[j]);
  }
#pragma omp simd
  for (int64_t j = 0; j < count; j++) sum[j] = log ? log_(sum[j]) : C(1) / sum[j];
  for (int64_t i = 0; i < n; i++) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++) {
      const C d = C(x[i * x_step + j]) - top[j];
      y[i * y_step + j] = T(log ? d - sum[j] : exp_(d) * sum[j]);
    }
  }
}

template <class T, bool log, bool Unit>
void backward_row(T* dx, int64_t dx_step, const T* dy, int64_t dy_step, const T* y, int64_t y_step, int64_t n) {
  using C = compute_t<T>;
  const int64_t a = Unit ? 1 : dx_step, b = Unit ? 1 : dy_step, c = Unit ? 1 : y_step;
  const C sum = C(row_sum<C>(n, [=](int64_t i) { return log ? C(dy[i * b]) : C(dy[i * b]) * C(y[i * c]); }));
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const C g = C(dy[i * b]), v = C(y[i * c]);
    dx[i * a] = T(log ? g - exp_(v) * sum : v * (g - sum));
  }
}

template <class T, bool log>
void backward_lanes(T* dx, int64_t dx_step, const T* dy, int64_t dy_step, const T* y, int64_t y_step, int64_t n, int64_t count) {
  using C = compute_t<T>;
  C sum[kLanes] = {};
  for (int64_t i = 0; i < n; i++) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++) sum[j] += log ? C(dy[i * dy_step + j]) : C(dy[i * dy_step + j]) * C(y[i * y_step + j]);
  }
  for (int64_t i = 0; i < n; i++) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++) {
      const C g = C(dy[i * dy_step + j]), v = C(y[i * y_step + j]);
      dx[i * dx_step + j] = T(log ? g - exp_(v) * sum[j] : v * (g - sum[j]));
    }
  }
}

// Runs row(offsets) or lanes(offsets, count) over all rows of K tensors of equal sizes.
template <int K, class Row, class Lanes>
void for_rows(const Tensor* const (&tensors)[K], int axis, Row&& row, Lanes&& lanes) {
  Tensor reduced[K];
  const Tensor* pointers[K];
  for (int k = 0; k < K; k++) reduced[k] = heads(*tensors[k], axis), pointers[k] = &reduced[k];
  const int64_t n = tensors[0]->sizes[axis];
  const auto go = [&](const Loop<K>& loop) {
    bool across = loop.all_unit() && loop.inner() > 1;
    for (int k = 0; k < K; k++) across &= tensors[k]->strides[axis] != 1;
    const int last = loop.rank - 1;
    parallel_for(loop.numel, std::max<int64_t>(across ? kLanes : 1, kGrain / n), [&](int64_t begin, int64_t end) {
      loop.rows(begin, end, [&](const int64_t* offsets, int64_t count) {
        int64_t at[K];
        for (int64_t i = 0; i < count;) {
          const int64_t piece = across ? std::min(kLanes, count - i) : 1;
          for (int k = 0; k < K; k++) at[k] = offsets[k] + i * loop.strides[k][last];
          if (across) lanes(at, piece);
          else row(at);
          i += piece;
        }
      });
    });
  };
  if constexpr (K == 2) go(Loop<2>({pointers[0], pointers[1]}));
  else go(Loop<3>({pointers[0], pointers[1], pointers[2]}));
}

template <class T, bool log>
void forward(const Tensor& y, const Tensor& x, int axis) {
  const int64_t n = x.sizes[axis], sy = y.strides[axis], sx = x.strides[axis];
  T* const o = y.data<T>();
  const T* const a = x.data<T>();
  for_rows<2>(
      {&y, &x}, axis,
      [=](const int64_t* at) {
        if (sy == 1 && sx == 1) forward_row<T, log, true>(o + at[0], 1, a + at[1], 1, n);
        else forward_row<T, log, false>(o + at[0], sy, a + at[1], sx, n);
      },
      [=](const int64_t* at, int64_t count) { forward_lanes<T, log>(o + at[0], sy, a + at[1], sx, n, count); });
}

template <class T, bool log>
void backward(const Tensor& dx, const Tensor& dy, const Tensor& y, int axis) {
  const int64_t n = y.sizes[axis], s0 = dx.strides[axis], s1 = dy.strides[axis], s2 = y.strides[axis];
  T* const o = dx.data<T>();
  const T *const g = dy.data<T>(), *const v = y.data<T>();
  for_rows<3>(
      {&dx, &dy, &y}, axis,
      [=](const int64_t* at) {
        if (s0 == 1 && s1 == 1 && s2 == 1) backward_row<T, log, true>(o + at[0], 1, g + at[1], 1, v + at[2], 1, n);
        else backward_row<T, log, false>(o + at[0], s0, g + at[1], s1, v + at[2], s2, n);
      },
      [=](const int64_t* at, int64_t count) { backward_lanes<T, log>(o + at[0], s0, g + at[1], s1, v + at[2], s2, n, count); });
}

}  // namespace

void softmax(const Tensor& y, const Tensor& x, int axis, bool log) {
  dispatch_floats(x.dtype, "softmax", [&](auto kind) {
    using T = typename decltype(kind)::type;
    if (log) forward<T, true>(y, x, axis);
    else forward<T, false>(y, x, axis);
  });
}

void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y, int axis, bool log) {
  dispatch_floats(y.dtype, "softmax_backward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    if (log) backward<T, true>(dx, dy, y, axis);
    else backward<T, false>(dx, dy, y, axis);
  });
}

}  // namespace dg
