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
}  // namespace dg

using namespace dg;

int32_t dg_compare(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t y_slot, uint32_t op) {
  return guard([&] {
    const char* const name = "compare";
    if (op >= uint32_t(CompareOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name), y = tensor_at(t, y_slot, name);
    require_same_sizes(out, x, name);
    require_same_sizes(out, y, name);
    require_dtype(out, DG_BOOL, name, "the output");
    require_dtype(y, x.dtype, name, "the second operand");
    dispatch_all(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      map<bool, T, T>(name, Compare<T>{CompareOp(op)}, out, x, y);
    });
  });
}

int32_t dg_compare_scalar(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double scalar, uint32_t op) {
  return guard([&] {
    const char* const name = "compare";
    if (op >= uint32_t(CompareOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, DG_BOOL, name, "the output");
    dispatch_all(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      map<bool, T>("compare_scalar", CompareNumber<T>{CompareOp(op), typename CompareNumber<T>::C(scalar)}, out, x);
    });
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
    const auto run = [&](auto kind) {
      using T = typename decltype(kind)::type;
      map<T, bool, T, T>(name, Choose<T>{}, out, condition, x, y);
    };
    switch (dtype_size(out.dtype)) {
      case 1: return run(tag<uint8_t>{});
      case 2: return run(tag<uint16_t>{});
      case 4: return run(tag<uint32_t>{});
      default: return run(tag<uint64_t>{});
    }
  });
}
