// The first largest or smallest element along one axis and its position. NaN counts as the extremum, as in PyTorch.
#include "reduction.h"
#include "select.h"

namespace dg {
namespace {

template <class A>
struct Found {
  A value;
  int64_t index;  // -1: nothing yet
};

template <class T>
struct Extremum {
  using A = wide_t<T>;
  using Part = Found<A>;
  T* values;  // null: not wanted
  int64_t* indices;
  bool smallest;

  __device__ bool better(A candidate, A best) const {
    return (smallest ? candidate < best : candidate > best) || (candidate != candidate && best == best);
  }
  __device__ Part start() const { return {A(0), -1}; }
  __device__ void add(Part& part, T element, int64_t index) const {  // positions of a thread rise
    if (part.index < 0 || better(A(element), part.value)) part = {A(element), index};
  }
  __device__ Part join(const Part& a, const Part& b) const {
    if (a.index < 0 || b.index < 0) return a.index < 0 ? b : a;
    if (better(a.value, b.value)) return a;
    if (better(b.value, a.value)) return b;
    return a.index < b.index ? a : b;
  }
  __device__ void finish(const Part& part, int64_t at) const {
    if (values) values[at] = T(part.value);
    indices[at] = part.index;
  }
};

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_extremum(const dg_tensor* t, uint32_t values_slot, uint32_t indices_slot, uint32_t x_slot, uint32_t axis, uint32_t smallest) {
  return guard([&] {
    const char* const name = "extremum";
    const Tensor indices = tensor_at(t, indices_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const bool wanted = present(values_slot);
    const Tensor values = wanted ? tensor_at(t, values_slot, name, Access::write) : indices;
    if (axis >= uint32_t(x.rank)) fail(DG_RANGE, "%s: axis %u does not exist in %s", name, axis, shape_text(x).c_str());
    require_dtype(indices, DG_I64, name, "the output of positions");
    if (wanted) require_dtype(values, x.dtype, name, "the output of values");
    require_same_sizes(values, indices, name);
    if (!same_strides(values, indices)) fail(DG_SHAPE, "%s: the strides of values and positions differ", name);
    const Plan plan(indices, x, 1u << axis, name);
    if (plan.outputs == 0) return;
    if (plan.count == 0) fail(DG_SHAPE, "%s: no largest or smallest of no elements", name);
    dispatch_all(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      reduce<false, T>(name, Extremum<T>{wanted ? values.data<T>() : nullptr, indices.data<int64_t>(), smallest != 0}, x, plan);
    });
  });
}
