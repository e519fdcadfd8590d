// See resample.h. For each output row, rows of x are combined first (long adjacent runs), then positions along the row; where the row of x is much
// longer than what the output reads of it, the taps are taken one by one instead.
#include "resample.h"

#include "allocator.h"
#include "parallel.h"

namespace dg {
namespace {

// Geometry that both kernels share; channels side by side where they are adjacent in both tensors.
struct Planes {
  int64_t n, outer, inner, rows0, rows1, columns, in_columns;
  int64_t xn, xc, x[3] = {0, 0, 0}, yn, yc, y[3] = {0, 0, 0};
  Planes(const Tensor& ty, const Tensor& tx, const Taps (&taps)[3])
      : n(ty.sizes[0]), outer(ty.sizes[1]), inner(1), rows0(taps[0].outputs()), rows1(taps[1].outputs()), columns(taps[2].outputs()),
        in_columns(tx.sizes[tx.rank - 1]), xn(tx.strides[0]), xc(tx.strides[1]), yn(ty.strides[0]), yc(ty.strides[1]) {
    for (int a = 2; a < tx.rank; a++) x[a + 3 - tx.rank] = tx.strides[a], y[a + 3 - tx.rank] = ty.strides[a];
    if (xc == 1 && yc == 1) std::swap(inner, outer);
  }
  // Calls row(source offset, target offset, row0, row1) for every output row, in parallel.
  template <class Row>
  void each(int64_t work, Row&& row) const {
    parallel_for(n * outer * rows0 * rows1, kGrain / std::max<int64_t>(work, 1), [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) {
        const int64_t r1 = job % rows1, r0 = job / rows1 % rows0, plane = job / (rows1 * rows0), b = plane / outer, c = plane % outer;
        row(b * xn + c * xc, b * yn + c * yc + r0 * y[0] + r1 * y[1], r0, r1);
      }
    });
  }
};

constexpr int64_t kBlock = 64;

template <class T>
void weighted(const Tensor& ty, const Tensor& tx, const Taps (&taps)[3]) {
  using C = compute_t<T>;
  const Planes p(ty, tx, taps);
  const T* const x = tx.data<T>();
  T* const y = ty.data<T>();
  std::vector<C> factor(taps[2].weight.begin(), taps[2].weight.end());
  const C* const w = factor.data();
  const int64_t *const begin = taps[2].begin.data(), inner = p.inner, length = p.in_columns * inner;
  const int32_t* const index = taps[2].index.data();
  const double per_row = double(taps[0].index.size()) / double(p.rows0) * double(taps[1].index.size()) / double(p.rows1);
  const double columns = double(taps[2].index.size());
  const bool rows_first = per_row * double(p.in_columns) + columns < per_row * columns;
  const bool adjacent = p.in_columns == 1 || p.x[2] == inner;
  const Scratch scratch(rows_first ? length * int64_t(sizeof(C)) * thread_count() : 1);
  const int64_t work = int64_t((rows_first ? per_row * double(p.in_columns) + columns : per_row * columns) * double(inner));

  // Sum over the taps of output column o of weight * at(tap), for `count` channels.
  const auto column = [&](int64_t o, int64_t count, T* out, auto&& accumulate) {
    for (int64_t c0 = 0; c0 < count; c0 += kBlock) {
      const int64_t size = std::min(kBlock, count - c0);
      C sum[kBlock];
      for (int64_t l = 0; l < size; l++) sum[l] = C(0);
      for (int64_t tap = begin[o]; tap < begin[o + 1]; tap++) accumulate(sum, c0, size, index[tap], w[tap]);
      for (int64_t l = 0; l < size; l++) out[c0 + l] = T(sum[l]);
    }
  };

  p.each(work, [&](int64_t source, int64_t target, int64_t r0, int64_t r1) {
    const int64_t d0 = taps[0].begin[r0], d1 = taps[0].begin[r0 + 1], h0 = taps[1].begin[r1], h1 = taps[1].begin[r1 + 1];
    const auto each_row = [&](auto&& body) {
      for (int64_t d = d0; d < d1; d++)
        for (int64_t h = h0; h < h1; h++)
          body(x + source + taps[0].index[d] * p.x[0] + taps[1].index[h] * p.x[1], C(taps[0].weight[d]) * C(taps[1].weight[h]));
    };
    if (!rows_first) {
      for (int64_t o = 0; o < p.columns; o++)
        column(o, inner, y + target + o * p.y[2], [&](C* sum, int64_t c0, int64_t size, int64_t at, C by) {
          each_row([&](const T* row, C f) {
            const T* const from = row + at * p.x[2] + c0;
            for (int64_t l = 0; l < size; l++) sum[l] += f * by * C(from[l]);
          });
        });
      return;
    }
    C* const line = scratch.as<C>() + length * thread_number();
    std::fill(line, line + length, C(0));
    each_row([&](const T* row, C f) {
      if (adjacent) {
        for (int64_t l = 0; l < length; l++) line[l] += f * C(row[l]);
      } else {
        for (int64_t i = 0; i < p.in_columns; i++)
          for (int64_t l = 0; l < inner; l++) line[i * inner + l] += f * C(row[i * p.x[2] + l]);
      }
    });
    for (int64_t o = 0; o < p.columns; o++) {
      T* const out = y + target + o * p.y[2];
      const int64_t tap = begin[o], count = begin[o + 1] - tap;
      if (count == 2) {
        const C *const a = line + index[tap] * inner, *const b = line + index[tap + 1] * inner, wa = w[tap], wb = w[tap + 1];
        for (int64_t l = 0; l < inner; l++) out[l] = T(wa * a[l] + wb * b[l]);
      } else {
        column(o, inner, out, [&](C* sum, int64_t c0, int64_t size, int64_t at, C by) {
          const C* const from = line + at * inner + c0;
          for (int64_t l = 0; l < size; l++) sum[l] += by * from[l];
        });
      }
    }
  });
}

template <class T>
void copied(const Tensor& ty, const Tensor& tx, const Taps (&taps)[3]) {
  const Planes p(ty, tx, taps);
  const T* const x = tx.data<T>();
  T* const y = ty.data<T>();
  const int32_t* const index = taps[2].index.data();
  p.each(p.columns * p.inner, [&](int64_t source, int64_t target, int64_t r0, int64_t r1) {
    const T* const row = x + source + taps[0].index[r0] * p.x[0] + taps[1].index[r1] * p.x[1];
    T* const out = y + target;
    if (p.inner == 1) {
      for (int64_t o = 0; o < p.columns; o++) out[o * p.y[2]] = row[index[o] * p.x[2]];
    } else {
      for (int64_t o = 0; o < p.columns; o++) std::copy_n(row + index[o] * p.x[2], p.inner, out + o * p.y[2]);
    }
  });
}

}  // namespace

Taps identity_taps() {
  Taps taps;
  taps.add(0, 1);
  taps.end();
  return taps;
}

Taps transposed(const Taps& taps, int64_t inputs) {
  Taps out;
  out.begin.assign(size_t(inputs) + 1, 0);
  for (const int32_t i : taps.index) out.begin[size_t(i) + 1]++;
  for (size_t i = 0; i < size_t(inputs); i++) out.begin[i + 1] += out.begin[i];
  out.index.resize(taps.index.size());
  out.weight.resize(taps.index.size());
  std::vector<int64_t> next(out.begin.begin(), out.begin.end() - 1);
  for (int64_t o = 0; o < taps.outputs(); o++)
    for (int64_t tap = taps.begin[o]; tap < taps.begin[o + 1]; tap++) {
      const int64_t at = next[taps.index[tap]]++;
      out.index[at] = int32_t(o);
      out.weight[at] = taps.weight[tap];
    }
  return out;
}

void resample(const char* op, const Tensor& y, const Tensor& x, const Taps (&taps)[3]) {
  dispatch_floats(x.dtype, op, [&](auto in) { weighted<typename decltype(in)::type>(y, x, taps); });
}

void resample_copy(const Tensor& y, const Tensor& x, const Taps (&taps)[3]) {
  switch (dtype_size(x.dtype)) {
    case 1: return copied<uint8_t>(y, x, taps);
    case 2: return copied<uint16_t>(y, x, taps);
    case 4: return copied<uint32_t>(y, x, taps);
    default: return copied<uint64_t>(y, x, taps);
  }
}

}  // namespace dg
