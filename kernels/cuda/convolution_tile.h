// Tiles of a matrix product in shared memory, as the convolutions use them: a BM x BN piece of C is summed over steps of BK terms. Floats are
// multiplied in registers (TM x TN a thread), half types by the tensor cores with sums in float.
#pragma once
#include <mma.h>
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "map.h"

namespace dg::conv {

// The names that the tensor cores know our half types by: the same bits.
template <class T> struct tensor_type { using type = T; };
#ifdef __CUDACC__
template <> struct tensor_type<f16> { using type = __half; };
template <> struct tensor_type<bf16> { using type = __nv_bfloat16; };
#endif

// `by_terms`: A is stored [BK][BM], else [BM][BK]. Both tiles are kept twice, one being filled while the other is multiplied.
template <class T_, int BM_, int BN_, int BK_, int TM, int TN>
struct FmaTile {
  using T = T_;
  using C = T;
  static constexpr int BM = BM_, BN = BN_, BK = BK_, threads = BM / TM * (BN / TN);
  static constexpr int blocks = (sizeof(T) == 8 && threads < 128 ? 384 : 512) / threads;  // of a multiprocessor, at least; few doubles fit registers
  static constexpr int lda = BM + 4, ldb = BN + 4, ldc = BN + 4;
  static constexpr int a_size = BK * lda, b_size = BK * ldb;
  static __device__ int a_index(int m, int k) { return k * lda + m; }
  static constexpr bool by_terms = true;

  C sums[TM][TN] = {};

  __device__ void multiply(const T* a, const T* b) {
    const int column = threadIdx.x % (BN / TN) * TN, row = threadIdx.x / (BN / TN) * 4;
#pragma unroll
    for (int k = 0; k < BK; k++) {
      C x[TM], y[TN];
#pragma unroll
      for (int i = 0; i < TM; i += 4) load4(x + i, a + k * lda + row + i / 4 * (BM * 4 / TM));
#pragma unroll
      for (int j = 0; j < TN; j += 4) load4(y + j, b + k * ldb + column + j);
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sums[i][j] += x[i] * y[j];
    }
  }
  // C as [BM][ldc].
  __device__ void store(C* c) const {
    const int column = threadIdx.x % (BN / TN) * TN, row = threadIdx.x / (BN / TN) * 4;
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int j = 0; j < TN; j++) c[(row + i / 4 * (BM * 4 / TM) + i % 4) * ldc + column + j] = sums[i][j];
  }

 private:
  static __device__ void load4(C* to, const T* from) {
    constexpr int n = 16 / sizeof(T);
#pragma unroll
    for (int i = 0; i < 4; i += n) {
      const Pack<T, n> v = *reinterpret_cast<const Pack<T, n>*>(from + i);
#pragma unroll
      for (int j = 0; j < n; j++) to[i + j] = v.at[j];
    }
  }
};

// WM x WN fragments of 16 x 16 a warp.
template <class T_, int BM_, int BN_, int BK_, int WM, int WN, bool by_terms_>
struct TensorTile {
  using T = T_;
  using C = float;
  static constexpr int BM = BM_, BN = BN_, BK = BK_, threads = BM / (16 * WM) * (BN / (16 * WN)) * 32, blocks = 384 / threads;
  static constexpr bool by_terms = by_terms_;
  static constexpr int lda = (by_terms ? BM : BK) + 8, ldb = BN + 8, ldc = BN + 4;
  static constexpr int a_size = (by_terms ? BK : BM) * lda, b_size = BK * ldb;
  static __device__ int a_index(int m, int k) { return by_terms ? k * lda + m : m * lda + k; }

  __device__ TensorTile() {
#pragma unroll
    for (int i = 0; i < WM; i++)
#pragma unroll
      for (int j = 0; j < WN; j++) nvcuda::wmma::fill_fragment(sums[i][j], 0.0f);
  }
  __device__ void multiply(const T* a, const T* b) {
    using namespace nvcuda::wmma;
    using E = typename tensor_type<T>::type;
    const int row = first_row(), column = first_column();
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      fragment<matrix_a, 16, 16, 16, E, std::conditional_t<by_terms, col_major, row_major>> x[WM];
      fragment<matrix_b, 16, 16, 16, E, row_major> y[WN];
#pragma unroll
      for (int i = 0; i < WM; i++) load_matrix_sync(x[i], reinterpret_cast<const E*>(a) + a_index(row + i * 16, k), lda);
#pragma unroll
      for (int j = 0; j < WN; j++) load_matrix_sync(y[j], reinterpret_cast<const E*>(b) + k * ldb + column + j * 16, ldb);
#pragma unroll
      for (int i = 0; i < WM; i++)
#pragma unroll
        for (int j = 0; j < WN; j++) mma_sync(sums[i][j], x[i], y[j], sums[i][j]);
    }
  }
  __device__ void store(C* c) const {
#pragma unroll
    for (int i = 0; i < WM; i++)
#pragma unroll
      for (int j = 0; j < WN; j++)
        nvcuda::wmma::store_matrix_sync(c + (first_row() + i * 16) * ldc + first_column() + j * 16, sums[i][j], ldc, nvcuda::wmma::mem_row_major);
  }

 private:
  static __device__ int first_row() { return int(threadIdx.x) / 32 / (BN / (16 * WN)) * 16 * WM; }
  static __device__ int first_column() { return int(threadIdx.x) / 32 % (BN / (16 * WN)) * 16 * WN; }
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sums[WM][WN];
};

// Shared memory of a block: both copies of the tiles of A and B, where afterwards C is put.
template <class Tile>
constexpr size_t tile_bytes() {
  const size_t operands = 2 * (Tile::a_size + Tile::b_size) * sizeof(typename Tile::T), result = Tile::BM * Tile::ldc * sizeof(typename Tile::C);
  return ((operands > result ? operands : result) + 127) / 128 * 128;
}

// The tiles of a dtype: large ones, and small ones for problems of few.
template <class T> struct Tiles;
template <> struct Tiles<float> {
  template <bool by_terms> using large = FmaTile<float, 128, 64, 16, 8, 4>;
  template <bool by_terms> using small = FmaTile<float, 32, 32, 16, 4, 4>;
};
template <> struct Tiles<double> {
  template <bool by_terms> using large = FmaTile<double, 64, 64, 8, 4, 4>;
  template <bool by_terms> using small = FmaTile<double, 32, 32, 8, 4, 4>;
};
template <class T> struct HalfTiles {
  template <bool by_terms> using large = TensorTile<T, 128, 64, 32, 2, 2, by_terms>;
  template <bool by_terms> using small = TensorTile<T, 32, 32, 32, 1, 2, by_terms>;
};
template <> struct Tiles<f16> : HalfTiles<f16> {};
template <> struct Tiles<bf16> : HalfTiles<bf16> {};

}  // namespace dg::conv
