// Matrix times vector, for a matrix with one axis contiguous in memory: bound by reading the matrix once.
#pragma once
#include "gemm_tile.h"
#include "parallel.h"

namespace dg {

// y[i] = init[i] + sum over p of matrix[i * row + p * step] * x[p]; row == 1 or step == 1; x contiguous; init may be null.
template <class C>
struct Gemv {
  int64_t rows, k;
  const C* matrix;
  int64_t row, step;
  const C* x;
  const C* init;
  int64_t init_step;
  C* y;
  int64_t y_step;

  void run() const {
    if (step == 1) {
      parallel_for(rows, std::max<int64_t>(1, 131072 / std::max<int64_t>(k, 1)), [&](int64_t begin, int64_t end) {
        int64_t i = begin;
        for (; i + 4 <= end; i += 4) dots<4>(i);
        for (; i < end; i++) dots<1>(i);
      });
    } else {
      parallel_for(rows, k >= 512 ? kSlice : kSlice * 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i += kSlice) columns(i, std::min(end - i, kSlice));
      });
    }
  }

 private:
  static constexpr int64_t kSlice = 256;

  void put(int64_t i, C sum) const { y[i * y_step] = init ? init[i * init_step] + sum : sum; }

  // Dot products of R rows, in blocks of kDepth terms, each in two vectors of partial sums.
  template <int R>
  void dots(int64_t i) const {
    constexpr int lanes = Vector<C>::lanes;
    C total[R] = {};
    for (int64_t from = 0; from < k; from += 16 * kDepth) {
      const int64_t until = std::min(k, from + 16 * kDepth);
      typename Vector<C>::type sums[R][2] = {};
      int64_t p = from;
      for (; p + 2 * lanes <= until; p += 2 * lanes) {
        const auto x0 = load(x + p), x1 = load(x + p + lanes);
        for (int r = 0; r < R; r++) {
          const C* m = matrix + (i + r) * row + p;
          sums[r][0] += load(m) * x0;
          sums[r][1] += load(m + lanes) * x1;
        }
      }
      for (int r = 0; r < R; r++) {
        auto both = sums[r][0] + sums[r][1];
        C sum = 0;
        for (int l = 0; l < lanes; l++) sum += both[l];
        for (int64_t q = p; q < until; q++) sum += matrix[(i + r) * row + q] * x[q];
        total[r] += sum;
      }
    }
    for (int r = 0; r < R; r++) put(i + r, total[r]);
  }

  // Sums of `count` neighbouring rows, one contiguous piece of the matrix after the other.
  void columns(int64_t i, int64_t count) const {
    C total[kSlice] = {};
    for (int64_t from = 0; from < k; from += kDepth) {
      C sums[kSlice] = {};
      const int64_t until = std::min(k, from + kDepth);
      int64_t p = from;
      for (; p + 4 <= until; p += 4) {
        const C *m0 = matrix + i + p * step, *m1 = m0 + step, *m2 = m1 + step, *m3 = m2 + step;
        const C x0 = x[p], x1 = x[p + 1], x2 = x[p + 2], x3 = x[p + 3];
        for (int64_t j = 0; j < count; j++) sums[j] += (m0[j] * x0 + m1[j] * x1) + (m2[j] * x2 + m3[j] * x3);
      }
      for (; p < until; p++)
        for (int64_t j = 0; j < count; j++) sums[j] += matrix[i + p * step + j] * x[p];
      for (int64_t j = 0; j < count; j++) total[j] += sums[j];
    }
    for (int64_t j = 0; j < count; j++) put(i + j, total[j]);
  }
};

}  // namespace dg
