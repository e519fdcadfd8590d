// What softmax and cross entropy share: the largest element of a row and the sum of the exponentials of the others relative to it, in one pass.
#pragma once
#include <limits>

#include "../common/math.h"
#include "groups.h"
#include "map.h"

namespace dg {

template <class C>
struct Exponentials {
  C top, sum;  // maximum of the numbers so far; sum of exp(x - top), NaN after a NaN

  __device__ static C lowest() { return -std::numeric_limits<C>::infinity(); }
  __device__ static Exponentials none() { return {lowest(), C(0)}; }

  template <class T, int N>
  __device__ void add(const Pack<T, N>& x) {
    C largest = top;
#pragma unroll
    for (int j = 0; j < N; j++) largest = C(x.at[j]) > largest ? C(x.at[j]) : largest;
    if (largest > top) {
      sum *= exp_(top - largest);
      top = largest;
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
      const C v = C(x.at[j]);
      sum += v > lowest() ? exp_(v - top) : (v == v ? C(0) : v);
    }
  }
  __device__ static Exponentials join(const Exponentials& a, const Exponentials& b) {
    const bool swapped = b.top > a.top;
    const Exponentials high = swapped ? b : a, low = swapped ? a : b;
    return {high.top, high.sum + (low.top > lowest() ? low.sum * exp_(low.top - high.top) : low.sum)};
  }
  // The sum of a whole row, NaN if its maximum is infinite.
  __device__ C total() const { return top - top == C(0) ? sum : std::numeric_limits<C>::quiet_NaN(); }
};

}  // namespace dg
