// out[s,i,j] = bias[s,i,j] + sum over p of a[s,i,p] * b[s,p,j], on matrices or batches of them with any strides; operands are never copied
// whole. Overwrites out. bias has the sizes of out (expanded axes have stride 0). Floats: gemm.cpp; integers wrap around as in C.
#include "../common/matmul.h"

#include "elementwise.h"
#include "gemm.h"

namespace dg {
namespace {

template <class T>
Matrices<T> matrices(const Tensor& t) {
  return {const_cast<T*>(t.data<T>()), t.rank == 3 ? t.strides[0] : 0, t.stride(-2), t.stride(-1)};
}

// Integers: exact modulo 2^bits, summed in an unsigned type of at least 32 bits.
template <class T>
void integer_product(int64_t batch, int64_t m, int64_t n, int64_t k, Matrices<const T> a, Matrices<const T> b, Matrices<const T> init,
                     Matrices<T> c) {
  using U = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  const int64_t grain = std::max<int64_t>(1, int64_t(65536 / (double(n) * double(k + 1))));
  parallel_for(batch * m, grain, [&](int64_t begin, int64_t end) {
    U sums[64];
    for (int64_t row = begin; row < end; row++) {
      const int64_t s = row / m, i = row % m;
      for (int64_t j = 0; j < n; j += 64) {
        const int64_t count = std::min<int64_t>(64, n - j);
        for (int64_t q = 0; q < count; q++) sums[q] = init.data ? U(init.at(s)[i * init.row + (j + q) * init.column]) : U(0);
        for (int64_t p = 0; p < k; p++) {
          const U factor = U(a.at(s)[i * a.row + p * a.column]);
          const T* from = b.at(s) + p * b.row + j * b.column;
          for (int64_t q = 0; q < count; q++) sums[q] += factor * U(from[q * b.column]);
        }
        for (int64_t q = 0; q < count; q++) c.at(s)[i * c.row + (j + q) * c.column] = T(sums[q]);
      }
    }
  });
}

}  // namespace

void matmul(const MatmulShape& s) {
  dispatch_numbers(s.out.dtype, "matmul", [&](auto kind) {
    using T = typename decltype(kind)::type;
    const Matrices<const T> init = s.biased ? matrices<const T>(s.bias) : Matrices<const T>{};
    const auto product = [&](auto&& run) {
      run(s.batch, s.m, s.n, s.k, matrices<const T>(s.a), matrices<const T>(s.b), init, matrices<T>(s.out));
    };
    if constexpr (is_float<T>) product(gemm<T>);
    else product(integer_product<T>);
  });
}

void set_tf32(bool) {}  // products of the CPU keep all bits of float32
bool get_tf32() { return false; }

}  // namespace dg
