// Binary functions and comparisons: out[i] = op(x[i], y[i]), operands expanded to one shape. Formulas in common/binary.h.
// In place (out = x) is allowed.
#include "../common/binary.h"

#include <array>
#include <atomic>
#include <utility>

#include "elementwise.h"

namespace dg {
namespace {

constexpr bool divides(BinaryOp op) {
  return op == BinaryOp::div || op == BinaryOp::fmod || op == BinaryOp::remainder || op == BinaryOp::floor_divide;
}
constexpr bool bitwise(BinaryOp op) { return op >= BinaryOp::bitwise_and; }
constexpr bool floats_only(BinaryOp op) { return op == BinaryOp::atan2; }

// Dispatches x.dtype over what `op` takes; bool counts as a number for the bitwise ops and for minimum and maximum.
template <BinaryOp op, class F>
void dispatch_operands(uint32_t dtype, F&& go) {
  const char* const name = "binary";
  if constexpr (bitwise(op)) {
    switch (dtype) {
      case DG_I32: return go(tag<int32_t>{});
      case DG_I64: return go(tag<int64_t>{});
      case DG_U8: return go(tag<uint8_t>{});
      case DG_BOOL:
        if constexpr (op < BinaryOp::left_shift) return go(tag<bool>{});
        [[fallthrough]];
      default: fail(DG_DTYPE, "bitwise operation: takes an integer or bool dtype, got %s", dtype_name(dtype));
    }
  } else if constexpr (floats_only(op)) {
    dispatch_floats(dtype, name, go);
  } else if constexpr (op == BinaryOp::maximum || op == BinaryOp::minimum || op == BinaryOp::add || op == BinaryOp::mul) {
    dispatch_all(dtype, name, go);
  } else {
    dispatch_numbers(dtype, name, go);
  }
}

template <class T>
void refuse_zero(const Tensor& y) {
  std::atomic<bool> found{false};
  const Loop<1> loop({&y});
  const int64_t stride = loop.strides[0][loop.rank - 1];
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    bool zero = false;
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      const T* p = y.data<T>() + offset[0];
      for (int64_t i = 0; i < count; i++) zero |= p[i * stride] == T(0);
    });
    if (zero) found.store(true, std::memory_order_relaxed);
  });
  if (found) fail(DG_RANGE, "integer division by zero");
}

template <BinaryOp op>
void run(const Tensor& out, const Tensor& x, const Tensor& y, double alpha) {
  dispatch_operands<op>(x.dtype, [&](auto in) {
    using T = typename decltype(in)::type;
    using C = compute_t<T>;
    if constexpr (std::is_integral_v<T> && divides(op)) refuse_zero<T>(y);
    if constexpr (op == BinaryOp::add || op == BinaryOp::sub) {
      if (alpha != 1) {
        const C scale = static_cast<C>(alpha);
        return map2<T, T>(out, x, y, [scale](T a, T b) { return T(binary_value<op, C>(C(a), C(scale * C(b)))); });
      }
    }
    map2<T, T>(out, x, y, [](T a, T b) { return T(binary_value<op, C>(a, b)); });
  });
}

template <BinaryOp op>
void run_scalar(const Tensor& out, const Tensor& x, double scalar, bool reversed) {
  dispatch_operands<op>(x.dtype, [&](auto in) {
    using T = typename decltype(in)::type;
    using C = compute_t<T>;
    const C s = convert<C>(scalar);
    if (reversed) {
      if constexpr (std::is_integral_v<T> && divides(op)) refuse_zero<T>(x);
      return map1<T, T>(out, x, [s](T v) { return T(binary_value<op, C>(s, v)); });
    }
    if constexpr (std::is_integral_v<T> && divides(op))
      if (s == C(0)) fail(DG_RANGE, "integer division by zero");
    if constexpr (op == BinaryOp::pow && !std::is_integral_v<T>) {
      if (scalar == 2) return map1<T, T>(out, x, [](T v) { return T(C(v) * C(v)); });
      if (scalar == 3) return map1<T, T>(out, x, [](T v) { return T(C(v) * C(v) * C(v)); });
      if (scalar == 0.5) return map1<T, T>(out, x, [](T v) { return T(std::sqrt(C(v))); });
      if (scalar == -1) return map1<T, T>(out, x, [](T v) { return T(C(1) / C(v)); });
    }
    map1<T, T>(out, x, [s](T v) { return T(binary_value<op, C>(v, s)); });
  });
}

template <CompareOp op>
void run_compare(const Tensor& out, const Tensor& x, const Tensor& y) {
  dispatch_all(x.dtype, "compare", [&](auto in) {
    using T = typename decltype(in)::type;
    map2<bool, T>(out, x, y, [](T a, T b) { return compare_value<op, compute_t<T>>(a, b); });
  });
}

// Against a number, integers are compared in double, so that x > 0.5 means what it says.
template <CompareOp op>
void run_compare_scalar(const Tensor& out, const Tensor& x, double scalar) {
  dispatch_all(x.dtype, "compare", [&](auto in) {
    using T = typename decltype(in)::type;
    if constexpr (is_float<T>) {
      const auto s = static_cast<compute_t<T>>(scalar);
      map1<bool, T>(out, x, [s](T v) { return compare_value<op, compute_t<T>>(v, s); });
    } else {
      map1<bool, T>(out, x, [scalar](T v) { return compare_value<op, double>(static_cast<double>(v), scalar); });
    }
  });
}

struct BinaryKernel {
  void (*tensor)(const Tensor&, const Tensor&, const Tensor&, double);
  void (*scalar)(const Tensor&, const Tensor&, double, bool);
};
template <unsigned... op>
constexpr auto binary_kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<BinaryKernel, sizeof...(op)>{BinaryKernel{run<BinaryOp(op)>, run_scalar<BinaryOp(op)>}...};
}
constexpr auto binary_kernels = binary_kernels_of(std::make_integer_sequence<unsigned, unsigned(BinaryOp::count)>{});

struct CompareKernel {
  void (*tensor)(const Tensor&, const Tensor&, const Tensor&);
  void (*scalar)(const Tensor&, const Tensor&, double);
};
template <unsigned... op>
constexpr auto compare_kernels_of(std::integer_sequence<unsigned, op...>) {
  return std::array<CompareKernel, sizeof...(op)>{CompareKernel{run_compare<CompareOp(op)>, run_compare_scalar<CompareOp(op)>}...};
}
constexpr auto compare_kernels = compare_kernels_of(std::make_integer_sequence<unsigned, unsigned(CompareOp::count)>{});

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_binary(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t y_slot, uint32_t op, double alpha) {
  return guard([&] {
    if (op >= binary_kernels.size()) fail(DG_RANGE, "binary: op code %u does not exist", op);
    const Tensor out = tensor_at(t, out_slot, "binary", Access::write), x = tensor_at(t, x_slot, "binary"), y = tensor_at(t, y_slot, "binary");
    require_same_sizes(out, x, "binary");
    require_same_sizes(out, y, "binary");
    require_dtype(out, x.dtype, "binary", "the output");
    require_dtype(y, x.dtype, "binary", "the second operand");
    binary_kernels[op].tensor(out, x, y, alpha);
  });
}

int32_t dg_binary_scalar(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double scalar, uint32_t op, uint32_t reversed) {
  return guard([&] {
    if (op >= binary_kernels.size()) fail(DG_RANGE, "binary: op code %u does not exist", op);
    const Tensor out = tensor_at(t, out_slot, "binary", Access::write), x = tensor_at(t, x_slot, "binary");
    require_same_sizes(out, x, "binary");
    require_dtype(out, x.dtype, "binary", "the output");
    binary_kernels[op].scalar(out, x, scalar, reversed != 0);
  });
}

int32_t dg_compare(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t y_slot, uint32_t op) {
  return guard([&] {
    if (op >= compare_kernels.size()) fail(DG_RANGE, "compare: op code %u does not exist", op);
    const Tensor out = tensor_at(t, out_slot, "compare", Access::write), x = tensor_at(t, x_slot, "compare"), y = tensor_at(t, y_slot, "compare");
    require_same_sizes(out, x, "compare");
    require_same_sizes(out, y, "compare");
    require_dtype(out, DG_BOOL, "compare", "the output");
    require_dtype(y, x.dtype, "compare", "the second operand");
    compare_kernels[op].tensor(out, x, y);
  });
}

int32_t dg_compare_scalar(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double scalar, uint32_t op) {
  return guard([&] {
    if (op >= compare_kernels.size()) fail(DG_RANGE, "compare: op code %u does not exist", op);
    const Tensor out = tensor_at(t, out_slot, "compare", Access::write), x = tensor_at(t, x_slot, "compare");
    require_same_sizes(out, x, "compare");
    require_dtype(out, DG_BOOL, "compare", "the output");
    compare_kernels[op].scalar(out, x, scalar);
  });
}

int32_t dg_where(const dg_tensor* t, uint32_t out_slot, uint32_t condition_slot, uint32_t x_slot, uint32_t y_slot) {
  return guard([&] {
    const char* const name = "where";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), condition = tensor_at(t, condition_slot, name), x = tensor_at(t, x_slot, name),
                 y = tensor_at(t, y_slot, name);
    require_dtype(condition, DG_BOOL, name, "the condition");
    require_dtype(x, out.dtype, name, "the first choice");
    require_dtype(y, out.dtype, name, "the second choice");
    require_same_sizes(out, condition, name);
    require_same_sizes(out, x, name);
    require_same_sizes(out, y, name);
    const Loop<4> loop({&out, &condition, &x, &y});
    auto go = [&](auto kind) {
      using T = typename decltype(kind)::type;
      const int64_t* const s[4] = {loop.strides[0], loop.strides[1], loop.strides[2], loop.strides[3]};
      const int last = loop.rank - 1;
      parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
        loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
          T* o = out.data<T>() + offset[0];
          const bool* c = condition.data<bool>() + offset[1];
          const T *a = x.data<T>() + offset[2], *b = y.data<T>() + offset[3];
          for (int64_t i = 0; i < count; i++) o[i * s[0][last]] = c[i * s[1][last]] ? a[i * s[2][last]] : b[i * s[3][last]];
        });
      });
    };
    switch (dtype_size(out.dtype)) {
      case 1: return go(tag<uint8_t>{});
      case 2: return go(tag<uint16_t>{});
      case 4: return go(tag<uint32_t>{});
      default: return go(tag<uint64_t>{});
    }
  });
}
