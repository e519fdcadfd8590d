// Mean and squared deviations in one pass (Welford), and how two such are joined (Chan).
#pragma once
#include "launch.h"

namespace dg {

// Moments{} are those of no values.
template <class C>
struct Moments {
  C mean, square, count;
  Moments() = default;
  __device__ Moments(C m, C s, C n) : mean(m), square(s), count(n) {}
  template <class D> __device__ explicit Moments(const Moments<D>& m) : mean(C(m.mean)), square(C(m.square)), count(C(m.count)) {}

  // Another value, with one_over = 1 / (count + 1).
  __device__ void add(C x, C one_over) {
    const C before = x - mean;
    mean += before * one_over;
    square += before * (x - mean);
    count += 1;
  }
};
template <class C>
__device__ Moments<C> merge(const Moments<C>& a, const Moments<C>& b) {
  const C count = a.count + b.count, share = count > 0 ? b.count / count : C(0), d = b.mean - a.mean;
  return {a.mean + d * share, a.square + b.square + d * d * a.count * share, count};
}

}  // namespace dg
