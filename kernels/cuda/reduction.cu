// Sums, products, extrema, norms, tests and variances over any set of axes.
#include "../common/reduction.h"

#include <limits>

#include "reduction.h"
#include "select.h"

namespace dg {
namespace {

template <class A>
__device__ A plus(A a, A b) {
  if constexpr (std::is_integral_v<A>) return A(uint64_t(a) + uint64_t(b));  // wraps
  else return a + b;
}

enum class Kind { sum, squares, magnitudes, numbers };

// Sums of elements, of their squares or magnitudes, or of those that are numbers.
template <class T, Kind kind>
struct Sum {
  using A = wide_t<T>;
  using Part = A;
  Store<A> store;
  A divisor = 1;  // of the whole sum

  __device__ Part start() const { return A(0); }
  __device__ void add(Part& part, T element, int64_t) const {
    A x = A(element);
    if constexpr (kind == Kind::squares) x *= x;
    if constexpr (kind == Kind::magnitudes) x = x < A(0) ? -x : x;
    if constexpr (kind == Kind::numbers) x = x == x ? x : A(0);
    part = plus(part, x);
  }
  __device__ Part join(Part a, Part b) const { return plus(a, b); }
  __device__ void finish(Part part, int64_t at) const {
    if constexpr (kind == Kind::sum && !std::is_integral_v<A>) part /= divisor;
    if constexpr (kind == Kind::squares) part = A(std::sqrt(part));
    store(at, part);
  }
};

template <class T>
struct Product {
  using A = wide_t<T>;
  using Part = A;
  Store<A> store;

  __device__ Part start() const { return A(1); }
  __device__ void add(Part& part, T element, int64_t) const { part = join(part, A(element)); }
  __device__ Part join(Part a, Part b) const {
    if constexpr (std::is_integral_v<A>) return A(uint64_t(a) * uint64_t(b));
    else return a * b;
  }
  __device__ void finish(Part part, int64_t at) const { store(at, part); }
};

// NaN counts as the extremum.
template <class T, bool smallest>
struct Extreme {
  using A = wide_t<T>;
  using Part = A;
  Store<A> store;

  __device__ Part start() const {
    using L = std::numeric_limits<A>;
    if constexpr (std::is_integral_v<A>) return smallest ? L::max() : L::min();
    else return smallest ? L::infinity() : -L::infinity();
  }
  __device__ void add(Part& part, T element, int64_t) const { part = join(part, A(element)); }
  __device__ Part join(Part a, Part b) const { return (smallest ? a < b : a > b) || a != a ? a : b; }
  __device__ void finish(Part part, int64_t at) const { store(at, part); }
};

// Counts the elements that are zero, or those that are not.
template <class T>
struct Count {
  using Part = int64_t;
  Store<int64_t> store;
  bool zeros;  // the result is whether there are none

  __device__ Part start() const { return 0; }
  __device__ void add(Part& part, T element, int64_t) const { part += (compute_t<T>(element) != compute_t<T>(0)) != zeros; }
  __device__ Part join(Part a, Part b) const { return a + b; }
  __device__ void finish(Part part, int64_t at) const { store(at, zeros ? part == 0 : part); }
};

// Mean and squared deviations of the elements so far (Welford, Chan), the mean as a distance from the first of them, which keeps digits that a mean far
// from 0 has no room for; their plain sum gives the mean where an element is infinite.
template <class A>
struct Moments {
  A count, first, mean, deviations, sum;
};

template <class T>
struct Variance {
  using A = compute_t<T>;
  using Part = Moments<A>;
  Store<A> var, mean;
  bool with_mean, root;
  A count, divisor;

  __device__ Part start() const { return {A(0), A(0), A(0), A(0), A(0)}; }
  __device__ void add(Part& p, T element, int64_t) const {
    const A x = A(element);
    if (p.count == A(0)) p.first = x;
    const A off = x - p.first, d = off - p.mean;
    p.count += A(1);
    p.mean += d / p.count;
    p.deviations += d * (off - p.mean);
    p.sum += x;
  }
  __device__ Part join(const Part& a, const Part& b) const {
    if (b.count == A(0)) return a;
    if (a.count == A(0)) return b;
    const A n = a.count + b.count, d = (b.first - a.first) + (b.mean - a.mean), fraction = b.count / n;
    return {n, a.first, a.mean + d * fraction, a.deviations + b.deviations + d * d * a.count * fraction, a.sum + b.sum};
  }
  __device__ void finish(const Part& p, int64_t at) const {
    const A value = p.deviations / divisor;
    var(at, root ? A(std::sqrt(value)) : value);
    if (with_mean) mean(at, p.sum / count);
  }
};

}  // namespace

void reduce(const Tensor& out, const Tensor& x, const Plan& plan, ReduceOp op) {
  const char* const name = "reduce";
  dispatch_all(x.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using A = wide_t<T>;
    if (tells_truths(op)) return reduce<true, T>(name, Count<T>{Store<int64_t>(out), op == ReduceOp::all}, x, plan);
    const Store<A> store(out);
    switch (op) {
      case ReduceOp::sum: return reduce<true, T>(name, Sum<T, Kind::sum>{store}, x, plan);
      case ReduceOp::prod: return reduce<false, T>(name, Product<T>{store}, x, plan);
      case ReduceOp::amax: return reduce<true, T>(name, Extreme<T, false>{store}, x, plan);
      case ReduceOp::amin: return reduce<true, T>(name, Extreme<T, true>{store}, x, plan);
      default: break;
    }
    if constexpr (!std::is_integral_v<T>) {
      switch (op) {
        case ReduceOp::mean: return reduce<true, T>(name, Sum<T, Kind::sum>{store, A(plan.count)}, x, plan);
        case ReduceOp::norm1: return reduce<false, T>(name, Sum<T, Kind::magnitudes>{store}, x, plan);
        case ReduceOp::norm2: return reduce<true, T>(name, Sum<T, Kind::squares>{store}, x, plan);
        default: return reduce<false, T>(name, Sum<T, Kind::numbers>{store}, x, plan);
      }
    }
  });
}

void variance(const Tensor& var, const Tensor* mean, const Tensor& x, const Plan& plan, double divisor, bool root) {
  dispatch_floats(x.dtype, "var", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using A = compute_t<T>;
    const Variance<T> op{Store<A>(var), Store<A>(mean ? *mean : var), mean != nullptr, root, A(plan.count), A(divisor)};
    reduce<false, T>("var", op, x, plan);
  });
}

}  // namespace dg
