// Conversion of elements and the merged loop nest over tensors of equal sizes.
#pragma once
#include <algorithm>
#include <utility>

#include "tensor.h"

namespace dg {

// Conversion of an element, as PyTorch's casts.
template <class To, class From>
DG_HD To convert(From from) {
  if constexpr (std::is_same_v<To, From>) {
    return from;
  } else if constexpr (std::is_same_v<To, bool>) {
    return static_cast<compute_t<From>>(from) != 0;
  } else if constexpr (is_float<From> && std::is_integral_v<To>) {
    // Out of range values saturate at int64 first and NaN becomes 0, so that nothing is undefined.
    const double v = static_cast<double>(static_cast<compute_t<From>>(from));
    if (!(v == v)) return To(0);
    const int64_t i = v >= 9223372036854775807.0 ? INT64_MAX : (v <= -9223372036854775808.0 ? INT64_MIN : int64_t(v));
    return static_cast<To>(i);
  } else if constexpr (std::is_same_v<To, f16> || std::is_same_v<To, bf16>) {
    return To(static_cast<float>(from));
  } else {
    return static_cast<To>(from);
  }
}

// A loop nest over K tensors of the same sizes: unit axes dropped, axes ordered by the first tensor's strides, neighbours merged.
template <int K>
struct Loop {
  int rank = 0;
  int64_t numel = 0;
  int64_t sizes[DG_MAX_RANK] = {};           // outermost first
  int64_t strides[K][DG_MAX_RANK] = {};

  explicit Loop(const Tensor* const (&tensors)[K]) {
    const Tensor& first = *tensors[0];
    numel = first.numel;
    int order[DG_MAX_RANK], count = 0;
    for (int i = 0; i < first.rank; i++)
      if (first.sizes[i] != 1) order[count++] = i;
    // Stable insertion sort: larger strides outermost; a broadcast axis (stride 0) of the first tensor keeps its place.
    for (int i = 1; i < count; i++)
      for (int j = i; j > 0 && before(tensors, order[j], order[j - 1]); j--) std::swap(order[j], order[j - 1]);
    for (int i = 0; i < count; i++) {
      const int axis = order[i];
      if (rank > 0 && mergeable(tensors, axis)) {
        sizes[rank - 1] *= first.sizes[axis];
        for (int k = 0; k < K; k++) strides[k][rank - 1] = tensors[k]->strides[axis];
      } else {
        sizes[rank] = first.sizes[axis];
        for (int k = 0; k < K; k++) strides[k][rank] = tensors[k]->strides[axis];
        rank++;
      }
    }
    if (rank == 0) {
      rank = 1;
      sizes[0] = numel;
    }
  }

  int64_t inner() const { return sizes[rank - 1]; }
  bool unit(int k) const { return strides[k][rank - 1] == 1; }
  bool all_unit() const {
    for (int k = 0; k < K; k++)
      if (!unit(k)) return false;
    return true;
  }

  // Calls row(offsets, count) for pieces of rows covering the elements [begin, end) of the nest.
  template <class Row>
  void rows(int64_t begin, int64_t end, Row&& row) const {
    if (begin >= end) return;  // an empty nest has sizes of 0
    int64_t index[DG_MAX_RANK], rest = begin, offsets[K] = {};
    for (int i = rank - 1; i >= 0; i--) {
      index[i] = rest % sizes[i];
      rest /= sizes[i];
      for (int k = 0; k < K; k++) offsets[k] += index[i] * strides[k][i];
    }
    const int last = rank - 1;
    for (int64_t at = begin; at < end;) {
      const int64_t count = std::min(end - at, sizes[last] - index[last]);
      row(static_cast<const int64_t*>(offsets), count);
      at += count;
      index[last] += count;
      for (int k = 0; k < K; k++) offsets[k] += count * strides[k][last];
      for (int i = last; i > 0 && index[i] == sizes[i]; i--) {
        index[i] = 0;
        index[i - 1]++;
        for (int k = 0; k < K; k++) offsets[k] += strides[k][i - 1] - sizes[i] * strides[k][i];
      }
    }
  }

 private:
  static bool before(const Tensor* const (&tensors)[K], int a, int b) {
    for (int k = 0; k < K; k++) {
      const int64_t sa = tensors[k]->strides[a], sb = tensors[k]->strides[b];
      if (sa == 0 || sb == 0) continue;
      if (sa != sb) return sa > sb;
    }
    return false;
  }
  bool mergeable(const Tensor* const (&tensors)[K], int axis) const {
    for (int k = 0; k < K; k++)
      if (strides[k][rank - 1] != tensors[k]->strides[axis] * tensors[k]->sizes[axis]) return false;
    return true;
  }
};

}  // namespace dg
