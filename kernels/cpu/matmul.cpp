// out[s,i,j] = bias[s,i,j] + sum over p of a[s,i,p] * b[s,p,j], on matrices or batches of them with any strides; operands are never copied
// whole. Overwrites out. bias has the sizes of out (expanded axes have stride 0). Floats: gemm.cpp; integers wrap around as in C.
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

// True when the rows of consecutive matrices follow one another, so that the batch is one tall matrix.
bool stacked(const Tensor& t) { return t.strides[0] == t.sizes[1] * t.strides[1]; }

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_matmul(const dg_tensor* t, uint32_t out_slot, uint32_t a_slot, uint32_t b_slot, uint32_t bias_slot) {
  return guard([&] {
    const char* const name = "matmul";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), a = tensor_at(t, a_slot, name), b = tensor_at(t, b_slot, name);
    if ((out.rank != 2 && out.rank != 3) || a.rank != out.rank || b.rank != out.rank)
      fail(DG_SHAPE, "%s: operands and result must all have 2 or 3 axes, got %d, %d and %d", name, a.rank, b.rank, out.rank);
    int64_t batch = out.rank == 3 ? out.sizes[0] : 1, m = out.size(-2), n = out.size(-1), k = a.size(-1);
    if (a.size(-2) != m || b.size(-1) != n || b.size(-2) != k || (out.rank == 3 && (a.sizes[0] != batch || b.sizes[0] != batch)))
      fail(DG_SHAPE, "%s: sizes do not fit: %s @ %s into %s", name, shape_text(a).c_str(), shape_text(b).c_str(), shape_text(out).c_str());
    require_dtype(a, out.dtype, name, "the first operand");
    require_dtype(b, out.dtype, name, "the second operand");
    Tensor bias;
    if (present(bias_slot)) {
      bias = tensor_at(t, bias_slot, name);
      require_same_sizes(bias, out, name);
      require_dtype(bias, out.dtype, name, "the bias");
    }
    if (out.numel == 0) return;
    dispatch_numbers(out.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      Matrices<const T> init = present(bias_slot) ? matrices<const T>(bias) : Matrices<const T>{};
      if (out.rank == 3 && b.strides[0] == 0 && stacked(a) && stacked(out) && (!present(bias_slot) || stacked(bias))) {
        m *= batch;
        batch = 1;
      }
      const auto product = [&](auto&& run) { run(batch, m, n, k, matrices<const T>(a), matrices<const T>(b), init, matrices<T>(out)); };
      if constexpr (is_float<T>) product(gemm<T>);
      else product(integer_product<T>);
    });
  });
}
