// Comparisons and selection: out[i] = x[i] op y[i] as bool, out[i] = condition[i] ? x[i] : y[i]. Formulas in common/binary.h.
#include "../common/binary.h"
#include "map.h"
#include "select.h"

namespace dg {
namespace {

template <class T>
struct Compare {
  using C = wide_t<T>;
  CompareOp op;
  template <class Go>
  __device__ void with(Go&& go) const {
    select<CompareOp, CompareOp::count>(op, [&](auto code) { go([](T x, T y) { return compare_value<decltype(code)::value, C>(C(x), C(y)); }); });
  }
};

// With a number: integers as double, so that x > 0.5 means what it says.
template <class T>
struct CompareNumber {
  using C = std::conditional_t<std::is_integral_v<T>, double, compute_t<T>>;
  CompareOp op;
  C number;
  template <class Go>
  __device__ void with(Go&& go) const {
    select<CompareOp, CompareOp::count>(op, [&](auto code) { go([y = number](T x) { return compare_value<decltype(code)::value, C>(C(x), y); }); });
  }
};

template <class T>
struct Choose {
  __device__ T operator()(bool condition, T x, T y) const { return condition ? x : y; }
};

}  // namespace

void compare(const Tensor& out, const Tensor& x, const Tensor& y, CompareOp op) {
  dispatch_all(x.dtype, "compare", [&](auto kind) {
    using T = typename decltype(kind)::type;
    map<bool, T, T>("compare", Compare<T>{op}, out, x, y);
  });
}

void compare_scalar(const Tensor& out, const Tensor& x, double number, CompareOp op) {
  dispatch_all(x.dtype, "compare_scalar", [&](auto kind) {
    using T = typename decltype(kind)::type;
    map<bool, T>("compare_scalar", CompareNumber<T>{op, typename CompareNumber<T>::C(number)}, out, x);
  });
}

void where(const Tensor& out, const Tensor& condition, const Tensor& x, const Tensor& y) {
  const auto run = [&](auto kind) {
    using T = typename decltype(kind)::type;
    map<T, bool, T, T>("where", Choose<T>{}, out, condition, x, y);
  };
  switch (dtype_size(out.dtype)) {
    case 1: return run(tag<uint8_t>{});
    case 2: return run(tag<uint16_t>{});
    case 4: return run(tag<uint32_t>{});
    default: return run(tag<uint64_t>{});
  }
}

}  // namespace dg
