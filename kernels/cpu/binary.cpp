// Binary functions: out[i] = op(x[i], y[i]), operands expanded to one shape. Formulas in common/binary.h. In place (out = x) is allowed.
#include "../common/binary.h"

#include <array>
#include <atomic>
#include <utility>

#include "map.h"

namespace dg {
namespace {

template <BinaryOp op, class A>
void apply(A* out, const A* x, const A* y, int64_t count, const Parameters& p) {
  if constexpr (scaled(op)) {
    if (p.a != 1) {
      const A scale = convert<A>(p.a);
#pragma omp simd
      for (int64_t i = 0; i < count; i++) out[i] = wrapping_value<op, A>(x[i], wrapping_value<BinaryOp::mul, A>(scale, y[i]));
      return;
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = wrapping_value<op, A>(x[i], y[i]);
}

struct Kernel {
  Map2<float, float> f32 = nullptr;
  Map2<double, double> f64 = nullptr;
  Map2<int64_t, int64_t> i64 = nullptr;
  template <class A> Map2<A, A> of() const {
    if constexpr (std::is_same_v<A, float>) return f32;
    else if constexpr (std::is_same_v<A, double>) return f64;
    else return i64;
  }
};
template <BinaryOp op>
constexpr Kernel kernel_of() {
  Kernel k;
  if constexpr (takes<float>(op)) {
    k.f32 = apply<op, float>;
    k.f64 = apply<op, double>;
  }
  if constexpr (takes<int64_t>(op)) k.i64 = apply<op, int64_t>;
  return k;
}
template <unsigned... op>
constexpr auto kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<Kernel, sizeof...(op)>{kernel_of<BinaryOp(op)>()...};
}
constexpr auto kernels = kernels_of(std::make_integer_sequence<unsigned, unsigned(BinaryOp::count)>{});

template <int n, class A>
void power(A* out, const A* x, const A*, int64_t count, const Parameters&) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = power_value<n, A>(x[i]);
}
template <class A>
Map2<A, A> power_kernel(double exponent) {
  switch (known_power(exponent)) {
    case 2: return power<2, A>;
    case 3: return power<3, A>;
    case 1: return power<1, A>;
    case -1: return power<-1, A>;
    default: return nullptr;
  }
}

void refuse_zero(const Tensor& y) {
  std::atomic<bool> found{false};
  const Loop<1> loop({&y});
  const Reader<int64_t> reader = reader_of<int64_t>(y, "binary");
  const int64_t stride = loop.strides[0][loop.rank - 1];
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    bool zero = false;
    int64_t buffer[kStage];
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      if (stride == 0) count = std::min<int64_t>(count, 1);
      for (int64_t i = 0; i < count; i += kStage) {
        const int64_t n = std::min(kStage, count - i);
        const int64_t* p = reader.read(buffer, offset[0] + i * stride, stride, n);
        for (int64_t j = 0; j < n; j++) zero |= p[j] == 0;
      }
    });
    if (zero) found.store(true, std::memory_order_relaxed);
  });
  if (found) fail(DG_RANGE, "integer division by zero");
}

template <class A>
void run(const Tensor& out, const Tensor& x, const Tensor& y, Map2<A, A> f, double alpha) {
  const char* const name = "binary";
  map_blocks<A, A>(out, x, y, f, {alpha, 0}, writer_of<A>(out, name), reader_of<A>(x, name), reader_of<A>(y, name));
}

}  // namespace

void binary(const Tensor& out, const Tensor& x, const Tensor& y, BinaryOp op, double alpha) {
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    if (std::is_integral_v<A> && divides(op)) refuse_zero(y);
    run<A>(out, x, y, kernels[unsigned(op)].of<A>(), alpha);
  });
}

void binary_scalar(const Tensor& out, const Tensor& x, double number, BinaryOp op, bool reversed) {
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    A operand = operand_of<A>(number, x.dtype);
    const Tensor constant = constant_like<A>(x, &operand);
    Map2<A, A> f = kernels[unsigned(op)].of<A>();
    if (reversed) {
      if (std::is_integral_v<A> && divides(op)) refuse_zero(x);
      return run<A>(out, constant, x, f, 1);
    }
    if constexpr (std::is_floating_point_v<A>)
      if (op == BinaryOp::pow && known_power(number)) f = power_kernel<A>(number);
    run<A>(out, x, constant, f, 1);
  });
}

}  // namespace dg
