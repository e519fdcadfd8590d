// From an op code known at run time to code for one op, inside a kernel.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../common/dtype.h"

namespace dg {

// The type in which kernels compute: as compute_t, and int64_t for integers and bool (as on the CPU, so that results agree).
template <class T>
using wide_t = std::conditional_t<std::is_integral_v<T>, int64_t, compute_t<T>>;

// Calls f(integral_constant<Enum, code>) for the code in [0, end) that equals `op`: the compiler makes a jump table of it.
template <class Enum, Enum end, unsigned at = 0, class F>
DG_HD void select(Enum op, F&& f) {
  if constexpr (at < unsigned(end)) {
    if (op == Enum(at)) f(std::integral_constant<Enum, Enum(at)>{});
    else select<Enum, end, at + 1>(op, static_cast<F&&>(f));
  }
}

}  // namespace dg
