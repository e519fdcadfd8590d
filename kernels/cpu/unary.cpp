// Unary functions: out[i] = op(x[i]). Formulas in common/unary.h. In place (out = x) is allowed.
#include "../common/unary.h"

#include <array>
#include <utility>

#include "map.h"

namespace dg {
namespace {

// Sine, cosine and tangent of float: arguments past kPeriodicLimit, which nearly never occur, go to the C library.
template <UnaryOp op>
void periodic_block(float* out, const float* x, int64_t count) {
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; i++) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  if (largest < kPeriodicLimit) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) out[i] = unary_value<op, float>(x[i]);
    return;
  }
  for (int64_t i = 0; i < count; i++) {
    const float v = x[i];
    out[i] = std::fabs(v) < kPeriodicLimit ? unary_value<op, float>(v) : float(unary_value<op, double>(double(v)));
  }
}

template <UnaryOp op, class R, class A>
void apply(R* out, const A* x, int64_t count, const Parameters&) {
  if constexpr (tests(op)) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) out[i] = unary_test<op, A>(x[i]);
  } else if constexpr (std::is_same_v<A, float> && periodic(op)) {
    periodic_block<op>(out, x, count);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) out[i] = unary_value<op, A>(x[i]);
  }
}

struct Kernel {
  Map1<float, float> f32 = nullptr;
  Map1<double, double> f64 = nullptr;
  Map1<int64_t, int64_t> i64 = nullptr;
  Map1<bool, float> test32 = nullptr;
  Map1<bool, double> test64 = nullptr;
  Map1<bool, int64_t> test_i64 = nullptr;
};

template <UnaryOp op>
constexpr Kernel kernel_of() {
  Kernel k;
  if constexpr (tests(op)) {
    k.test32 = apply<op, bool, float>;
    k.test64 = apply<op, bool, double>;
    k.test_i64 = apply<op, bool, int64_t>;
  } else {
    if constexpr (takes_floats(op)) {
      k.f32 = apply<op, float, float>;
      k.f64 = apply<op, double, double>;
    }
    if constexpr (takes_integers(op)) k.i64 = apply<op, int64_t, int64_t>;
  }
  return k;
}
template <unsigned... op>
constexpr auto kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<Kernel, sizeof...(op)>{kernel_of<UnaryOp(op)>()...};
}
constexpr auto kernels = kernels_of(std::make_integer_sequence<unsigned, unsigned(UnaryOp::count)>{});

template <class R, class A>
void run(const Tensor& out, const Tensor& x, Map1<R, A> f) {
  map_blocks<R, A>(out, x, f, {}, writer_of<R>(out, "unary"), reader_of<A>(x, "unary"));
}

}  // namespace

void unary(const Tensor& out, const Tensor& x, UnaryOp op) {
  const Kernel& kernel = kernels[unsigned(op)];
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    if constexpr (std::is_same_v<A, float>) tests(op) ? run(out, x, kernel.test32) : run(out, x, kernel.f32);
    else if constexpr (std::is_same_v<A, double>) tests(op) ? run(out, x, kernel.test64) : run(out, x, kernel.f64);
    else tests(op) ? run(out, x, kernel.test_i64) : run(out, x, kernel.i64);
  });
}

}  // namespace dg
