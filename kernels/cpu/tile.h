// The register tile of the matrix products: C[R][width] = init[R][width] + A[R][depth] * B[depth][width], B packed in panels of kPanel columns.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace dg {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kTileRows = 14;  // 28 sums, 2 columns, 1 broadcast in 32 registers
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32, kTileRows = 6;  // 12 sums in 16 registers
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16, kTileRows = 12;
#else
inline constexpr int kVectorBytes = 16, kTileRows = 6;
#endif

template <class T> struct Lanes {
  static constexpr int count = kVectorBytes / int(sizeof(T));
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T loose __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T> using lanes_t = typename Lanes<T>::type;

// Columns of a panel: two vectors.
template <class T> inline constexpr int kPanel = 2 * Lanes<T>::count;

template <class T> inline lanes_t<T> load(const T* p) { return *reinterpret_cast<const typename Lanes<T>::loose*>(p); }
template <class T> inline void store(T* p, lanes_t<T> v) { *reinterpret_cast<typename Lanes<T>::loose*>(p) = v; }

// The first `count` lanes, zeros behind them.
template <class T> inline lanes_t<T> load_some(const T* p, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return lanes_t<T>(_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p));
#endif
  lanes_t<T> v = {};
  std::memcpy(&v, p, size_t(count) * sizeof(T));
  return v;
}
template <class T> inline void store_some(T* p, lanes_t<T> v, int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), v);
#endif
  std::memcpy(p, &v, size_t(count) * sizeof(T));
}

// Transposed: A is stored [depth][rows], else [rows][depth]. `init` has the stride `ldi` (0 repeats one row) and may be C itself.
template <class T, int R, int V, bool Transposed>
void tile(const T* a, int64_t lda, const T* b, int64_t depth, T* c, int64_t ldc, const T* init, int64_t ldi) {
  constexpr int L = Lanes<T>::count;
  lanes_t<T> sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) sum[r][v] = lanes_t<T>{};
  for (int64_t k = 0; k < depth; k++) {
    lanes_t<T> column[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) column[v] = load(b + k * kPanel<T> + v * L);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const T scale = Transposed ? a[k * lda + r] : a[r * lda + k];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) sum[r][v] += scale * column[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) store(c + r * ldc + v * L, load(init + r * ldi + v * L) + sum[r][v]);
}

template <class T> using TileFunction = void (*)(const T*, int64_t, const T*, int64_t, T*, int64_t, const T*, int64_t);

template <class T, int V, bool Transposed, int... R>
constexpr std::array<TileFunction<T>, sizeof...(R)> tile_functions(std::integer_sequence<int, R...>) {
  return {tile<T, R + 1, V, Transposed>...};
}

// C[rows][columns <= kPanel] += A * B by tiles of near equal height; writes whole vectors, so C needs room up to the next multiple of one.
template <class T, bool Transposed>
void tile_rows(int64_t rows, int64_t columns, const T* a, int64_t lda, const T* b, int64_t depth, T* c, int64_t ldc, const T* init,
               int64_t ldi) {
  static constexpr auto one = tile_functions<T, 1, Transposed>(std::make_integer_sequence<int, kTileRows>{});
  static constexpr auto two = tile_functions<T, 2, Transposed>(std::make_integer_sequence<int, kTileRows>{});
  const auto& functions = columns <= Lanes<T>::count ? one : two;
  int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t r = 0; r < rows; tiles--) {
    const int64_t height = (rows - r + tiles - 1) / tiles;
    functions[size_t(height - 1)](a + (Transposed ? r : r * lda), lda, b, depth, c + r * ldc, ldc, init + r * ldi, ldi);
    r += height;
  }
}

}  // namespace dg
