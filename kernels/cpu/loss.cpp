// Losses of predictions and targets of equal sizes, element by element: common/loss.h. Overwrites out and dx.
// Sums run over fixed chunks, in vector lanes and then in double.
#include "../common/loss.h"

#include <array>
#include <atomic>
#include <utility>

#include "allocator.h"
#include "elementwise.h"
#include "row_sum.h"

namespace dg {
namespace {

template <LossOp op>
void forward(const Tensor& out, const Tensor& x, const Tensor& target, double parameter, uint32_t reduction) {
  dispatch_floats(x.dtype, "loss", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const C p = C(parameter);
    if (reduction == 0) return map2<T, T>(out, x, target, [p](T v, T w) { return T(loss_value<op, C>(v, w, p)); });
    const Loop<2> loop({&x, &target});
    const int64_t chunks = (loop.numel + kGrain - 1) / kGrain;
    const Scratch space(std::max<int64_t>(chunks, 1) * int64_t(sizeof(double)));
    double* const sums = space.as<double>();
    const int last = loop.rank - 1;
    const int64_t sx = loop.strides[0][last], st = loop.strides[1][last];
    const bool unit = loop.all_unit();
    parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
      double sum = 0;
      loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
        const T *a = x.data<T>() + offset[0], *b = target.data<T>() + offset[1];
        if (unit) sum += row_sum<C>(count, [=](int64_t i) { return loss_value<op, C>(a[i], b[i], p); });
        else sum += row_sum<C>(count, [=](int64_t i) { return loss_value<op, C>(a[i * sx], b[i * st], p); });
      });
      sums[begin / kGrain] = sum;
    });
    double total = 0;
    for (int64_t i = 0; i < chunks; i++) total += sums[i];
    *out.data<T>() = T(C(reduction == 1 ? total / double(loop.numel) : total));
  });
}

template <LossOp op>
void backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& target, double parameter, double scale) {
  dispatch_floats(x.dtype, "loss_backward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const C p = C(parameter), s = C(scale);
    const Loop<4> loop({&dx, &dy, &x, &target});
    const int last = loop.rank - 1;
    const int64_t step[4] = {loop.strides[0][last], loop.strides[1][last], loop.strides[2][last], loop.strides[3][last]};
    const bool unit = step[0] == 1 && step[2] == 1 && step[3] == 1;
    parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
      loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
        T* const o = dx.data<T>() + offset[0];
        const T *const g = dy.data<T>() + offset[1], *const a = x.data<T>() + offset[2], *const b = target.data<T>() + offset[3];
        if (unit && step[1] == 0) {
          const C factor = C(*g) * s;
#pragma omp simd
          for (int64_t i = 0; i < count; i++) o[i] = T(factor * loss_slope<op, C>(a[i], b[i], p));
        } else {
          for (int64_t i = 0; i < count; i++)
            o[i * step[0]] = T(C(g[i * step[1]]) * s * loss_slope<op, C>(a[i * step[2]], b[i * step[3]], p));
        }
      });
    });
  });
}

struct Kernel {
  void (*forward)(const Tensor&, const Tensor&, const Tensor&, double, uint32_t);
  void (*backward)(const Tensor&, const Tensor&, const Tensor&, const Tensor&, double, double);
};
template <unsigned... op>
constexpr auto kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<Kernel, sizeof...(op)>{Kernel{forward<LossOp(op)>, backward<LossOp(op)>}...};
}
constexpr auto kernels = kernels_of(std::make_integer_sequence<unsigned, unsigned(LossOp::count)>{});

// Fails unless every element lies in [0, 1].
void require_probabilities(const Tensor& x) {
  std::atomic<bool> outside{false};
  dispatch_floats(x.dtype, "loss", [&](auto kind) {
    using T = typename decltype(kind)::type;
    const Loop<1> loop({&x});
    const int64_t step = loop.strides[0][loop.rank - 1];
    parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
      bool bad = false;
      loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
        const T* a = x.data<T>() + offset[0];
        for (int64_t i = 0; i < count; i++) {
          const auto v = compute_t<T>(a[i * step]);
          bad |= !(v >= 0 && v <= 1);
        }
      });
      if (bad) outside = true;
    });
  });
  if (outside) fail(DG_RANGE, "%s", kNotProbabilities);
}

}  // namespace

void loss(const Tensor& out, const Tensor& x, const Tensor& target, LossOp op, double parameter, uint32_t reduction) {
  if (op == LossOp::bce) require_probabilities(x);
  kernels[unsigned(op)].forward(out, x, target, parameter, reduction);
}

void loss_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& target, LossOp op, double parameter, double scale) {
  kernels[unsigned(op)].backward(dx, dy, x, target, parameter, scale);
}

}  // namespace dg
