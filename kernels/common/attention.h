// Scaled dot-product attention: what its calls ask for, and the formulas of the running softmax that both libraries share.
#pragma once
#include <limits>

#include "math.h"
#include "tensor.h"

namespace dg {

// Matrices of an operand: item i counts through the leading axes of the query; `share` neighbours along the last of these have one matrix.
struct Stack {
  int64_t offset = 0, row = 0, column = 0, share = 1;
  int rank = 0;
  int64_t sizes[DG_MAX_RANK] = {}, strides[DG_MAX_RANK] = {};

  Stack() = default;
  // `matrix` axes at the end of t belong to a matrix: 2, or 1 (no columns).
  Stack(const Tensor& t, int matrix, int64_t heads) : offset(t.offset), rank(t.rank - matrix) {
    row = t.strides[rank];
    column = matrix == 2 ? t.strides[rank + 1] : 0;
    for (int i = 0; i < rank; i++) sizes[i] = t.sizes[i], strides[i] = t.strides[i];
    share = heads / sizes[rank - 1];
    sizes[rank - 1] = heads;
  }
  DG_HD int64_t at(int64_t item) const {
    int64_t from = offset;
    for (int i = rank - 1; i >= 0; i--) {
      const int64_t rest = item / sizes[i], digit = item - rest * sizes[i];
      from += (i == rank - 1 ? digit / share : digit) * strides[i];
      item = rest;
    }
    return from;
  }
};

// out [.., H, L, Ev] and log_sum [.., H, L] of q [.., H, L, E], k [.., G, S, E], v [.., G, S, Ev], where G divides H; mask [.., H, L, S] is bool
// (true: takes part) or added to the scores; causal: row i sees the keys up to i. No size is 0. log_sum is in the computing dtype.
struct Attention {
  Tensor out, log_sum, q, k, v, mask;
  bool masked, causal;
  double scale;
  int64_t items, heads, groups, rows, keys, depth, width;  // items: matrices of q; groups: G; sizes L, S, E, Ev

  // The matrix of q that is member `g` of those that use matrix `j` of k and v.
  DG_HD static int64_t query_of(int64_t j, int64_t g, int64_t heads, int64_t groups) {
    return j / groups * heads + j % groups * (heads / groups) + g;
  }
};

// log(sum of exp(scores)) of a row, -inf if all of them are -inf.
template <class C>
DG_HD C attention_log_sum(C top, C sum) {
  return sum == C(0) ? -std::numeric_limits<C>::infinity() : top + log_(sum);
}

// Factor of what was summed relative to the maximum `before`, now that it is `top`.
template <class C>
DG_HD C attention_rescale(C before, C top) {
  return before == top ? C(1) : exp_(before - top);
}

// What is subtracted from the scores of a row: nothing sees a row without keys, whose weights are 0.
template <class C>
DG_HD C attention_shift(C top) {
  return top == -std::numeric_limits<C>::infinity() ? C(0) : top;
}

// Provided by each library (attention.cpp, attention.cu); checked by entry/attention.cpp.
void attention(const Attention& a);
// Gradients of q, k and v from that of the output; absent ones are not made. Those of matrices that k and v share are added up.
void attention_backward(const Attention& a, const Tensor* dq, const Tensor* dk, const Tensor* dv, const Tensor& dout);

}  // namespace dg
