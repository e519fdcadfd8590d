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

// Few elements: whole vectors and the rest of one.
template <class T> inline void copy_run(T* to, const T* from, int64_t count) {
  constexpr int L = Lanes<T>::count;
  for (; count >= L; count -= L, to += L, from += L) store(to, load(from));
  if (count > 0) store_some(to, load_some(from, count), count);
}

namespace detail {
template <class V, int... I> inline V interleave_low(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + (I % 2) * int(sizeof...(I)))...);
}
template <class V, int... I> inline V interleave_high(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (int(sizeof...(I)) / 2 + I / 2 + (I % 2) * int(sizeof...(I)))...);
}
// In blocks of E elements: the lower or the upper halves of a's and b's, W elements of each by turns.
template <int E, int W, int Upper, class V, int... I> inline V unpack(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / E * E + Upper * E / 2 + I % E / W / 2 * W + I % W + I % E / W % 2 * int(sizeof...(I)))...);
}
// The even or the odd blocks of E elements of a, then those of b.
template <int E, int Odd, class V, int... I> inline V blocks(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, ((2 * (I / E) + Odd) * E + I % E)...);
}
}  // namespace detail

// Rows become columns. Within blocks of 128 bits first, which takes no more than two operands of an instruction, then the blocks.
template <class T> inline void transpose(lanes_t<T>* rows) {
  constexpr int L = Lanes<T>::count, E = 16 / int(sizeof(T)), B = L / E;
  constexpr auto lanes = std::make_integer_sequence<int, L>{};
  lanes_t<T> t[L];
#pragma GCC unroll 4
  for (int g = 0; g < L; g += E) {
    if constexpr (E == 2) {
      t[g] = detail::unpack<E, 1, 0>(rows[g], rows[g + 1], lanes), t[g + 1] = detail::unpack<E, 1, 1>(rows[g], rows[g + 1], lanes);
    } else {
      const lanes_t<T> a = detail::unpack<E, 1, 0>(rows[g], rows[g + 1], lanes), b = detail::unpack<E, 1, 1>(rows[g], rows[g + 1], lanes),
                       c = detail::unpack<E, 1, 0>(rows[g + 2], rows[g + 3], lanes), d = detail::unpack<E, 1, 1>(rows[g + 2], rows[g + 3], lanes);
      t[g] = detail::unpack<E, 2, 0>(a, c, lanes), t[g + 1] = detail::unpack<E, 2, 1>(a, c, lanes);
      t[g + 2] = detail::unpack<E, 2, 0>(b, d, lanes), t[g + 3] = detail::unpack<E, 2, 1>(b, d, lanes);
    }
  }
  // Block l of t[g * E + k] is block g of row l * E + k.
#pragma GCC unroll 4
  for (int k = 0; k < E; k++) {
    if constexpr (B == 1) {
      rows[k] = t[k];
    } else if constexpr (B == 2) {
      rows[k] = detail::blocks<E, 0>(t[k], t[E + k], lanes), rows[E + k] = detail::blocks<E, 1>(t[k], t[E + k], lanes);
    } else {
      static_assert(B == 4);
      const lanes_t<T> a = detail::blocks<E, 0>(t[k], t[E + k], lanes), b = detail::blocks<E, 1>(t[k], t[E + k], lanes),
                       c = detail::blocks<E, 0>(t[2 * E + k], t[3 * E + k], lanes), d = detail::blocks<E, 1>(t[2 * E + k], t[3 * E + k], lanes);
      rows[k] = detail::blocks<E, 0>(a, c, lanes), rows[2 * E + k] = detail::blocks<E, 1>(a, c, lanes);
      rows[E + k] = detail::blocks<E, 0>(b, d, lanes), rows[3 * E + k] = detail::blocks<E, 1>(b, d, lanes);
    }
  }
}

// Loads v once into a register: the compiler would read it from memory in each product.
template <class V> inline void keep(V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#else
  (void)v;
#endif
}

// The sums of the lanes of n = L vectors, in their order: halves are interleaved and added log2 L times.
template <class T> inline lanes_t<T> lane_sums(lanes_t<T>* v) {
  constexpr auto lanes = std::make_integer_sequence<int, Lanes<T>::count>{};
#pragma GCC unroll 4
  for (int n = Lanes<T>::count / 2; n >= 1; n /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) v[i] = detail::interleave_low(v[i], v[i + n], lanes) + detail::interleave_high(v[i], v[i + n], lanes);
  return v[0];
}

// Transposed: A is stored [depth][rows], else [rows][depth]. `init` has the stride `ldi` (0 repeats one row) and may be C itself.
// Exact: of the last vector of a row only `last` elements are read from init and written. Ahead: fetches what lies behind B, the next panel, into the
// second-level cache. The hardware stops at each page, and what another core has written is far away.
template <class T, int R, int V, bool Transposed, bool Exact, bool Ahead>
void tile(const T* a, int64_t lda, const T* b, int64_t depth, T* c, int64_t ldc, const T* init, int64_t ldi, [[maybe_unused]] int64_t last) {
  constexpr int L = Lanes<T>::count;
  lanes_t<T> sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) sum[r][v] = lanes_t<T>{};
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) __builtin_prefetch(c + r * ldc + v * L, 1);
  constexpr int64_t line = 64 / int64_t(sizeof(T));
  for (int64_t k0 = 0; k0 < depth; k0 += line) {
    if constexpr (!Transposed) {  // rows of the next tile: more streams than the hardware follows
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) __builtin_prefetch(a + (R + r) * lda + k0);
    }
    const int64_t k1 = depth - k0 < line ? depth : k0 + line;
    for (int64_t k = k0; k < k1; k++) {
      lanes_t<T> column[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) {
        column[v] = load(b + k * kPanel<T> + v * L);
        if (Ahead && v * kVectorBytes % 64 == 0) __builtin_prefetch(b + (depth + k) * kPanel<T> + v * L, 0, 2);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const T scale = Transposed ? a[k * lda + r] : a[r * lda + k];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) sum[r][v] += scale * column[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      if (Exact && v == V - 1) store_some(c + r * ldc + v * L, load_some(init + r * ldi + v * L, last) + sum[r][v], last);
      else store(c + r * ldc + v * L, load(init + r * ldi + v * L) + sum[r][v]);
    }
}

template <class T> using TileFunction = void (*)(const T*, int64_t, const T*, int64_t, T*, int64_t, const T*, int64_t, int64_t);

template <class T, int V, bool Transposed, bool Exact, bool Ahead, int... R>
constexpr std::array<TileFunction<T>, sizeof...(R)> tile_functions(std::integer_sequence<int, R...>) {
  return {tile<T, R + 1, V, Transposed, Exact, Ahead>...};
}

// C[rows][columns <= kPanel] += A * B by tiles of near equal height. Writes whole vectors, so C needs room up to the next multiple of one,
// unless Exact says not to.
template <class T, bool Transposed, bool Exact = false>
void tile_rows(int64_t rows, int64_t columns, const T* a, int64_t lda, const T* b, int64_t depth, T* c, int64_t ldc, const T* init,
               int64_t ldi) {
  constexpr bool ahead = !Transposed;
  constexpr auto heights = std::make_integer_sequence<int, kTileRows>{};
  static constexpr std::array<TileFunction<T>, kTileRows> functions[2][2] = {
      {tile_functions<T, 1, Transposed, Exact, false>(heights), tile_functions<T, 2, Transposed, Exact, false>(heights)},
      {tile_functions<T, 1, Transposed, Exact, ahead>(heights), tile_functions<T, 2, Transposed, Exact, ahead>(heights)}};
  constexpr int64_t L = Lanes<T>::count;
  const int64_t last = columns < 2 * L ? columns - (columns > L ? L : 0) : L;
  int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t r = 0; r < rows; tiles--) {
    const int64_t height = (rows - r + tiles - 1) / tiles;
    functions[tiles == 1][columns > L][size_t(height - 1)](a + (Transposed ? r : r * lda), lda, b, depth, c + r * ldc, ldc, init + r * ldi, ldi, last);
    r += height;
  }
}

// ---- few columns: vectors run along the depth

template <class T> inline constexpr int kFew = Lanes<T>::count / 4;  // columns of it at most

// C[rows][J] = init[J] + A[rows][depth] * B[J][depth]; a null init adds to C.
template <class T, int J>
void few_columns(int64_t rows, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, T* c, int64_t ldc, const T* init) {
  constexpr int L = Lanes<T>::count, R = L / J;
  for (int64_t r0 = 0; r0 < rows; r0 += R) {
    const int64_t count = rows - r0 < R ? rows - r0 : R;
    lanes_t<T> sum[L] = {};
    const auto step = [&](int64_t k, auto get) {
      lanes_t<T> column[J];
#pragma GCC unroll 4
      for (int j = 0; j < J; j++) column[j] = get(b + j * ldb + k);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const lanes_t<T> row = get(a + (r0 + (r < count ? r : 0)) * lda + k);
#pragma GCC unroll 4
        for (int j = 0; j < J; j++) sum[r * J + j] += row * column[j];
      }
    };
    int64_t k = 0;
    for (; k + L <= depth; k += L) step(k, [](const T* p) { return load(p); });
    if (k < depth) step(k, [&](const T* p) { return load_some(p, depth - k); });
    transpose<T>(sum);
    for (int l = 1; l < L; l++) sum[0] += sum[l];
    for (int64_t r = 0; r < count; r++)
      for (int j = 0; j < J; j++) c[(r0 + r) * ldc + j] = (init ? init[j] : c[(r0 + r) * ldc + j]) + sum[0][r * J + j];
  }
}

// C[rows][J] += A[depth][rows]^T * B[depth][J]: vectors run along the rows.
template <class T, int J> void few_filters(int64_t rows, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, T* c, int64_t ldc) {
  constexpr int L = Lanes<T>::count, vectors = 4;
  for (int64_t r0 = 0; r0 < rows; r0 += vectors * L) {
    lanes_t<T> sum[vectors][J] = {};
    const auto run = [&](auto get) {
      for (int64_t k = 0; k < depth; k++) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
          const lanes_t<T> row = get(a + k * lda + r0 + v * L, v);
#pragma GCC unroll 4
          for (int j = 0; j < J; j++) sum[v][j] += row * b[k * ldb + j];
        }
      }
    };
    const int64_t left = rows - r0;
    if (left >= vectors * L) run([](const T* p, int) { return load(p); });
    else run([&](const T* p, int v) { return left >= (v + 1) * L ? load(p) : left > v * L ? load_some(p, left - v * L) : lanes_t<T>{}; });
    for (int64_t r = 0; r < vectors * L && r < left; r++)
      for (int j = 0; j < J; j++) c[(r0 + r) * ldc + j] += sum[r / L][j][r % L];
  }
}

// Calls f with a number of columns up to kFew as a compile-time one.
template <class T, class F> void with_few(int64_t columns, F&& f) {
  if constexpr (kFew<T> >= 4) {
    if (columns == 4) return f(std::integral_constant<int, 4>{});
    if (columns == 3) return f(std::integral_constant<int, 3>{});
  }
  if constexpr (kFew<T> >= 2)
    if (columns == 2) return f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 1>{});
}

}  // namespace dg
