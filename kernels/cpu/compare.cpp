// Comparisons and selection: out[i] = x[i] op y[i] as bool, out[i] = condition[i] ? x[i] : y[i]. Formulas in common/binary.h.
#include <array>
#include <utility>

#include "../common/binary.h"
#include "map.h"

namespace dg {
namespace {

template <CompareOp op, class A>
void apply(bool* out, const A* x, const A* y, int64_t count, const Parameters&) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = compare_value<op, A>(x[i], y[i]);
}

template <class A, unsigned... op>
constexpr auto kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<Map2<bool, A>, sizeof...(op)>{apply<CompareOp(op), A>...};
}
constexpr auto kCodes = std::make_integer_sequence<unsigned, unsigned(CompareOp::count)>{};
template <class A> constexpr auto kernels = kernels_of<A>(kCodes);

template <class A>
void run(const Tensor& out, const Tensor& x, const Tensor& y, CompareOp op, const Reader<A>& rx, const Reader<A>& ry) {
  map_blocks<bool, A>(out, x, y, kernels<A>[unsigned(op)], {}, writer_of<bool>(out, "compare"), rx, ry);
}

// Integers as double, so that x > 0.5 means what it says.
Reader<double> wide_reader(const Tensor& x) {
  switch (x.dtype) {
    case DG_I32: return reader_as<double, int32_t>(x);
    case DG_I64: return reader_as<double, int64_t>(x);
    case DG_U8: return reader_as<double, uint8_t>(x);
    case DG_BOOL: return reader_as<double, bool>(x);
    default: return reader_of<double>(x, "compare");
  }
}

template <class T>
void select(const Tensor& out, const Tensor& condition, const Tensor& x, const Tensor& y) {
  const Loop<4> loop({&out, &condition, &x, &y});
  const int last = loop.rank - 1;
  const int64_t so = loop.strides[0][last], sc = loop.strides[1][last], sx = loop.strides[2][last], sy = loop.strides[3][last];
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      T* o = out.data<T>() + offset[0];
      const bool* c = condition.data<bool>() + offset[1];
      const T *a = x.data<T>() + offset[2], *b = y.data<T>() + offset[3];
      if (so == 1 && sc == 1 && sx <= 1 && sy <= 1) {
        const T a0 = *a, b0 = *b;
        auto pass = [&](auto first, auto second) {
#pragma omp simd
          for (int64_t i = 0; i < count; i++) {
            const T p = decltype(first)::value ? a[i] : a0, q = decltype(second)::value ? b[i] : b0;
            o[i] = c[i] ? p : q;
          }
        };
        if (sx && sy) pass(std::true_type{}, std::true_type{});
        else if (sx) pass(std::true_type{}, std::false_type{});
        else if (sy) pass(std::false_type{}, std::true_type{});
        else pass(std::false_type{}, std::false_type{});
        return;
      }
      for (int64_t i = 0; i < count; i++) o[i * so] = c[i * sc] ? a[i * sx] : b[i * sy];
    });
  });
}

}  // namespace

void compare(const Tensor& out, const Tensor& x, const Tensor& y, CompareOp op) {
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    run<A>(out, x, y, op, reader_of<A>(x, "compare"), reader_of<A>(y, "compare"));
  });
}

void compare_scalar(const Tensor& out, const Tensor& x, double number, CompareOp op) {
  if (x.dtype != DG_F64 && is_float_dtype(x.dtype)) {
    float narrow = float(number);
    const Tensor constant = constant_like<float>(x, &narrow);
    return run<float>(out, x, constant, op, reader_of<float>(x, "compare"), reader_of<float>(constant, "compare"));
  }
  const Tensor constant = constant_like<double>(x, &number);
  run<double>(out, x, constant, op, wide_reader(x), reader_of<double>(constant, "compare"));
}

void where(const Tensor& out, const Tensor& condition, const Tensor& x, const Tensor& y) {
  switch (dtype_size(out.dtype)) {
    case 1: return select<uint8_t>(out, condition, x, y);
    case 2: return select<uint16_t>(out, condition, x, y);
    case 4: return select<uint32_t>(out, condition, x, y);
    default: return select<uint64_t>(out, condition, x, y);
  }
}

}  // namespace dg
