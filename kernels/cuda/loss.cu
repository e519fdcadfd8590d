// Losses of predictions and targets of equal sizes, element by element: common/loss.h. Overwrites out and dx.
// Sums run in double, in a fixed order; the last block finishes them. Predictions of bce that are no probabilities are reported and count as 0.
#include "../common/loss.h"

#include "block.h"
#include "map.h"
#include "select.h"

namespace dg {
namespace {

template <class T>
struct Forward {
  using C = compute_t<T>;
  LossOp op;
  C parameter;
  Report report;

  template <class Go>
  __device__ void with(Go&& go) const {
    select<LossOp, LossOp::count>(op, [&](auto code) {
      constexpr LossOp known = decltype(code)::value;
      go([parameter = parameter, report = report](T x, T target) {
        const C v = C(x);
        if constexpr (known == LossOp::bce)
          if (!(v >= C(0) && v <= C(1))) {
            report();
            return C(0);
          }
        return loss_value<known, C>(v, C(target), parameter);
      });
    });
  }
};

// `own`: each element has a gradient of its own; else all have the one at dy.
template <class T, bool own>
struct Backward {
  using C = compute_t<T>;
  LossOp op;
  C parameter, scale;
  const T* dy;

  template <class Go>
  __device__ void with(Go&& go) const {
    const C factor = own ? scale : C(*dy) * scale;
    select<LossOp, LossOp::count>(op, [&](auto code) {
      const auto slope = [parameter = parameter](T x, T target) { return loss_slope<decltype(code)::value, C>(C(x), C(target), parameter); };
      if constexpr (own) go([=](T x, T target, T gradient) { return T(C(gradient) * factor * slope(x, target)); });
      else go([=](T x, T target) { return T(factor * slope(x, target)); });
    });
  }
};

// Where the elements of x and the target lie: gapless and in packs, or anywhere.
template <int N>
struct Packed {
  int64_t count;
  template <class T, class F>
  __device__ double sum(const F& f, const T* x, const T* target) const {
    using C = compute_t<T>;
    const int64_t packs = count / N, stride = int64_t(gridDim.x) * blockDim.x, first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    double total = 0;
    for (int64_t i = first; i < packs; i += stride) {
      const auto a = reinterpret_cast<const Pack<T, N>*>(x)[i], b = reinterpret_cast<const Pack<T, N>*>(target)[i];
      C part = 0;
#pragma unroll
      for (int j = 0; j < N; j++) part += f(a.at[j], b.at[j]);
      total += double(part);
    }
    for (int64_t i = packs * N + first; i < count; i += stride) total += double(f(x[i], target[i]));
    return total;
  }
};
template <class I>
struct Strided {
  Nest<2, I> nest;
  template <class T, class F>
  __device__ double sum(const F& f, const T* x, const T* target) const {
    const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
    double total = 0;
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < nest.count; i += stride) {
      I offset[2];
      nest.offsets(I(i), offset);
      total += double(f(x[offset[0]], target[offset[1]]));
    }
    return total;
  }
};

template <class T, class Elements>
__global__ void loss_sum(Forward<T> family, const __grid_constant__ Elements elements, T* out, const T* x, const T* target, double divisor, double* parts,
                         unsigned* counter) {
  double sum = 0;
  with_op(family, [&](const auto& f) { sum = elements.sum(f, x, target); });
  sum = block_reduce(sum, 0.0, Plus<double>());
  if (gridDim.x > 1) {
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
    if (!last_block(counter, gridDim.x)) return;
    sum = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += parts[i];
    sum = block_reduce(sum, 0.0, Plus<double>());
  }
  if (threadIdx.x == 0) *out = T(compute_t<T>(sum / divisor));
}

template <class T>
void forward(const Tensor& out, const Tensor& x, const Tensor& target, LossOp op, double parameter, uint32_t reduction) {
  const Report outside = op == LossOp::bce ? report(DG_RANGE, kNotProbabilities) : Report{};
  const Forward<T> family{op, compute_t<T>(parameter), outside};
  if (reduction == 0) return map<T, T, T>("loss", family, out, x, target);
  constexpr int N = 16 / sizeof(T);
  const Loop<2> loop({&x, &target});
  const double divisor = reduction == 1 ? double(loop.numel) : 1;
  const auto run = [&](auto elements, int pack) {
    const int threads = int(std::clamp<int64_t>(loop.numel / (4 * pack) / 32 * 32, 32, kThreads));
    const unsigned blocks = std::min(1024u, blocks_for(loop.numel, int64_t(threads) * 4 * pack));
    const Scratch parts(int64_t(blocks) * int64_t(sizeof(double)));
    launch("loss_sum", loss_sum<T, decltype(elements)>, blocks, threads, 0, family, elements, out.data<T>(), x.data<T>(), target.data<T>(), divisor,
           parts.as<double>(), counters());
  };
  if (loop.rank == 1 && loop.all_unit() && packs_fit<N>(x.data<T>(), target.data<T>())) run(Packed<N>{loop.numel}, N);
  else if (fits_32_bits(loop)) run(Strided<uint32_t>{Nest<2, uint32_t>(loop)}, 1);
  else run(Strided<uint64_t>{Nest<2, uint64_t>(loop)}, 1);
}

bool one_number(const Tensor& t) {
  for (int i = 0; i < t.rank; i++)
    if (t.sizes[i] != 1 && t.strides[i] != 0) return false;
  return true;
}

}  // namespace

void loss(const Tensor& out, const Tensor& x, const Tensor& target, LossOp op, double parameter, uint32_t reduction) {
  dispatch_floats(x.dtype, "loss", [&](auto kind) { forward<typename decltype(kind)::type>(out, x, target, op, parameter, reduction); });
}

void loss_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& target, LossOp op, double parameter, double scale) {
  const char* const name = "loss_backward";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    if (one_number(dy)) map<T, T, T>(name, Backward<T, false>{op, C(parameter), C(scale), dy.data<T>()}, dx, x, target);
    else map<T, T, T, T>(name, Backward<T, true>{op, C(parameter), C(scale), nullptr}, dx, x, target, dy);
  });
}

}  // namespace dg
