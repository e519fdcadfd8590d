// Losses of predictions and targets of equal sizes, element by element: formulas in common/loss.h.
//   reduction 0: out[i] = f(x[i], target[i]); 1: the mean in one element (nan of nothing); 2: the sum in one element
//   backward: dx[i] = dy[i] f'(x[i], target[i]) scale; dy has the sizes of x (one number: strides 0)
// Overwrites out and dx. Sums run over fixed chunks, in vector lanes and then in double.
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
void require_probabilities(const Tensor& x, const char* name) {
  std::atomic<bool> outside{false};
  dispatch_floats(x.dtype, name, [&](auto kind) {
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
  if (outside) fail(DG_RANGE, "%s: every prediction must be a probability between 0 and 1", name);
}

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_loss(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t target_slot, uint32_t op, double parameter,
                uint32_t reduction) {
  return guard([&] {
    const char* const name = op == unsigned(LossOp::bce) ? "binaryCrossEntropy" : "loss";
    if (op >= kernels.size()) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    if (reduction > 2) fail(DG_RANGE, "%s: reduction %u does not exist", name, reduction);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name), target = tensor_at(t, target_slot, name);
    require_same_sizes(target, x, name);
    require_dtype(target, x.dtype, name, "the target");
    require_dtype(out, x.dtype, name, "the output");
    if (reduction == 0) require_same_sizes(out, x, name);
    else if (out.rank != 0) fail(DG_SHAPE, "%s: a reduced output has no axes, got %s", name, shape_text(out).c_str());
    if (op == unsigned(LossOp::bce)) require_probabilities(x, name);
    kernels[op].forward(out, x, target, parameter, reduction);
  });
}

int32_t dg_loss_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t x_slot, uint32_t target_slot, uint32_t op,
                         double parameter, double scale) {
  return guard([&] {
    const char* const name = "loss_backward";
    if (op >= kernels.size()) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), x = tensor_at(t, x_slot, name),
                 target = tensor_at(t, target_slot, name);
    for (const Tensor* other : {&dx, &dy, &target}) {
      require_same_sizes(*other, x, name);
      require_dtype(*other, x.dtype, name, "every tensor");
    }
    kernels[op].backward(dx, dy, x, target, parameter, scale);
  });
}
