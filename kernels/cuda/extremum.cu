// The first largest or smallest element along one axis and its position. NaN counts as the extremum, as in PyTorch.
#include "../common/extremum.h"

#include "reduction.h"
#include "select.h"

namespace dg {
namespace {

template <class T>
struct Extremum {
  using A = wide_t<T>;
  using Part = Found<A>;  // index -1: nothing yet
  T* values;  // null: not wanted
  int64_t* indices;
  bool smallest;

  __device__ Part start() const { return {A(0), -1}; }
  __device__ void add(Part& part, T element, int64_t index) const {  // positions of a thread rise
    if (part.index < 0 || better(smallest, A(element), part.value)) part = {A(element), index};
  }
  __device__ Part join(const Part& a, const Part& b) const {
    if (a.index < 0 || b.index < 0) return a.index < 0 ? b : a;
    if (better(smallest, a.value, b.value)) return a;
    if (better(smallest, b.value, a.value)) return b;
    return a.index < b.index ? a : b;
  }
  __device__ void finish(const Part& part, int64_t at) const {
    if (values) values[at] = T(part.value);
    indices[at] = part.index;
  }
};

}  // namespace

void extremum(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& plan, int, bool smallest) {
  dispatch_all(x.dtype, "extremum", [&](auto kind) {
    using T = typename decltype(kind)::type;
    reduce<false, T>("extremum", Extremum<T>{values ? values->data<T>() : nullptr, indices.data<int64_t>(), smallest}, x, plan);
  });
}

}  // namespace dg
