// The register tile of a matrix product and the copies that bring operands into its layout.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "../common/dtype.h"

namespace dg {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kTileRows = 14;  // 28 sums and 2 vectors of b in 32 registers
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32, kTileRows = 6;
#else
inline constexpr int kVectorBytes = 16, kTileRows = 6;
#endif
inline constexpr int64_t kDepth = 512;  // terms of a block sum

template <class C> struct Vector {
  typedef C type __attribute__((vector_size(kVectorBytes)));
  typedef C loose __attribute__((vector_size(kVectorBytes), aligned(alignof(C)), may_alias));  // anywhere in memory
  static constexpr int lanes = kVectorBytes / int(sizeof(C));
};
template <class C> inline typename Vector<C>::type load(const C* p) { return *reinterpret_cast<const typename Vector<C>::loose*>(p); }
template <class C> inline void store(C* p, typename Vector<C>::type v) { *reinterpret_cast<typename Vector<C>::loose*>(p) = v; }

enum class Init { none, row, constant };  // nothing, a vector per row, one number per row

// c[i,j] = init[i,j] + sum over p < k of a[i * lda + p] * b[p * ldb + j] for i < R and j < V vectors; a[p * lda + i] if ByColumns.
template <class C, int R, int V, bool ByColumns = false>
void tile(int64_t k, const C* a, int64_t lda, const C* b, int64_t ldb, C* c, int64_t ldc, const C* init, int64_t init_row, Init mode) {
  using vec = typename Vector<C>::type;
  constexpr int lanes = Vector<C>::lanes;
  vec sums[R][V] = {};
  if (k >= 128) {  // c comes into the cache meanwhile
#pragma GCC unroll 14
    for (int i = 0; i < R; i++)
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) __builtin_prefetch(c + i * ldc + v * lanes, 1);
  }
  for (int64_t p = 0; p < k; p++) {
    vec row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) row[v] = load(b + v * lanes);
#pragma GCC unroll 14
    for (int i = 0; i < R; i++) {
      const C factor = a[ByColumns ? i : i * lda];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) sums[i][v] += factor * row[v];
    }
    a += ByColumns ? lda : 1;
    b += ldb;
  }
#pragma GCC unroll 14
  for (int i = 0; i < R; i++) {
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      vec value = sums[i][v];
      if (mode == Init::row) value += load(init + i * init_row + v * lanes);
      else if (mode == Init::constant) value += init[i * init_row];
      store(c + i * ldc + v * lanes, value);
    }
  }
}

template <class C> using Tile = void (*)(int64_t, const C*, int64_t, const C*, int64_t, C*, int64_t, const C*, int64_t, Init);

template <class C, int V, bool ByColumns, int... R>
constexpr auto tiles_of(std::integer_sequence<int, R...>) {
  return std::array<Tile<C>, sizeof...(R)>{tile<C, R + 1, V, ByColumns>...};
}

// The tile of `rows` (1 to kTileRows) and `vectors` (1 or 2).
template <class C, bool ByColumns = false>
Tile<C> tile_for(int64_t rows, int vectors) {
  static constexpr auto one = tiles_of<C, 1, ByColumns>(std::make_integer_sequence<int, kTileRows>{});
  static constexpr auto two = tiles_of<C, 2, ByColumns>(std::make_integer_sequence<int, kTileRows>{});
  return vectors == 1 ? one[size_t(rows - 1)] : two[size_t(rows - 1)];
}

// The whole blocks of 4 rows of copy_transposed; returns the first row that is left.
template <class C>
int64_t transpose_quads(C* to, int64_t to_row, const C* from, int64_t from_row, int64_t rows, int64_t columns) {
  typedef C quad __attribute__((vector_size(4 * sizeof(C))));
  typedef C loose __attribute__((vector_size(4 * sizeof(C)), aligned(alignof(C)), may_alias));
  const auto get = [](const C* p) -> quad { return *reinterpret_cast<const loose*>(p); };
  const auto put = [](C* p, quad v) { *reinterpret_cast<loose*>(p) = v; };
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const C* f = from + i * from_row;
    int64_t j = 0;
    for (; j + 4 <= columns; j += 4) {
      const quad r0 = get(f + j), r1 = get(f + from_row + j), r2 = get(f + 2 * from_row + j), r3 = get(f + 3 * from_row + j);
      const quad a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
      const quad c = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), d = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
      C* o = to + j * to_row + i;
      put(o, __builtin_shufflevector(a, b, 0, 1, 4, 5));
      put(o + to_row, __builtin_shufflevector(a, b, 2, 3, 6, 7));
      put(o + 2 * to_row, __builtin_shufflevector(c, d, 0, 1, 4, 5));
      put(o + 3 * to_row, __builtin_shufflevector(c, d, 2, 3, 6, 7));
    }
    for (; j < columns; j++)
      for (int64_t r = 0; r < 4; r++) to[j * to_row + i + r] = f[r * from_row + j];
  }
  return i;
}

// to[j * to_row + i] = from[i * from_row + j], by blocks of 4 x 4 where 4 elements fit a vector of this machine.
template <class C>
void copy_transposed(C* to, int64_t to_row, const C* from, int64_t from_row, int64_t rows, int64_t columns) {
  int64_t i = 0;
  if constexpr (4 * sizeof(C) <= kVectorBytes) i = transpose_quads(to, to_row, from, from_row, rows, columns);
  for (; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) to[j * to_row + i] = from[i * from_row + j];
}

// to[i * to_row + j] = from[i * row + j * column], converted.
template <class C, class T>
void copy_matrix(C* to, int64_t to_row, const T* from, int64_t row, int64_t column, int64_t rows, int64_t columns) {
  if constexpr (std::is_same_v<C, T>) {
    if (row == 1 && column != 1) return copy_transposed(to, to_row, from, column, columns, rows);
  }
  if (row == 1 && column != 1) {
    for (int64_t j = 0; j < columns; j++)
      for (int64_t i = 0; i < rows; i++) to[i * to_row + j] = C(from[j * column + i]);
  } else if (column == 1) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++) to[i * to_row + j] = C(from[i * row + j]);
  } else {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++) to[i * to_row + j] = C(from[i * row + j * column]);
  }
}

}  // namespace dg
