// Ordering elements along an axis: numbers as unsigned keys in the same order.
#pragma once
#include "plan.h"

namespace dg {

// The order of floats as unsigned numbers: -0 equals 0, all NaN are equal and largest.
DG_HD uint32_t key_of(float x) {
  uint32_t bits;
  x += 0.0f;
  memcpy(&bits, &x, 4);
  return x != x ? 0xffffffffu : (bits >> 31 ? ~bits : bits | 0x80000000u);
}
DG_HD uint64_t key_of(double x) {
  uint64_t bits;
  x += 0.0;
  memcpy(&bits, &x, 8);
  return x != x ? ~uint64_t(0) : (bits >> 63 ? ~bits : bits | uint64_t(1) << 63);
}
DG_HD uint64_t key_of(int64_t x) { return uint64_t(x) ^ uint64_t(1) << 63; }

// Keys of 32 bits come with positions of 32.
inline bool narrow_keys(uint32_t dtype) { return is_float_dtype(dtype) && dtype != DG_F64; }

// Provided by each library (sort.cpp, sort.cu); checked by entry/sort.cpp. The rows that are ordered are the outputs of `rows`; `values` is
// null where only positions are wanted. kth: the element at `position` of the ascending order, or the first NaN with `median`.
void sort(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& rows, int axis, bool descending);
void kth(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& rows, int axis, int64_t position, bool median);

}  // namespace dg
